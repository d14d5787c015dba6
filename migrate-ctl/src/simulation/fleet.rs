//! A machine full of simulated processes, tick by tick.
//!
//! Each has a way over the nodes by one of the laws of `traces`, a life, a load
//! and a size. Its memory lies where it began: what becomes of it is the
//! player's business.

use crate::model::{
    DomainObs, Est, ExtentObs, Mempolicy, Nanos, Node, NodeObs, NodeVec, Pages, PidRef, Source,
    Tick,
};
use crate::simulation::machines::Machine;
use crate::simulation::traces::{Dice, HOME, LAWS, Law, walk};
use std::sync::Arc;

use smallvec::smallvec;

/// Ticks of a life: 30 s to 5 min.
const LIFE: (f64, f64) = (300.0, 3_000.0);
/// Share of a CPU.
const LOAD: (f64, f64) = (0.05, 1.0);
/// Share of the time on local memory that waits for memory.
const BOUNDNESS: (f64, f64) = (0.1, 0.5);
/// The logarithm of the size in 4 KiB pages: 4 MiB to 4 GiB, as likely in each octave.
const SIZE: (f64, f64) = (6.931, 13.863);
/// Of a tick.
const DT: Nanos = 100_000_000;
/// Two minutes after boot.
const BEGIN: Nanos = 120_000_000_000;

/// A repeatable machine load: the same seed, the same ticks.
#[derive(Clone, Debug)]
pub struct Fleet {
    dice: Dice,
    laws: Vec<Law>,
    /// Of each law.
    cgroups: Vec<Arc<str>>,
    nodes: NodeVec<NodeObs>,
    procs: Vec<Proc>,
    now: Nanos,
    pids: u32,
}

#[derive(Clone, Debug)]
struct Proc {
    id: PidRef,
    law: usize,
    runs_on: Vec<usize>,
    tick: usize,
    load: f64,
    bound: f32,
    pages: f32,
}

impl Fleet {
    /// All of [`LAWS`] alike, or one of them.
    pub fn new(seed: u64, processes: usize, machine: &Machine, law: Option<Law>) -> Self {
        let laws = law.map_or_else(|| LAWS.to_vec(), |law| vec![law]);
        Self::by(laws, seed, processes, machine)
    }

    /// Each process goes by one of these laws, of which there is at least one.
    pub fn by(laws: Vec<Law>, seed: u64, processes: usize, machine: &Machine) -> Self {
        let mut fleet = Self {
            dice: Dice::new(seed),
            cgroups: laws.iter().map(|law| format!("/{}", law.name()).into()).collect(),
            laws,
            nodes: machine.observe(),
            procs: Vec::with_capacity(processes),
            now: BEGIN,
            pids: 0,
        };
        for _ in 0..processes {
            let proc = fleet.born();
            fleet.procs.push(proc);
        }
        fleet
    }

    /// The next tick.
    pub fn tick(&mut self) -> Tick {
        self.now += DT;
        let mut gone = Vec::new();
        for index in 0..self.procs.len() {
            let proc = &self.procs[index];
            if proc.tick == proc.runs_on.len() {
                gone.push(proc.id);
                self.procs[index] = self.born();
            }
        }
        let (nodes, cgroups) = (self.nodes.len(), &self.cgroups);
        let observe = |proc: &mut Proc| proc.observe(nodes, cgroups);
        let mut domains: Vec<DomainObs> = self.procs.iter_mut().map(observe).collect();
        domains.sort_unstable_by_key(|domain| domain.id);
        Tick { now: self.now, dt: DT, busy: 0.5, nodes: self.nodes.clone(), domains, gone }
    }

    fn born(&mut self) -> Proc {
        self.pids += 1;
        let dice = &mut self.dice;
        let law = dice.below(self.laws.len());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "all of them are small and positive"
        )]
        Proc {
            id: PidRef { pid: self.pids, start: self.now / 10_000_000 },
            law,
            tick: 0,
            runs_on: walk(self.laws[law], self.nodes.len(), between(LIFE, dice) as usize, dice),
            load: between(LOAD, dice),
            bound: between(BOUNDNESS, dice) as f32,
            pages: between(SIZE, dice).exp().round() as f32,
        }
    }
}

fn between((low, high): (f64, f64), dice: &mut Dice) -> f64 {
    low + (high - low) * dice.roll()
}

impl Proc {
    fn observe(&mut self, nodes: usize, cgroups: &[Arc<str>]) -> DomainObs {
        let on = self.runs_on[self.tick];
        self.tick += 1;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below a tick")]
        let ran = (self.load * DT as f64) as Nanos;
        let at = |node: Node, there: usize| usize::from(node.0) == there;
        let pages = |n| if at(n, HOME) { self.pages } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole pages")]
        let resident = self.pages as Pages;
        DomainObs {
            comm: "simulated".to_owned(),
            cgroup: Arc::clone(&cgroups[self.law]),
            cpu: NodeVec::from_fn(nodes, |n| if at(n, on) { ran } else { 0 }),
            boundness: Est::exact(self.bound, Source::Prior),
            extents: smallvec![ExtentObs {
                pages: NodeVec::from_fn(nodes, |n| Est::exact(pages(n), Source::Pagemap)),
                resident,
                mempolicy: Mempolicy::Default,
                ..ExtentObs::unknown(self.id, nodes)
            }],
            ..DomainObs::idle(self.id, nodes)
        }
    }
}
