//! Reads a journal file, also one that is still being written or whose writer was killed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::{Decompress, FlushDecompress};

use crate::journal::{Fact, format};

/// Bytes that are read, and that are unpacked, at a time.
const CHUNK: usize = 1 << 16;
/// The longest first line that may be a journal's.
const LONGEST_LINE: u64 = 64;

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot read the journal {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no journal; name a file that `migrate-ctl run --journal` wrote", .0.display())]
    NoJournal(PathBuf),
    #[error(
        "{} is a journal of version {found}, and this is migrate-ctl {}, which reads version \
         {}; read it with the migrate-ctl that wrote it",
        path.display(), env!("CARGO_PKG_VERSION"), format::VERSION
    )]
    Version { path: PathBuf, found: String },
    #[error("{} is damaged after {records} records: {why}", path.display())]
    Damaged { path: PathBuf, records: u64, why: &'static str },
}

/// The facts of one file, in order.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    stream: Decompress,
    /// Read, but not unpacked yet.
    packed: Vec<u8>,
    /// Unpacked, but not a whole record yet.
    plain: Vec<u8>,
    records: u64,
    ended: bool,
}

/// Opens a journal.
pub fn read(path: &Path) -> Result<Reader, JournalError> {
    let failed = |source| JournalError::Read { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let line = first_line(&mut file).map_err(failed)?;
    if line != format::first_line() && !format::first_line().starts_with(&line) {
        let found = line.strip_prefix(format::MAGIC).map(|rest| rest.trim_end().to_owned());
        return Err(match found.filter(|found| found.parse::<u32>().is_ok()) {
            Some(found) => JournalError::Version { path: path.to_owned(), found },
            None => JournalError::NoJournal(path.to_owned()),
        });
    }
    Ok(Reader {
        path: path.to_owned(),
        file,
        stream: Decompress::new(false),
        packed: Vec::new(),
        plain: Vec::new(),
        records: 0,
        ended: false,
    })
}

fn first_line(file: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    file.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

impl Reader {
    /// After the end: whether a last record was cut short, as by a kill.
    pub fn torn(&self) -> bool {
        !self.plain.is_empty()
    }

    fn next_fact(&mut self) -> Result<Option<Fact<'static>>, JournalError> {
        loop {
            if let Some((fact, length)) =
                format::fact(&self.plain).map_err(|why| self.damaged(why))?
            {
                self.plain.drain(..length);
                self.records += 1;
                return Ok(Some(fact));
            }
            // The unpacker may have taken the whole file and not given all of it yet.
            let at_end = self.packed.is_empty() && self.fill()? == 0;
            if !self.unpack()? {
                return if at_end { Ok(None) } else { Err(self.damaged("its stream is broken")) };
            }
        }
    }

    fn fill(&mut self) -> Result<usize, JournalError> {
        self.packed.resize(CHUNK, 0);
        let read = self.file.read(&mut self.packed);
        let read = read.map_err(|source| JournalError::Read { path: self.path.clone(), source })?;
        self.packed.truncate(read);
        Ok(read)
    }

    /// Says whether there was any progress. A stream that is not ours may end in the middle.
    fn unpack(&mut self) -> Result<bool, JournalError> {
        self.plain.reserve(CHUNK);
        let (before, plain) = (self.stream.total_in(), self.plain.len());
        let status =
            self.stream.decompress_vec(&self.packed, &mut self.plain, FlushDecompress::None);
        // What was taken is at most what was given.
        let taken = usize::try_from(self.stream.total_in() - before).unwrap_or(self.packed.len());
        self.packed.drain(..taken);
        if status.is_err() {
            return Err(self.damaged("its stream is broken"));
        }
        Ok(taken > 0 || self.plain.len() > plain)
    }

    fn damaged(&self, why: &'static str) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), records: self.records, why }
    }
}

impl Iterator for Reader {
    type Item = Result<Fact<'static>, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_fact().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
