//! What would have been seen, had nobody moved anything?
//!
//! The ticks as recorded, but with the moves of that time unmade, and what each
//! place of each process's memory would have cost in them. Every policy starts
//! from here and is charged by these costs. What was learned then of prices and
//! of processes is known here too.

use std::collections::BTreeSet;

use crate::config::Config;
use crate::contest::world::World;
use crate::model::{Decision, ExtentId, Input, Node, NodeMask, NodeObs, NodeVec, Tick};
use crate::policy::cost::{Costs, Distances};
use crate::policy::decide;
use crate::policy::lanes::{Lanes, walls};
use crate::table::{Table, absorb, secs};

/// The recorded run, as far as it has been told.
pub(crate) struct Past {
    /// As it was then, with the moves.
    pub(crate) table: Table,
    world: World,
    last: Option<Tick>,
    /// About that one.
    pub(crate) decided: Vec<Decision>,
    /// Orders under way that are the first of their process.
    ordered: BTreeSet<u64>,
}

/// One tick without the moves.
pub(crate) struct Seen {
    pub(crate) tick: Tick,
    pub(crate) seconds: f64,
    /// By extent: its costs, and what stands before each node.
    pub(crate) costs: Vec<(ExtentId, Costs, Lanes)>,
}

impl Past {
    pub(crate) fn new(table: Table) -> Self {
        Self {
            table,
            world: World::default(),
            last: None,
            decided: Vec::new(),
            ordered: BTreeSet::new(),
        }
    }

    /// Takes in what happened then, under the settings of that time; a tick gives what would have
    /// been seen, at the prices of these.
    pub(crate) fn take_in(&mut self, input: &Input, then: &Config, now: &Config) -> Option<Seen> {
        if let Input::Tick(tick) = input {
            self.decided = decide(&mut self.table, then, tick);
            self.last = Some(tick.clone());
            return Some(self.see(tick.clone(), now));
        }
        absorb(&mut self.table, then, input);
        match input {
            Input::Ordered(order) => {
                // From now on its pages may be half of the way.
                let target = self.last.as_ref().and_then(|last| last.domain(order.target));
                if target.is_some_and(|target| self.world.unmake(target)) {
                    self.ordered.insert(order.seq);
                }
            }
            Input::Progress(outcome) => {
                if self.ordered.remove(&outcome.seq) && outcome.moved() == 0 {
                    self.world.follow(outcome.target);
                }
            }
            Input::Tick(_) | Input::HeldBack(_) => {}
        }
        None
    }

    fn see(&mut self, mut tick: Tick, config: &Config) -> Seen {
        for domain in &mut tick.domains {
            domain.boundness = self.table.boundness(domain);
        }
        self.world.show(&mut tick);
        let (nodes, distances) = (&tick.nodes, &Distances::of(&tick.nodes));
        let pricing = (&self.table.prices, &config.policy);
        let costs = tick.domains.iter().flat_map(|domain| {
            domain.extents.iter().filter_map(move |extent| {
                let mut costs = Costs::default();
                costs.measure(domain, extent, domain.boundness, distances, pricing);
                costs.known.then(|| (extent.id, costs, open(nodes, &extent.allowed)))
            })
        });
        let costs = costs.collect();
        Seen { seconds: secs(tick.dt), costs, tick }
    }
}

/// Where memory could be: no guard of ours, but what the kernel allows.
fn open(nodes: &NodeVec<NodeObs>, allowed: &NodeMask) -> Lanes {
    let open = |node: Node| {
        let obs = &nodes[node];
        obs.has_cpus && obs.has_memory && allowed.get(node) == Some(&true)
    };
    walls(NodeVec::from_fn(nodes.len(), open).values().copied())
}
