//! The work function: the least that a clairvoyant could have paid to end in each state.
//!
//! After Borodin, Linial and Saks, "An optimal on-line algorithm for metrical
//! task system", J. ACM 39(4), 1992. Going to the state with the least work
//! plus γ times the way there keeps our cost within a constant of the
//! clairvoyant's, whatever the processes do.

use crate::policy::cost::Costs;

/// One value per state, in seconds; the last state is `as placed`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    least: Vec<f64>,
    /// The same after the tick, kept to save an allocation.
    next: Vec<f64>,
}

impl Work {
    /// Takes one tick in. A closed node is no state at all: nobody can be there. While a move is
    /// under way its price is not known yet, and nothing is reached by way of `as placed`.
    pub(crate) fn step(&mut self, costs: &Costs, open: &[bool], moving: bool) {
        let placed = costs.placed();
        if self.least.len() != placed + 1 {
            self.least.clear();
            self.least.extend_from_slice(&costs.price);
            self.least.push(0.0);
        }
        self.next.clear();
        self.next.extend(self.least.iter().zip(&costs.loss).map(|(work, loss)| work + loss));
        for (work, _) in self.next.iter_mut().zip(open).filter(|(_, open)| !**open) {
            *work = f64::INFINITY;
        }
        // No state may cost more than another one and the way from there. Prices change as
        // memory grows and moves, so this also takes in every change of the placement: where
        // the pages have arrived on a node, the way to it is free and both states cost the same.
        let way = |from: usize, to: usize| {
            if moving && from == placed && to != placed {
                f64::INFINITY
            } else {
                costs.between(from, to)
            }
        };
        for to in 0..=placed {
            let closed = open.get(to).is_some_and(|open| !open);
            self.least[to] = if closed {
                f64::INFINITY
            } else {
                (0..=placed)
                    .map(|from| self.next[from] + way(from, to))
                    .fold(f64::INFINITY, f64::min)
            };
        }
    }

    /// Our move of the memory is over: its new place was not reached for free.
    pub(crate) fn moved(&mut self, price: f64) {
        if let Some(placed) = self.least.last_mut() {
            *placed += price;
        }
    }

    /// The least that a clairvoyant could have paid so far, as modelled.
    pub(crate) fn optimum(&self) -> f64 {
        let least = self.least.iter().copied().fold(f64::INFINITY, f64::min);
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
        match (self.least.get(node), self.least.last()) {
            (Some(there), Some(here)) => there + gamma * costs.price[node] - here,
            _ => f64::INFINITY,
        }
    }
}
