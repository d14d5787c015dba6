//! Were our predictions right, and what do moves bring?
//!
//! The benefit of moving is what moved processes saved less what held-back
//! ones did: we move when things are worst, and some of that passes by itself.
//! While few predictions come true, more moves are held back.

use serde::{Deserialize, Serialize};

use crate::model::{Est, Nanos, PidRef, Source};
use crate::policy::moments::Moments;
use crate::table::trial::Score;

/// Predictions that count.
const KEPT: u32 = 64;
/// Hits that we are given to begin with, so that one miss is no verdict.
const GIVEN: f64 = 4.0;
/// With fewer hits than this share the policy holds back more.
const ENOUGH: f64 = 0.7;
/// The most that is ever held back: half is moved, or nothing would be learned.
const MOST: f64 = 0.5;

/// Sums over all scores.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Feedback {
    /// The last predictions, the newest in the lowest bit: 1, a hit.
    hits: u64,
    scored: u32,
    /// Share saved by pace, of the moved and of the held back.
    moved: Moments,
    held_back: Moments,
}

/// What moving brings, as measured by pace; shares of the CPU time of the processes concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Benefit {
    pub moved: Option<Est>,
    pub held_back: Option<Est>,
    /// The first less the second.
    pub difference: Option<Est>,
}

impl Feedback {
    pub(crate) fn record(&mut self, score: &Score) {
        if score.realised.source == Source::Pace {
            let group = if score.held_back { &mut self.held_back } else { &mut self.moved };
            group.add(f64::from(score.realised.mid), 1.0);
        }
        if !score.held_back {
            self.hits = self.hits << 1 | u64::from(score.hit());
            self.scored = (self.scored + 1).min(KEPT);
        }
    }

    /// Share of the last predictions that came true; none before the first.
    pub(crate) fn hit_rate(&self) -> Option<f64> {
        (self.scored > 0).then(|| f64::from(self.hits_kept()) / f64::from(self.scored))
    }

    /// The share of moves to hold back, by the one that was asked for; 0 stays 0.
    pub(crate) fn hold_back(&self, asked: f64) -> f64 {
        if asked.is_nan() || asked <= 0.0 {
            return 0.0;
        }
        let rate = (f64::from(self.hits_kept()) + GIVEN) / (f64::from(self.scored) + GIVEN);
        let short = (1.0 - rate / ENOUGH).clamp(0.0, 1.0);
        asked.min(1.0).max(asked.min(MOST) + (MOST - asked.min(MOST)) * short)
    }

    pub(crate) fn benefit(&self) -> Benefit {
        let (moved, held_back) = (interval(&self.moved), interval(&self.held_back));
        let difference = moved.zip(held_back).map(|(moved, held)| {
            let apart = (moved.high - moved.mid).hypot(held.high - held.mid);
            let mid = moved.mid - held.mid;
            Est { low: mid - apart, mid, high: mid + apart, source: Source::Pace }
        });
        Benefit { moved, held_back, difference }
    }

    fn hits_kept(&self) -> u32 {
        let kept = if self.scored >= KEPT { u64::MAX } else { (1 << self.scored) - 1 };
        (self.hits & kept).count_ones()
    }
}

fn interval(group: &Moments) -> Option<Est> {
    let half = Est::WIDTH * group.error()?;
    #[expect(clippy::cast_possible_truncation, reason = "a share has no more digits than f32")]
    let at = |share: f64| share as f32;
    let mid = group.mean();
    Some(Est { low: at(mid - half), mid: at(mid), high: at(mid + half), source: Source::Pace })
}

/// Whether this move is of the share that is held back: by a hash, so that nobody chooses. The
/// same residence of a process always has the same lot.
pub(crate) fn draws(id: PidRef, since: Nanos, share: f64) -> bool {
    let mut hash = u64::from(id.pid) ^ id.start.rotate_left(32) ^ since.rotate_left(17);
    // The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
    hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let lot = ((hash ^ (hash >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
    lot < share
}

#[cfg(test)]
mod tests {
    use super::{Feedback, draws};
    use crate::model::{Est, PidRef, Source};
    use crate::table::trial::Score;

    #[test]
    fn while_predictions_fail_more_is_held_back() {
        let mut feedback = Feedback::default();
        assert_eq!(feedback.hold_back(0.05), 0.05);
        let mut last = 0.05;
        for _ in 0..64 {
            feedback.record(&score(false, 0.3, -0.1));
            let share = feedback.hold_back(0.05);
            assert!(share >= last && share <= 0.5);
            last = share;
        }
        assert_eq!(feedback.hit_rate(), Some(0.0));
        assert!(last > 0.4, "{last}");
        for _ in 0..64 {
            feedback.record(&score(false, 0.3, 0.25));
        }
        assert_eq!((feedback.hit_rate(), feedback.hold_back(0.05)), (Some(1.0), 0.05));
        assert_eq!(feedback.hold_back(0.0), 0.0);
    }

    #[test]
    fn the_benefit_is_what_moving_brought_beyond_what_came_by_itself() {
        let mut feedback = Feedback::default();
        for step in 0..20_u8 {
            let scatter = f32::from(step % 5) * 0.01;
            feedback.record(&score(false, 0.3, 0.30 + scatter));
            feedback.record(&score(true, 0.3, 0.10 + scatter));
        }
        let benefit = feedback.benefit().difference.unwrap();
        assert!(benefit.low < 0.2 && 0.2 < benefit.high && benefit.low > 0.15, "{benefit:?}");
    }

    #[test]
    fn what_only_the_model_says_is_no_benefit() {
        let mut feedback = Feedback::default();
        for _ in 0..9 {
            let modelled = Est { source: Source::CpuPlacement, ..score(false, 0.3, 0.3).realised };
            feedback.record(&Score { realised: modelled, ..score(false, 0.3, 0.3) });
        }
        assert_eq!(feedback.benefit().moved, None);
        assert_eq!(feedback.hit_rate(), Some(1.0));
    }

    #[test]
    fn a_lot_falls_on_the_share_that_was_asked_for_and_never_changes() {
        let id = |pid| PidRef { pid, start: 4711 };
        let drawn = (0..10_000).filter(|&pid| draws(id(pid), 5, 0.05)).count();
        assert!((400..600).contains(&drawn), "{drawn}");
        assert!((0..100).all(|pid| draws(id(pid), 5, 0.3) == draws(id(pid), 5, 0.3)));
        assert!(!(0..1000).any(|pid| draws(id(pid), 5, 0.0)));
    }

    fn score(held_back: bool, predicted: f32, realised: f32) -> Score {
        Score {
            seq: 1,
            target: PidRef { pid: 7, start: 1 },
            held_back,
            predicted: Est::exact(predicted, Source::Prior),
            realised: Est {
                low: realised - 0.05,
                mid: realised,
                high: realised + 0.05,
                source: Source::Pace,
            },
            price: Est::exact(0.1, Source::Prior),
            paid: None,
        }
    }
}
