//! What may stand against a move, in a fixed order; the first that speaks is the reason.
//!
//! A guard only turns a move into a stay. It never picks another node, and it
//! never changes the forecast. `config.guards_off` switches one off by the name
//! of its reason.

use crate::config::Config;
use crate::model::{ExtentId, Mempolicy, Node, NodeVec, Pages, Reason};
use crate::table::{Row, Table, secs};

/// A move that the policy would like.
pub(crate) struct Wish<'a> {
    pub(crate) id: ExtentId,
    pub(crate) row: &'a Row,
    /// None only where the placement is unknown.
    pub(crate) to: Option<Node>,
    /// The most that the move may bring.
    pub(crate) at_most: Pages,
}

/// What moves decided in the same tick share.
pub(crate) struct Budget {
    tokens: f64,
    /// Pages that still fit on each node.
    room: NodeVec<f64>,
}

/// Not a guard, but what one of them counts on; it can be switched off like one.
const PAGE_CACHE: &str = "page_cache";

type Guard = fn(&Wish<'_>, &Table, &Config, &Budget) -> bool;

/// Who may not be touched at all comes first, then where to, then when, then how much:
/// what the user can change least comes before what passes by itself.
const GUARDS: [(Reason, Guard); 12] = [
    (Reason::Excluded, excluded),
    (Reason::NoPlacement, no_placement),
    (Reason::Mempolicy, mempolicy),
    (Reason::MempolicyUnknown, mempolicy_unknown),
    (Reason::Cpuset, cpuset),
    (Reason::Moving, moving),
    (Reason::Hurt, hurt),
    (Reason::CoolDown, cool_down),
    (Reason::HeldBack, held_back),
    (Reason::TooLarge, too_large),
    (Reason::NoRoom, no_room),
    (Reason::RateLimit, rate_limit),
];

/// The first guard against a move now.
pub(crate) fn against(
    wish: &Wish<'_>,
    table: &Table,
    config: &Config,
    budget: &Budget,
) -> Option<Reason> {
    let speaks = |(reason, guard): &&(Reason, Guard)| {
        on(config, *reason) && guard(wish, table, config, budget)
    };
    GUARDS.iter().find(speaks).map(|(reason, _)| *reason)
}

/// The first guard that will not give way by waiting, so that users see it before a move is due.
pub(crate) fn for_good(
    wish: &Wish<'_>,
    table: &Table,
    config: &Config,
    budget: &Budget,
) -> Option<Reason> {
    let lasting = |(reason, guard): &&(Reason, Guard)| {
        lasts(*reason) && on(config, *reason) && guard(wish, table, config, budget)
    };
    GUARDS.iter().find(lasting).map(|(reason, _)| *reason)
}

pub(crate) fn on(config: &Config, reason: Reason) -> bool {
    is_on(config, reason.name())
}

fn is_on(config: &Config, name: &str) -> bool {
    !config.guards_off.iter().any(|off| off == name)
}

/// Whether no waiting changes what stands against it.
pub(crate) fn lasts(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Excluded
            | Reason::NoPlacement
            | Reason::Mempolicy
            | Reason::Cpuset
            | Reason::Hurt
            | Reason::TooLarge
    )
}

impl Budget {
    pub(crate) fn of(table: &Table, config: &Config) -> Self {
        let kept = config.policy.reserve as f64;
        let arriving = table.arriving();
        let room = NodeVec::from_fn(table.nodes.len(), |n| {
            let node = &table.nodes[n];
            let without = if is_on(config, PAGE_CACHE) { 0 } else { node.inactive_file / 2 };
            let room = node.room().saturating_sub(without);
            room as f64 - kept - arriving[n] as f64
        });
        Self { tokens: table.tokens(), room }
    }

    pub(crate) fn spend(&mut self, to: Node, pages: Pages) {
        self.tokens -= pages as f64;
        self.room[to] -= pages as f64;
    }
}

fn excluded(wish: &Wish<'_>, _: &Table, config: &Config, _: &Budget) -> bool {
    !config.filter.allows(wish.id.domain.pid, &wish.row.comm, &wish.row.cgroup)
}

fn no_placement(wish: &Wish<'_>, _: &Table, _: &Config, _: &Budget) -> bool {
    !wish.row.placed
}

fn mempolicy(wish: &Wish<'_>, table: &Table, config: &Config, _: &Budget) -> bool {
    known_mempolicy(wish, table, config) == Mempolicy::Explicit
}

fn mempolicy_unknown(wish: &Wish<'_>, table: &Table, config: &Config, _: &Budget) -> bool {
    known_mempolicy(wish, table, config) == Mempolicy::Unknown
}

fn known_mempolicy(wish: &Wish<'_>, table: &Table, config: &Config) -> Mempolicy {
    let fresh = config.policy.mempolicy_fresh_seconds.max(secs(table.dt()));
    wish.row.mempolicy(table.now, fresh)
}

fn cpuset(wish: &Wish<'_>, _: &Table, _: &Config, _: &Budget) -> bool {
    wish.to.is_some_and(|to| wish.row.allowed.get(to) != Some(&true))
}

/// Also while the effect of the last move is not seen yet: the placement that we know may be
/// the one before it.
fn moving(wish: &Wish<'_>, _: &Table, _: &Config, _: &Budget) -> bool {
    wish.row.busy()
}

/// There, and for as long as the process lives.
fn hurt(wish: &Wish<'_>, _: &Table, _: &Config, _: &Budget) -> bool {
    wish.to.is_some() && wish.row.hurt_by == wish.to
}

fn held_back(wish: &Wish<'_>, _: &Table, _: &Config, _: &Budget) -> bool {
    wish.row.is_held_back()
}

fn cool_down(wish: &Wish<'_>, table: &Table, _: &Config, _: &Budget) -> bool {
    wish.row.cooling(table.now) > 0.0
}

/// The budget never holds more than its burst.
fn too_large(wish: &Wish<'_>, _: &Table, config: &Config, _: &Budget) -> bool {
    wish.at_most > config.policy.largest_move.min(config.policy.burst)
}

fn no_room(wish: &Wish<'_>, _: &Table, _: &Config, budget: &Budget) -> bool {
    wish.to.and_then(|to| budget.room.get(to)).is_none_or(|&room| room < wish.at_most as f64)
}

fn rate_limit(wish: &Wish<'_>, _: &Table, _: &Config, budget: &Budget) -> bool {
    budget.tokens < wish.at_most as f64
}

#[cfg(test)]
mod tests;
