//! How fast each state loses, since things last changed.
//!
//! A mean over wall time since the last change, idle time included; after
//! [`WINDOW`] seconds the oldest fades out. A change is another mix of CPU nodes
//! or another placement: before it, the rates said nothing of what comes. How
//! much a process works mostly outlasts such a change, so the load from before
//! steadies the rates after it, as long as the two agree.

use serde::{Deserialize, Serialize};

use crate::policy::cost::Costs;

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
    /// Lost per second by state, before the load from earlier is taken in.
    loss: Vec<f64>,
    /// CPU seconds per second.
    load: f64,
    /// The load over both stretches if they agree, else that of the last one.
    steady_load: f64,
    /// The load before the last change, and how many seconds it was seen.
    earlier: (f64, f64),
    /// Share of the CPU time by node.
    cpu: Vec<f64>,
    /// Share of the pages by node.
    pages: Vec<f64>,
    /// Lost since the last change where the best state would have lost less, in seconds.
    pub(crate) lost: f64,
}

impl Rates {
    /// Takes in one tick that covers so many seconds.
    pub(crate) fn step(&mut self, costs: &Costs, seconds: f64) {
        let worked: f64 = costs.cpu.iter().sum();
        if self.changed(costs, worked) {
            self.restart();
        }
        let states = costs.loss.len();
        self.loss.resize(states, 0.0);
        self.cpu.resize(costs.cpu.len(), 0.0);
        self.pages.resize(costs.pages.len(), 0.0);
        self.elapsed += seconds;
        let fresh =
            if self.elapsed > 0.0 { (seconds / self.elapsed.min(WINDOW)).min(1.0) } else { 0.0 };
        for (mean, loss) in self.loss.iter_mut().zip(&costs.loss) {
            let rate = if seconds > 0.0 { loss / seconds } else { 0.0 };
            *mean += fresh * (rate - *mean);
        }
        let load = if seconds > 0.0 { worked / seconds } else { 0.0 };
        self.load += fresh * (load - self.load);
        let kept = if self.elapsed > WINDOW { 1.0 - fresh } else { 1.0 };
        self.worked = self.worked * kept + worked;
        let weight = if self.worked > 0.0 { worked / self.worked } else { 0.0 };
        self.steady_load = self.steadied();
        blend(&mut self.cpu, &costs.cpu, weight);
        blend(&mut self.pages, &costs.pages, fresh);
        let least = costs.loss.iter().copied().fold(f64::INFINITY, f64::min);
        if let Some(here) = costs.loss.last() {
            self.lost += here - least;
        }
    }

    /// What comes is another stretch.
    fn restart(&mut self) {
        self.earlier = (self.steady_load, (self.earlier.1 + self.elapsed).min(WINDOW));
        (self.elapsed, self.worked, self.load, self.lost) = (0.0, 0.0, 0.0, 0.0);
        for values in [&mut self.loss, &mut self.cpu, &mut self.pages] {
            values.clear();
        }
    }

    /// Lost per second in this state, as far as is known.
    pub(crate) fn rate(&self, state: usize) -> Option<f64> {
        let steadied = if self.load > 0.0 { self.steady_load / self.load } else { 1.0 };
        self.loss.get(state).map(|rate| rate * steadied)
    }

    /// The same for `as placed`, which is the last state.
    pub(crate) fn rate_as_placed(&self) -> Option<f64> {
        self.rate(self.loss.len().checked_sub(1)?)
    }

    /// CPU seconds a second.
    pub(crate) fn steady_load(&self) -> f64 {
        self.steady_load
    }

    fn steadied(&self) -> f64 {
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

    fn changed(&self, costs: &Costs, worked: f64) -> bool {
        if self.loss.len() != costs.loss.len() {
            return true;
        }
        // Few samples scatter: the mix of k samples errs by up to about 1/√k.
        let noise = 1.0 / (worked * SAMPLES_PER_SECOND).max(1.0).sqrt();
        shift(&self.cpu, &costs.cpu) > CHANGE.max(noise.min(0.9))
            || shift(&self.pages, &costs.pages) > CHANGE
    }
}

/// Share that has moved between the nodes, 0 to 1.
fn shift(shares: &[f64], amounts: &[f64]) -> f64 {
    let (before, now): (f64, f64) = (shares.iter().sum(), amounts.iter().sum());
    if before <= 0.0 || now <= 0.0 {
        return 0.0;
    }
    let apart = |(share, amount): (&f64, &f64)| (share / before - amount / now).abs();
    shares.iter().zip(amounts).map(apart).sum::<f64>() / 2.0
}

fn blend(shares: &mut [f64], amounts: &[f64], weight: f64) {
    let total: f64 = amounts.iter().sum();
    if total > 0.0 {
        for (share, amount) in shares.iter_mut().zip(amounts) {
            *share += weight * (amount / total - *share);
        }
    }
}
