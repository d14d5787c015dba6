//! Where simulated tasks run, tick by tick.
//!
//! One generator with fixed parameters, so that a figure of the policy means
//! the same every time. Its numbers are older than the policy's and are changed
//! in a commit of their own.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// Ticks of a trace.
pub const TICKS: usize = 3_000;
/// Seconds of a tick.
pub const TICK: f64 = 0.1;
/// Seconds lost in a tick with the memory on another node than the task: 30 % of a core.
pub const BAD: f64 = 0.03;
/// Seconds that a move costs: 10 to 2,000 bad ticks.
pub const PRICES: [f64; 5] = [0.3, 1.0, 5.0, 20.0, 60.0];
/// Traces of each law and price.
pub const PER_CELL: usize = 6;
/// Where the memory is at first.
pub const HOME: usize = 0;
/// Where the task runs at first: it has just been stranded.
pub const STRANDED_ON: usize = 1;

/// How long a task stays on a node, in ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Law {
    /// For good.
    Stay,
    /// Always so long.
    Period(usize),
    /// 1 + ⌊exponential with this mean⌋.
    Exp { mean: f64 },
    /// 1 + ⌊scale × Pareto(α)⌋, whose smallest value is 1.
    Pareto { scale: f64, alpha: f64 },
    /// The one or the other, with equal odds.
    Mix(usize, usize),
}

/// The laws of the yardstick. Each is a class of its own.
pub const LAWS: [Law; 10] = [
    Law::Stay,
    Law::Period(5),
    Law::Period(50),
    Law::Period(300),
    Law::Exp { mean: 30.0 },
    Law::Exp { mean: 300.0 },
    Law::Exp { mean: 1_500.0 },
    Law::Pareto { scale: 3.0, alpha: 1.1 },
    Law::Pareto { scale: 30.0, alpha: 1.3 },
    Law::Mix(10, 1_000),
];

impl Law {
    /// As in tables.
    pub fn name(self) -> String {
        match self {
            Self::Stay => "stay".to_owned(),
            Self::Period(ticks) => format!("period {ticks}"),
            Self::Exp { mean } => format!("exp {mean}"),
            Self::Pareto { scale, alpha } => format!("pareto {scale} {alpha}"),
            Self::Mix(short, long) => format!("mix {short} {long}"),
        }
    }

    /// Ticks of one stay; at least 1.
    fn draw(self, dice: &mut Dice) -> usize {
        match self {
            Self::Stay => usize::MAX,
            Self::Period(ticks) => ticks,
            Self::Exp { mean } => 1 + ticks(-mean * (1.0 - dice.roll()).ln()),
            Self::Pareto { scale, alpha } => {
                1 + ticks(scale * (1.0 - dice.roll()).powf(-1.0 / alpha))
            }
            Self::Mix(short, long) => {
                if dice.roll() < 0.5 {
                    short
                } else {
                    long
                }
            }
        }
    }
}

/// Names no law.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no law; write stay, period:TICKS, exp:MEAN, pareto:SCALE:ALPHA or mix:SHORT:LONG, \
     in ticks from 1 on, or all"
)]
pub struct LawError(String);

impl std::str::FromStr for Law {
    type Err = LawError;

    fn from_str(text: &str) -> Result<Self, LawError> {
        let words: Vec<&str> = text.split([':', ' ']).collect();
        let whole = |word: &str| word.parse().ok().filter(|&ticks| ticks > 0);
        let real = |word: &str| word.parse().ok().filter(|real: &f64| *real > 0.0 && *real <= 1e9);
        let law = match words[..] {
            ["stay"] => Some(Self::Stay),
            ["period", ticks] => whole(ticks).map(Self::Period),
            ["exp", mean] => real(mean).map(|mean| Self::Exp { mean }),
            ["pareto", scale, alpha] => {
                real(scale).zip(real(alpha)).map(|(scale, alpha)| Self::Pareto { scale, alpha })
            }
            ["mix", short, long] => {
                whole(short).zip(whole(long)).map(|(short, long)| Self::Mix(short, long))
            }
            _ => None,
        };
        law.ok_or_else(|| LawError(text.to_owned()))
    }
}

/// One task's way over the nodes, and what a move of its memory costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Position in [`LAWS`].
    pub law: usize,
    /// Position in [`PRICES`].
    pub price: usize,
    /// The node of each tick.
    pub runs_on: Vec<usize>,
}

/// All cells' traces in one shuffled order. The same seed gives the same traces.
pub fn traces(seed: u64, nodes: usize) -> Vec<Trace> {
    let mut dice = Dice::new(seed);
    let mut traces = Vec::with_capacity(LAWS.len() * PRICES.len() * PER_CELL);
    for (law, residence) in LAWS.into_iter().enumerate() {
        for price in 0..PRICES.len() {
            for _ in 0..PER_CELL {
                let runs_on = walk(residence, nodes, TICKS, &mut dice);
                traces.push(Trace { law, price, runs_on });
            }
        }
    }
    shuffle(&mut traces, &mut dice);
    traces
}

/// From where it was stranded on to one of the other nodes, each with equal odds.
pub fn walk(law: Law, nodes: usize, ticks: usize, dice: &mut Dice) -> Vec<usize> {
    let mut runs_on = Vec::with_capacity(ticks);
    let mut node = STRANDED_ON;
    while runs_on.len() < ticks {
        let stay = law.draw(dice).min(ticks - runs_on.len());
        runs_on.extend(std::iter::repeat_n(node, stay));
        node = (node + 1 + dice.below(nodes - 1)) % nodes;
    }
    runs_on
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], dice: &mut Dice) {
    for last in (1..items.len()).rev() {
        items.swap(last, dice.below(last + 1));
    }
}

/// A generator whose sequence is the same in every release.
#[derive(Clone, Debug)]
pub struct Dice(Pcg64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Pcg64::seed_from_u64(seed))
    }

    /// From 0 up to, but not including, 1.
    pub fn roll(&mut self) -> f64 {
        // 53 bits are what a double holds.
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 up to, but not including, this number, which is not 0.
    pub fn below(&mut self, number: usize) -> usize {
        ticks(self.roll() * number as f64).min(number - 1)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and a float cast saturates"
)]
fn ticks(value: f64) -> usize {
    // So that adding one to it cannot overflow.
    value.min(1e15) as usize
}

#[cfg(test)]
mod tests {
    use super::{Dice, LAWS, Law, STRANDED_ON, TICKS, traces, walk};

    #[test]
    fn every_cell_has_its_traces_and_each_begins_stranded() {
        let traces = traces(1, 4);
        assert_eq!(traces.len(), 300);
        for (law, price) in (0..10).flat_map(|law| (0..5).map(move |price| (law, price))) {
            let cell = traces.iter().filter(|trace| trace.law == law && trace.price == price);
            assert_eq!(cell.count(), 6);
        }
        for trace in &traces {
            assert_eq!((trace.runs_on.len(), trace.runs_on[0]), (TICKS, STRANDED_ON));
            assert!(trace.runs_on.iter().all(|&node| node < 4));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_traces_and_another_seed_others() {
        assert_eq!(traces(3, 2), traces(3, 2));
        assert_ne!(traces(3, 2), traces(4, 2));
    }

    #[test]
    fn a_law_is_read_as_it_is_shown() {
        for law in LAWS {
            assert_eq!(law.name().parse(), Ok(law));
            assert_eq!(law.name().replace(' ', ":").parse(), Ok(law));
        }
        for bad in ["", "period", "period:0", "exp:-1", "exp:nan", "pareto:1", "mix:1:x", "stay:1"]
        {
            let error = bad.parse::<Law>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{bad}`")) && error.contains("write"), "{error}");
        }
    }

    #[test]
    fn stays_last_as_long_as_their_law_says() {
        for law in LAWS {
            let mut dice = Dice::new(5);
            let mut stays: Vec<usize> = (0..20_001).map(|_| law.draw(&mut dice)).collect();
            stays.sort_unstable();
            let median = stays[10_000] as f64;
            let wanted = match law {
                Law::Stay => usize::MAX as f64,
                Law::Period(ticks) => ticks as f64,
                Law::Exp { mean } => mean * 2_f64.ln() + 0.5,
                Law::Pareto { scale, alpha } => scale * 2_f64.powf(1.0 / alpha) + 0.5,
                Law::Mix(short, long) => {
                    assert!(stays.iter().all(|&stay| stay == short || stay == long));
                    median
                }
            };
            assert!((median / wanted - 1.0).abs() < 0.08, "{law:?}: {median}, not {wanted}");
        }
    }

    #[test]
    fn a_task_goes_to_each_other_node_alike() {
        let walk = walk(Law::Period(1), 4, 30_001, &mut Dice::new(9));
        let mut went = [[0_u32; 4]; 4];
        for step in walk.windows(2) {
            went[step[0]][step[1]] += 1;
        }
        for (from, row) in went.iter().enumerate() {
            let all: u32 = row.iter().sum();
            for (to, &times) in row.iter().enumerate() {
                let share = f64::from(times) / f64::from(all);
                let wanted = if from == to { 0.0 } else { 1.0 / 3.0 };
                assert!((share - wanted).abs() < 0.02, "{from} to {to}: {share}");
            }
        }
    }
}
