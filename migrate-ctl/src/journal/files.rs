//! The daemon's journal: FILE, and FILE.1 with what came before it.
//!
//! Bounded: when FILE has reached half of the limit it becomes FILE.1, and a
//! new one begins with all that the table knows. A journal that cannot be
//! written says so once, counts what it loses and tries a new file every
//! minute; it never stops the controller. Blocks as long as the disk does.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::journal::writer::Writer;
use crate::journal::{Fact, Settings};
use crate::model::Nanos;
use crate::table::Table;

/// Between two tries, in nanoseconds.
const RETRY: Nanos = 60_000_000_000;

/// What became of the records so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub bytes: u64,
    pub lost_records: u64,
}

/// Where facts go.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// Bytes that both files may take.
    limit: u64,
    settings: Settings,
    /// None: it could not be written, and is tried again at this time.
    writer: Result<Writer, Nanos>,
    /// Bytes of the file when this tick began, and by how many a tick has grown it at most.
    began: u64,
    growth: u64,
    totals: Totals,
}

impl Journal {
    /// Begins FILE; what has its name becomes FILE.1.
    pub fn open(path: &Path, limit: u64, settings: Settings) -> io::Result<Self> {
        let mut journal = Self {
            path: path.to_owned(),
            limit,
            settings,
            writer: Err(0),
            began: 0,
            growth: 0,
            totals: Totals::default(),
        };
        journal.begin(&Table::default())?;
        Ok(journal)
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Before each tick: begins a new file where this one would grow too large, or none could be
    /// written for a while.
    pub fn make_room(&mut self, now: Nanos, table: &Table) {
        let begin = match &self.writer {
            Ok(writer) => {
                self.growth = self.growth.max(writer.bytes() - self.began);
                self.began = writer.bytes();
                self.began + self.growth > self.limit / 2
            }
            Err(retry) => now >= *retry,
        };
        if !begin {
            return;
        }
        let failed = self.writer.is_err();
        match self.begin(table) {
            Ok(()) if failed => info!(path = %self.path.display(), "the journal goes on"),
            Ok(()) => {}
            Err(error) => self.give_up(now, &error, failed),
        }
    }

    pub fn record(&mut self, now: Nanos, fact: &Fact<'_>) {
        let Ok(writer) = &mut self.writer else {
            self.totals.lost_records += 1;
            return;
        };
        let before = writer.bytes();
        match writer.append(fact) {
            Ok(()) => self.totals.bytes += writer.bytes() - before,
            Err(error) => {
                self.totals.lost_records += 1;
                self.give_up(now, &error, false);
            }
        }
    }

    /// From now on the controller goes by these.
    pub fn change(&mut self, now: Nanos, settings: Settings) {
        self.record(now, &Fact::Settings(Cow::Borrowed(&settings)));
        self.settings = settings;
    }

    /// The new file takes the place of the old one once its beginning is written, so that a full
    /// disk costs nothing that was there.
    fn begin(&mut self, table: &Table) -> io::Result<()> {
        let (new, old) = (beside(&self.path, ".new"), beside(&self.path, ".1"));
        let there = fs::symlink_metadata(&self.path).ok();
        if there.as_ref().is_some_and(|there| !there.is_file()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let writer = self.write_beginning(&new, table).inspect_err(|_| {
            // It may not even be there.
            let _ = fs::remove_file(&new);
        })?;
        if there.is_some() {
            fs::rename(&self.path, &old)?;
        }
        fs::rename(&new, &self.path)?;
        self.totals.bytes += writer.bytes();
        (self.began, self.growth) = (writer.bytes(), 0);
        self.writer = Ok(writer);
        Ok(())
    }

    fn write_beginning(&self, path: &Path, table: &Table) -> io::Result<Writer> {
        let mut writer = Writer::begin(create(path)?)?;
        writer.append(&Fact::Settings(Cow::Borrowed(&self.settings)))?;
        writer.append(&Fact::Checkpoint(Cow::Borrowed(table)))?;
        Ok(writer)
    }

    fn give_up(&mut self, now: Nanos, error: &io::Error, again: bool) {
        if !again {
            warn!(path = %self.path.display(), %error, "the journal cannot be written; a new file is tried every minute");
        }
        self.writer = Err(now.saturating_add(RETRY));
    }
}

/// Readable by its owner only: it says what everybody runs.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}
