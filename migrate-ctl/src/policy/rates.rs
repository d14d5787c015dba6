//! How fast each state loses, since things last changed.
//!
//! A mean over wall time since the last change, idle time included; after
//! [`WINDOW`] seconds the oldest fades out. A change is another mix of CPU nodes
//! or another placement: before it, the rates said nothing of what comes. How
//! much a process works mostly outlasts such a change, so the load from before
//! steadies the rates after it, as long as the two agree.

use serde::{Deserialize, Serialize};

use crate::model::Node;
use crate::policy::cost::Costs;
use crate::policy::lanes::Lanes;

/// Seconds after which the mean forgets.
const WINDOW: f64 = 30.0;
/// Share of the CPU time on other nodes than before, or of the pages, that is a change.
const CHANGE: f64 = 0.2;
/// Samples of CPU time a second, for the noise of a tick's mix.
const SAMPLES_PER_SECOND: f64 = 99.0;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rates {
    /// Seconds since the last change.
    elapsed: f64,
    /// CPU seconds since the last change, fading likewise.
    worked: f64,
    /// Lost per second on each node, and as placed, before the load from earlier is taken in.
    loss: Lanes,
    loss_as_placed: f64,
    /// CPU seconds per second.
    load: f64,
    /// The load over both stretches if they agree, else that of the last one.
    steady_load: f64,
    /// What takes the load from earlier in: the steady load ÷ the load.
    steadied: f64,
    /// The load before the last change, and how many seconds it was seen.
    earlier: (f64, f64),
    /// Share of the CPU time by node.
    cpu: Lanes,
    /// Share of the pages by node.
    pages: Lanes,
    /// Lost since the last change where the best state would have lost less, in seconds.
    pub(crate) lost: f64,
}

impl Rates {
    /// Takes in one tick that covers so many seconds.
    pub(crate) fn step(&mut self, costs: &Costs, seconds: f64) {
        let worked = costs.worked;
        if self.changed(costs) {
            self.restart(costs.loss.len());
        }
        self.elapsed += seconds;
        let fresh =
            if self.elapsed > 0.0 { (seconds / self.elapsed.min(WINDOW)).min(1.0) } else { 0.0 };
        // No time takes nothing in: `fresh` is 0 then.
        let span = if seconds > 0.0 { seconds } else { 1.0 };
        let mean = |mean: f64, loss: f64| mean + fresh * (loss / span - mean);
        self.loss.with(&costs.loss, mean);
        self.loss_as_placed = mean(self.loss_as_placed, costs.loss_as_placed);
        let load = worked / span;
        self.load += fresh * (load - self.load);
        let kept = if self.elapsed > WINDOW { 1.0 - fresh } else { 1.0 };
        self.worked = self.worked * kept + worked;
        let weight = if self.worked > 0.0 { worked / self.worked } else { 0.0 };
        self.steady_load = self.with_earlier();
        self.steadied = if self.load > 0.0 { self.steady_load / self.load } else { 1.0 };
        blend(&mut self.cpu, &costs.cpu, worked, weight);
        blend(&mut self.pages, &costs.pages, costs.total, fresh);
        self.lost += costs.loss_as_placed - costs.loss.least().min(costs.loss_as_placed);
    }

    /// What comes is another stretch.
    fn restart(&mut self, nodes: usize) {
        self.earlier = (self.steady_load, (self.earlier.1 + self.elapsed).min(WINDOW));
        (self.elapsed, self.worked, self.load, self.lost) = (0.0, 0.0, 0.0, 0.0);
        self.loss_as_placed = 0.0;
        for values in [&mut self.loss, &mut self.cpu, &mut self.pages] {
            values.reset(nodes, 0.0);
        }
    }

    /// Lost per second with the memory on this node; none for a node that is not there.
    fn rate(&self, node: usize) -> Option<f64> {
        self.loss.get(node).map(|rate| rate * self.steadied)
    }

    /// The same with the memory where it is.
    pub(crate) fn rate_as_placed(&self) -> f64 {
        self.loss_as_placed * self.steadied
    }

    /// Lost less per second with the memory on this node than where it is.
    pub(crate) fn gain(&self, node: Node) -> f64 {
        self.rate(usize::from(node.0)).map_or(0.0, |there| self.rate_as_placed() - there)
    }

    /// CPU seconds a second.
    pub(crate) fn steady_load(&self) -> f64 {
        self.steady_load
    }

    fn with_earlier(&self) -> f64 {
        let (earlier, seconds) = self.earlier;
        // The error of so many samples, twice, and what a steady load wavers anyway.
        let noise = 2.0 / (self.worked * SAMPLES_PER_SECOND).max(1.0).sqrt() + 0.1;
        if (earlier - self.load).abs() > noise * earlier {
            return self.load;
        }
        let all = seconds + self.elapsed.min(WINDOW);
        if all > 0.0 {
            (earlier * seconds + self.load * self.elapsed.min(WINDOW)) / all
        } else {
            self.load
        }
    }

    /// The largest share of the CPU time that one node has, 0 to 1.
    pub(crate) fn largest_share(&self) -> f64 {
        self.cpu.iter().copied().fold(0.0, f64::max)
    }

    fn changed(&self, costs: &Costs) -> bool {
        if self.loss.len() != costs.loss.len() {
            return true;
        }
        // Few samples scatter: the mix of k samples errs by up to about 1/√k.
        let noise = 1.0 / (costs.worked * SAMPLES_PER_SECOND).max(1.0).sqrt();
        shift(&self.cpu, &costs.cpu, costs.worked) > CHANGE.max(noise.min(0.9))
            || shift(&self.pages, &costs.pages, costs.total) > CHANGE
    }
}

/// Share that has moved between the nodes, 0 to 1. The amounts are `now` all together.
fn shift(shares: &Lanes, amounts: &Lanes, now: f64) -> f64 {
    let before: f64 = shares.iter().sum();
    if before <= 0.0 || now <= 0.0 {
        return 0.0;
    }
    shares.sum_with(amounts, |share, amount| (share / before - amount / now).abs()) / 2.0
}

fn blend(shares: &mut Lanes, amounts: &Lanes, total: f64, weight: f64) {
    if total > 0.0 {
        shares.with(amounts, |share, amount| share + weight * (amount / total - share));
    }
}
