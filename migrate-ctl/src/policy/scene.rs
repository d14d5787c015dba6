//! A small machine and its processes, for tests.

use crate::config::Config;
use crate::model::{
    Decision, DomainObs, End, Est, ExtentObs, Input, Leg, Mempolicy, Nanos, Node, NodeId, NodeObs,
    NodeVec, Order, Outcome, Pages, PidRef, Source, Tick, Verdict,
};
use crate::policy::decide;
use crate::table::{Table, absorb};
use smallvec::smallvec;

pub(crate) const SECOND: Nanos = 1_000_000_000;

#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) table: Table,
    pub(crate) config: Config,
    pub(crate) nodes: NodeVec<NodeObs>,
    pub(crate) now: Nanos,
}

/// One process in one tick.
#[derive(Clone, Debug)]
pub(crate) struct Proc {
    pub(crate) pid: u32,
    /// CPU seconds by node.
    pub(crate) cpu: Vec<f64>,
    pub(crate) pages: Vec<f32>,
    pub(crate) mempolicy: Mempolicy,
    pub(crate) allowed: Vec<bool>,
    pub(crate) alongside: Pages,
    /// Reads and writes in the tick.
    pub(crate) calls: u64,
    /// Clock ticks since boot.
    pub(crate) start: u64,
    /// What else is seen of it.
    pub(crate) also: fn(&mut DomainObs),
}

impl Scene {
    /// Nodes at distance 20 with CPUs and 64 GiB each.
    pub(crate) fn new(nodes: usize) -> Self {
        let ratio = |there| Est::exact(if there { 1.0 } else { 2.0 }, Source::Firmware);
        let nodes = NodeVec::from_fn(nodes, |here| NodeObs {
            id: NodeId(here.0),
            has_cpus: true,
            has_memory: true,
            free: 1 << 24,
            high_watermark: 1000,
            inactive_file: 0,
            reclaimed: 0,
            latency: NodeVec::from_fn(nodes, |there| ratio(here == there)),
        });
        let mut config = Config::default();
        config.policy.hold_back = 0.0;
        Self { table: Table::default(), config, nodes, now: 100 * SECOND }
    }

    /// A tick of one second, and what is decided after it.
    pub(crate) fn tick(&mut self, procs: &[Proc]) -> Vec<Decision> {
        self.tick_of(SECOND, procs)
    }

    pub(crate) fn tick_of(&mut self, dt: Nanos, procs: &[Proc]) -> Vec<Decision> {
        self.now += dt;
        let domains = procs.iter().map(Proc::observe).collect();
        let nodes = self.nodes.clone();
        let tick = Tick { now: self.now, dt, busy: 0.5, nodes, domains, gone: vec![] };
        decide(&mut self.table, &self.config, &tick)
    }

    pub(crate) fn absorb(&mut self, input: &Input) {
        absorb(&mut self.table, &self.config, input);
    }

    /// Gives the order out and reports that all of it arrived.
    pub(crate) fn carry_out(&mut self, order: &Order) {
        self.absorb(&Input::Ordered(order.clone()));
        self.absorb(&Input::Progress(outcome(order, End::Done, order.pages)));
    }
}

impl Proc {
    /// Runs on one node for so many seconds a tick, with its pages as given.
    pub(crate) fn new(pid: u32, runs_on: usize, seconds: f64, pages: &[f32]) -> Self {
        let mut cpu = vec![0.0; pages.len()];
        cpu[runs_on] = seconds;
        let allowed = vec![true; pages.len()];
        Self {
            pid,
            cpu,
            pages: pages.to_vec(),
            mempolicy: Mempolicy::Default,
            allowed,
            alongside: 0,
            calls: 0,
            start: 1,
            also: |_| {},
        }
    }

    pub(crate) fn id(&self) -> PidRef {
        PidRef { pid: self.pid, start: self.start }
    }

    pub(crate) fn observe(&self) -> DomainObs {
        let at = |n: Node| usize::from(n.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let resident = self.pages.iter().sum::<f32>() as Pages;
        let extent = ExtentObs {
            resident,
            pages: NodeVec::from_fn(self.pages.len(), |n| {
                Est::exact(self.pages[at(n)], Source::Pagemap)
            }),
            alongside: self.alongside,
            mempolicy: self.mempolicy,
            allowed: NodeVec::from_fn(self.allowed.len(), |n| self.allowed[at(n)]),
            ..ExtentObs::unknown(self.id(), self.allowed.len())
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "test input")]
        let cpu = NodeVec::from_fn(self.cpu.len(), |n| (self.cpu[at(n)] * 1e9) as u64);
        let mut domain = DomainObs {
            comm: "redis-server".into(),
            cgroup: "/jobs/a".into(),
            calls: self.calls,
            calls_cpu: cpu.values().sum(),
            cpu,
            boundness: Config::default().policy.boundness,
            extents: smallvec![extent],
            ..DomainObs::idle(self.id(), self.cpu.len())
        };
        (self.also)(&mut domain);
        domain
    }
}

pub(crate) fn outcome(order: &Order, end: End, moved: Pages) -> Outcome {
    let legs = vec![Leg { from: Node(0), moved, huge: 0, failed: 0, duration: 1 }];
    Outcome { legs, duration: 1, ..Outcome::of(order, end) }
}

pub(crate) fn order(decisions: &[Decision]) -> Option<&Order> {
    decisions.iter().find_map(|decision| match &decision.verdict {
        Verdict::Move(order) => Some(&**order),
        Verdict::Stay | Verdict::HoldBack(_) => None,
    })
}

/// A small generator with a fixed sequence (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// From 0 up to, but not including, 1.
    pub(crate) fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
