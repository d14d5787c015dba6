//! What a sample says of the whole, and how sure it is.
//!
//! Pure. A ratio estimate over a stratified sample: the ground is cut into equal parts, one window
//! is drawn in each, and what it found counts for its part. The variance comes from the difference
//! between neighbouring parts (the collapsed-strata estimator), which is never too small on
//! average: what differs between two parts counts as if it were chance.

use crate::model::Node;

/// 95 % of a normal distribution is 1.96; the rest is for rounds that end when they look good.
const Z: f64 = 2.06;
/// So many pairs of neighbours more are taken to differ than were seen to: a border between two
/// nodes may fall between the pairs, and none seen does not mean that there is none.
const SPARE_PAIRS: f64 = 2.5;

/// One look at the ground.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Windows of this kind that make up its part.
    pub(super) cells: f64,
    /// Pages that count.
    pub(super) pages: f64,
}

/// What was found in one window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    pub(super) window: usize,
    /// None: on no node that an ordinary move could take it from.
    pub(super) node: Option<Node>,
    /// Pages of the window that this one stands for.
    pub(super) stands_for: f64,
}

/// One or more rounds of draws over the same ground.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub(super) windows: Vec<Window>,
    pub(super) hits: Vec<Hit>,
    /// Where each round begins in `windows`.
    pub(super) rounds: Vec<usize>,
}

/// A share of the whole, 0 to 1, with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    pub(super) low: f64,
    pub(super) mid: f64,
    pub(super) high: f64,
}

impl Share {
    /// Some of the whole was not looked at and may be anywhere.
    pub(super) fn but_for(self, unseen: f64) -> Self {
        let seen = 1.0 - unseen;
        Self {
            low: self.low * seen,
            mid: self.mid,
            high: (self.high * seen + unseen).max(self.mid),
        }
    }

    pub(super) fn half_width(self) -> f64 {
        (self.high - self.low) / 2.0
    }
}

/// How many pages there are by the sample.
pub(super) fn pages(samples: &[Sample]) -> f64 {
    samples.iter().flat_map(Sample::pages).sum()
}

/// The share of each of the first nodes; none where nothing was found.
pub(super) fn shares(samples: &[Sample], nodes: usize) -> Option<Vec<Share>> {
    let pages: Vec<Vec<f64>> = samples.iter().map(Sample::pages).collect();
    let all: f64 = pages.iter().flatten().sum();
    let hitting = pages.iter().flatten().filter(|&&pages| pages > 0.0);
    let (looks, squares) =
        hitting.fold((0.0, 0.0), |(n, sum), pages| (n + 1.0, sum + pages * pages));
    if all <= 0.0 {
        return None;
    }
    let spare = SPARE_PAIRS * squares / looks;
    // A variance from few and unequal looks is itself uncertain, and often too small.
    let widen = (1.0 + Z * Z * squares / (all * all)).sqrt();
    let of = |node| {
        let on: Vec<Vec<f64>> = samples.iter().map(|sample| sample.on(node)).collect();
        let mid = on.iter().flatten().sum::<f64>() / all;
        let mut variance = spare;
        for ((sample, on), pages) in samples.iter().zip(&on).zip(&pages) {
            let residuals: Vec<f64> =
                on.iter().zip(pages).map(|(on, all)| on - mid * all).collect();
            variance += sample.spread(&residuals);
        }
        let half = Z * widen * variance.sqrt() / all;
        Share { low: (mid - half).max(0.0), mid, high: (mid + half).min(1.0).max(mid) }
    };
    let nodes = u16::try_from(nodes).unwrap_or(u16::MAX);
    Some((0..nodes).map(|node| of(Node(node))).collect())
}

impl Sample {
    /// Pages of the whole ground that each window stands for.
    fn pages(&self) -> Vec<f64> {
        let rounds = self.rounds.len().max(1) as f64;
        self.windows.iter().map(|window| window.cells * window.pages / rounds).collect()
    }

    /// The same for the pages on one node.
    fn on(&self, node: Node) -> Vec<f64> {
        let rounds = self.rounds.len().max(1) as f64;
        let mut on = vec![0.0; self.windows.len()];
        for hit in self.hits.iter().filter(|hit| hit.node == Some(node)) {
            on[hit.window] += self.windows[hit.window].cells * hit.stands_for / rounds;
        }
        on
    }

    /// Variance of the sum, from neighbours. A part that was seen whole has none.
    fn spread(&self, values: &[f64]) -> f64 {
        let ends = self.rounds.iter().skip(1).copied().chain([self.windows.len()]);
        let mut sum = 0.0;
        for (&first, end) in self.rounds.iter().zip(ends) {
            let mut at = first;
            while at + 1 < end {
                let (one, two) = (at, at + 1);
                let chance = 1.0 - 1.0 / self.windows[one].cells.max(self.windows[two].cells);
                sum += chance * (values[one] - values[two]).powi(2);
                // The last of an odd number is compared with its neighbour as well.
                at += if at + 3 == end { 1 } else { 2 };
            }
        }
        sum
    }
}
