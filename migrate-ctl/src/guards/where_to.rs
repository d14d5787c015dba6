//! Which nodes are no destination, whatever they would gain.

use super::Wish;
use crate::config::Config;
use crate::policy::WORTHWHILE;
use crate::table::Table;

/// A node with two thirds of the CPU time wins: on two nodes, the move to it then leaves at most
/// half of what staying loses.
const WINS: f64 = 2.0 / 3.0;
/// A move that leaves more than this share of the loss leaves most of the problem.
const LEFT: f64 = 0.5;

pub(super) fn cpuset(wish: &Wish<'_>, _: &Table, _: &Config) -> bool {
    wish.to.is_some_and(|to| wish.case.extent.allowed.get(to) != Some(&true))
}

pub(super) fn slow_node(wish: &Wish<'_>, table: &Table, _: &Config) -> bool {
    wish.to.and_then(|to| table.nodes.get(to)).is_some_and(|node| !node.has_cpus)
}

/// Threads on several nodes, and most of what staying loses would be lost after the move too.
pub(super) fn spread(wish: &Wish<'_>, _: &Table, _: &Config) -> bool {
    let rates = &wish.case.row.rates;
    let loses = rates.rate_as_placed();
    let left = wish.to.map_or(loses, |to| loses - wish.case.gain(to));
    wish.case.costs.known
        && loses > WORTHWHILE
        && left > LEFT * loses
        && rates.largest_share() < WINS
}

/// There, and for as long as the process lives.
pub(super) fn hurt(wish: &Wish<'_>, _: &Table, _: &Config) -> bool {
    wish.to.is_some() && wish.case.row.hurt_by == wish.to
}
