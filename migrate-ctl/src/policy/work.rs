//! The work function: the least that a clairvoyant could have paid to end in each state.
//!
//! After Borodin, Linial and Saks, "An optimal on-line algorithm for metrical
//! task system", J. ACM 39(4), 1992. Going to the state with the least work
//! plus γ times the way there keeps our cost within a constant of the
//! clairvoyant's, whatever the processes do.

use serde::{Deserialize, Serialize};

use crate::policy::cost::Costs;
use crate::policy::lanes::Lanes;

/// In seconds: to end on each node, and `as placed`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Work {
    nodes: Lanes,
    here: f64,
}

impl Work {
    /// Takes one tick in. A node behind a wall is no state at all: nobody can be there. While a
    /// move is under way its price is not known yet, and nothing is reached by way of `as placed`.
    pub(crate) fn step(&mut self, costs: &Costs, walls: &Lanes, moving: bool) {
        if self.nodes.len() != costs.price.len() {
            self.nodes.clone_from(&costs.price);
            self.here = 0.0;
        }
        self.here += costs.loss_as_placed;
        self.nodes.with_both(&costs.loss, walls, |work, loss, wall| work + loss + wall);
        // No state may cost more than another one and the way from there. Prices change as
        // memory grows and moves, so this also takes in every change of the placement: where
        // the pages have arrived on a node, the way to it is free and both states cost the same.
        // From node to node all ways cost the same, so only the cheapest node can be their start.
        let from_node = self.nodes.least() + costs.whole_price;
        let from_here = if moving { f64::INFINITY } else { self.here };
        for (work, price) in self.nodes.iter().zip(costs.price.iter()) {
            self.here = lesser(self.here, work + price);
        }
        self.nodes.with_both(&costs.price, walls, |work, price, wall| {
            lesser(lesser(work, from_node), from_here + price) + wall
        });
    }

    /// Our move of the memory is over: its new place was not reached for free.
    pub(crate) fn moved(&mut self, price: f64) {
        self.here += price;
    }

    /// The least that a clairvoyant could have paid so far, as modelled.
    pub(crate) fn optimum(&self) -> f64 {
        lesser(self.here, self.nodes.least())
    }

    /// Where to go now; none: stay. A tie stays.
    pub(crate) fn choice(&self, costs: &Costs, gamma: f64) -> Option<usize> {
        let mut best = (None, 0.0);
        for (node, (there, price)) in self.nodes.iter().zip(costs.price.iter()).enumerate() {
            let gap = there + gamma * price - self.here;
            if gap < best.1 {
                best = (Some(node), gap);
            }
        }
        best.0
    }

    /// What staying must still lose before the move to this node is due, in seconds.
    pub(crate) fn gap(&self, costs: &Costs, gamma: f64, node: usize) -> f64 {
        match (self.nodes.get(node), costs.price.get(node)) {
            (Some(there), Some(price)) => there + gamma * price - self.here,
            _ => f64::INFINITY,
        }
    }
}

/// As `f64::min` without its care for NaN, which is none of our values.
fn lesser(a: f64, b: f64) -> f64 {
    if b < a { b } else { a }
}
