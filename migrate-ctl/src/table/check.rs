//! Whether a move helped: the remote share before it against the share after it.

use serde::{Deserialize, Serialize};

use crate::table::Checked;

/// Ticks in which the process ran, before there is a verdict.
const ACTIVE: u32 = 3;
/// Ticks after which a bad verdict is final. The placement of a process that uses little
/// CPU time is sampled in every fifth tick only.
const PATIENCE: u64 = 6;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Check {
    seq: u64,
    before: f64,
    /// The later ticks weigh more: the first still sees a part of the move.
    after: Option<f64>,
    active: u32,
    began: u64,
}

impl Check {
    pub(super) fn begin(seq: u64, before: f64, round: u64) -> Self {
        Self { seq, before, after: None, active: 0, began: round }
    }

    /// Takes in a tick in which the process ran.
    pub(super) fn step(&mut self, remote_share: f64, round: u64) -> Option<Checked> {
        let after = self.after.map_or(remote_share, |after| f64::midpoint(after, remote_share));
        self.after = Some(after);
        self.active += 1;
        let helped = after <= self.before / 2.0;
        let due = round.saturating_sub(self.began) >= PATIENCE;
        (self.active >= ACTIVE && (helped || due)).then_some(Checked {
            seq: self.seq,
            helped,
            before: self.before,
            after,
        })
    }
}
