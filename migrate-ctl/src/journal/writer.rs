//! Writes one journal file, each record in one call.

use std::fs::File;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::DeflateEncoder;

use crate::journal::{Fact, format};

/// A file that grows. After an error it must not be written to any more: its stream is broken.
#[derive(Debug)]
pub struct Writer {
    file: File,
    stream: DeflateEncoder<Vec<u8>>,
    bytes: u64,
}

impl Writer {
    /// Begins a journal in an empty file.
    pub fn begin(mut file: File) -> io::Result<Self> {
        let line = format::first_line();
        file.write_all(line.as_bytes())?;
        // The fastest level. Level 3 halves the file of a hundred processes, but takes 139 ms a
        // tick with ten thousand of them, where this one takes 23 ms for a tenth more bytes.
        let stream = DeflateEncoder::new(Vec::new(), Compression::fast());
        Ok(Self { file, stream, bytes: line.len() as u64 })
    }

    /// Once this returns, the record outlives our death.
    pub fn append(&mut self, fact: &Fact<'_>) -> io::Result<()> {
        self.stream.write_all(&format::record(fact)?)?;
        self.stream.flush()?;
        let packed = self.stream.get_mut();
        self.file.write_all(packed)?;
        self.bytes += packed.len() as u64;
        packed.clear();
        Ok(())
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::ErrorKind;

    use super::Writer;

    #[test]
    fn a_full_disk_is_an_error() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(Writer::begin(full).unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
