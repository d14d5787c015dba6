//! What did a tick lose to remote memory, and what would it have lost elsewhere?
//!
//! The policy's model, at the low, the middle and the high of what it goes by.

use std::ops::{AddAssign, Sub};

use serde::Serialize;

use crate::model::{DomainObs, Est, Node, NodeObs, NodeVec};
use crate::policy::cost::{ratio, stretch};

/// A number at the low, the middle and the high of the estimates that it is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Span {
    pub low: f64,
    pub mid: f64,
    pub high: f64,
}

/// One end of an estimate.
type End = fn(Est) -> f32;

impl Span {
    fn at(value: impl Fn(End) -> f64) -> Self {
        Self { low: value(|est| est.low), mid: value(|est| est.mid), high: value(|est| est.high) }
    }

    /// Of sums in which a high end may have made less than a low one.
    pub(super) fn ordered(self) -> Self {
        let mut ends = [self.low, self.mid, self.high];
        ends.sort_by(f64::total_cmp);
        let [low, mid, high] = ends;
        Self { low, mid, high }
    }

    /// Between its ends.
    pub fn width(&self) -> f64 {
        self.high - self.low
    }
}

impl AddAssign for Span {
    fn add_assign(&mut self, more: Self) {
        self.low += more.low;
        self.mid += more.mid;
        self.high += more.high;
    }
}

impl From<Est> for Span {
    fn from(est: Est) -> Self {
        Self::at(|end| f64::from(end(est)))
    }
}

/// End from end: both were made of the same estimates.
impl Sub for Span {
    type Output = Self;
    fn sub(self, less: Self) -> Self {
        let Self { low, mid, high } = self;
        Self { low: low - less.low, mid: mid - less.mid, high: high - less.high }
    }
}

/// Seconds that a tick's work waits for remote memory at this place, where the CPU time that it
/// took was seen with its memory as the tick shows it. None where that is not known.
pub(super) fn lost(
    domain: &DomainObs,
    bound: Est,
    place: &NodeVec<Est>,
    nodes: &NodeVec<NodeObs>,
) -> Option<Span> {
    let seen = Place::of(pages(domain)?, nodes)?;
    let place = Place::of(place, nodes)?;
    Some(Span::at(|end| {
        let bound = f64::from(end(bound));
        let bound = if bound.is_nan() { 0.0 } else { bound.clamp(0.0, 1.0) };
        let cpu = nodes.iter().zip(domain.cpu.values());
        let lost = cpu.map(|((_, node), &nanos)| {
            let [seen, place] = [&seen, &place].map(|at| stretch(bound, at.slowness(node, end)));
            nanos as f64 / 1e9 * (place - 1.0) / seen
        });
        // The sum of nothing is -0.0, which would be printed so.
        lost.sum::<f64>() + 0.0
    }))
}

/// Where its memory is.
pub(super) fn pages(domain: &DomainObs) -> Option<&NodeVec<Est>> {
    Some(&domain.extents.first()?.pages)
}

/// Where memory is: its share by node.
struct Place(Vec<f64>);

impl Place {
    fn of(pages: &NodeVec<Est>, nodes: &NodeVec<NodeObs>) -> Option<Self> {
        let pages: Vec<f64> = pages.values().map(|est| f64::from(est.mid).max(0.0)).collect();
        let total: f64 = pages.iter().sum();
        let known = pages.len() == nodes.len() && total > 0.0 && total.is_finite();
        known.then(|| Self(pages.iter().map(|pages| pages / total).collect()))
    }

    /// How many times slower than local memory it is from a node, on the mean.
    fn slowness(&self, node: &NodeObs, end: End) -> f64 {
        let of = |(k, share): (usize, &f64)| share * ratio(node, k, end);
        self.0.iter().enumerate().map(of).sum()
    }
}

/// Share of its CPU time that a process spent on a node, 0 to 1.
pub(super) fn cpu_share(domain: &DomainObs, node: Node) -> f64 {
    let all: u64 = domain.cpu.values().sum();
    let here = domain.cpu.get(node).copied().unwrap_or(0);
    if all > 0 { here as f64 / all as f64 } else { 0.0 }
}
