//! The task table: all state of the decision. [`absorb`] is the only way in.
//!
//! Pure: folding the same inputs gives the same table.

use std::collections::BTreeMap;

use crate::config::{Config, PolicyConfig};
use crate::model::{
    DomainObs, End, ExtentId, ExtentObs, Input, Nanos, NodeObs, NodeVec, Order, Outcome, Pages,
    PidRef, Tick, each_node,
};
use crate::policy::{self, Work, known};

/// Half the sum of differences of two share vectors from which on they are different places.
const PLACEMENT_CHANGED: f64 = 0.05;
/// The same for where a process runs: it was moved, it did not just jitter.
const CPUS_CHANGED: f64 = 0.25;
/// Rates are means over so many seconds, or since the last change.
const RATE_SECONDS: f64 = 8.0;
/// Ticks with CPU time after which a move is judged.
const CHECK_TICKS: u32 = 3;
/// The longest cool-down: a day.
const LONGEST_COOL_DOWN: f64 = 86_400.0;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    rows: BTreeMap<ExtentId, Row>,
    nodes: NodeVec<NodeObs>,
    now: Nanos,
    dt: Nanos,
    tick: u64,
    /// Decisions of all earlier ticks.
    seq: u64,
    /// Pages that may be moved now; none before the first tick.
    tokens: Option<f64>,
    scores: Vec<Score>,
}

/// One extent.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub(crate) obs: ExtentObs,
    pub(crate) comm: String,
    pub(crate) cgroup: String,
    /// Share of the pages by node; empty while nothing is known.
    pub(crate) shares: NodeVec<f64>,
    pub(crate) work: Work,
    /// Seconds to move all that is not on the node there.
    pub(crate) price: NodeVec<f64>,
    /// Seconds lost per second with all memory on the node, and as placed.
    pub(crate) rates: NodeVec<f64>,
    pub(crate) rate_placed: f64,
    /// Of the last tick, 0 to 1.
    pub(crate) remote_share: f64,
    /// Seconds lost since the placement last changed, against the best node of each tick.
    pub(crate) lost: f64,
    pub(crate) moving: bool,
    pub(crate) cool_until: Nanos,
    /// Share of CPU time by node in the present regime.
    cpu_shares: NodeVec<f64>,
    /// Seconds of the present regime.
    regime: f64,
    penalties: NodeVec<f64>,
    cool_down: f64,
    check: Option<Check>,
    seen: u64,
}

/// A move that waits for its verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Check {
    seq: u64,
    before: f64,
    after: f64,
    ticks: u32,
}

/// What a move did to the remote share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    pub seq: u64,
    pub before: f64,
    pub after: f64,
    /// At most half of the remote share is left.
    pub helped: bool,
}

/// Takes in what was seen, ordered or done.
pub fn absorb(table: &mut Table, config: &Config, input: &Input) {
    match input {
        Input::Tick(tick) => table.absorb_tick(config, tick),
        Input::Ordered(order) => table.absorb_order(order),
        Input::Progress(outcome) => table.absorb_outcome(&config.policy, outcome),
    }
}

impl Table {
    pub(crate) fn nodes(&self) -> &NodeVec<NodeObs> {
        &self.nodes
    }

    pub(crate) fn now(&self) -> Nanos {
        self.now
    }

    pub(crate) fn dt_seconds(&self) -> f64 {
        self.dt as f64 * 1e-9
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.seq
    }

    /// Pages that may be moved now.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "never negative; a float too large for u64 saturates"
    )]
    pub(crate) fn tokens(&self) -> Pages {
        self.tokens.unwrap_or(0.0) as Pages
    }

    /// Rows of the extents that used CPU time in the last tick.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Row> {
        self.rows.values().filter(|row| row.seen == self.tick)
    }

    /// Processes whose mempolicy the next tick must know.
    pub fn wants_mempolicy(&self, config: &Config) -> Vec<PidRef> {
        self.active()
            .filter(|row| policy::wants_mempolicy(row, self, config))
            .map(|row| row.obs.id.domain)
            .collect()
    }

    /// Judged moves since the last call.
    pub fn take_scores(&mut self) -> Vec<Score> {
        std::mem::take(&mut self.scores)
    }

    fn absorb_tick(&mut self, config: &Config, tick: &Tick) {
        self.seq = self.seq.saturating_add(self.active().count() as u64);
        if tick.nodes.len() != self.nodes.len() {
            // Positions mean other nodes now.
            self.rows.clear();
        }
        self.nodes.clone_from(&tick.nodes);
        self.now = tick.now;
        self.dt = tick.dt;
        self.tick += 1;
        let burst = config.policy.burst as f64;
        let refill = config.policy.pages_per_second as f64 * self.dt_seconds();
        self.tokens = Some(self.tokens.map_or(burst, |tokens| (tokens + refill).min(burst)));
        for gone in &tick.gone {
            self.rows.retain(|id, _| id.domain != *gone);
        }
        for domain in &tick.domains {
            for extent in &domain.extents {
                let row = self
                    .rows
                    .entry(extent.id)
                    .or_insert_with(|| Row::new(domain, extent, tick.nodes.len()));
                row.seen = self.tick;
                row.absorb(domain, extent, tick, &config.policy);
                self.scores.extend(row.judge(tick.now, &config.policy));
            }
        }
    }

    fn absorb_order(&mut self, order: &Order) {
        self.tokens = self.tokens.map(|tokens| (tokens - order.pages as f64).max(0.0));
        for row in self.rows.values_mut().filter(|row| row.obs.id.domain == order.target) {
            row.moving = true;
        }
    }

    fn absorb_outcome(&mut self, config: &PolicyConfig, outcome: &Outcome) {
        let now = self.now;
        for row in self.rows.values_mut().filter(|row| row.obs.id.domain == outcome.target) {
            row.moving = false;
            let most = outcome.moved().saturating_mul(2) >= outcome.asked;
            if outcome.end == End::Done && most {
                let before = row.remote_share;
                row.check = Some(Check { seq: outcome.seq, before, after: 0.0, ticks: 0 });
            } else {
                row.cool(now, config);
            }
        }
    }
}

impl Row {
    /// Its last move has not been judged yet.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.check.is_some()
    }

    fn new(domain: &DomainObs, extent: &ExtentObs, nodes: usize) -> Self {
        Self {
            obs: extent.clone(),
            comm: domain.comm.clone(),
            cgroup: domain.cgroup.clone(),
            shares: NodeVec::default(),
            work: Work::default(),
            price: NodeVec::filled(nodes, 0.0),
            rates: NodeVec::filled(nodes, 0.0),
            rate_placed: 0.0,
            remote_share: 0.0,
            lost: 0.0,
            moving: false,
            cool_until: 0,
            cpu_shares: NodeVec::filled(nodes, 0.0),
            regime: 0.0,
            penalties: NodeVec::filled(nodes, 0.0),
            cool_down: 0.0,
            check: None,
            seen: 0,
        }
    }

    fn absorb(
        &mut self,
        domain: &DomainObs,
        extent: &ExtentObs,
        tick: &Tick,
        config: &PolicyConfig,
    ) {
        self.obs.clone_from(extent);
        self.comm.clone_from(&domain.comm);
        self.cgroup.clone_from(&domain.cgroup);
        let total: f64 = extent.pages.values().map(|pages| known(pages.mid)).sum();
        if extent.pages.len() != tick.nodes.len() || total <= 0.0 {
            self.shares = NodeVec::default();
            return;
        }
        self.absorb_placement(extent, total, config);
        self.absorb_cpu(domain, tick);
        let placed = policy::penalties(
            &domain.cpu,
            &self.shares,
            &tick.nodes,
            domain.boundness,
            &mut self.penalties,
        );
        let full = policy::full_price(&extent.pages, config);
        self.work.step(&self.penalties, placed, &self.price, full);
        let best = policy::destinations(&tick.nodes)
            .map(|node| self.penalties[node])
            .fold(f64::INFINITY, f64::min);
        self.lost += (placed - best).max(0.0);
        self.absorb_rates(placed, tick.dt as f64 * 1e-9);
    }

    fn absorb_placement(&mut self, extent: &ExtentObs, total: f64, config: &PolicyConfig) {
        let share = |node| known(extent.pages[node].mid) / total;
        let first = self.shares.is_empty();
        let shares = NodeVec::from_fn(extent.pages.len(), share);
        let changed = !first && apart(&shares, &self.shares) > PLACEMENT_CHANGED;
        for node in each_node(self.price.len()) {
            self.price[node] = policy::price(&extent.pages, node, config);
        }
        if first {
            self.work = Work::start(&self.price);
            self.shares = shares;
        } else if changed {
            self.work.relocate(&self.price);
            self.shares = shares;
            self.lost = 0.0;
            self.regime = 0.0;
        }
    }

    fn absorb_cpu(&mut self, domain: &DomainObs, tick: &Tick) {
        let used = domain.cpu.values().fold(0.0, |sum, &nanos| sum + nanos as f64);
        if used <= 0.0 {
            return;
        }
        let now = NodeVec::from_fn(tick.nodes.len(), |node| {
            domain.cpu.get(node).map_or(0.0, |&nanos| nanos as f64 / used)
        });
        let local: f64 = now.iter().map(|(node, cpu)| cpu * self.shares[node]).sum();
        self.remote_share = (1.0 - local).clamp(0.0, 1.0);
        if apart(&now, &self.cpu_shares) > CPUS_CHANGED {
            self.regime = 0.0;
            self.cpu_shares = now;
        }
    }

    /// Means over the present regime, then over the last seconds of it.
    fn absorb_rates(&mut self, placed: f64, dt: f64) {
        if dt <= 0.0 {
            return;
        }
        self.regime = (self.regime + dt).min(RATE_SECONDS.max(dt));
        let weight = dt / self.regime;
        let blend = |rate: &mut f64, penalty: f64| *rate += weight * (penalty / dt - *rate);
        blend(&mut self.rate_placed, placed);
        for (rate, &penalty) in self.rates.values_mut().zip(self.penalties.values()) {
            blend(rate, penalty);
        }
    }

    /// After some ticks with CPU time: did the move help?
    fn judge(&mut self, now: Nanos, config: &PolicyConfig) -> Option<Score> {
        let check = self.check.as_mut()?;
        check.ticks += 1;
        check.after += self.remote_share / f64::from(CHECK_TICKS);
        if check.ticks < CHECK_TICKS {
            return None;
        }
        let Check { seq, before, after, .. } = *check;
        self.check = None;
        let helped = after <= before / 2.0;
        if helped {
            self.cool_down = 0.0;
        } else {
            self.cool(now, config);
        }
        Some(Score { seq, before, after, helped })
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and a day"
    )]
    fn cool(&mut self, now: Nanos, config: &PolicyConfig) {
        let first = config.cool_down_seconds.clamp(0.0, LONGEST_COOL_DOWN);
        self.cool_down = (self.cool_down * 2.0).clamp(first, LONGEST_COOL_DOWN);
        self.cool_until = now.saturating_add((self.cool_down * 1e9) as Nanos);
    }
}

/// Half the sum of differences: 0 for the same shares, 1 for disjoint ones.
fn apart(a: &NodeVec<f64>, b: &NodeVec<f64>) -> f64 {
    a.values().zip(b.values()).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
}
