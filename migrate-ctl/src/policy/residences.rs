//! How long do tasks of one cgroup stay on a node, and how long do they live?
//!
//! The survival function of past residences, by the product-limit estimate of
//! Kaplan and Meier ("Nonparametric estimation from incomplete observations",
//! JASA 53, 1958): a residence that was still going on when its process exited
//! is known only to have lasted so long. All times in seconds.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::policy::wait::{Plan, Waits, share_a_plan};

/// Residences and lives that count: enough for a tenth of precision, few enough to follow changes.
const KEPT: usize = 64;
/// Before anything was seen, what has lasted for t lasts for another t with even odds: the hazard
/// is 1/t. So do process lifetimes (Harchol-Balter and Downey, "Exploiting process lifetime
/// distributions for dynamic load balancing", SIGMETRICS 1996). It weighs as much as one residence.
const PRIOR: f64 = 1.0;
/// The prior has no opinion below one second: that is the shortest tick that we advise.
const PRIOR_FROM: f64 = 1.0;
/// A tenth apart, the steps of the prior are finer than what a forecast can know.
const STEP: f64 = 1.1;
/// Nothing is foretold beyond a day.
const LONGEST: f64 = 86_400.0;

/// A share of all residences that ends after so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ending {
    pub(crate) after: f64,
    pub(crate) share: f64,
}

/// One class of tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Residences {
    /// How long it lasted, and whether its end was seen.
    stays: VecDeque<(f64, bool)>,
    /// How long its processes lived.
    lives: VecDeque<f64>,
    /// Whether there are observations that the survival function does not know yet.
    fresh: bool,
    /// In ascending order; what is missing to 1 outlasts [`LONGEST`].
    survival: Vec<Ending>,
    /// Ascending.
    known_lives: Vec<f64>,
    waits: Waits,
    /// Counts what was learned, from 1 on.
    lesson: u64,
}

/// How long one process was told to wait, and as long as what that still holds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Foretold {
    lesson: u64,
    age: f64,
    break_even: (f64, f64),
    wait: f64,
}

impl Default for Residences {
    fn default() -> Self {
        let mut new = Self {
            stays: VecDeque::new(),
            lives: VecDeque::new(),
            fresh: true,
            survival: Vec::new(),
            known_lives: Vec::new(),
            waits: Waits::default(),
            lesson: 0,
        };
        new.learn(1);
        new
    }
}

impl Residences {
    /// A residence has ended, or its process before it.
    pub(crate) fn stayed(&mut self, seconds: f64, ended: bool) {
        keep(&mut self.stays, (seconds, ended));
        self.fresh = true;
    }

    /// A process has exited after so long.
    pub(crate) fn lived(&mut self, seconds: f64) {
        keep(&mut self.lives, seconds);
        self.fresh = true;
    }

    /// How long to wait, from the beginning of a residence on, before a move that pays for itself
    /// after `break_even` seconds; infinite: do not move. The process is so old at its beginning.
    /// What was foretold to it by this class before is looked up again only where it may differ.
    pub(crate) fn wait(
        &mut self,
        break_even: f64,
        nodes: usize,
        age: f64,
        told: &mut Foretold,
    ) -> f64 {
        let (least, most) = told.break_even;
        let holds = told.lesson == self.lesson && told.age == age;
        if !(holds && least < break_even && break_even < most) {
            let plan = plan(&self.survival, &self.known_lives);
            let wait = self.waits.get(break_even, nodes, &plan);
            *told = Foretold {
                lesson: self.lesson,
                age,
                break_even: share_a_plan(break_even),
                wait: wait.after(remaining(&self.known_lives, age)),
            };
        }
        told.wait
    }

    /// Takes in what was observed since the last call, and makes plans from it: at most `left` of
    /// either together. Says how many more could be made.
    pub(crate) fn learn(&mut self, mut left: usize) -> usize {
        let before = left;
        if left > 0 && std::mem::take(&mut self.fresh) {
            let mut stays: Vec<(f64, bool)> = self.stays.iter().copied().collect();
            stays.sort_by(|a, b| a.0.total_cmp(&b.0));
            self.survival = survival(&stays);
            self.known_lives = self.lives.iter().copied().collect();
            self.known_lives.sort_by(f64::total_cmp);
            self.waits.outdate();
            left -= 1;
        }
        left = self.waits.renew(&plan(&self.survival, &self.known_lives), left);
        self.lesson += u64::from(left < before);
        left
    }
}

/// What waits are planned from.
fn plan<'a>(survival: &'a [Ending], lives: &[f64]) -> Plan<'a> {
    Plan { survival, longest_life: lives.last().copied() }
}

fn keep<T>(last: &mut VecDeque<T>, new: T) {
    if last.len() == KEPT {
        last.pop_front();
    }
    last.push_back(new);
}

/// Half of those that lived longer than this lived for so much longer; infinite if none did.
fn remaining(lives: &[f64], age: f64) -> f64 {
    let longer = &lives[lives.partition_point(|&life| life <= age)..];
    longer.get(longer.len() / 2).map_or(f64::INFINITY, |life| life - age)
}

/// Of residences in ascending order, and the prior.
fn survival(stays: &[(f64, bool)]) -> Vec<Ending> {
    let mut endings: Vec<Ending> = Vec::with_capacity(stays.len() + 120);
    let (mut left, mut step, mut next) = (1.0, PRIOR_FROM * STEP, 0);
    while left > 0.0 {
        let seen = stays.get(next).map_or(f64::INFINITY, |stay| stay.0);
        let after = seen.min(step);
        if after > LONGEST {
            break;
        }
        let at_risk = (stays.len() - next) as f64 + PRIOR;
        let mut ended = 0.0;
        if step <= seen {
            ended += PRIOR * (1.0 - 1.0 / STEP);
            step *= STEP;
        }
        while let Some(&(_, end)) = stays.get(next).filter(|stay| stay.0 <= after) {
            ended += f64::from(u8::from(end));
            next += 1;
        }
        let share = left * (ended / at_risk).min(1.0);
        if share > 0.0 {
            endings.push(Ending { after, share });
            left -= share;
        }
    }
    endings
}

#[cfg(test)]
mod tests {
    use super::{Ending, Foretold, LONGEST, Residences, remaining, survival};
    use crate::policy::scene::Dice;

    const MANY: usize = 64;

    #[test]
    fn with_nothing_seen_half_of_what_lasted_lasts_twice_as_long() {
        let endings = survival(&[]);
        let beyond =
            |t: f64| 1.0 - endings.iter().filter(|e| e.after <= t).map(|e| e.share).sum::<f64>();
        for t in [2.0, 16.0, 128.0, 1_024.0] {
            let odds = beyond(2.0 * t) / beyond(t);
            assert!((0.46..0.52).contains(&odds), "{t}: {odds}");
        }
        assert!(beyond(LONGEST) > 0.0);
    }

    /// The textbook's estimate, without the prior's part.
    #[test]
    fn a_residence_without_an_end_counts_as_long_as_it_was_seen() {
        let stays = [(0.1, true), (0.2, false), (0.3, true), (0.4, true)];
        let endings = survival(&stays);
        let wanted = [(0.1, 1.0 / 5.0), (0.3, 0.8 / 3.0), (0.4, (0.8 - 0.8 / 3.0) / 2.0)];
        for (ending, (after, share)) in endings.iter().zip(wanted) {
            assert!(ending.after == after && (ending.share - share).abs() < 1e-12, "{ending:?}");
        }
    }

    #[test]
    fn shares_are_positive_ascending_and_at_most_one() {
        let stays: Vec<(f64, bool)> = (0..64).map(|i| (f64::from(i / 3), i % 5 > 0)).collect();
        let endings = survival(&stays);
        assert!(endings.iter().all(|&Ending { share, .. }| share > 0.0));
        assert!(endings.is_sorted_by(|a, b| a.after < b.after));
        assert!(endings.iter().map(|ending| ending.share).sum::<f64>() <= 1.0 + 1e-9);
    }

    #[test]
    fn a_life_is_foretold_from_those_that_lasted_longer() {
        let lives = [1.0, 1.0, 1.0, 300.0, 300.0];
        assert_eq!(remaining(&lives, 0.5), 0.5);
        assert_eq!(remaining(&lives, 100.0), 200.0);
        assert_eq!(remaining(&lives, 300.0), f64::INFINITY);
    }

    #[test]
    fn what_was_told_before_is_what_would_be_told_anew() {
        let (mut residences, mut told, mut dice) =
            (Residences::default(), Foretold::default(), Dice(5));
        let (mut break_even, mut age) = (30.0, 0.0);
        for _ in 0..3_000 {
            break_even *= 1.0 + 0.02 * (dice.roll() - 0.5);
            if dice.roll() < 0.05 {
                age = 300.0 * dice.roll();
            }
            if dice.roll() < 0.1 {
                residences.stayed(100.0 * dice.roll(), true);
                residences.lived(300.0 * dice.roll());
                residences.learn(4);
            }
            let anew = residences.wait(break_even, 2, age, &mut Foretold::default());
            assert_eq!(residences.wait(break_even, 2, age, &mut told), anew);
        }
    }

    #[test]
    fn tasks_that_never_leave_are_followed_soon_and_those_that_leave_soon_late() {
        let (mut stays, mut leaves) = (Residences::default(), Residences::default());
        for _ in 0..64 {
            stays.stayed(3_000.0, false);
            leaves.stayed(5.0, true);
        }
        stays.learn(MANY);
        leaves.learn(MANY);
        assert_eq!(stays.wait(30.0, 2, 0.0, &mut Foretold::default()), 0.0);
        // Whatever has lasted for longer than any other, the prior decides about.
        assert!(leaves.wait(30.0, 2, 0.0, &mut Foretold::default()) > 30.0);
        // Just about to exit.
        stays.lived(300.0);
        stays.learn(MANY);
        assert_eq!(stays.wait(30.0, 2, 290.0, &mut Foretold::default()), f64::INFINITY);
    }

    #[test]
    fn what_was_observed_counts_once_it_is_learned() {
        let mut residences = Residences::default();
        let before = residences.wait(30.0, 2, 0.0, &mut Foretold::default());
        for _ in 0..64 {
            residences.stayed(3_000.0, false);
        }
        assert_eq!(residences.wait(30.0, 2, 0.0, &mut Foretold::default()), before);
        residences.learn(MANY);
        assert_eq!(residences.wait(30.0, 2, 0.0, &mut Foretold::default()), 0.0);
    }

    #[test]
    fn with_nothing_seen_it_waits_about_as_long_as_the_move_costs() {
        for break_even in [5.0, 20.0, 60.0, 200.0] {
            let wait = Residences::default().wait(break_even, 2, 0.0, &mut Foretold::default());
            assert!((0.6..1.4).contains(&(wait / break_even)), "{break_even}: {wait}");
        }
    }
}
