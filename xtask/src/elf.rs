//! Does a binary run without anything else, or does it ask for a loader?
//!
//! Reads the program headers itself: a fresh machine has no readelf.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The segment that names the program's loader.
const PT_INTERP: u32 = 3;

/// Whether the 64-bit little-endian ELF file names no loader.
pub(crate) fn is_static(file: &Path) -> Result<bool> {
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    segments(&bytes)
        .map(|kinds| !kinds.contains(&PT_INTERP))
        .with_context(|| format!("{} is not a whole 64-bit ELF file", file.display()))
}

fn segments(bytes: &[u8]) -> Result<Vec<u32>> {
    // Class 2 is 64-bit, data 1 little-endian.
    ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "wrong magic");
    let offset = usize::try_from(u64::from_le_bytes(field(bytes, 0x20)?))?;
    let size = usize::from(u16::from_le_bytes(field(bytes, 0x36)?));
    let count = usize::from(u16::from_le_bytes(field(bytes, 0x38)?));
    let kind_at = |index: usize| {
        let at = offset.saturating_add(index * size);
        Ok(u32::from_le_bytes(field(bytes, at)?))
    };
    (0..count).map(kind_at).collect()
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let field = bytes.get(at..at.saturating_add(N)).context("cut short")?;
    Ok(field.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(kind: u32) -> Vec<u8> {
        let mut bytes = vec![0; 0x40];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[0x20] = 0x40;
        bytes[0x36] = 56;
        bytes[0x38] = 1;
        bytes.extend(kind.to_le_bytes());
        bytes
    }

    #[test]
    fn a_loader_segment_is_seen_and_a_broken_file_is_an_error() {
        assert_eq!(segments(&elf(PT_INTERP)).unwrap(), [PT_INTERP]);
        assert_eq!(segments(&elf(1)).unwrap(), [1]);
        for bad in [&b"\x7fELF\x01\x01"[..], b"", &elf(1)[..0x41]] {
            assert!(segments(bad).is_err());
        }
    }
}
