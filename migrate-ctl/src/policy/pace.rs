//! How much CPU time does a process need for a call, near its memory and far from it?
//!
//! Calls (`read`, `write` and their kin) are the work that the kernel counts
//! without a probe. Where a call takes `k = k₀ · (1 + b · x)` CPU seconds, x
//! being how much slower than local memory its memory is on the mean, b is
//! the share of the time on local memory that waits for memory. The scheduler
//! makes the experiment: each time that the process comes to another node, x
//! changes and its work does not. No PMU is needed, only that it calls.
//!
//! As long as the remote share stays the same is a stretch; a line through the stretches,
//! each weighed by its error, gives b. Where they lie further from the line
//! than their errors say, the work has changed as well, and the error of the
//! line grows by as much (Birge, Phys. Rev. 40, 1932).

pub(crate) mod stretch;

use serde::{Deserialize, Serialize};

use crate::model::{Est, Source};
use stretch::{Level, Stretch};

/// Seconds after which half of what was seen is forgotten.
const HALF_LIFE: f64 = 120.0;
/// Least scatter of x that is an experiment: a twentieth of the local latency.
const CONTRAST: f64 = 0.05;
/// So much more or less of its accesses goes to other nodes in another stretch. Not x tells, which
/// also changes as latency is measured again.
const CHANGE: f64 = 0.1;
/// The widest interval of a share that is worth more than what the model says, in its half.
const WIDEST: f64 = 0.25;

/// What one process has shown.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// The stretches that are over, fading.
    past: Line,
    /// The one that goes on.
    stretch: Stretch,
    /// Its x and its remote share, the means of so many ticks.
    x: f64,
    remote: f64,
    ticks: f64,
    /// The next tick may hold some of what was before.
    mixed: bool,
}

/// Points with errors, and the straight line through them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Line {
    /// How many points, and sums over them by weight: 1, x, x², k, xk, k².
    count: f64,
    weight: f64,
    x: f64,
    xx: f64,
    k: f64,
    xk: f64,
    kk: f64,
}

impl Pace {
    /// Takes in a tick of so many seconds in which it used so much CPU time for so many calls,
    /// with memory that was so many times slower than local memory, this share of it remote.
    pub(crate) fn step(
        &mut self,
        seconds: f64,
        (cpu, calls): (f64, u64),
        (slowness, remote): (f64, f64),
    ) {
        self.past.fade(0.5_f64.powf(seconds.clamp(0.0, 1e9) / HALF_LIFE));
        let x = slowness - 1.0;
        // Where it ran may not be known: then it is no times slower.
        if !(cpu.is_finite() && cpu >= 0.0 && slowness > 0.0 && (x + remote).is_finite()) {
            return;
        }
        if self.ticks > 0.0 && (remote - self.remote).abs() > CHANGE {
            self.restart();
        }
        if std::mem::take(&mut self.mixed) {
            return;
        }
        self.ticks += 1.0;
        self.x += (x - self.x) / self.ticks;
        self.remote += (remote - self.remote) / self.ticks;
        self.stretch.add(cpu, calls);
    }

    /// From now on is another stretch: the process or its memory has gone elsewhere.
    pub(crate) fn restart(&mut self) {
        if let Some(level) = self.level() {
            self.past.add(self.x, level);
        }
        *self = Self { past: self.past, mixed: true, ..Self::default() };
    }

    /// What a call takes in this stretch, if it can be told yet.
    pub(crate) fn level(&self) -> Option<Level> {
        self.stretch.level()
    }

    /// The memory-bound share b, if the process has shown it better than a prior could tell.
    pub(crate) fn boundness(&self) -> Option<Est> {
        if self.past.count <= 0.0 {
            return None;
        }
        let mut line = self.past;
        if let Some(level) = self.level() {
            line.add(self.x, level);
        }
        line.boundness()
    }
}

impl Line {
    fn fade(&mut self, by: f64) {
        let Self { count, weight, x, xx, k, xk, kk } = self;
        for sum in [count, weight, x, xx, k, xk, kk] {
            *sum *= by;
        }
    }

    fn add(&mut self, x: f64, Level { call: k, error }: Level) {
        let w = 1.0 / (error * error);
        if !w.is_finite() {
            return;
        }
        self.count += 1.0;
        self.weight += w;
        self.x += w * x;
        self.xx += w * x * x;
        self.k += w * k;
        self.xk += w * x * k;
        self.kk += w * k * k;
    }

    /// Slope over intercept, by weighted least squares.
    fn boundness(&self) -> Option<Est> {
        let w = self.weight;
        let (x, k) = (self.x / w, self.k / w);
        let var_x = self.xx / w - x * x;
        if var_x.is_nan() || var_x < CONTRAST * CONTRAST {
            return None;
        }
        let cov = self.xk / w - x * k;
        let slope = cov / var_x;
        let base = k - slope * x;
        if base <= 0.0 {
            return None;
        }
        let b = slope / base;
        // By how much the points are further from the line than by their errors.
        let apart = w * ((self.kk / w - k * k) - slope * cov);
        let rest = (apart / (self.count - 2.0).max(1.0)).max(1.0) / w;
        // Of slope, base and both together; then of their ratio.
        let (of_slope, of_base) = (rest / var_x, rest * (1.0 + x * x / var_x));
        let of_both = -x * rest / var_x;
        let of_b = (of_slope + b * b * of_base - 2.0 * b * of_both).max(0.0).sqrt() / base;
        let half = Est::WIDTH * of_b;
        if half.is_nan() || half > WIDEST {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
        let at = |b: f64| b.clamp(0.0, 1.0) as f32;
        Some(Est { low: at(b - half), mid: at(b), high: at(b + half), source: Source::Pace })
    }
}

/// Share of the CPU time that the later stretch saves against the earlier one, with its 95 %
/// interval; negative where it takes longer. None where that is too wide to say anything.
pub(crate) fn saved(before: Level, after: Level) -> Option<Est> {
    let ratio = after.call / before.call;
    let half = Est::WIDTH * ratio * (before.error / before.call).hypot(after.error / after.call);
    #[expect(clippy::cast_possible_truncation, reason = "a share has no more digits than f32")]
    let at = |saved: f64| saved as f32;
    let saved = 1.0 - ratio;
    // What takes twice as long may be known half as well.
    (half <= WIDEST * ratio.max(1.0)).then(|| Est {
        low: at(saved - half),
        mid: at(saved),
        high: at(saved + half),
        source: Source::Pace,
    })
}

#[cfg(test)]
mod tests {
    use super::{Level, Pace, saved};
    use crate::model::Est;
    use crate::policy::scene::Dice;

    /// So many times slower, and all of it remote if it is.
    fn at(slowness: f64) -> (f64, f64) {
        (slowness, if slowness > 1.0 { 1.0 } else { 0.0 })
    }

    /// Ticks of a second, half of them on memory that is twice as slow.
    fn watched(b: f64, noise: f64, calls: u64) -> Pace {
        let (mut pace, mut dice) = (Pace::default(), Dice(7));
        for tick in 0..60 {
            let slowness = if tick < 30 { 1.0 } else { 2.0 };
            let scatter = 1.0 + noise * (dice.roll() - 0.5);
            let cpu = calls as f64 * 1e-3 * (1.0 + b * (slowness - 1.0)) * scatter;
            pace.step(1.0, (cpu, calls), at(slowness));
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
                pace.step(1.0, (cpu, 100), at(slowness));
            }
            let est = pace.boundness();
            held += usize::from(est.is_some_and(|est| est.low <= 0.4 && 0.4 <= est.high));
        }
        assert!(held >= 190, "{held} of 200");
    }

    #[test]
    fn without_calls_or_without_contrast_nothing_is_known() {
        assert_eq!(watched(0.5, 0.1, 0).boundness(), None);
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.step(1.0, (0.5, 100), at(2.0));
        }
        assert_eq!(pace.boundness(), None);
    }

    /// Rounds of measuring say 1.7 at times and 1.5 at others.
    #[test]
    fn latency_that_is_measured_again_is_no_experiment() {
        let (mut pace, mut dice) = (Pace::default(), Dice(5));
        for tick in 0..60 {
            let slowness = if tick % 20 < 10 { 1.7 } else { 1.5 };
            pace.step(1.0, (1.0 + 0.1 * dice.roll(), 100), at(slowness));
        }
        assert!(pace.level().is_some());
        assert_eq!(pace.boundness(), None);
    }

    #[test]
    fn what_a_move_saved_is_not_told_where_every_tick_is_disturbed() {
        let mut dice = Dice(9);
        let level = |call, error| Level { call, error };
        assert_eq!(saved(level(1.0, 0.02), level(0.8, 0.3)), None);
        // Four times as long for sure, though nobody knows whether by three times or by five.
        assert!(saved(level(1.0, 0.02), level(4.0, 0.4)).is_some_and(|saved| saved.high < -2.0));
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.step(1.0, (1.0 + 5.0 * dice.roll(), 100), at(1.0));
        }
        assert_eq!(saved(level(0.027, 0.001), pace.level().unwrap()), None);
    }

    #[test]
    fn work_that_changes_all_the_time_is_worth_no_more_than_the_prior() {
        let (mut pace, mut dice) = (Pace::default(), Dice(3));
        for tick in 0..40 {
            let slowness = if tick % 2 == 0 { 1.0 } else { 1.3 };
            let calls = if dice.roll() < 0.3 { 1000 } else { 3 };
            pace.step(1.0, (0.5, calls), at(slowness));
        }
        assert_eq!(pace.boundness(), None);
    }

    #[test]
    fn what_a_move_saved_has_an_interval_that_holds_the_truth() {
        let mut dice = Dice(11);
        let mut stretch = |k: f64| {
            let mut pace = Pace::default();
            for _ in 0..30 {
                pace.step(1.0, (100.0 * k * (1.0 + 0.2 * (dice.roll() - 0.5)), 100), at(1.0));
            }
            pace.level().unwrap()
        };
        let (far, near) = (stretch(1.4), stretch(1.0));
        let better = saved(far, near).unwrap();
        let truth = 1.0 - 1.0 / 1.4;
        assert!(better.low < truth && truth < better.high && better.low > 0.2, "{better:?}");
        let same = saved(near, stretch(1.0)).unwrap();
        assert!(same.low < 0.0 && 0.0 < same.high, "{same:?}");
    }

    /// What a hypervisor does to a virtual CPU: a third of the ticks are slower by a share that has
    /// no mean, some three of them in a row; all scatter a little.
    struct Disturbed {
        dice: Dice,
        disturbed: bool,
    }

    impl Disturbed {
        fn new(seed: u64) -> Self {
            Self { dice: Dice(seed), disturbed: seed.is_multiple_of(3) }
        }

        /// So many times as long as undisturbed takes a tick, so does its work.
        fn tick(&mut self) -> f64 {
            let turn = if self.disturbed { 1.0 / 3.0 } else { 1.0 / 6.0 };
            self.disturbed ^= self.dice.roll() < turn;
            let slower = if self.disturbed { 0.1 / (1.0 - self.dice.roll()) } else { 0.0 };
            (1.0 + slower) * (1.0 + 0.1 * (self.dice.roll() - 0.5))
        }

        fn watch(&mut self, pace: &mut Pace, ticks: usize, call: f64, slowness: f64) {
            for _ in 0..ticks {
                pace.step(1.0, (100.0 * call * self.tick(), 100), at(slowness));
            }
        }

        fn level(&mut self, ticks: usize, call: f64) -> Level {
            let mut pace = Pace::default();
            self.watch(&mut pace, ticks, call, 1.0);
            pace.level().unwrap()
        }
    }

    /// Nineteen estimates in twenty hold the truth, half of them are no wider than this, and most
    /// seeds have one.
    fn hold(truth: f64, widest: f32, estimate: impl Fn(u64) -> Option<Est>) {
        let ests: Vec<Est> = (0..400).filter_map(estimate).collect();
        let holds = |est: &&Est| f64::from(est.low) <= truth && truth <= f64::from(est.high);
        let (held, said) = (ests.iter().filter(holds).count(), ests.len());
        assert!(said >= 320 && held * 20 >= said * 19, "{held} of {said} hold {truth}");
        let mut widths: Vec<f32> = ests.iter().map(|est| est.high - est.low).collect();
        widths.sort_by(f32::total_cmp);
        assert!(widths[said / 2] <= widest, "{} at {truth}", widths[said / 2]);
    }

    #[test]
    fn what_a_move_saved_is_told_on_a_machine_that_disturbs() {
        for (ticks, widest) in [(15, 0.15), (30, 0.12)] {
            for far in [1.0, 1.7] {
                hold(1.0 - 1.0 / far, widest, |seed| {
                    let mut machine = Disturbed::new(seed);
                    let before = machine.level(ticks, far);
                    saved(before, machine.level(ticks, 1.0))
                });
            }
        }
    }

    #[test]
    fn the_memory_bound_share_is_told_on_a_machine_that_disturbs() {
        for (ticks, widest) in [(15, 0.3), (30, 0.25)] {
            hold(0.5, widest, |seed| {
                let (mut machine, mut pace) = (Disturbed::new(seed), Pace::default());
                machine.watch(&mut pace, ticks, 1.0, 1.0);
                machine.watch(&mut pace, ticks, 1.35, 1.7);
                pace.boundness()
            });
        }
    }
}
