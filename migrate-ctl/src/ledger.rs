//! Counts what was decided, done and got for it.

use std::collections::BTreeMap;

use crate::model::{End, Node, Pages, Reason};

/// Sums since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// Our own moves by (from, to): the `migrate_pages(2)` calls that moved between these two.
    pub pairs: BTreeMap<(Node, Node), PairTotals>,
    /// Moves by how they ended.
    pub ended: BTreeMap<End, u64>,
    /// Decisions by verdict (`true`: move) and reason.
    pub decisions: BTreeMap<(bool, Reason), u64>,
    /// Moves after which the remote share fell as predicted, and those after which it did not.
    pub helped: u64,
    pub not_helped: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairTotals {
    pub calls: u64,
    pub moved: Pages,
    pub failed: Pages,
    pub seconds: f64,
}
