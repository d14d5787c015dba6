//! One extent while its tick is taken in: what was seen of it, what that costs, and what is
//! remembered of it.

use crate::model::{DomainObs, ExtentObs, Node};
use crate::policy::cost::Costs;
use crate::policy::lanes::Lanes;
use crate::table::Row;

#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) domain: &'a DomainObs,
    pub(crate) extent: &'a ExtentObs,
    pub(crate) costs: &'a Costs,
    /// What stands before each node.
    pub(crate) walls: &'a Lanes,
    pub(crate) row: &'a Row,
}

impl Case<'_> {
    /// Whether memory of this extent may go there at all.
    pub(crate) fn is_open(&self, node: Node) -> bool {
        self.walls.get(usize::from(node.0)) == Some(&0.0)
    }

    /// Seconds that the application would lose less per second with its memory there.
    pub(crate) fn gain(&self, node: Node) -> f64 {
        if self.costs.known { self.row.rates.gain(node) } else { 0.0 }
    }
}
