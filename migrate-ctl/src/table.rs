//! The task table: everything that the policy remembers between ticks.
//!
//! Owns the rows, the byte budget and the checks of past moves. Changes only
//! by [`absorb`], or by [`policy::decide`](crate::policy::decide) where a tick is also decided
//! about; decides nothing. No clock: time comes with the inputs.

mod check;
pub(crate) mod case;
mod prefetch;
mod tick;
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
    Class, DomainObs, End, Est, ExtentId, Input, Mempolicy, Nanos, Node, NodeObs, NodeVec, Order,
    Outcome, PidRef,
};
use crate::policy::Ask;
use crate::policy::cost::{Distances, price_of};
use crate::policy::home::Home;
use crate::policy::pace::Pace;
use crate::policy::pace::stretch::Level;
use crate::policy::prices::Prices;
use crate::policy::rates::Rates;
use crate::policy::residences::Foretold;
use crate::policy::work::Work;
use check::Check;
use classes::{ClassId, Classes};
use feedback::Feedback;
use signs::{Reclaim, Signs};
use trial::{Score, Trial};

/// Cool-downs double at most so often.
const DOUBLINGS: u32 = 16;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Table {
    pub(crate) rows: BTreeMap<ExtentId, Row>,
    /// Moves that are due or near, as of the last tick.
    #[serde(skip)]
    pub(crate) asks: Vec<Ask>,
    /// The orders that the mover has, and the remote share when each was given.
    moving: BTreeMap<ExtentId, (Order, f64)>,
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
    round: u64,
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
    mempolicy: Option<(Nanos, Mempolicy)>,
    /// When it last ran.
    seen: Nanos,
    /// Share of the CPU time × placement that crossed nodes then, 0 to 1; 0 while that is unknown.
    remote: f64,
    /// Share of its pages in huge ones, 0 to 1.
    huge: f64,
    pub(crate) work: Work,
    pub(crate) rates: Rates,
    /// Where the task is, and since when.
    pub(crate) home: Home,
    pub(crate) signs: Signs,
    /// How long the forecast waits from the beginning of a residence on, in seconds.
    pub(crate) wait: f64,
    foretold: Foretold,
    /// Lost so far by staying and by our moves, in seconds, as modelled.
    pub(crate) paid: f64,
    class: ClassId,
    check: Option<Box<Check>>,
    /// How much CPU time a call of it takes, once it has called.
    pace: Option<Box<Pace>>,
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
        Input::Tick(tick) => table.tick(config, tick, |_, _| {}),
        Input::Ordered(order) => table.ordered(order),
        Input::HeldBack(order) => table.held_back(config, order),
        Input::Progress(outcome) => table.progress(config, outcome),
    }
}

impl Table {
    /// Processes whose memory policy the next tick should bring.
    pub fn wants_mempolicy(&self, config: &Config) -> Vec<PidRef> {
        let budget = Budget::of(self, config);
        // A move that something else stands against is not worth a walk.
        let wants = |ask: &Ask| {
            ask.wants_mempolicy && !self.is_moving(&ask.id) && budget.against(ask, config).is_none()
        };
        let asks = self.asks.iter().filter(|ask| wants(ask));
        let mut pids: Vec<PidRef> = asks.map(|ask| ask.id.domain).collect();
        pids.dedup();
        pids
    }

    /// Processes whose pages are being moved.
    pub fn moving(&self) -> Vec<PidRef> {
        self.moving.keys().map(|id| id.domain).collect()
    }

    /// The memory-bound share of a process, as well as it is known.
    pub(crate) fn boundness(&self, domain: &DomainObs) -> Est {
        let extent = ExtentId { domain: domain.id, class: Class::PrivateAnonymous };
        let shown = self.rows.get(&extent).and_then(|row| row.pace.as_ref()?.boundness());
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

    pub(crate) fn tokens(&self) -> f64 {
        self.tokens.unwrap_or(0.0)
    }

    fn ordered(&mut self, order: &Order) {
        self.tokens = self.tokens.map(|left| (left - order.at_most as f64).max(0.0));
        for (id, row) in self.rows.range_mut(extents(order.target)) {
            self.moving.insert(*id, (order.clone(), row.remote));
            row.trial = Some(Box::new(Trial::of(order, row.remote, row.pace())));
            row.waited = 0;
        }
    }

    /// It stays for one horizon, as if it had been moved.
    fn held_back(&mut self, config: &Config, order: &Order) {
        let ends = self.now.saturating_add(horizon(config));
        for (_, row) in self.rows.range_mut(extents(order.target)) {
            let mut trial = Trial::of(order, row.remote, row.pace());
            trial.held_back = true;
            trial.watch(ends);
            row.trial = Some(Box::new(trial));
            row.compared = Some(row.home.since);
            row.restart_pace();
        }
    }

    fn progress(&mut self, config: &Config, outcome: &Outcome) {
        for (id, row) in self.rows.range_mut(extents(outcome.target)) {
            let ours = self.moving.get(id).is_some_and(|(order, _)| order.seq == outcome.seq);
            let Some((_, before)) = ours.then(|| self.moving.remove(id)).flatten() else {
                continue;
            };
            let price = price_of(outcome, row.huge, (&self.prices, &config.policy));
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
                    row.check = Some(Box::new(Check::begin(outcome.seq, before, self.round)));
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
    /// one more move of everything at this price.
    pub(crate) fn on_credit(&self, price: f64, config: &Config) -> bool {
        let PolicyConfig { credit_rate, credit_moves, forecast, .. } = config.policy;
        forecast != Forecasting::Off
            && self.home.node().is_some()
            && self.paid + price <= credit_rate * self.work.optimum() + credit_moves * price
    }

    /// Whether its last move helped is not seen yet.
    pub(crate) fn checking(&self) -> bool {
        self.check.is_some()
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

    pub(crate) fn mempolicy_age(&self, now: Nanos) -> Option<f64> {
        self.mempolicy.map(|(read, _)| secs(now.saturating_sub(read)))
    }

    /// What a call of it takes in this stretch, if it can be told.
    fn pace(&self) -> Option<Level> {
        self.pace.as_ref()?.level()
    }

    fn restart_pace(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.restart();
        }
    }

    fn check(&mut self, round: u64) -> Option<Checked> {
        let checked = self.check.as_mut()?.step(self.remote, round)?;
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

    pub(crate) fn is_moving(&self, id: &ExtentId) -> bool {
        self.moving.contains_key(id)
    }

    /// Orders under way.
    pub(crate) fn orders(&self) -> impl Iterator<Item = &Order> {
        self.moving.values().map(|(order, _)| order)
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
