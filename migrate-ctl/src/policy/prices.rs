//! What does a page cost that we move, from which node to which, as a base page or in a huge one?
//!
//! Seconds lost by the application: the waits of its threads while it is
//! moved, and the mover's CPU time as far as somebody wanted that CPU. Each
//! pair of nodes and page size begins with the configured prior, which weighs
//! as much as `PRIOR_PAGES` pages. There is one mover so far, so that there
//! is no price by mover.

use serde::{Deserialize, Serialize};

use crate::config::PolicyConfig;
use crate::model::{Est, Nanos, Node, Outcome, Source, each_node};
use crate::policy::moments::Moments;

/// 256 MiB: the first large move says as much as the prior.
const PRIOR_PAGES: f64 = 65_536.0;

/// Base pages, and pages of huge ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageSize {
    Base,
    Huge,
}

impl PageSize {
    pub const ALL: [Self; 2] = [Self::Base, Self::Huge];

    /// The word used in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Huge => "huge",
        }
    }
}

/// All prices of one machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Prices {
    nodes: usize,
    /// Seconds a page, weighed by pages: by size, source and target.
    seen: Vec<Moments>,
    /// Whether any move has been priced.
    learned: bool,
    /// What is reckoned with in this tick, likewise; empty while all pages cost what the prior
    /// says.
    pages: Vec<Est>,
    /// The dearest of these, by size.
    dearest: [f64; 2],
}

impl Prices {
    /// Once a tick: what was learned until now counts. Starts anew where the machine is another
    /// one.
    pub(crate) fn tick(&mut self, nodes: usize, config: &PolicyConfig) {
        if self.nodes != nodes {
            let seen = vec![Moments::default(); PageSize::ALL.len() * nodes * nodes];
            *self = Self { nodes, seen, ..Self::default() };
        }
        self.pages.clear();
        if self.learned {
            self.pages.extend(self.seen.iter().map(|seen| page(seen, config)));
        }
        let prior = f64::from(config.price_per_page.mid).max(0.0);
        let (base, huge) = self.pages.split_at(self.pages.len() / 2);
        self.dearest = [base, huge]
            .map(|pages| pages.iter().map(|page| f64::from(page.mid)).fold(prior, f64::max));
    }

    /// Takes in what a move has cost all together. One of which nobody measured the mover's time
    /// says nothing.
    pub(crate) fn learn(&mut self, outcome: &Outcome, cost: f64) {
        let all = outcome.moved();
        if all == 0 || outcome.caller == 0 {
            return;
        }
        let page = cost / all as f64;
        for leg in &outcome.legs {
            let huge = leg.huge.min(leg.moved);
            for (size, pages) in [(PageSize::Base, leg.moved - huge), (PageSize::Huge, huge)] {
                if let Some(at) = self.at(size, leg.from, outcome.to) {
                    self.seen[at].add(page, pages as f64);
                    self.learned = true;
                }
            }
        }
    }

    /// Seconds for each page.
    pub(crate) fn page(&self, size: PageSize, from: Node, to: Node, config: &PolicyConfig) -> Est {
        self.at(size, from, to).map_or(config.price_per_page, |at| page(&self.seen[at], config))
    }

    /// A page of which so large a share is in huge ones.
    pub(crate) fn mixed(&self, huge: f64, from: Node, to: Node, config: &PolicyConfig) -> Est {
        let at = |size| self.at(size, from, to).and_then(|at| self.pages.get(at));
        match (at(PageSize::Base), at(PageSize::Huge)) {
            (Some(base), Some(large)) => mix(base, large, huge),
            _ => config.price_per_page,
        }
    }

    /// What it would cost if both sizes cost what they do between their dearest pairs, at the
    /// middle.
    pub(crate) fn dearest(&self, huge: f64) -> f64 {
        let [base, large] = self.dearest;
        base + huge.clamp(0.0, 1.0) * (large - base)
    }

    /// Whether all pages still cost what the prior says.
    pub(crate) fn uniform(&self) -> bool {
        self.pages.is_empty()
    }

    /// Pairs of nodes between which pages of a size were priced.
    pub(crate) fn known(&self) -> impl Iterator<Item = (PageSize, Node, Node)> {
        let all = PageSize::ALL
            .into_iter()
            .flat_map(|size| self.pairs().map(move |(from, to)| (size, from, to)));
        all.zip(&self.seen).filter(|(_, seen)| seen.weight() > 0.0).map(|(pair, _)| pair)
    }

    fn pairs(&self) -> impl Iterator<Item = (Node, Node)> {
        let nodes = self.nodes;
        each_node(nodes).flat_map(move |from| each_node(nodes).map(move |to| (from, to)))
    }

    fn at(&self, size: PageSize, from: Node, to: Node) -> Option<usize> {
        let (from, to) = (usize::from(from.0), usize::from(to.0));
        let inside = from < self.nodes && to < self.nodes;
        inside.then_some((size as usize * self.nodes + from) * self.nodes + to)
    }
}

/// Seconds for each page, of which so much was seen.
fn page(seen: &Moments, config: &PolicyConfig) -> Est {
    let prior = config.price_per_page;
    if seen.weight() <= 0.0 {
        return prior;
    }
    let share = seen.weight() / (seen.weight() + PRIOR_PAGES);
    // A single move has no scatter of its own: the prior's is all that is known of it.
    let error = seen.error().map(|error| Est::WIDTH * error);
    let (below, above) = error.map_or_else(
        || (f64::from(prior.mid - prior.low), f64::from(prior.high - prior.mid)),
        |error| (error, error),
    );
    let mean = seen.mean();
    #[expect(clippy::cast_possible_truncation, reason = "a price has no more digits than f32")]
    let blend =
        |prior: f32, seen: f64| (f64::from(prior) * (1.0 - share) + seen * share).max(0.0) as f32;
    Est {
        low: blend(prior.low, mean - below),
        mid: blend(prior.mid, mean),
        high: blend(prior.high, mean + above),
        source: if share >= 0.5 { Source::Moves } else { prior.source },
    }
}

/// Of base pages, and of so large a share in huge ones.
fn mix(base: &Est, large: &Est, huge: f64) -> Est {
    if huge <= 0.0 {
        return *base;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
    let huge = huge.clamp(0.0, 1.0) as f32;
    let mix = |base: f32, large: f32| base + huge * (large - base);
    Est {
        low: mix(base.low, large.low),
        mid: mix(base.mid, large.mid),
        high: mix(base.high, large.high),
        source: if huge > 0.5 { large.source } else { base.source },
    }
}

/// What a move has cost the application: its threads' waits, and the mover's CPU time. Of that the
/// part counts in full which the machine had no idle CPU for, and the rest at a small price.
pub(crate) fn cost(waited: Nanos, caller: Nanos, busy: f32, config: &PolicyConfig) -> f64 {
    // NaN is no share: the dearest then.
    let busy = if busy.is_nan() { 1.0 } else { f64::from(busy).clamp(0.0, 1.0) };
    let idle_price = config.idle_cpu_price.clamp(0.0, 1.0);
    (waited as f64 + caller as f64 * (busy + (1.0 - busy) * idle_price)) / 1e9
}

#[cfg(test)]
mod tests {
    use super::{PageSize, Prices, cost};
    use crate::config::PolicyConfig;
    use crate::model::{End, Est, Leg, Node, NodeVec, Order, Outcome, PidRef, Source};

    #[test]
    fn a_pair_begins_with_the_prior_and_ends_with_what_its_moves_cost() {
        let (mut prices, config) = (Prices::default(), PolicyConfig::default());
        prices.tick(2, &config);
        let page =
            |prices: &Prices, from, to| prices.page(PageSize::Base, Node(from), Node(to), &config);
        assert_eq!(page(&prices, 0, 1), config.price_per_page);
        for _ in 0..40 {
            prices.learn(&outcome(100_000, 0), 100_000.0 * 2e-5);
        }
        let learned = page(&prices, 0, 1);
        assert!((learned.mid / 2e-5 - 1.0).abs() < 0.02, "{learned:?}");
        assert!(learned.low <= learned.mid && learned.mid <= learned.high);
        assert_eq!(learned.source, Source::Moves);
        assert_eq!(page(&prices, 1, 0), config.price_per_page);
    }

    #[test]
    fn huge_pages_have_a_price_of_their_own() {
        let (mut prices, config) = (Prices::default(), PolicyConfig::default());
        prices.tick(2, &config);
        for _ in 0..40 {
            prices.learn(&outcome(100_000, 0), 100_000.0 * 8e-6);
            prices.learn(&outcome(100_000, 100_000), 100_000.0 * 1e-6);
        }
        assert!(prices.uniform(), "what is learned counts from the next tick on");
        prices.tick(2, &config);
        let at = |huge| prices.mixed(huge, Node(0), Node(1), &config).mid;
        assert!((at(0.0) / 8e-6 - 1.0).abs() < 0.02 && (at(1.0) / 1e-6 - 1.0).abs() < 0.1);
        assert!(at(0.5) < at(0.0) && at(0.5) > at(1.0));
    }

    #[test]
    fn what_nobody_measured_teaches_nothing() {
        let (mut prices, config) = (Prices::default(), PolicyConfig::default());
        prices.tick(2, &config);
        prices.learn(&Outcome { caller: 0, ..outcome(100, 0) }, 1.0);
        prices.learn(&outcome(0, 0), 1.0);
        prices.learn(&Outcome { to: Node(9), ..outcome(100, 0) }, 1.0);
        prices.tick(2, &config);
        assert!(prices.uniform());
        assert_eq!(prices.known().count(), 0);
    }

    #[test]
    fn idle_cpus_cost_little() {
        let config = PolicyConfig::default();
        assert_eq!(cost(0, 1_000_000_000, 1.0, &config), 1.0);
        assert_eq!(cost(0, 1_000_000_000, 0.0, &config), config.idle_cpu_price);
        assert_eq!(cost(500_000_000, 1_000_000_000, f32::NAN, &config), 1.5);
    }

    fn outcome(moved: u64, huge: u64) -> Outcome {
        let target = PidRef { pid: 7, start: 1 };
        let from = NodeVec::filled(2, true);
        let order = Order {
            seq: 1,
            target,
            from,
            to: Node(1),
            pages: 1,
            at_most: 1,
            until: 1,
            saves: Est::NOTHING,
            price: Est::NOTHING,
        };
        let leg = Leg { from: Node(0), moved, huge, failed: 0, duration: 1 };
        Outcome { legs: vec![leg], caller: 1, ..Outcome::of(&order, End::Done) }
    }
}
