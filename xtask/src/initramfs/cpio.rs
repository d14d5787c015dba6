//! How is an archive written that the kernel unpacks as its first root file system?
//!
//! The format is `newc` of the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.
//! Everything belongs to root, and times are 0: the same contents give the same bytes.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

const FOLDER: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const FILE: u32 = 0o100_000;
const TERMINAL: u32 = 0o020_600;

/// An archive in the making; folders above an entry come by themselves.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    /// Inode number of the last entry.
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    /// Adds a folder and those above it.
    pub(super) fn folder(&mut self, path: &str) -> Result<()> {
        let path = path.trim_matches('/');
        if path.is_empty() || !self.folders.insert(path.to_owned()) {
            return Ok(());
        }
        self.parent(path)?;
        self.entry(path, FOLDER, (0, 0), &[])
    }

    /// Adds a file with these permission bits.
    pub(super) fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) -> Result<()> {
        self.parent(path)?;
        self.entry(path, FILE | permissions, (0, 0), contents)
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.parent(path)?;
        self.entry(path, LINK, (0, 0), to.as_bytes())
    }

    /// Adds the console that the kernel opens for the first process.
    pub(super) fn console(&mut self) -> Result<()> {
        self.parent("dev/console")?;
        self.entry("dev/console", TERMINAL, (5, 1), &[])
    }

    /// Ends the archive and returns its bytes.
    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn parent(&mut self, path: &str) -> Result<()> {
        match path.trim_start_matches('/').rsplit_once('/') {
            Some((parent, _)) => self.folder(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        let size = u32::try_from(contents.len()).with_context(|| format!("{path} is too large"))?;
        let name = u32::try_from(path.len() + 1).with_context(|| format!("{path} is too long"))?;
        self.entries += 1;
        self.bytes.extend_from_slice(b"070701");
        let (major, minor) = device;
        // Inode, mode, owner, group, links, time, size, device of the file,
        // device that the file is, length of the name, checksum (of another format).
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name, 0];
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_brings_its_folders_once_and_is_aligned() {
        let mut archive = Archive::default();
        archive.file("/a/b/one", 0o644, b"12345").unwrap();
        archive.link("/a/b/two", "one").unwrap();
        let bytes = archive.finish().unwrap();

        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 5, "a, a/b, one, two, trailer: {text}");
        assert_eq!(bytes.len() % 4, 0);
        let file = text.find("a/b/one\0").unwrap();
        assert_eq!(&text[file - 110..file - 96 + 8], "07070100000003000081A4");
        assert_eq!(&text[file - 110 + 54..file - 110 + 62], "00000005");
    }
}
