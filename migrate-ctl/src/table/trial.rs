//! What became of a process after a move of ours, or after one that was held back?
//!
//! A trial lasts one horizon. Where the process calls, its CPU time for each
//! call before and after tells what the move saved; else the remote share
//! does, by the model. A trial whose task goes to another node meanwhile says
//! nothing.

use serde::{Deserialize, Serialize};

use crate::model::{Est, Nanos, Node, Order, PidRef, Source};
use crate::policy::moments::Moments;
use crate::policy::pace;

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
    /// Remote share, and CPU seconds for each call, when it began.
    remote: f64,
    pace: Moments,
    /// None while the move is under way.
    ends: Option<Nanos>,
}

impl Trial {
    /// Of an order, with what is known when it is given.
    pub(super) fn of(order: &Order, remote: f64, pace: Moments) -> Self {
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
    pub(super) fn over(&self, now: Nanos, remote: f64, pace: &Moments) -> Option<Score> {
        self.ends.filter(|&ends| now >= ends)?;
        let Self { seq, target, held_back, predicted, price, paid, .. } = *self;
        let realised = pace::saved(&self.pace, pace).unwrap_or_else(|| self.modelled(remote));
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

/// A negative factor turns an interval round.
fn ordered(est: Est) -> Est {
    Est { low: est.low.min(est.high), high: est.low.max(est.high), ..est }
}
