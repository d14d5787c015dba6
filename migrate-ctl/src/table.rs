//! The task table: everything that the policy remembers between ticks.
//!
//! Owns the rows, the byte budget and the checks of past moves. Changes only
//! by [`absorb`]; decides nothing. No clock: time comes with the inputs.

mod check;
pub mod feedback;
pub mod learned;
pub mod trial;
pub(crate) mod classes;
pub(crate) mod signs;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Forecasting, PolicyConfig};
use crate::guards::how_much::Budget;
use crate::model::{
    Class, DomainObs, End, Est, ExtentId, ExtentObs, Input, Mempolicy, Nanos, Node, NodeMask,
    NodeObs, NodeVec, Order, Outcome, Pages, PidRef, Source, Tick,
};
use crate::policy;
use crate::policy::cost::{Costs, Distances};
use crate::policy::home::Home;
use crate::policy::lanes::{Lanes, wall};
use crate::policy::pace::Pace;
use crate::policy::prices::{self, Prices};
use crate::policy::rates::Rates;
use crate::policy::residences::Residences;
use crate::policy::work::Work;
use check::Check;
use classes::{ClassId, Classes};
use feedback::Feedback;
use signs::{Reclaim, Signs};
use trial::{Score, Trial};

/// A move this near, in seconds, is worth walking the page table for the memory policy.
const MEMPOLICY_NEAR: f64 = 5.0;
/// Cool-downs double at most so often.
const DOUBLINGS: u32 = 16;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Table {
    pub(crate) rows: BTreeMap<ExtentId, Row>,
    /// As seen in the last tick.
    pub(crate) nodes: NodeVec<NodeObs>,
    /// Between those nodes; made anew in each tick.
    #[serde(skip)]
    distances: Distances,
    pub(crate) reclaim: Reclaim,
    pub(crate) now: Nanos,
    dt: Nanos,
    /// Pages that may still be moved now; none before the first tick.
    tokens: Option<f64>,
    /// Number of the first decision of this tick.
    pub(crate) seq: u64,
    /// Extents that ran in this tick: each has its decision.
    pub(crate) ran: u64,
    /// Counts ticks.
    pub(crate) round: u64,
    /// Share of the machine's CPU time that was used, 0 to 1.
    busy: f32,
    checked: Vec<Checked>,
    scores: Vec<Score>,
    pub(crate) prices: Prices,
    pub(crate) feedback: Feedback,
    /// What those that are gone have paid, and could have paid at least, in seconds, as modelled.
    past: Modelled,
    classes: Classes,
}

/// Seconds lost by all processes, as modelled: so far, and by a clairvoyant at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Modelled {
    pub paid: f64,
    pub optimum: f64,
}

/// What became of the remote share after a move.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// The order's.
    pub seq: u64,
    /// It fell by at least half.
    pub helped: bool,
    /// Remote share when the move was ordered, 0 to 1.
    pub before: f64,
    /// The same once it was done.
    pub after: f64,
}

/// One extent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) comm: String,
    pub(crate) cgroup: String,
    /// Nodes that the cpuset allows.
    pub(crate) allowed: NodeMask,
    /// The most that a move takes along besides.
    pub(crate) alongside: Pages,
    mempolicy: Option<(Nanos, Mempolicy)>,
    /// Where its memory-bound share comes from.
    pub(crate) boundness: Option<Source>,
    /// The last tick in which it ran.
    pub(crate) round: u64,
    seen: Nanos,
    /// Whether this tick's placement is known.
    pub(crate) placed: bool,
    pub(crate) costs: Costs,
    pub(crate) work: Work,
    pub(crate) rates: Rates,
    /// Where the task is, and since when.
    pub(crate) home: Home,
    pub(crate) signs: Signs,
    /// How long the forecast waits from the beginning of a residence on, in seconds.
    pub(crate) wait: f64,
    /// Lost so far by staying and by our moves, in seconds, as modelled.
    pub(crate) paid: f64,
    class: ClassId,
    /// The order that the mover has, and the remote share when it was given.
    pub(crate) moving: Option<Box<(Order, f64)>>,
    check: Option<Check>,
    /// How much CPU time a call of it takes.
    pace: Pace,
    /// A move that is watched, or one that is held back.
    trial: Option<Box<Trial>>,
    /// What its threads have waited since the order, and the move that it was for, once that is
    /// over.
    waited: Nanos,
    over: Option<Box<Outcome>>,
    /// A move to there has made it slower.
    pub(crate) hurt_by: Option<Node>,
    /// The residence for which it was held back: once is enough.
    compared: Option<Nanos>,
    /// Failed or unhelpful moves in a row.
    failures: u32,
    cool_until: Nanos,
}

/// Takes in one fact.
pub fn absorb(table: &mut Table, config: &Config, input: &Input) {
    match input {
        Input::Tick(tick) => table.tick(config, tick),
        Input::Ordered(order) => table.ordered(order),
        Input::HeldBack(order) => table.held_back(config, order),
        Input::Progress(outcome) => table.progress(config, outcome),
    }
}

impl Table {
    /// Processes whose memory policy the next tick should bring.
    pub fn wants_mempolicy(&self, config: &Config) -> Vec<PidRef> {
        let budget = Budget::of(self, config);
        let wants = |(id, row): (&ExtentId, &Row)| {
            let near = policy::move_in(self, row, config)
                .is_some_and(|t| t <= MEMPOLICY_NEAR + 2.0 * secs(self.dt));
            let fresh = config.policy.mempolicy_fresh_seconds;
            let stale =
                row.mempolicy_age(self.now).is_none_or(|age| age + 2.0 * secs(self.dt) > fresh);
            let active = row.round == self.round;
            // A move that something else stands against is not worth a walk.
            let matters = || policy::lacks_mempolicy(*id, row, self, config, &budget);
            (active && near && stale && matters()).then_some(id.domain)
        };
        let mut pids: Vec<PidRef> = self.rows.iter().filter_map(wants).collect();
        pids.dedup();
        pids
    }

    /// Processes whose pages are being moved.
    pub fn moving(&self) -> Vec<PidRef> {
        let moving = |(id, row): (&ExtentId, &Row)| row.moving.is_some().then_some(id.domain);
        self.rows.iter().filter_map(moving).collect()
    }

    /// The memory-bound share of a process, as well as it is known.
    pub(crate) fn boundness(&self, domain: &DomainObs) -> Est {
        let extent = ExtentId { domain: domain.id, class: Class::PrivateAnonymous };
        let shown = self.rows.get(&extent).and_then(|row| row.pace.boundness());
        shown.unwrap_or(domain.boundness)
    }

    /// What the checks have found in the last tick.
    pub fn take_checked(&mut self) -> Vec<Checked> {
        std::mem::take(&mut self.checked)
    }

    /// The trials that have ended in the last tick.
    pub fn take_scores(&mut self) -> Vec<Score> {
        std::mem::take(&mut self.scores)
    }

    /// Sums over all processes, those that are gone too.
    fn modelled(&self) -> Modelled {
        self.rows.values().fold(self.past, |sum, row| Modelled {
            paid: sum.paid + row.paid,
            optimum: sum.optimum + row.work.optimum(),
        })
    }

    /// Extents that ran in this tick, in a fixed order.
    pub(crate) fn active(&self) -> impl Iterator<Item = (&ExtentId, &Row)> {
        self.rows.iter().filter(|(_, row)| row.round == self.round)
    }

    pub(crate) fn tokens(&self) -> f64 {
        self.tokens.unwrap_or(0.0)
    }

    fn tick(&mut self, config: &Config, tick: &Tick) {
        self.seq = self.seq.saturating_add(std::mem::take(&mut self.ran));
        self.round += 1;
        self.checked.clear();
        self.scores.clear();
        if self.nodes.len() != tick.nodes.len() {
            self.rows.clear();
        }
        self.nodes.clone_from(&tick.nodes);
        self.distances = Distances::of(&tick.nodes);
        self.now = tick.now;
        self.dt = tick.dt;
        self.busy = tick.busy;
        self.prices.tick(tick.nodes.len(), &config.policy);
        self.reclaim.step(&tick.nodes, tick.now);
        let burst = config.policy.burst as f64;
        let grown = secs(tick.dt) * config.policy.pages_per_second as f64;
        self.tokens = Some(self.tokens.map_or(burst, |left| (left + grown).min(burst)));
        self.classes.learn();
        self.forget(&tick.gone);
        let mut walls = Lanes::default();
        for domain in &tick.domains {
            for extent in &domain.extents {
                self.observe(config, domain, extent, &mut walls);
            }
        }
    }

    /// `walls` is room for those of this extent.
    fn observe(
        &mut self,
        config: &Config,
        domain: &DomainObs,
        extent: &ExtentObs,
        walls: &mut Lanes,
    ) {
        let now = self.now;
        let row = self
            .rows
            .entry(extent.id)
            .or_insert_with(|| Row { seen: now.saturating_sub(self.dt), ..Row::default() });
        // Idle ticks bring no observation, but their time has passed.
        let seconds = secs(now.saturating_sub(row.seen).max(self.dt));
        row.seen = now;
        self.ran += u64::from(row.round != self.round);
        row.round = self.round;
        row.comm.clone_from(&domain.comm);
        if row.cgroup != domain.cgroup || row.class == ClassId::default() {
            row.class = self.classes.join(row.class, &domain.cgroup);
            row.cgroup.clone_from(&domain.cgroup);
        }
        if row.allowed != extent.allowed {
            row.allowed.clone_from(&extent.allowed);
        }
        row.alongside = extent.alongside;
        row.signs.step(domain, extent, now, seconds);
        if extent.mempolicy != Mempolicy::Unknown {
            row.mempolicy = Some((now, extent.mempolicy));
        }
        row.waited = row.waited.saturating_add(domain.waited);
        if let Some(outcome) = row.over.take() {
            let cost = prices::cost(row.waited, outcome.caller, self.busy, &config.policy);
            self.prices.learn(&outcome, cost);
            row.watch(&outcome, cost, now.saturating_add(horizon(config)));
        }
        let boundness = row.pace.boundness().unwrap_or(domain.boundness);
        row.boundness = Some(boundness.source);
        let pricing = (&self.prices, &config.policy);
        row.placed = row.costs.measure(domain, extent, boundness, &self.distances, pricing);
        if !row.placed {
            return;
        }
        let open = |(n, node)| wall(policy::is_open(row, n, node, config));
        walls.set(self.nodes.len(), self.nodes.iter().map(open));
        row.work.step(&row.costs, walls, row.moving.is_some());
        row.rates.step(&row.costs, seconds);
        row.paid += row.costs.loss_as_placed;
        let class = self.classes.get(row.class);
        if let Some(stayed) = row.home.step(&row.costs, walls, now, self.dt) {
            class.stayed(stayed, true);
            row.pace.restart();
            // It has gone elsewhere: nobody can tell what the move has brought.
            row.trial = None;
        }
        let place = (row.costs.slowness, row.costs.remote_share());
        row.pace.step(seconds, (secs(domain.calls_cpu), domain.calls), place);
        row.wait = row.forecast(config, extent.id.domain, class);
        if let Some(checked) = row.check(self.round) {
            row.settle(config, now, checked.helped);
            self.checked.push(checked);
        }
        if let Some(score) = row.score(now) {
            self.feedback.record(&score);
            self.scores.push(score);
        }
    }

    /// Processes that have exited: their last residence has no end, but their life has.
    fn forget(&mut self, gone: &[PidRef]) {
        for id in gone {
            let class = |class| ExtentId { domain: *id, class };
            for extent in Class::ALL.map(class) {
                let Some(row) = self.rows.remove(&extent) else { continue };
                self.past.paid += row.paid;
                self.past.optimum += row.work.optimum();
                let class = self.classes.leave(row.class);
                class.lived(secs(self.now.saturating_sub(started(*id))));
                if row.home.node().is_some() {
                    class.stayed(row.home.age(row.seen), false);
                }
            }
        }
    }

    fn ordered(&mut self, order: &Order) {
        self.tokens = self.tokens.map(|left| (left - order.at_most as f64).max(0.0));
        for (_, row) in self.rows.range_mut(extents(order.target)) {
            let remote = row.costs.remote_share();
            row.moving = Some(Box::new((order.clone(), remote)));
            row.trial = Some(Box::new(Trial::of(order, remote, row.pace.level())));
            row.waited = 0;
        }
    }

    /// It stays for one horizon, as if it had been moved.
    fn held_back(&mut self, config: &Config, order: &Order) {
        let ends = self.now.saturating_add(horizon(config));
        for (_, row) in self.rows.range_mut(extents(order.target)) {
            let mut trial = Trial::of(order, row.costs.remote_share(), row.pace.level());
            trial.held_back = true;
            trial.watch(ends);
            row.trial = Some(Box::new(trial));
            row.compared = Some(row.home.since);
            row.pace.restart();
        }
    }

    fn progress(&mut self, config: &Config, outcome: &Outcome) {
        for (_, row) in self.rows.range_mut(extents(outcome.target)) {
            let ours = row.moving.take_if(|moving| moving.0.seq == outcome.seq);
            let Some((_, before)) = ours.map(|moving| *moving) else { continue };
            let price = row.costs.price_of(outcome, (&self.prices, &config.policy));
            if outcome.end == End::Done && outcome.moved() > 0 {
                row.over = Some(Box::new(outcome.clone()));
            } else {
                row.trial = None;
            }
            row.paid += price;
            row.work.moved(price);
            match outcome.end {
                // Half of what was asked is less than the estimate can err by.
                End::Done if outcome.moved() >= outcome.asked.div_ceil(2) => {
                    row.check = Some(Check::begin(outcome.seq, before, self.round));
                }
                End::Done | End::NotPermitted | End::Failed => row.settle(config, self.now, false),
                End::Vanished | End::Replaced | End::DiedDuring | End::Expired | End::Cancelled => {
                }
            }
        }
    }
}

impl Row {
    /// Whether the forecast may decide: what we have paid is within its credit, and would be with
    /// one more move.
    pub(crate) fn on_credit(&self, config: &Config) -> bool {
        let PolicyConfig { credit_rate, credit_moves, forecast, .. } = config.policy;
        let price = self.costs.whole_price;
        forecast != Forecasting::Off
            && self.home.node().is_some()
            && self.paid + price <= credit_rate * self.work.optimum() + credit_moves * price
    }

    fn forecast(&self, config: &Config, id: PidRef, class: &mut Residences) -> f64 {
        let Some(home) = self.home.node() else { return f64::INFINITY };
        let (gain, price) = (policy::gain(self, home), self.costs.price[usize::from(home.0)]);
        if gain <= 0.0 || price <= 0.0 {
            return f64::INFINITY;
        }
        match config.policy.forecast {
            Forecasting::Off => f64::INFINITY,
            Forecasting::Always(share) => share * price / gain,
            Forecasting::Learned => {
                let age = secs(self.home.since.saturating_sub(started(id)));
                class.wait(price / gain, self.allowed.len(), age)
            }
        }
    }

    /// A move of it is under way, or its effect is not seen yet.
    pub(crate) fn busy(&self) -> bool {
        self.moving.is_some() || self.check.is_some()
    }

    /// Seconds.
    pub(crate) fn cooling(&self, now: Nanos) -> f64 {
        secs(self.cool_until.saturating_sub(now))
    }

    /// The memory policy as last read. No policy is worth only so much time: one may be set
    /// at any moment. One that was set seldom goes away.
    pub(crate) fn mempolicy(&self, now: Nanos, fresh: f64) -> Mempolicy {
        match (self.mempolicy, self.mempolicy_age(now)) {
            (Some((_, Mempolicy::Explicit)), _) => Mempolicy::Explicit,
            (Some((_, known)), Some(age)) if age <= fresh => known,
            _ => Mempolicy::Unknown,
        }
    }

    fn mempolicy_age(&self, now: Nanos) -> Option<f64> {
        self.mempolicy.map(|(read, _)| secs(now.saturating_sub(read)))
    }

    fn check(&mut self, round: u64) -> Option<Checked> {
        let checked = self.check.as_mut()?.step(self.costs.remote_share(), round)?;
        self.check = None;
        Some(checked)
    }

    fn settle(&mut self, config: &Config, now: Nanos, helped: bool) {
        if helped {
            self.failures = 0;
            return;
        }
        let seconds =
            config.policy.cool_down_seconds * f64::from(1_u32 << self.failures.min(DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        self.cool_until = now.saturating_add(nanos(seconds));
    }
}

impl Table {
    /// Length of the last tick.
    pub(crate) fn dt(&self) -> Nanos {
        self.dt
    }

    /// Orders under way.
    pub(crate) fn orders(&self) -> impl Iterator<Item = &Order> {
        self.rows.values().filter_map(|row| row.moving.as_deref().map(|(order, _)| order))
    }
}

/// All that a process can have.
fn extents(domain: PidRef) -> RangeInclusive<ExtentId> {
    let [first, .., last] = Class::ALL.map(|class| ExtentId { domain, class });
    first..=last
}

/// How long an effect is watched.
fn horizon(config: &Config) -> Nanos {
    nanos(config.policy.horizon_seconds)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, and no number becomes 0"
)]
fn nanos(seconds: f64) -> Nanos {
    (seconds.max(0.0) * 1e9) as Nanos
}

/// When a process began. USER_HZ is 100 on every architecture but Alpha and ia64.
pub(crate) fn started(id: PidRef) -> Nanos {
    id.start.saturating_mul(10_000_000)
}

pub(crate) fn secs(span: Nanos) -> f64 {
    span as f64 / 1e9
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod trials;
