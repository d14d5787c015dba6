//! Signs that a move would be wasted or in somebody's way: growth, swapping, other movers, reclaim.
//!
//! Kept by extent and by node, in seconds and never in ticks, so that they mean
//! the same at any length of a tick. What follows from them is `guards`' business.

use serde::{Deserialize, Serialize};

use crate::model::{DomainObs, ExtentObs, Nanos, Node, NodeObs, NodeVec, Pages};
use crate::table::secs;

/// Seconds over which rates are means: long against a burst of faults or a garbage collection,
/// short against the life of what is worth moving.
const WINDOW: f64 = 5.0;
/// Others are at work on an extent once they have moved this share of it. Less is the noise of
/// page sharing, poisoned memory and stray hint faults.
const AT_WORK: f64 = 0.01;
/// Seconds after which what others have moved is forgotten: a few scans of AutoNUMA, which come
/// every second (`numa_balancing_scan_period_min_ms`) where it finds something to do.
pub(crate) const OTHERS_SECONDS: f64 = 10.0;

/// Of one extent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Signs {
    /// Resident pages, those too that others map.
    pub(crate) resident: Pages,
    /// Pages by which it grows a second; negative where it shrinks.
    pub(crate) growth: f64,
    /// Faults a second on pages that were in swap.
    pub(crate) swap_ins: f64,
    /// Seconds that the two rates cover, at most [`WINDOW`].
    seen: f64,
    /// Pages that others have moved, fading over [`OTHERS_SECONDS`].
    by_others: f64,
    /// When that last came to [`AT_WORK`].
    others_at: Option<Nanos>,
    /// Share of the folios that could not be moved, and when it last changed: somebody tried.
    unmovable: Option<(f32, Nanos)>,
}

impl Signs {
    /// Takes in one observation that covers so many seconds up to now.
    pub(crate) fn step(&mut self, domain: &DomainObs, extent: &ExtentObs, now: Nanos, span: f64) {
        // Of the first observation nobody knows what was there before it.
        let before = if self.seen > 0.0 { self.resident } else { extent.resident };
        self.resident = extent.resident;
        if span > 0.0 {
            self.seen = (self.seen + span).min(WINDOW);
            let fresh = (span / self.seen).min(1.0);
            let grown = extent.resident as f64 - before as f64;
            self.growth += fresh * (grown / span - self.growth);
            self.swap_ins += fresh * (domain.swapped_in as f64 / span - self.swap_ins);
        }
        self.see_others(domain, now, span);
        if domain.unmovable != self.unmovable.map(|(share, _)| share) {
            self.unmovable = domain.unmovable.map(|share| (share, now));
        }
    }

    /// Compaction is no mover: it packs pages within their node.
    fn see_others(&mut self, domain: &DomainObs, now: Nanos, span: f64) {
        let others = domain.migrated.iter();
        let others = others.filter(|by| by.reason != "own" && by.reason != "compaction");
        let moved: Pages = others.map(|by| by.pages).sum();
        self.by_others = self.by_others / (1.0 + span / OTHERS_SECONDS) + moved as f64;
        if moved > 0 && self.by_others >= AT_WORK * self.resident as f64 {
            self.others_at = Some(now);
            self.by_others = 0.0;
        }
    }

    /// Seconds since others were last seen at work on it.
    pub(crate) fn since_others(&self, now: Nanos) -> Option<f64> {
        self.others_at.map(|at| secs(now.saturating_sub(at)))
    }

    /// Share of its folios that could not be moved, 0 to 1, and how many seconds ago that was seen.
    pub(crate) fn unmovable(&self, now: Nanos) -> Option<(f32, f64)> {
        self.unmovable.map(|(share, at)| (share, secs(now.saturating_sub(at))))
    }
}

/// When each node's memory was last reclaimed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reclaim(NodeVec<Option<Nanos>>);

impl Reclaim {
    pub(crate) fn step(&mut self, nodes: &NodeVec<NodeObs>, now: Nanos) {
        if self.0.len() != nodes.len() {
            self.0 = NodeVec::filled(nodes.len(), None);
        }
        for (last, node) in self.0.values_mut().zip(nodes.values()) {
            if node.reclaimed > 0 {
                *last = Some(now);
            }
        }
    }

    /// Seconds since then.
    pub(crate) fn since(&self, node: Node, now: Nanos) -> Option<f64> {
        self.0.get(node).copied().flatten().map(|at| secs(now.saturating_sub(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::Signs;
    use crate::model::{DomainObs, ExtentObs, MigratedObs, Nanos, Pages, PidRef};

    const ID: PidRef = PidRef { pid: 7, start: 1 };

    /// The same growth in ticks of 0.1 s and of 2 s.
    #[test]
    fn a_rate_is_the_same_at_any_length_of_a_tick() {
        for tick in [0.1, 1.0, 2.0] {
            let mut signs = Signs::default();
            for number in 0..200_u32 {
                let seconds = f64::from(number) * tick;
                step(&mut signs, seconds, tick, |domain, extent| {
                    extent.resident = pages(1_000.0 * seconds);
                    domain.swapped_in = pages(50.0 * tick);
                });
            }
            assert!((signs.growth - 1_000.0).abs() < 30.0, "{tick}: {}", signs.growth);
            assert!((signs.swap_ins - 50.0).abs() < 0.1, "{tick}: {}", signs.swap_ins);
        }
    }

    #[test]
    fn what_was_there_at_first_has_not_grown() {
        let mut signs = Signs::default();
        step(&mut signs, 0.0, 1.0, |_, extent| extent.resident = 1_000_000);
        assert_eq!(signs.growth, 0.0);
    }

    #[test]
    fn a_percent_by_others_is_somebody_at_work_and_a_trickle_is_not() {
        for (pages, at_work) in [(1_000, true), (900, false), (50, false)] {
            let mut signs = Signs::default();
            for second in 0..100 {
                let moved = if pages < 100 || second == 50 { pages } else { 0 };
                step(&mut signs, f64::from(second), 1.0, |domain, extent| {
                    extent.resident = 100_000;
                    domain.migrated = vec![by("numa_misplaced", moved), by("own", 100_000)];
                });
            }
            assert_eq!(signs.since_others(nanos(99.0)), at_work.then_some(49.0), "{pages}");
        }
    }

    #[test]
    fn what_is_unmovable_is_as_old_as_the_last_attempt() {
        let mut signs = Signs::default();
        for (second, share) in [(0.0, None), (1.0, Some(0.5)), (2.0, Some(0.75)), (9.0, Some(0.75))]
        {
            step(&mut signs, second, 1.0, |domain, _| domain.unmovable = share);
        }
        assert_eq!(signs.unmovable(nanos(10.0)), Some((0.75, 8.0)));
    }

    fn step(
        signs: &mut Signs,
        seconds: f64,
        span: f64,
        see: impl Fn(&mut DomainObs, &mut ExtentObs),
    ) {
        let (mut domain, mut extent) = (DomainObs::idle(ID, 2), ExtentObs::unknown(ID, 2));
        see(&mut domain, &mut extent);
        signs.step(&domain, &extent, nanos(seconds), span);
    }

    fn by(reason: &str, pages: Pages) -> MigratedObs {
        MigratedObs { reason: reason.to_owned(), caller: 1, pages, failed: 0 }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "test input")]
    fn pages(value: f64) -> Pages {
        value.round() as Pages
    }

    fn nanos(seconds: f64) -> Nanos {
        pages(seconds * 1e9)
    }
}
