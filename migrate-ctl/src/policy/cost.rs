//! What one tick costs in each place that the memory could be, and what going there costs.
//!
//! Seconds lost by the application. A state is a node, or `as placed`: the
//! memory where it really is. Whatever the input, all values here
//! are finite and not negative.

use crate::config::PolicyConfig;
use crate::model::{
    DomainObs, Est, ExtentObs, Leg, Node, NodeObs, NodeVec, Outcome, Pages, Source, each_node,
};
use crate::policy::lanes::Lanes;
use crate::policy::prices::Prices;

/// No single value is taken for larger; sums of so many stay exact enough.
const LARGEST: f64 = 1e12;
/// No memory is slower than this many times the local one.
const SLOWEST: f64 = 100.0;
/// CPU time is sampled so often in a second; where it is exact, the interval is too wide.
const SAMPLES: f64 = 99.0;

/// The costs of one extent in one tick.
#[derive(Clone, Debug, Default)]
pub(crate) struct Costs {
    /// Lost in this tick with the memory on each node, in seconds; and as placed.
    pub(crate) loss: Lanes,
    pub(crate) loss_as_placed: f64,
    /// Price of the move from `as placed` to each node, in seconds.
    pub(crate) price: Lanes,
    /// Price of a move of everything from one node to another, in seconds.
    pub(crate) whole_price: f64,
    /// Pages by node.
    pub(crate) pages: Lanes,
    /// CPU seconds by node.
    pub(crate) cpu: Lanes,
    /// Sums of the two over all nodes.
    pub(crate) total: f64,
    pub(crate) worked: f64,
    /// Share of CPU time × placement that crossed nodes, 0 to 1; none while the placement is
    /// unknown.
    pub(crate) remote: Option<Est>,
    /// Share of the CPU time that is lost as placed, 0 to 1, by the intervals of boundness and
    /// latency.
    pub(crate) lost_share: Interval,
    /// How many times slower than local memory its memory is where it ran, on the mean.
    pub(crate) slowness: f64,
    /// Share of the pages in huge ones, 0 to 1.
    pub(crate) huge: f64,
    /// Whether the placement is known at all.
    pub(crate) known: bool,
    /// Where the memory-bound share comes from.
    pub(crate) source: Source,
}

/// An estimate whose source is known from elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) mid: f64,
    pub(crate) high: f64,
}

/// Latency of each node's memory ÷ local latency, fit to reckon with: nested vectors of estimates
/// would be walked for each process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Distances {
    nodes: usize,
    /// By the CPU's node, then by the memory's.
    ratios: Vec<Interval>,
    /// How much slower than local memory each node's is at its low end, by the CPU's node.
    slower: Vec<Lanes>,
}

impl Costs {
    /// Pages that a move to this node would take along.
    pub(crate) fn off_node(&self, node: usize) -> Pages {
        let off = self.total - self.pages[node];
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "finite, and clamped to what fits"
        )]
        let pages = (off.clamp(0.0, LARGEST) + 0.5) as Pages;
        pages
    }

    /// Fills everything in.
    pub(crate) fn measure(
        &mut self,
        domain: &DomainObs,
        extent: &ExtentObs,
        boundness: Est,
        distances: &Distances,
        pricing: (&Prices, &PolicyConfig),
    ) {
        let pages = &extent.pages;
        let count = distances.nodes;
        self.cpu.set(count, domain.cpu.values().map(|&nanos| nanos as f64 / 1e9));
        self.pages.set(count, pages.values().map(|est| sane(est.mid)));
        self.loss.reset(count, 0.0);
        self.loss_as_placed = 0.0;
        self.worked = self.cpu.iter().sum();
        self.total = self.pages.iter().sum();
        self.set_prices(sane(extent.huge), pricing);
        self.remote = None;
        self.lost_share = Interval::default();
        self.slowness = 1.0;
        self.source = boundness.source;
        self.known = count > 0 && pages.len() == count;
        if self.known && self.total > 0.0 {
            self.set_losses(distances, boundness);
            self.set_remote(pages);
        }
    }

    /// The price of the move to a node, with its interval.
    pub(crate) fn price_to(&self, to: Node, pricing: (&Prices, &PolicyConfig)) -> Est {
        let (prices, config) = pricing;
        let mut sum = Interval::default();
        let mut source = config.price_per_page.source;
        let off =
            each_node(self.pages.len()).zip(self.pages.iter()).filter(|(from, _)| *from != to);
        for (from, &pages) in off.filter(|(_, pages)| **pages > 0.0) {
            let page = prices.mixed(self.huge, from, to, config);
            sum.low += sane(page.low) * pages;
            sum.mid += sane(page.mid) * pages;
            sum.high += sane(page.high) * pages;
            source = page.source;
        }
        // What decides is what `price` holds, with all that belongs to it.
        let mid = self.price.get(usize::from(to.0)).copied().unwrap_or(0.0);
        let fixed = (mid - sum.mid).max(0.0);
        #[expect(clippy::cast_possible_truncation, reason = "a price has no more digits than f32")]
        let at = |end: f64| (fixed + end) as f32;
        Est {
            low: at(sum.low.min(sum.mid)),
            mid: at(sum.mid),
            high: at(sum.high.max(sum.mid)),
            source,
        }
    }

    fn set_prices(&mut self, huge: f64, (prices, config): (&Prices, &PolicyConfig)) {
        self.huge = huge.min(1.0);
        let per_move = sane_wide(config.price_per_move);
        let total = self.total;
        let price = |off: f64, per_page: f64| {
            if off > 0.5 { per_page * off + per_move } else { 0.0 }
        };
        self.price.reset(self.pages.len(), 0.0);
        if prices.uniform() {
            let per_page = sane(config.price_per_page.mid);
            self.whole_price = price(total, per_page);
            self.price.with(&self.pages, |_, on| price((total - on).max(0.0), per_page));
            return;
        }
        for to in each_node(self.pages.len()) {
            let from = each_node(self.pages.len()).zip(self.pages.iter());
            let (mut off, mut sum) = (0.0, 0.0);
            for (from, &pages) in from.filter(|(from, pages)| *from != to && **pages > 0.0) {
                off += pages;
                sum += sane(prices.mixed(self.huge, from, to, config).mid) * pages;
            }
            self.price[usize::from(to.0)] = price(off, if off > 0.0 { sum / off } else { 0.0 });
        }
        // All ways between nodes cost the same to the work function: what the dearest costs.
        let per_page = prices.dearest(self.huge);
        self.whole_price = price(total, per_page);
    }

    fn set_losses(&mut self, distances: &Distances, boundness: Est) {
        let bound = bound(boundness);
        let all = self.worked;
        let share = |cpu: f64, bound: f64, slowness: f64| {
            cpu / all * (1.0 - 1.0 / stretch(bound, slowness))
        };
        self.slowness = 0.0;
        for (on, &cpu) in self.cpu.iter().enumerate().filter(|&(_, &cpu)| cpu > 0.0) {
            let ratios = distances.from(on);
            let as_placed = mean(ratios, &self.pages, self.total);
            // The time that the same work would have waited for local memory.
            let waits = cpu / stretch(bound, as_placed.low) * bound;
            self.loss.with(&distances.slower[on], |loss, slower| loss + waits * slower);
            self.loss_as_placed += waits * (as_placed.low - 1.0);
            self.slowness += cpu / all * as_placed.mid;
            let lost = &mut self.lost_share;
            lost.low += share(cpu, bound, as_placed.low);
            lost.mid += share(cpu, sane(boundness.mid).min(1.0), as_placed.mid);
            lost.high += share(cpu, sane(boundness.high).min(1.0), as_placed.high);
        }
    }

    /// Two errors that know nothing of each other: that of the placement, and that of sampling on
    /// which node the time was spent.
    fn set_remote(&mut self, pages: &NodeVec<Est>) {
        let (all, total) = (self.worked, self.total);
        if all <= 0.0 {
            return;
        }
        let away = |on: f64| (1.0 - on / total).clamp(0.0, 1.0);
        let (mut low, mut mid, mut high, mut square) = (0.0, 0.0, 0.0, 0.0);
        let ran = self.cpu.iter().zip(pages.values()).filter(|&(&cpu, _)| cpu > 0.0);
        for (cpu, est) in ran {
            let (share, remote) = (cpu / all, away(sane(est.mid)));
            mid += share * remote;
            square += share * remote * remote;
            low += share * away(sane(est.high)).min(remote);
            high += share * away(sane(est.low)).max(remote);
        }
        let of_time =
            Est::WIDTH * ((square - mid * mid).max(0.0) / (all * SAMPLES).max(1.0)).sqrt();
        let both = |of_pages: f64| (of_pages * of_pages + of_time * of_time).sqrt();
        #[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
        let share = |value: f64| value.clamp(0.0, 1.0) as f32;
        self.remote = Some(Est {
            low: share(mid - both(mid - low)),
            mid: share(mid),
            high: share(mid + both(high - mid)),
            source: Source::CpuPlacement,
        });
    }

    /// The middle of it; 0 while the placement is unknown.
    pub(crate) fn remote_share(&self) -> f64 {
        self.remote.map_or(0.0, |remote| f64::from(remote.mid))
    }
}

impl Distances {
    pub(crate) fn of(nodes: &NodeVec<NodeObs>) -> Self {
        let count = nodes.len();
        let from = |node| {
            (0..count).map(move |to| Interval {
                low: ratio(node, to, |est| est.low),
                mid: ratio(node, to, |est| est.mid),
                high: ratio(node, to, |est| est.high),
            })
        };
        let ratios: Vec<Interval> = nodes.values().flat_map(from).collect();
        let slower = |from: &[Interval]| {
            let mut slower = Lanes::default();
            slower.set(count, from.iter().map(|ratio| ratio.low - 1.0));
            slower
        };
        let slower = ratios.chunks(count.max(1)).map(slower).collect();
        Self { nodes: count, ratios, slower }
    }

    /// To each node's memory from the CPUs of this one.
    fn from(&self, node: usize) -> &[Interval] {
        &self.ratios[node * self.nodes..][..self.nodes]
    }
}

/// What the pages that have moved should have cost, so large a share of them in huge ones.
pub(crate) fn price_of(outcome: &Outcome, huge: f64, pricing: (&Prices, &PolicyConfig)) -> f64 {
    let (prices, config) = pricing;
    if outcome.moved() == 0 {
        return 0.0;
    }
    let leg = |leg: &Leg| {
        let page = prices.mixed(huge, leg.from, outcome.to, config);
        sane(page.mid) * leg.moved as f64
    };
    outcome.legs.iter().map(leg).sum::<f64>() + sane_wide(config.price_per_move)
}

/// Over the pages, `total` of them.
fn mean(ratios: &[Interval], pages: &[f64], total: f64) -> Interval {
    let mut mean = Interval::default();
    for (ratio, on) in ratios.iter().zip(pages).filter(|(_, on)| **on > 0.0) {
        let share = on / total;
        mean.low += share * ratio.low;
        mean.mid += share * ratio.mid;
        mean.high += share * ratio.high;
    }
    mean
}

/// Share of the time on local memory that waits for memory, at its low end.
pub(crate) fn bound(boundness: Est) -> f64 {
    sane(boundness.low).min(1.0)
}

/// Time that work takes on memory of such latency ÷ the time that it takes on local memory.
pub(crate) fn stretch(bound: f64, slowness: f64) -> f64 {
    1.0 + bound * (slowness - 1.0)
}

/// Latency of another node's memory ÷ local latency, at its low end.
pub(crate) fn slowness(node: &NodeObs, to: usize) -> f64 {
    ratio(node, to, |est| est.low)
}

pub(crate) fn ratio(node: &NodeObs, to: usize, of: impl Fn(Est) -> f32) -> f64 {
    let to = u16::try_from(to).ok().map(Node);
    to.and_then(|to| node.latency.get(to)).map_or(1.0, |&ratio| sane(of(ratio)).clamp(1.0, SLOWEST))
}

fn sane(value: f32) -> f64 {
    sane_wide(f64::from(value))
}

fn sane_wide(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, LARGEST) }
}
