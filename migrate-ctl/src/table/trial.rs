//! What became of a process after a move of ours, or after one that was held back?
//!
//! A trial lasts one horizon. Where the process calls, its CPU time for each
//! call before and after tells what the move saved; else the remote share
//! does, by the model. A trial whose task goes to another node meanwhile says
//! nothing.

use serde::{Deserialize, Serialize};

use crate::model::{Est, Nanos, Node, Order, Outcome, PidRef, Source};
use crate::policy::pace;
use crate::policy::pace::stretch::Level;
use crate::table::{Row, feedback, secs};

/// What was predicted of a move, and what came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The order's.
    pub seq: u64,
    pub target: PidRef,
    /// It was not moved, for comparison.
    pub held_back: bool,
    /// Share of its CPU time that the move would save.
    pub predicted: Est,
    /// Share that was saved, less than 0 where it was slower afterwards. The source says whether
    /// its pace was measured or the remote share stands for it.
    pub realised: Est,
    /// What the move would cost, in seconds.
    pub price: Est,
    /// What it has cost; none where it was held back or nobody measured it.
    pub paid: Option<f64>,
}

impl Score {
    /// The move brought what was predicted at the least, as far as can be told.
    pub fn hit(&self) -> bool {
        self.realised.mid > 0.0 && self.realised.high >= self.predicted.low
    }

    /// It surely made the process slower.
    pub fn hurt(&self) -> bool {
        !self.held_back && self.realised.source == Source::Pace && self.realised.high < 0.0
    }
}

/// A trial that goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Trial {
    seq: u64,
    target: PidRef,
    pub(super) to: Node,
    pub(super) held_back: bool,
    predicted: Est,
    price: Est,
    pub(super) paid: Option<f64>,
    /// Remote share, and what a call took, when it began.
    remote: f64,
    pace: Option<Level>,
    /// None while the move is under way.
    ends: Option<Nanos>,
}

impl Trial {
    /// Of an order, with what is known when it is given.
    pub(super) fn of(order: &Order, remote: f64, pace: Option<Level>) -> Self {
        let Order { seq, target, to, saves: predicted, price, .. } = *order;
        let (held_back, paid, ends) = (false, None, None);
        Self { seq, target, to, held_back, predicted, price, paid, remote, pace, ends }
    }

    /// What comes is what it is about, up to then.
    pub(super) fn watch(&mut self, ends: Nanos) {
        self.ends = Some(ends);
    }

    /// None while the move is under way.
    pub(super) fn ends(&self) -> Option<Nanos> {
        self.ends
    }

    /// The score once the horizon is over, of what was seen since it is watched.
    pub(super) fn over(&self, now: Nanos, remote: f64, pace: Option<Level>) -> Option<Score> {
        self.ends.filter(|&ends| now >= ends)?;
        let Self { seq, target, held_back, predicted, price, paid, .. } = *self;
        let shown = self.pace.zip(pace).and_then(|(before, after)| pace::saved(before, after));
        let realised = shown.unwrap_or_else(|| self.modelled(remote));
        Some(Score { seq, target, held_back, predicted, realised, price, paid })
    }

    fn modelled(&self, remote: f64) -> Est {
        #[expect(clippy::cast_possible_truncation, reason = "a share between -1 and 1")]
        let part = if self.remote > 0.0 {
            ((self.remote - remote) / self.remote).clamp(-1.0, 1.0) as f32
        } else {
            0.0
        };
        Est { source: Source::CpuPlacement, ..ordered(self.predicted.times(part)) }
    }
}

impl Row {
    /// The move is over and has cost so much: from now on its effect is watched.
    pub(super) fn watch(&mut self, outcome: &Outcome, cost: f64, ends: Nanos) {
        self.restart_pace();
        if let Some(trial) = &mut self.trial {
            trial.paid = (outcome.caller > 0).then_some(cost);
            trial.watch(ends);
        }
    }

    pub(super) fn score(&mut self, now: Nanos) -> Option<Score> {
        let trial = self.trial.as_ref()?;
        let score = trial.over(now, self.remote, self.pace())?;
        if score.hurt() {
            self.hurt_by = Some(trial.to);
        }
        self.trial = None;
        Some(score)
    }

    /// It stays for comparison.
    pub(crate) fn is_held_back(&self) -> bool {
        self.trial.as_ref().is_some_and(|trial| trial.held_back)
    }

    /// Seconds until its trial is over.
    pub(crate) fn watched_for(&self, now: Nanos) -> f64 {
        let ends = self.trial.as_ref().and_then(|trial| trial.ends());
        ends.map_or(0.0, |ends| secs(ends.saturating_sub(now)))
    }

    /// Whether a move of it is to be held back now.
    pub(crate) fn draws(&self, id: PidRef, share: f64) -> bool {
        self.compared != Some(self.home.since) && feedback::draws(id, self.home.since, share)
    }
}

/// A negative factor turns an interval round.
fn ordered(est: Est) -> Est {
    Est { low: est.low.min(est.high), high: est.low.max(est.high), ..est }
}
