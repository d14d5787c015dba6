//! What was decided and done, one JSON object a line, for people and for proof.
//!
//! Appends to the file that the user named and flushes each line, so a killed
//! controller loses at most its last record. A journal that cannot be written
//! stops recording and says so; it never stops the controller.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use tracing::warn;

use crate::model::{Decision, DomainObs, Outcome, Reason};

/// One line of the journal.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact<'a> {
    Decision {
        /// In plain words.
        why: &'a str,
        #[serde(flatten)]
        decision: &'a Decision,
        /// What it was decided on: the signals of its process in this tick.
        domain: &'a DomainObs,
    },
    /// An order went to the mover.
    Ordered {
        seq: u64,
        now: u64,
    },
    Outcome(&'a Outcome),
}

/// Where facts go; nowhere unless the user named a file.
#[derive(Default)]
pub struct Journal {
    file: Option<File>,
}

impl Journal {
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        Ok(Self { file: path.map(open).transpose()? })
    }

    /// Settled processes are left out: they would be nearly all of the file and say nothing.
    pub fn decision(
        &mut self,
        decision: &Decision,
        domain: &DomainObs,
        why: impl FnOnce() -> String,
    ) {
        if self.file.is_some() && decision.reason != Reason::Settled {
            self.record(&Fact::Decision { why: &why(), decision, domain });
        }
    }

    pub fn record(&mut self, fact: &Fact<'_>) {
        let Some(file) = &mut self.file else { return };
        let line = serde_json::to_string(fact).map_err(io::Error::from);
        if let Err(error) = line.and_then(|line| file.write_all(format!("{line}\n").as_bytes())) {
            warn!(%error, "the journal cannot be written and ends here");
            self.file = None;
        }
    }
}
