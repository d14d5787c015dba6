//! A policy plays a trace: what does it pay, and what would a clairvoyant?
//!
//! Our policy plays as it runs: each tick goes through the task table as the
//! sampler would have filled it, and each decision is carried out at once. With
//! the guards off, the figures are those of the core. At the start of a tick it
//! may move, knowing only the ticks before it, pays for the move, and then pays
//! what the tick loses where the memory is.

use crate::config::{Config, Forecasting};
use crate::contest::world::arrived;
use crate::model::{
    DomainObs, Est, ExtentObs, Input, Mempolicy, Nanos, Node, NodeId, NodeObs, NodeVec, Order,
    Pages, PidRef, Reason, Source, Tick, Verdict,
};
use crate::plain::{Plain, Player};
use crate::policy;
use crate::policy::cost::Costs;
use crate::policy::lanes::walls;
use crate::simulation::traces::{BAD, HOME, TICK};
use crate::table::{Table, absorb};
use smallvec::smallvec;

/// 512 MiB.
const PAGES: Pages = 131_072;
/// Half of the time waits for memory that is twice as slow, which makes the 30 % of [`BAD`].
const BOUNDNESS: f32 = 3.0 / 7.0;
const DT: Nanos = 100_000_000;

/// What a tick loses by node, in seconds. An adversary looks where the memory is.
pub trait World {
    fn loss(&mut self, tick: usize, at: usize) -> Vec<f64>;
}

impl<F: FnMut(usize, usize) -> Vec<f64>> World for F {
    fn loss(&mut self, tick: usize, at: usize) -> Vec<f64> {
        self(tick, at)
    }
}

/// One game's length, its prices, and what the policy is made to believe.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub nodes: usize,
    pub ticks: usize,
    /// Seconds that a move costs.
    pub price: f64,
    /// Penalties look so many times as large as they are.
    pub looks: f64,
}

/// Seconds paid, by us and by the clairvoyant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paid {
    pub ours: f64,
    pub optimum: f64,
}

/// Anything that plays.
pub trait Policy {
    /// Whose tasks these are; what is learned of a class is kept.
    fn play(&mut self, rules: Rules, class: &str, world: &mut dyn World) -> Paid;
}

impl Policy for Plain {
    fn play(&mut self, rules: Rules, _class: &str, world: &mut dyn World) -> Paid {
        let gamma = Config::default().policy.gamma;
        let open = walls((0..rules.nodes).map(|_| true));
        let (mut player, mut best) = (Player::new(*self), Player::new(Self::Clairvoyant));
        for tick in 0..rules.ticks {
            player.go(gamma);
            let loss = world.loss(tick, player.at().unwrap_or(HOME));
            let real = costs(rules.price, &loss, 1.0);
            let lost = player.loss(&real);
            player.see(&costs(rules.price, &loss, rules.looks), &open, TICK, lost);
            best.see(&real, &open, TICK, 0.0);
        }
        let optimum = best.spent().seconds;
        let ours = if *self == Self::Clairvoyant { optimum } else { player.spent().seconds };
        Paid { ours, optimum }
    }
}

/// Seen with the memory where it was at first.
fn costs(price: f64, loss: &[f64], looks: f64) -> Costs {
    let nodes = loss.len();
    let alone = |there: f64, elsewhere: f64| {
        let on = |node| if node == HOME { there } else { elsewhere };
        (0..nodes).map(on).collect::<Vec<f64>>().into()
    };
    Costs {
        loss: loss.iter().map(|loss| loss * looks).collect::<Vec<f64>>().into(),
        loss_as_placed: loss[HOME] * looks,
        price: alone(0.0, price),
        whole_price: price,
        pages: alone(PAGES as f64, 0.0),
        total: PAGES as f64,
        ..Costs::default()
    }
}

/// Our policy, with all that it has learned.
#[derive(Debug)]
pub struct Migrate {
    table: Table,
    config: Config,
    now: Nanos,
    pid: u32,
}

impl Migrate {
    /// The core alone: nothing holds its moves back.
    pub fn unguarded(forecast: Forecasting) -> Self {
        let mut core = Self::guarded(forecast);
        core.config.guards_off = Reason::ALL.map(|reason| reason.name().to_owned()).to_vec();
        core
    }

    /// As it runs. The first tick of a task is the first of its life.
    pub fn guarded(forecast: Forecasting) -> Self {
        let mut config = Config::default();
        config.policy.forecast = forecast;
        config.policy.price_per_move = 0.0;
        config.policy.hold_back = 0.0;
        Self { table: Table::default(), config, now: 0, pid: 0 }
    }

    /// Decides about a tick.
    fn tick(
        &mut self,
        domains: Vec<DomainObs>,
        gone: Vec<PidRef>,
        nodes: NodeVec<NodeObs>,
    ) -> Option<Order> {
        self.now += DT;
        let tick = Tick { now: self.now, dt: DT, busy: 0.5, nodes, domains, gone };
        let mut decisions = policy::decide(&mut self.table, &self.config, &tick).into_iter();
        decisions.find_map(|decision| match decision.verdict {
            Verdict::Move(order) => Some(*order),
            Verdict::Stay | Verdict::HoldBack(_) => None,
        })
    }

    /// Where the memory is then.
    fn carry_out(&mut self, order: Order) -> Node {
        absorb(&mut self.table, &self.config, &Input::Ordered(order.clone()));
        absorb(&mut self.table, &self.config, &Input::Progress(arrived(&order)));
        order.to
    }
}

impl Policy for Migrate {
    fn play(&mut self, rules: Rules, class: &str, world: &mut dyn World) -> Paid {
        self.pid += 1;
        self.now += DT;
        let id = PidRef { pid: self.pid, start: self.now / 10_000_000 };
        #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough")]
        let price = (rules.price / PAGES as f64) as f32;
        self.config.policy.price_per_page = Est::exact(price, Source::Prior);
        let mut best = Player::new(Plain::Clairvoyant);
        let open = walls((0..rules.nodes).map(|_| true));
        let (mut ours, mut at, mut due) = (0.0, HOME, None);
        for tick in 0..rules.ticks {
            if let Some(order) = due {
                (ours, at) = (ours + rules.price, usize::from(self.carry_out(order).0));
            }
            let loss = world.loss(tick, at);
            ours += loss[at];
            best.see(&costs(rules.price, &loss, 1.0), &open, TICK, 0.0);
            let runs_on = runs_on(&loss);
            let domain = domain(id, class, runs_on, at, &loss, rules.looks);
            due = self.tick(vec![domain], vec![], nodes(runs_on, &loss));
        }
        self.tick(vec![], vec![id], nodes(0, &vec![0.0; rules.nodes]));
        Paid { ours, optimum: best.spent().seconds }
    }
}

/// The first of the nodes that lose least.
fn runs_on(loss: &[f64]) -> usize {
    (0..loss.len()).min_by(|&a, &b| loss[a].total_cmp(&loss[b])).unwrap_or(HOME)
}

/// The CPU time by which our model sees just this loss.
fn domain(
    id: PidRef,
    class: &str,
    runs_on: usize,
    at: usize,
    loss: &[f64],
    looks: f64,
) -> DomainObs {
    let bound = f64::from(BOUNDNESS);
    let cpu = looks * (BAD / bound + loss[at]);
    let count = loss.len();
    let on = |node: Node, there: usize| usize::from(node.0) == there;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below a second")]
    let nanos = (cpu * 1e9).round() as Nanos;
    let pages = NodeVec::from_fn(count, |n| {
        Est::exact(if on(n, at) { PAGES as f32 } else { 0.0 }, Source::Pagemap)
    });
    DomainObs {
        comm: "simulated".to_owned(),
        cgroup: format!("/{class}").into(),
        cpu: NodeVec::from_fn(count, |n| if on(n, runs_on) { nanos } else { 0 }),
        boundness: Est::exact(BOUNDNESS, Source::Prior),
        extents: smallvec![ExtentObs {
            pages,
            resident: PAGES,
            mempolicy: Mempolicy::Default,
            ..ExtentObs::unknown(id, count)
        }],
        ..DomainObs::idle(id, count)
    }
}

/// Nodes of 64 GiB; memory that loses is slower from where the task runs.
fn nodes(runs_on: usize, loss: &[f64]) -> NodeVec<NodeObs> {
    let count = loss.len();
    #[expect(clippy::cast_possible_truncation, reason = "1 or 2")]
    let latency = |from: Node, to: Node| {
        let lost = if usize::from(from.0) == runs_on { loss[usize::from(to.0)] } else { 0.0 };
        Est::exact(1.0 + (lost / BAD) as f32, Source::Prior)
    };
    NodeVec::from_fn(count, |from| NodeObs {
        id: NodeId(from.0),
        has_cpus: true,
        has_memory: true,
        free: 1 << 24,
        high_watermark: 1_000,
        inactive_file: 0,
        reclaimed: 0,
        latency: NodeVec::from_fn(count, |to| latency(from, to)),
    })
}

#[cfg(test)]
mod tests {
    use super::{Migrate, Policy, Rules};
    use crate::config::Forecasting;
    use crate::simulation::traces::{BAD, LAWS, Law, PRICES, TICKS, traces};

    /// What they guard against is not in these traces, so all that they do is in the way.
    #[test]
    fn all_guards_together_cost_at_most_a_tenth_where_there_is_nothing_to_guard_against() {
        for law in [Law::Stay, Law::Period(300)] {
            for nodes in [2, 4] {
                let core = paid(&mut Migrate::unguarded(Forecasting::Learned), law, nodes);
                let guarded = paid(&mut Migrate::guarded(Forecasting::Learned), law, nodes);
                println!("{law:?}, {nodes} nodes: {core:.1} s, with guards {guarded:.1} s");
                assert!(guarded <= 1.1 * core);
                assert_ne!(guarded, core, "no guard was in play");
            }
        }
    }

    /// Seconds over all traces of this law.
    fn paid(policy: &mut Migrate, law: Law, nodes: usize) -> f64 {
        let mut total = 0.0;
        for trace in traces(1, nodes).iter().filter(|trace| LAWS[trace.law] == law) {
            let price = PRICES[trace.price];
            let rules = Rules { nodes, ticks: TICKS, price, looks: 1.0 };
            let loss = |tick: usize| {
                (0..nodes).map(|node| if node == trace.runs_on[tick] { 0.0 } else { BAD }).collect()
            };
            total += policy.play(rules, &law.name(), &mut |tick: usize, _: usize| loss(tick)).ours;
        }
        total
    }
}
