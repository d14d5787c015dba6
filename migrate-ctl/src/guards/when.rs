//! What speaks against a move now, and passes.

use super::Wish;
use crate::config::Config;
use crate::table::signs::OTHERS_SECONDS;
use crate::table::{Table, secs, started};

/// Growth that adds half of what is there within ten seconds: the new part lies near the CPU by
/// first touch, and soon is most of it.
const GROWING: (f64, f64) = (0.5, 10.0);
/// Swapped pages that come back in a second. Each takes some 100 us from a fast device, so this is
/// a percent of a CPU, more than remote memory usually costs; and pages come back near the CPU.
const SWAPPING: f64 = 100.0;
/// Share of the folios that could not be moved, from which on a move leaves most of them behind.
const UNMOVABLE: f32 = 0.5;
/// Seconds after the last attempt, by anyone, after which it is tried again: what pins pages for
/// I/O lets go of them, and what pins them for good costs one vain attempt in ten minutes.
const UNMOVABLE_SECONDS: f64 = 600.0;
/// Seconds without reclaim until a node is at rest: kswapd comes back within a second or two
/// as long as whoever filled the node goes on.
const RECLAIM_SECONDS: f64 = 5.0;

/// Also while the effect of the last move is not seen yet: the placement that we know may be
/// the one before it.
pub(super) fn moving(wish: &Wish<'_>, table: &Table, _: &Config) -> bool {
    table.is_moving(&wish.case.extent.id) || wish.case.row.checking()
}

pub(super) fn cool_down(wish: &Wish<'_>, table: &Table, config: &Config) -> bool {
    cooling(wish, table, config) > 0.0
}

pub(super) fn cooling(wish: &Wish<'_>, table: &Table, _: &Config) -> f64 {
    wish.case.row.cooling(table.now)
}

pub(super) fn held_back(wish: &Wish<'_>, _: &Table, _: &Config) -> bool {
    wish.case.row.is_held_back()
}

/// Seconds until the comparison is over.
pub(super) fn compared(wish: &Wish<'_>, table: &Table, _: &Config) -> f64 {
    wish.case.row.watched_for(table.now)
}

pub(super) fn unmovable(wish: &Wish<'_>, table: &Table, config: &Config) -> bool {
    stuck(wish, table, config) > 0.0
}

/// Seconds until it is tried again.
pub(super) fn stuck(wish: &Wish<'_>, table: &Table, _: &Config) -> f64 {
    let seen = wish.case.row.signs.unmovable(table.now).filter(|(share, _)| *share >= UNMOVABLE);
    seen.map_or(0.0, |(_, ago)| (UNMOVABLE_SECONDS - ago).max(0.0))
}

pub(super) fn other_mover(wish: &Wish<'_>, table: &Table, _: &Config) -> bool {
    wish.case.row.signs.since_others(table.now).is_some_and(|ago| ago < OTHERS_SECONDS)
}

pub(super) fn young(wish: &Wish<'_>, table: &Table, config: &Config) -> bool {
    growing_up(wish, table, config) > 0.0
}

/// Seconds until it is old enough.
pub(super) fn growing_up(wish: &Wish<'_>, table: &Table, config: &Config) -> f64 {
    let age = secs(table.now.saturating_sub(started(wish.case.domain.id)));
    (config.policy.young_seconds - age).max(0.0)
}

pub(super) fn swapping(wish: &Wish<'_>, _: &Table, _: &Config) -> bool {
    wish.case.row.signs.swap_ins > SWAPPING
}

pub(super) fn growing(wish: &Wish<'_>, _: &Table, _: &Config) -> bool {
    let (share, seconds) = GROWING;
    let signs = &wish.case.row.signs;
    signs.growth > 0.0 && signs.growth * seconds >= share * signs.resident as f64
}

/// Page cache that gives way is reclaim too, so a node with plenty of free pages is at rest.
pub(super) fn reclaiming(wish: &Wish<'_>, table: &Table, config: &Config) -> bool {
    let Some((to, node)) = wish.to.and_then(|to| Some((to, table.nodes.get(to)?))) else {
        return false;
    };
    let low = node.high_watermark.saturating_mul(2).saturating_add(config.policy.reserve);
    let lately = table.reclaim.since(to, table.now).is_some_and(|ago| ago < RECLAIM_SECONDS);
    lately && node.free < low
}
