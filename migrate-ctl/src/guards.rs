//! What turns a move into a stay, each with its name.
//!
//! Asked in this order; the first that speaks is the reason:
//! excluded, mempolicy, mempolicy_unknown, cpuset, moving, cool_down,
//! too_large, no_room, rate_limit. The owner's wishes come first, then what is
//! under way, then what time may change. Pure.

use crate::config::Config;
use crate::model::{Mempolicy, Nanos, NodeObs, NodeVec, Order, Pages, Reason};
use crate::table::{Row, Table};

/// A move that would be made.
pub(crate) struct Case<'a> {
    pub(crate) row: &'a Row,
    pub(crate) order: &'a Order,
    pub(crate) now: Nanos,
}

/// What this tick's moves may still use, all together.
pub(crate) struct Left {
    pages: Pages,
    room: NodeVec<Pages>,
}

impl Left {
    pub(crate) fn of(table: &Table, config: &Config) -> Self {
        let nodes = table.nodes();
        let room = NodeVec::from_fn(nodes.len(), |node| room(&nodes[node], config.policy.reserve));
        Self { pages: table.tokens(), room }
    }

    pub(crate) fn take(&mut self, order: &Order) {
        self.pages = self.pages.saturating_sub(order.pages);
        self.room[order.to] = self.room[order.to].saturating_sub(order.pages);
    }
}

/// Pages that a node can take: free above the high watermark and our reserve, and half of the
/// page cache that nobody used lately, which the kernel gives up without swapping.
fn room(node: &NodeObs, reserve: Pages) -> Pages {
    let kept = node.high_watermark.saturating_add(reserve);
    node.free.saturating_add(node.inactive_file / 2).saturating_sub(kept)
}

/// The first guard that speaks against a move that is due.
pub(crate) fn first(case: &Case<'_>, left: &Left, config: &Config) -> Option<Reason> {
    forbidden(case, config)
        .or_else(|| on(mempolicy_unknown(case), config))
        .or_else(|| on(moving(case), config))
        .or_else(|| on(cool_down(case), config))
        .or_else(|| on(too_large(case, config), config))
        .or_else(|| on(no_room(case, left), config))
        .or_else(|| on(rate_limit(case, left), config))
}

/// What no waiting will change.
pub(crate) fn forbidden(case: &Case<'_>, config: &Config) -> Option<Reason> {
    excluded(case.row, config)
        .or_else(|| on(mempolicy(case), config))
        .or_else(|| on(cpuset(case), config))
}

/// A guard that the user switched off does not speak.
fn on(reason: Option<Reason>, config: &Config) -> Option<Reason> {
    reason.filter(|reason| !config.guards_off.iter().any(|off| off == reason.name()))
}

pub(crate) fn excluded(row: &Row, config: &Config) -> Option<Reason> {
    let allowed = config.filter.allows(row.obs.id.domain.pid, &row.comm, &row.cgroup);
    on((!allowed).then_some(Reason::Excluded), config)
}

fn mempolicy(case: &Case<'_>) -> Option<Reason> {
    (case.row.obs.mempolicy == Mempolicy::Explicit).then_some(Reason::Mempolicy)
}

fn mempolicy_unknown(case: &Case<'_>) -> Option<Reason> {
    (case.row.obs.mempolicy == Mempolicy::Unknown).then_some(Reason::MempolicyUnknown)
}

fn cpuset(case: &Case<'_>) -> Option<Reason> {
    let allowed = case.row.obs.allowed.get(case.order.to).copied().unwrap_or(false);
    (!allowed).then_some(Reason::Cpuset)
}

fn moving(case: &Case<'_>) -> Option<Reason> {
    case.row.moving.then_some(Reason::Moving)
}

/// Also while the last move waits for its verdict: nobody knows yet whether it helped.
fn cool_down(case: &Case<'_>) -> Option<Reason> {
    (case.row.is_on_trial() || case.now < case.row.cool_until).then_some(Reason::CoolDown)
}

fn too_large(case: &Case<'_>, config: &Config) -> Option<Reason> {
    (case.order.pages > config.policy.largest_move).then_some(Reason::TooLarge)
}

fn no_room(case: &Case<'_>, left: &Left) -> Option<Reason> {
    (case.order.pages > left.room[case.order.to]).then_some(Reason::NoRoom)
}

fn rate_limit(case: &Case<'_>, left: &Left) -> Option<Reason> {
    (case.order.pages > left.pages).then_some(Reason::RateLimit)
}
