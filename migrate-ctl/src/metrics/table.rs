//! Which metrics are there?
//!
//! The only place that names one, by the question that it answers. `docs/metrics.md` and the
//! dashboard are held against [`all`] by tests. Labels are bounded: nodes, words of ours or of
//! the kernel, and the few busiest cgroups; never a pid.

use super::Metric;

mod cost;
mod done;
mod learned;
mod problem;

/// Up to so many nodes every pair of them starts at 0; beyond, a pair appears
/// once something crossed it, since pairs grow with the square.
const PRESET_NODES: usize = 8;

const NO_FAILURE: Option<&str> = Some("nothing failed");

/// Every metric, in the order of the exposition.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    problem::METRICS.iter().chain(done::METRICS).chain(learned::METRICS).chain(cost::METRICS)
}
