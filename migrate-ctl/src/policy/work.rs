//! The work function: the least that a clairvoyant could have paid to end in each state.
//!
//! After Borodin, Linial and Saks, "An optimal on-line algorithm for metrical
//! task system", J. ACM 39(4), 1992. Going to the state with the least work
//! plus γ times the way there keeps our cost within a constant of the
//! clairvoyant's, whatever the processes do.

use serde::{Deserialize, Serialize};

use crate::policy::cost::Costs;

/// One value per state, in seconds; the last state is `as placed`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Work(Vec<f64>);

impl Work {
    /// Takes one tick in. A closed node is no state at all: nobody can be there. While a move is
    /// under way its price is not known yet, and nothing is reached by way of `as placed`.
    pub(crate) fn step(&mut self, costs: &Costs, open: &[bool], moving: bool) {
        let placed = costs.placed();
        if self.0.len() != placed + 1 {
            self.0.clear();
            self.0.extend_from_slice(&costs.price);
            self.0.push(0.0);
        }
        for (work, loss) in self.0.iter_mut().zip(&costs.loss) {
            *work += loss;
        }
        for (work, _) in self.0.iter_mut().zip(open).filter(|(_, open)| !**open) {
            *work = f64::INFINITY;
        }
        // No state may cost more than another one and the way from there. Prices change as
        // memory grows and moves, so this also takes in every change of the placement: where
        // the pages have arrived on a node, the way to it is free and both states cost the same.
        // From node to node all ways cost the same, so only the cheapest node can be their start.
        let Some((here, nodes)) = self.0.split_last_mut() else { return };
        let from_node = nodes.iter().copied().fold(f64::INFINITY, f64::min) + costs.whole_price;
        let from_here = if moving { f64::INFINITY } else { *here };
        for ((work, price), open) in nodes.iter_mut().zip(&costs.price).zip(open) {
            *here = here.min(*work + price);
            if *open {
                *work = work.min(from_node).min(from_here + price);
            }
        }
    }

    /// Our move of the memory is over: its new place was not reached for free.
    pub(crate) fn moved(&mut self, price: f64) {
        if let Some(placed) = self.0.last_mut() {
            *placed += price;
        }
    }

    /// The least that a clairvoyant could have paid so far, as modelled.
    pub(crate) fn optimum(&self) -> f64 {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        if least.is_finite() { least } else { 0.0 }
    }

    /// Where to go now; none: stay. A tie stays.
    pub(crate) fn choice(&self, costs: &Costs, gamma: f64) -> Option<usize> {
        let mut best = (None, 0.0);
        for node in 0..costs.placed() {
            let gap = self.gap(costs, gamma, node);
            if gap < best.1 {
                best = (Some(node), gap);
            }
        }
        best.0
    }

    /// What staying must still lose before the move to this node is due, in seconds.
    pub(crate) fn gap(&self, costs: &Costs, gamma: f64, node: usize) -> f64 {
        match (self.0.get(node), self.0.last()) {
            (Some(there), Some(here)) => there + gamma * costs.price[node] - here,
            _ => f64::INFINITY,
        }
    }
}
