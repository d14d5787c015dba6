//! What may stand against a move, in a fixed order; the first that speaks is the reason.
//!
//! A guard only turns a move into a stay. It never picks another node, and it
//! never changes the forecast. `config.guards_off` switches one off by the name
//! of its reason.

mod whom;
mod where_to;
mod when;
pub(crate) mod how_much;

use crate::config::Config;
use crate::model::{Node, Pages, Reason};
use crate::table::Table;
use crate::table::case::Case;

/// A move that the policy would like.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) case: Case<'a>,
    /// None where no node is better, or the placement is unknown.
    pub(crate) to: Option<Node>,
    /// Pages that are not there yet.
    pub(crate) pages: Pages,
    /// The most that the move may bring.
    pub(crate) at_most: Pages,
}

type Guard = fn(&Wish<'_>, &Table, &Config) -> bool;

/// For how long a guard speaks.
enum Holds {
    /// No waiting changes it, so users see it before a move is due.
    ForGood,
    /// As long as others go on, and nobody knows how long that is.
    Unknown,
    /// For so many seconds.
    For(fn(&Wish<'_>, &Table, &Config) -> f64),
    /// A few ticks.
    Briefly,
}

/// Who may not be touched at all comes first, then where to, then when, then how much: what the
/// user can change least comes before what passes by itself. Whether the owner set a policy is
/// looked up only where all others agree, so that one comes last.
const GUARDS: [(Reason, Guard, Holds); 19] = [
    (Reason::Excluded, whom::excluded, Holds::ForGood),
    (Reason::NoPlacement, whom::no_placement, Holds::ForGood),
    (Reason::Mempolicy, whom::mempolicy, Holds::ForGood),
    (Reason::Shared, whom::shared, Holds::ForGood),
    (Reason::Cpuset, where_to::cpuset, Holds::ForGood),
    (Reason::SlowNode, where_to::slow_node, Holds::ForGood),
    (Reason::Spread, where_to::spread, Holds::ForGood),
    (Reason::Hurt, where_to::hurt, Holds::ForGood),
    (Reason::Moving, when::moving, Holds::Briefly),
    (Reason::CoolDown, when::cool_down, Holds::For(when::cooling)),
    (Reason::HeldBack, when::held_back, Holds::For(when::compared)),
    (Reason::Unmovable, when::unmovable, Holds::For(when::stuck)),
    (Reason::OtherMover, when::other_mover, Holds::Unknown),
    (Reason::Young, when::young, Holds::For(when::growing_up)),
    (Reason::Swapping, when::swapping, Holds::Unknown),
    (Reason::Growing, when::growing, Holds::Unknown),
    (Reason::Reclaiming, when::reclaiming, Holds::Unknown),
    (Reason::TooSmall, how_much::too_small, Holds::ForGood),
    (Reason::TooLarge, how_much::too_large, Holds::ForGood),
];

/// Those that look at all moves of a tick together, and the last one, in the same order.
const SHARED: [(Reason, Holds); 4] = [
    (Reason::NoRoom, Holds::Unknown),
    (Reason::RateLimit, Holds::Briefly),
    (Reason::Concurrency, Holds::Briefly),
    (Reason::MempolicyUnknown, Holds::Briefly),
];

/// The first guard against a move now, of those that look at nothing else.
pub(crate) fn alone(wish: &Wish<'_>, table: &Table, config: &Config) -> Option<Reason> {
    first(|_, _| true, wish, table, config)
}

/// Whether its memory policy still has to be looked up.
pub(crate) fn lacks_mempolicy(wish: &Wish<'_>, table: &Table, config: &Config) -> bool {
    on(config, Reason::MempolicyUnknown) && whom::mempolicy_unknown(wish, table, config)
}

/// Whether this is the reason of a guard.
pub(crate) fn is_guard(reason: Reason) -> bool {
    let shared = SHARED.iter().map(|(guard, _)| guard);
    GUARDS.iter().map(|(guard, ..)| guard).chain(shared).any(|guard| *guard == reason)
}

/// Whether a guard that looks at all moves together gives way within a few ticks.
pub(crate) fn passes(reason: Reason) -> bool {
    SHARED.iter().any(|(guard, holds)| *guard == reason && matches!(holds, Holds::Briefly))
}

/// The first guard that will not give way by waiting.
pub(crate) fn for_good(wish: &Wish<'_>, table: &Table, config: &Config) -> Option<Reason> {
    first(|_, holds| matches!(holds, Holds::ForGood), wish, table, config)
}

/// Why memory stays that no node would be better for, where that is not all there is to say.
pub(crate) fn without_target(wish: &Wish<'_>, table: &Table, config: &Config) -> Option<Reason> {
    let matters = |reason, _: &_| matches!(reason, Reason::Shared | Reason::Spread);
    first(matters, wish, table, config)
}

fn first(
    which: fn(Reason, &Holds) -> bool,
    wish: &Wish<'_>,
    table: &Table,
    config: &Config,
) -> Option<Reason> {
    let speaks = |(reason, guard, holds): &&(Reason, Guard, Holds)| {
        which(*reason, holds) && on(config, *reason) && guard(wish, table, config)
    };
    GUARDS.iter().find(speaks).map(|(reason, ..)| *reason)
}

/// Seconds until a move that would come after this wait, were it not for the reason; none: nobody
/// knows.
pub(crate) fn move_in(
    reason: Reason,
    wish: &Wish<'_>,
    table: &Table,
    config: &Config,
    wait: Option<f64>,
) -> Option<f64> {
    match GUARDS.iter().find(|(guard, ..)| *guard == reason) {
        Some((_, _, Holds::ForGood | Holds::Unknown)) => None,
        Some((_, _, Holds::For(seconds))) => Some(wait?.max(seconds(wish, table, config))),
        Some((_, _, Holds::Briefly)) | None => wait,
    }
}

pub(crate) fn on(config: &Config, reason: Reason) -> bool {
    is_on(config, reason.name())
}

fn is_on(config: &Config, name: &str) -> bool {
    !config.guards_off.iter().any(|off| off == name)
}

#[cfg(test)]
mod tests;
