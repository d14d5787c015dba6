//! All that a decision saw, so that a replay decides the same.
//!
//! The journal is a list of facts. Their form on disk and how it may change is
//! in `docs/journal.md`. Inputs are written down before they are taken in: a
//! killed controller has done nothing that its journal does not hold.

pub mod view;
pub mod files;
pub mod reader;
pub mod writer;
pub(crate) mod format;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::model::{Decision, Input, Nanos, Reason};
use crate::table::Table;
use crate::table::trial::Score;

/// One record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and nearly all borrow")]
pub enum Fact<'a> {
    /// What everything after it goes by. Each file begins with one.
    Settings(Cow<'a, Settings>),
    /// The table as it was at this point; only at the beginning of a file.
    Checkpoint(Cow<'a, Table>),
    /// Something that the table takes in, and when that was.
    Input { at: Nanos, input: Cow<'a, Input> },
    /// What was decided after the tick before it.
    Decided(Decided),
    /// What was predicted of a move, and what came.
    Scored(Score),
}

/// What the controller went by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The version of `migrate-ctl` that wrote the file.
    pub version: String,
    /// `observe` or `enforce`; `generated` where nothing of it ever was.
    pub mode: String,
    pub config: Config,
}

impl Settings {
    pub fn new(mode: &str, config: &Config) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: mode.to_owned(),
            config: config.clone(),
        }
    }
}

/// The decisions of one tick. Of settled processes only the number is kept, since nearly all are
/// settled; the check sum covers them too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    pub count: u64,
    /// CRC-32 of all of them in binary form.
    pub digest: u32,
    /// Those that are not settled, in their order.
    pub told: Vec<Decision>,
}

impl Decided {
    pub fn of(decisions: &[Decision]) -> Self {
        let told = |decision: &&Decision| decision.reason != Reason::Settled;
        Self {
            count: decisions.len() as u64,
            digest: format::digest(decisions),
            told: decisions.iter().filter(told).cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
