//! What does a call take, in CPU time, while a process and its memory stay where they are?
//!
//! What else the machine does makes calls slower, never quicker: others take
//! caches and memory bandwidth, and where a hypervisor takes a virtual CPU
//! away, the CPU time runs on. So the mean of the quicker half stands for all:
//! a mean that is trimmed from above. Its error is that of the winsorized
//! values (Tukey and McLaughlin, Sankhyā A 25(3), 1963), with Student's
//! quantile for those that are left, as Yuen compares two trimmed means
//! (Biometrika 61(1), 1974). What disturbs lasts longer than a tick, so that
//! ticks in a row repeat each other: so many are counted as would say as much
//! if they did not (Bayley and Hammersley, J. R. Stat. Soc. Suppl. 8(2), 1946).

use serde::{Deserialize, Serialize};

use crate::model::Est;

/// Values that are kept, the last ones: as many ticks as a horizon has.
const KEPT: usize = 32;
/// Fewer values have no scatter: two are left of the quicker half.
const FEWEST: usize = 3;
/// CPU seconds that a value is made of at least: /proc counts in hundredths.
const LEAST_CPU: f64 = 0.25;
/// Calls that it is made of at least, so that one more or less is no more than a tenth.
const LEAST_CALLS: f64 = 10.0;
/// The share by which stretches differ though the work is the same, as a standard error: clocks,
/// caches and neighbours are others each time. On an idle host a loop's own quickest laps and the
/// calls of the same seconds were 0, 1, 1.5, 2.4 and 3 % apart from one stretch to the next.
const BETWEEN: f64 = 0.015;
/// Repetitions: so many values at the least count for one, and so strongly at the most may one
/// depend on the one before.
const REPEATED: f64 = 1.5;
const STRONGEST: f64 = 0.8;
/// Student's quantile to the end of a 95 % interval, by the degrees of freedom from 1 on.
const STUDENT: [f64; KEPT / 2 - 1] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131,
];

/// The last values of a stretch.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stretch {
    /// CPU seconds for each call, the newest last, and how many there were.
    values: [f32; KEPT],
    count: u8,
    /// What the next value is made of so far.
    cpu: f64,
    calls: f64,
}

/// What a call takes, in CPU seconds, and its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Level {
    pub(crate) call: f64,
    pub(crate) error: f64,
}

impl Stretch {
    /// Takes in a tick with so much CPU time and so many calls.
    pub(crate) fn add(&mut self, cpu: f64, calls: u64) {
        self.cpu += cpu;
        self.calls += calls as f64;
        if self.cpu < LEAST_CPU || self.calls < LEAST_CALLS {
            return;
        }
        #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough")]
        let value = (self.cpu / self.calls) as f32;
        (self.cpu, self.calls) = (0.0, 0.0);
        if !value.is_normal() {
            return;
        }
        self.values.rotate_left(1);
        self.values[KEPT - 1] = value;
        self.count = self.count.saturating_add(1);
    }

    /// None while it is too short to tell.
    pub(crate) fn level(&self) -> Option<Level> {
        let values = self.values();
        let n = values.len();
        if n < FEWEST {
            return None;
        }
        let quicker = n.div_ceil(2);
        let mut sorted = self.values;
        let sorted = &mut sorted[KEPT - n..];
        let (_, &mut slowest, _) = sorted.select_nth_unstable_by(quicker - 1, f32::total_cmp);
        // Of the quicker half the slowest stands for all that are slower. In the order of time,
        // so that the sums are the same wherever they are made.
        let (slowest, left) = (f64::from(slowest), quicker as f64);
        let clipped = || values.iter().map(|&value| f64::from(value).min(slowest));
        let sum: f64 = clipped().sum();
        let call = (sum - (n as f64 - left) * slowest) / left;
        let mean = sum / n as f64;
        let (mut squares, mut products, mut last) = (0.0, 0.0, 0.0);
        for off in clipped().map(|value| value - mean) {
            squares += off * off;
            products += last * off;
            last = off;
        }
        let alone = (squares / (left * (left - 1.0))).sqrt();
        let wide = STUDENT[quicker - 2] / Est::WIDTH;
        let error = wide * alone * repeated(products, squares, n as f64).sqrt();
        Some(Level { call, error: error.hypot(BETWEEN * call) })
    }

    fn values(&self) -> &[f32] {
        &self.values[KEPT - usize::from(self.count).min(KEPT)..]
    }
}

/// How many values count for one: the first autocorrelation tells, which so few values make too
/// small by one part in their number.
fn repeated(products: f64, squares: f64, count: f64) -> f64 {
    let like = if squares > 0.0 { (products / squares + 1.0 / count).min(STRONGEST) } else { 0.0 };
    ((1.0 + like) / (1.0 - like)).max(REPEATED)
}

#[cfg(test)]
mod tests {
    use super::{BETWEEN, KEPT, Stretch};
    use crate::policy::scene::Dice;

    /// Ticks with a hundred calls each.
    fn stretch(ticks: impl IntoIterator<Item = f64>) -> Stretch {
        let mut stretch = Stretch::default();
        ticks.into_iter().for_each(|cpu| stretch.add(cpu, 100));
        stretch
    }

    #[test]
    fn what_disturbs_fewer_than_half_of_the_ticks_does_not_move_it() {
        let quiet = (0..30).map(|tick| 1.0 + 0.01 * f64::from(tick % 3));
        let disturbed = quiet.clone().enumerate();
        let disturbed = disturbed.map(|(tick, cpu)| if tick % 5 < 2 { 50.0 * cpu } else { cpu });
        let [quiet, disturbed] = [stretch(quiet), stretch(disturbed)].map(|s| s.level().unwrap());
        assert!((disturbed.call / quiet.call - 1.0).abs() < 0.01, "{disturbed:?}, not {quiet:?}");
        assert!(disturbed.error < 0.02 * quiet.call, "{disturbed:?}");
    }

    #[test]
    fn ticks_that_repeat_each_other_say_less() {
        let mut dice = Dice(3);
        let values: Vec<f64> = (0..KEPT).map(|_| 1.0 + 0.1 * dice.roll()).collect();
        let mut ordered = values.clone();
        ordered.sort_by(f64::total_cmp);
        let [mixed, ordered] = [stretch(values), stretch(ordered)].map(|s| s.level().unwrap());
        assert!((mixed.call - ordered.call).abs() < 1e-12);
        assert!(ordered.error > 1.5 * mixed.error, "{ordered:?}, {mixed:?}");
    }

    #[test]
    fn what_has_no_scatter_is_known_as_well_as_stretches_are_alike() {
        assert_eq!(stretch([1.0; 2]).level(), None);
        let level = stretch([1.0; 3]).level().unwrap();
        assert_eq!(level.error, BETWEEN * level.call);
    }

    #[test]
    fn of_a_long_stretch_the_last_ticks_count() {
        let long = stretch([3.0; 100].into_iter().chain([1.0; KEPT]));
        assert_eq!(long.level(), stretch([1.0; KEPT]).level());
    }

    #[test]
    fn short_ticks_are_added_up_and_those_without_calls_are_not_left_out() {
        let mut stretch = Stretch::default();
        for tick in 0..100 {
            stretch.add(0.05, if tick % 5 == 0 { 25 } else { 0 });
        }
        let call = stretch.level().unwrap().call;
        assert!((call / 0.01 - 1.0).abs() < 1e-6, "{call}");
    }
}
