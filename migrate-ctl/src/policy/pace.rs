//! How much CPU time does a process need for a call, near its memory and far from it?
//!
//! Calls (`read`, `write` and their kin) are the work that the kernel counts
//! without a probe. Where a call takes `k = k₀ · (1 + b · x)` CPU seconds, x
//! being how much slower than local memory its memory is on the mean, b is
//! the share of the time on local memory that waits for memory. The scheduler
//! makes the experiment: each time that the process comes to another node, x
//! changes and its work does not. No PMU is needed, only that it calls.

use serde::{Deserialize, Serialize};

use crate::model::{Est, Source};
use crate::policy::moments::Moments;

/// Seconds after which half of what was seen is forgotten.
const HALF_LIFE: f64 = 120.0;
/// Least scatter of x that is an experiment: a twentieth of the local latency.
const CONTRAST: f64 = 0.05;
/// Fewer ticks say nothing.
const FEWEST: f64 = 8.0;
/// Half-width of a 95 % interval in standard errors. Ticks in a row are alike: half of them are
/// taken for repetitions, which makes the error of the mean √2 times as large.
const WIDTH: f64 = 1.96 * std::f64::consts::SQRT_2;
/// The widest interval of b that is worth more than the prior, in its half.
const WIDEST: f64 = 0.25;

/// What one process has shown.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// Fading sums over ticks, by weight: 1, its square, x, x², k, xk, k².
    weight: f64,
    squares: f64,
    x: f64,
    xx: f64,
    k: f64,
    xk: f64,
    kk: f64,
    /// CPU seconds for each call since it was last [`Pace::restart`]ed.
    stretch: Moments,
}

impl Pace {
    /// Takes in a tick of so many seconds in which it used so much CPU time for so many calls,
    /// with memory that was so many times slower than local memory.
    pub(crate) fn step(&mut self, seconds: f64, cpu: f64, calls: u64, slowness: f64) {
        let fade = 0.5_f64.powf(seconds.clamp(0.0, 1e9) / HALF_LIFE);
        for sum in
            [&mut self.weight, &mut self.x, &mut self.xx, &mut self.k, &mut self.xk, &mut self.kk]
        {
            *sum *= fade;
        }
        self.squares *= fade * fade;
        if calls == 0 || cpu <= 0.0 {
            return;
        }
        let (w, x) = (calls as f64, slowness - 1.0);
        let k = cpu / w;
        if !(k.is_finite() && x.is_finite()) {
            return;
        }
        self.weight += w;
        self.squares += w * w;
        self.x += w * x;
        self.xx += w * x * x;
        self.k += w * k;
        self.xk += w * x * k;
        self.kk += w * k * k;
        self.stretch.add(k, w);
    }

    /// From now on is another stretch: the process or its memory has gone elsewhere.
    pub(crate) fn restart(&mut self) {
        self.stretch = Moments::default();
    }

    /// CPU seconds for each call in this stretch.
    pub(crate) fn stretch(&self) -> Moments {
        self.stretch
    }

    /// The memory-bound share b by least squares, if the process has shown it better than a prior
    /// could tell.
    pub(crate) fn boundness(&self) -> Option<Est> {
        let w = self.weight;
        let count = if self.squares > 0.0 { w * w / self.squares } else { 0.0 };
        if count < FEWEST {
            return None;
        }
        let (x, k) = (self.x / w, self.k / w);
        let var_x = self.xx / w - x * x;
        if var_x < CONTRAST * CONTRAST {
            return None;
        }
        let cov = self.xk / w - x * k;
        let slope = cov / var_x;
        let base = k - slope * x;
        if base <= 0.0 {
            return None;
        }
        let b = slope / base;
        let rest = ((self.kk / w - k * k) - slope * cov).max(0.0) / (count - 2.0);
        // Of slope, base and both together; then of their ratio.
        let (of_slope, of_base) = (rest / var_x, rest * (1.0 + x * x / var_x));
        let of_both = -x * rest / var_x;
        let of_b = (of_slope + b * b * of_base - 2.0 * b * of_both).max(0.0).sqrt() / base;
        let half = WIDTH * of_b;
        if half.is_nan() || half > WIDEST {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
        let at = |b: f64| b.clamp(0.0, 1.0) as f32;
        Some(Est { low: at(b - half), mid: at(b), high: at(b + half), source: Source::Pace })
    }
}

/// Share of the CPU time that the later stretch saves against the earlier one, with its 95 %
/// interval; negative where it takes longer. None where either is too short to tell.
pub(crate) fn saved(before: &Moments, after: &Moments) -> Option<Est> {
    let (of_before, of_after) = (before.error()?, after.error()?);
    if before.mean() <= 0.0 || after.mean() <= 0.0 {
        return None;
    }
    let ratio = after.mean() / before.mean();
    let half = WIDTH * ratio * (of_before / before.mean()).hypot(of_after / after.mean());
    #[expect(clippy::cast_possible_truncation, reason = "a share has no more digits than f32")]
    let at = |saved: f64| saved as f32;
    let saved = 1.0 - ratio;
    Some(Est {
        low: at(saved - half),
        mid: at(saved),
        high: at(saved + half),
        source: Source::Pace,
    })
}

#[cfg(test)]
mod tests {
    use super::{Pace, saved};
    use crate::policy::scene::Dice;

    /// Ticks of a second, half of them on memory that is twice as slow.
    fn watched(b: f64, noise: f64, calls: u64) -> Pace {
        let (mut pace, mut dice) = (Pace::default(), Dice(7));
        for tick in 0..60 {
            let slowness = if tick < 30 { 1.0 } else { 2.0 };
            let scatter = 1.0 + noise * (dice.roll() - 0.5);
            let cpu = calls as f64 * 1e-3 * (1.0 + b * (slowness - 1.0)) * scatter;
            pace.step(1.0, cpu, calls, slowness);
        }
        pace
    }

    #[test]
    fn the_memory_bound_share_shows_when_the_task_is_moved() {
        for b in [0.0, 0.1, 0.5, 0.9] {
            let est = watched(b, 0.2, 500).boundness().unwrap();
            let (low, high) = (f64::from(est.low), f64::from(est.high));
            assert!(low - 1e-6 <= b && b <= high + 1e-6, "{b}: {est:?}");
            assert!(est.high - est.low < 0.3, "{b}: {est:?}");
        }
    }

    #[test]
    fn the_interval_holds_the_truth_nineteen_times_in_twenty() {
        let mut held = 0;
        for seed in 0..200 {
            let (mut pace, mut dice) = (Pace::default(), Dice(seed));
            for tick in 0..40 {
                let slowness = if tick < 20 { 1.0 } else { 1.8 };
                let cpu = 0.5 * (1.0 + 0.4 * (slowness - 1.0)) * (1.0 + 0.3 * (dice.roll() - 0.5));
                pace.step(1.0, cpu, 100, slowness);
            }
            let est = pace.boundness().unwrap();
            held += usize::from(est.low <= 0.4 && 0.4 <= est.high);
        }
        assert!(held >= 190, "{held} of 200");
    }

    #[test]
    fn without_calls_or_without_contrast_nothing_is_known() {
        assert_eq!(watched(0.5, 0.1, 0).boundness(), None);
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.step(1.0, 0.5, 100, 2.0);
        }
        assert_eq!(pace.boundness(), None);
    }

    #[test]
    fn work_that_changes_all_the_time_is_worth_no_more_than_the_prior() {
        let (mut pace, mut dice) = (Pace::default(), Dice(3));
        for tick in 0..40 {
            let slowness = if tick % 2 == 0 { 1.0 } else { 1.3 };
            let calls = if dice.roll() < 0.3 { 1000 } else { 3 };
            pace.step(1.0, 0.5, calls, slowness);
        }
        assert_eq!(pace.boundness(), None);
    }

    #[test]
    fn what_a_move_saved_has_an_interval_that_holds_the_truth() {
        let mut dice = Dice(11);
        let mut stretch = |k: f64| {
            let mut pace = Pace::default();
            for _ in 0..30 {
                pace.step(1.0, 100.0 * k * (1.0 + 0.2 * (dice.roll() - 0.5)), 100, 1.0);
            }
            pace.stretch()
        };
        let (far, near) = (stretch(1.4), stretch(1.0));
        let better = saved(&far, &near).unwrap();
        let truth = 1.0 - 1.0 / 1.4;
        assert!(better.low < truth && truth < better.high && better.low > 0.2, "{better:?}");
        let same = saved(&near, &stretch(1.0)).unwrap();
        assert!(same.low < 0.0 && 0.0 < same.high, "{same:?}");
    }
}
