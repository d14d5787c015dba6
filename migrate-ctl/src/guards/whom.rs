//! Whose memory is not ours to move.

use super::Wish;
use crate::config::Config;
use crate::model::{DomainObs, Mempolicy};
use crate::table::case::Case;
use crate::table::{Table, secs};

/// Less than this share of the private anonymous memory is mapped by the process alone: the move
/// would leave most of it where it is, and what counts is where the others run.
const OWN: f64 = 0.5;

pub(super) fn excluded(wish: &Wish<'_>, _: &Table, config: &Config) -> bool {
    let DomainObs { id, comm, cgroup, .. } = wish.case.domain;
    !config.filter.allows(id.pid, comm, cgroup)
}

pub(super) fn no_placement(wish: &Wish<'_>, _: &Table, _: &Config) -> bool {
    !wish.case.costs.known
}

pub(super) fn mempolicy(wish: &Wish<'_>, table: &Table, config: &Config) -> bool {
    known_mempolicy(wish, table, config) == Mempolicy::Explicit
}

pub(super) fn mempolicy_unknown(wish: &Wish<'_>, table: &Table, config: &Config) -> bool {
    known_mempolicy(wish, table, config) == Mempolicy::Unknown
}

fn known_mempolicy(wish: &Wish<'_>, table: &Table, config: &Config) -> Mempolicy {
    let fresh = config.policy.mempolicy_fresh_seconds.max(secs(table.dt()));
    wish.case.row.mempolicy(table.now, fresh)
}

/// A forking server's memory: shared with parent and siblings until somebody writes to it.
pub(super) fn shared(wish: &Wish<'_>, _: &Table, _: &Config) -> bool {
    let Case { costs, extent, .. } = wish.case;
    costs.known && costs.total < OWN * extent.resident as f64
}
