//! What does remote memory cost on this machine, and what would moving win back?
//!
//! Beside the machine as it is goes one in which the policy has its way: its
//! moves are carried out in a [`World`], and what the same work would have lost
//! there is held against what it lost here. Sums by cgroup; moves nothing.

mod loss;
mod balancing;
mod report;
pub mod live;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::Config;
use crate::contest::world::World;
use crate::journal::Fact;
use crate::model::{Decision, DomainObs, Input, NodeObs, NodeVec, PidRef, Source, Tick, Verdict};
use crate::policy::decide;
use crate::procfs::printable;
use crate::table::{Table, absorb};
use balancing::Flows;

pub use balancing::Balancing;
pub use loss::Span;
pub use report::{FaultTime, Report};

/// So many cgroups have sums of their own; those that come later share one.
const GROUPS: usize = 1024;

/// What was seen so far.
pub struct Assessment {
    config: Config,
    /// Of the machine as it is.
    here: Table,
    /// Of the machine on which the policy has its way.
    there: Table,
    world: World,
    /// By cgroup, as it is shown.
    groups: BTreeMap<String, Sums>,
    others: Sums,
    flows: BTreeMap<PidRef, Flows>,
    nodes: NodeVec<NodeObs>,
    ticks: u64,
    seconds: f64,
}

/// What one cgroup has lost, and what else there is to say of it. Seconds are seconds of its
/// processes' CPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sums {
    pub cpu_seconds: f64,
    /// Of these: of processes whose placement was not known. What they lost is not in `lost`.
    pub unplaced_seconds: f64,
    /// Of these: of processes whose memory-bound share is no more than a prior.
    pub prior_seconds: f64,
    /// Spent waiting for remote memory where local memory would have been there at once.
    pub lost: Span,
    /// How far apart the ends of `lost` are by what is no more than a prior.
    pub lost_width_by_priors: f64,
    /// Part of `lost` that the policy's moves would have saved, before their price.
    pub recoverable: Span,
    /// What these moves would have cost.
    pub price: Span,
    pub moves: u64,
    pub pages: u64,
    pub balancing: Balancing,
}

impl Sums {
    fn add(&mut self, more: &Self) {
        self.cpu_seconds += more.cpu_seconds;
        self.unplaced_seconds += more.unplaced_seconds;
        self.prior_seconds += more.prior_seconds;
        self.lost += more.lost;
        self.lost_width_by_priors += more.lost_width_by_priors;
        self.recoverable += more.recoverable;
        self.price += more.price;
        self.moves += more.moves;
        self.pages += more.pages;
        self.balancing.add(&more.balancing);
    }
}

impl Assessment {
    pub fn new(config: &Config) -> Self {
        Self {
            config: observing(config),
            here: Table::default(),
            there: Table::default(),
            world: World::default(),
            groups: BTreeMap::new(),
            others: Sums::default(),
            flows: BTreeMap::new(),
            nodes: NodeVec::default(),
            ticks: 0,
            seconds: 0.0,
        }
    }

    /// Of what a controller has written down, which does not say how long faults take.
    pub fn of_facts<E>(
        facts: impl IntoIterator<Item = Result<Fact<'static>, E>>,
    ) -> Result<Report, E> {
        let mut assessment = Self::new(&Config::default());
        for fact in facts {
            match fact? {
                Fact::Settings(settings) => assessment.config = observing(&settings.config),
                Fact::Checkpoint(table) => {
                    assessment.there = table.clone().into_owned();
                    assessment.here = table.into_owned();
                }
                Fact::Input { input, .. } => assessment.absorb(&input),
                Fact::Decided(_) | Fact::Scored(_) => {}
            }
        }
        Ok(assessment.report(None))
    }

    /// Processes whose memory policy the next tick should bring.
    pub fn wants_mempolicy(&self) -> Vec<PidRef> {
        self.there.wants_mempolicy(&self.config)
    }

    /// Takes in what was seen or, where somebody enforced meanwhile, done.
    pub fn absorb(&mut self, input: &Input) {
        absorb(&mut self.here, &self.config, input);
        let tick = match input {
            Input::Tick(tick) => tick,
            // Of an order that was under way before a journal began it is waited for there as well.
            Input::Progress(_) => return absorb(&mut self.there, &self.config, input),
            Input::Ordered(_) | Input::HeldBack(_) => return,
        };
        self.ticks += 1;
        self.seconds += tick.dt as f64 / 1e9;
        self.nodes.clone_from(&tick.nodes);
        let mut there = tick.clone();
        for domain in &mut there.domains {
            // What the process has shown here would have shown there as well.
            domain.boundness = self.here.boundness(domain);
        }
        self.world.show(&mut there);
        for (seen, moved) in tick.domains.iter().zip(&there.domains) {
            self.count(seen, moved);
        }
        for id in &tick.gone {
            self.flows.remove(id);
        }
        self.decide(there);
    }

    /// What a process did in this tick, and would have done with its memory elsewhere.
    fn count(&mut self, seen: &DomainObs, moved: &DomainObs) {
        let bound = moved.boundness;
        let cpu_seconds = seen.cpu.values().sum::<u64>() as f64 / 1e9;
        let mut sums = Sums {
            cpu_seconds,
            balancing: self.flows.entry(seen.id).or_default().step(seen),
            ..Sums::default()
        };
        let lost = |domain| loss::lost(seen, bound, loss::pages(domain)?, &self.nodes);
        match (lost(seen), lost(moved)) {
            (Some(here), Some(there)) => {
                sums.lost = here;
                sums.recoverable = here - there;
                if bound.source == Source::Prior {
                    sums.prior_seconds = cpu_seconds;
                    sums.lost_width_by_priors = here.width();
                }
            }
            _ => sums.unplaced_seconds = cpu_seconds,
        }
        self.group(&seen.cgroup).add(&sums);
    }

    fn decide(&mut self, there: Tick) {
        let decisions = decide(&mut self.there, &self.config, &there);
        for decision in &decisions {
            self.charge(&there, decision);
        }
        for told in self.world.carry_out(&decisions) {
            absorb(&mut self.there, &self.config, &told);
        }
    }

    fn charge(&mut self, there: &Tick, decision: &Decision) {
        let Verdict::Move(order) = &decision.verdict else { return };
        let Some(domain) = there.domains.iter().find(|domain| domain.id == order.target) else {
            return;
        };
        let price = Span::from(decision.forecast.price);
        let sums = Sums { price, moves: 1, pages: order.pages, ..Sums::default() };
        self.group(&domain.cgroup).add(&sums);
    }

    /// Keyed by what is shown: two paths may look the same once they are printable.
    fn group(&mut self, cgroup: &str) -> &mut Sums {
        let shown = printable(cgroup);
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&shown) {
            return &mut self.others;
        }
        self.groups.entry(shown).or_default()
    }
}

fn observing(config: &Config) -> Config {
    Config { policy: config.policy.observing(), ..config.clone() }
}

#[cfg(test)]
mod tests;
