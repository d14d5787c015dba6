//! The work function: the cheapest that a clairvoyant could have paid to end in each state.
//!
//! The states are the nodes and `as placed`. Borodin, Linial and Saks, "An
//! optimal on-line algorithm for metrical task system", JACM 39(4), 1992.

use serde::{Deserialize, Serialize};

use crate::model::{Node, NodeVec};

/// Seconds by state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Work {
    /// Memory left as it is placed.
    pub(crate) placed: f64,
    nodes: NodeVec<f64>,
}

impl Work {
    /// Nothing has been paid yet: any node is as far as its price.
    pub(crate) fn start(price: &NodeVec<f64>) -> Self {
        Self { placed: 0.0, nodes: price.clone() }
    }

    pub(crate) fn at(&self, node: Node) -> f64 {
        self.nodes[node]
    }

    /// Adds one tick's penalties, then lets every state be reached from every other.
    /// `price[s]`: between `as placed` and s; `full`: between two nodes.
    pub(crate) fn step(
        &mut self,
        penalties: &NodeVec<f64>,
        placed: f64,
        price: &NodeVec<f64>,
        full: f64,
    ) {
        self.placed += placed;
        let mut nearest = f64::INFINITY;
        let mut back = f64::INFINITY;
        for (node, work) in penalties.iter().map(|(node, penalty)| (node, penalty.max(0.0))) {
            self.nodes[node] += work;
            nearest = nearest.min(self.nodes[node]);
            back = back.min(self.nodes[node] + price[node]);
        }
        let from_placed = self.placed;
        for (work, price) in self.nodes.values_mut().zip(price.values()) {
            *work = work.min(nearest + full).min(from_placed + price);
        }
        self.placed = self.placed.min(back);
    }

    /// The placement has changed: `as placed` is now as dear as the way to it.
    pub(crate) fn relocate(&mut self, price: &NodeVec<f64>) {
        let ways = self.nodes.values().zip(price.values()).map(|(work, price)| work + price);
        let cheapest = ways.fold(f64::INFINITY, f64::min);
        if cheapest.is_finite() {
            self.placed = cheapest;
        }
    }
}
