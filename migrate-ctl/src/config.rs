//! What the user may set, and the priors that stand until something is measured.
//!
//! Plain data; flags fill it in `commands::run`.

pub mod set;

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{Est, Pages, Source};

/// Whether decisions are carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Decides, explains and exports.
    #[default]
    Observe,
    /// Also moves.
    Enforce,
}

impl Mode {
    /// The word used in flags, metrics and JSON alike.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }
}

/// A memory policy is read so often, in seconds, where nothing will be moved.
const OBSERVED_MEMPOLICY_FRESH: f64 = 300.0;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub policy: PolicyConfig,
    pub filter: Filter,
    /// Guards that are switched off, by the name of their reason. For tests only.
    pub guards_off: Vec<String>,
}

/// The constants of the decision. Each has its reason in `Default`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyConfig {
    /// Weight of the price in the choice of the next place, 0 to 1.
    pub gamma: f64,
    /// What we pay by the forecast may reach this many times the clairvoyant's cost,
    pub credit_rate: f64,
    /// and so many moves more.
    pub credit_moves: f64,
    pub forecast: Forecasting,
    /// Share of the time on local memory that waits for memory.
    pub boundness: Est,
    /// Seconds that the application loses for each page moved.
    pub price_per_page: Est,
    /// Seconds that the application loses for each move, however small.
    pub price_per_move: f64,
    /// Price of a CPU second that the mover used and that nobody else wanted, 0 to 1.
    pub idle_cpu_price: f64,
    /// What all moves together may move per second.
    pub pages_per_second: Pages,
    /// The most that may be moved at once after a quiet time.
    pub burst: Pages,
    /// The most that one direct move may hold up.
    pub largest_move: Pages,
    /// Orders that may be under way at once.
    pub concurrent_moves: usize,
    /// Kept free on the target beyond its high watermark.
    pub reserve: Pages,
    /// A process of less than this age is left alone.
    pub young_seconds: f64,
    /// A memory policy that was read so long ago no longer counts.
    pub mempolicy_fresh_seconds: f64,
    /// First cool-down after a move that failed or did not help; it doubles.
    pub cool_down_seconds: f64,
    /// Share of the moves, 0 to 1, that are held back at first, to see what comes without them.
    pub hold_back: f64,
    /// How long a move's effect is watched, and a move is held back.
    pub horizon_seconds: f64,
}

/// Where the forecast of how long a task stays comes from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forecasting {
    /// From the past residences of its cgroup.
    Learned,
    /// There is none: the work function alone decides.
    Off,
    /// It always says to move once staying has lost this share of the price. To see what a bad
    /// forecast costs.
    Always(f64),
}

impl PolicyConfig {
    /// The same where nothing will be moved.
    #[must_use]
    pub fn observing(&self) -> Self {
        Self {
            // Nothing hangs on it, and reading it walks the whole page table.
            mempolicy_fresh_seconds: OBSERVED_MEMPOLICY_FRESH,
            // Where nothing is moved there is nothing to compare with.
            hold_back: 0.0,
            ..self.clone()
        }
    }
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            // Near the deterministic optimum of 3 on two nodes: a stranded process costs
            // 2 + γ of the clairvoyant's cost, the adversary 2 + 1/γ.
            gamma: 0.95,
            // Below the 3 that the work function is held to, and above what good forecasts need:
            // on the yardstick's traces they pay 1.2 times the clairvoyant's cost.
            credit_rate: 2.0,
            // One move there and one back: with less, a single early move is undone at once.
            credit_moves: 2.0,
            forecast: Forecasting::Learned,
            // Top-down studies of server fleets put the memory-bound share of the cycles
            // between a tenth and well over half (Kanev et al., "Profiling a warehouse-scale
            // computer", ISCA 2015). We decide on the low end.
            boundness: Est { low: 0.1, mid: 0.3, high: 0.6, source: Source::Prior },
            // Half a second lost for 512 MiB moved with migrate_pages(2) in an emulated guest
            // is 4 µs a page; the mover's own kernel time there was 15 µs a page.
            price_per_page: Est { low: 1e-6, mid: 4e-6, high: 15e-6, source: Source::Prior },
            // A call that moves nothing walks the page table and drains the LRU caches:
            // 0.02 to 6 ms in emulated guests.
            price_per_move: 0.005,
            // An idle CPU is not free: its heat and its share of the caches are somebody's.
            idle_cpu_price: 0.1,
            // 256 MiB a second, and 4 GiB after a quiet time.
            pages_per_second: 65_536,
            burst: 1 << 20,
            // 4 GiB: by our price four seconds lost. On 6.1 the target can neither map nor unmap
            // memory as long as the call lasts.
            largest_move: 1 << 20,
            // They are carried out one after the other, and an order is true for two ticks only:
            // with more of them the last wait in vain.
            concurrent_moves: 4,
            // 64 MiB.
            reserve: 16_384,
            // Most processes end within their first second (Harchol-Balter and Downey, SIGMETRICS
            // 1996), and those that go on have then placed by first touch what they need at once.
            young_seconds: 1.0,
            // One may be set at any moment, so it is read again just before a move.
            mempolicy_fresh_seconds: 5.0,
            cool_down_seconds: 60.0,
            // One in twenty: with a hundred moves five comparisons, and what they cost is a
            // horizon of staying each.
            hold_back: 0.05,
            // Some thirty ticks: what was saved is then known within 0.06, though a third of them
            // are disturbed.
            horizon_seconds: 30.0,
        }
    }
}

/// Whom we may touch. An exclude wins over an include; no include means everybody.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    pub include: Vec<Pattern>,
    pub exclude: Vec<Pattern>,
}

/// One process, all of one name, or all below one cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    Pid(u32),
    Comm(String),
    /// A path in the unified hierarchy; matches the cgroup and all below it.
    Cgroup(String),
}

impl Filter {
    /// Whether we may touch this process.
    pub fn allows(&self, pid: u32, comm: &str, cgroup: &str) -> bool {
        self.includes(pid, comm, cgroup) && !self.excludes(pid, comm, cgroup)
    }

    pub fn includes(&self, pid: u32, comm: &str, cgroup: &str) -> bool {
        let mut include = self.include.iter();
        self.include.is_empty() || include.any(|pattern| pattern.matches(pid, comm, cgroup))
    }

    pub fn excludes(&self, pid: u32, comm: &str, cgroup: &str) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(pid, comm, cgroup))
    }
}

impl Pattern {
    fn matches(&self, pid: u32, comm: &str, cgroup: &str) -> bool {
        match self {
            Self::Pid(wanted) => *wanted == pid,
            Self::Comm(wanted) => wanted == comm,
            Self::Cgroup(wanted) => {
                let top = wanted.trim_end_matches('/');
                cgroup
                    .strip_prefix(top)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

/// Why a text names no process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("`{0}` names no process; write pid:NUMBER, comm:NAME or cgroup:/PATH")]
    Form(String),
    #[error("`{0}` is no process number; write pid:NUMBER with a number from 1 on")]
    Pid(String),
    #[error("`{0}` is empty after the colon; write pid:NUMBER, comm:NAME or cgroup:/PATH")]
    Empty(String),
    #[error(
        "`{0}` can match no process: the kernel keeps at most 15 bytes of a name; write the \
         first 15, as in /proc/PID/comm"
    )]
    LongComm(String),
    #[error("`{0}` is no path in the cgroup hierarchy; write it from its root: cgroup:/PATH")]
    RelativeCgroup(String),
}

/// Bytes of a name without the closing zero (TASK_COMM_LEN is 16).
const COMM_BYTES: usize = 15;

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let whole = || text.to_owned();
        let (kind, value) = text.split_once(':').ok_or_else(|| PatternError::Form(whole()))?;
        match kind {
            "pid" | "comm" | "cgroup" if value.is_empty() => Err(PatternError::Empty(whole())),
            "pid" => match value.parse() {
                Ok(pid) if pid > 0 => Ok(Self::Pid(pid)),
                Ok(_) | Err(_) => Err(PatternError::Pid(whole())),
            },
            "comm" if value.len() > COMM_BYTES => Err(PatternError::LongComm(whole())),
            "comm" => Ok(Self::Comm(value.to_owned())),
            "cgroup" if !value.starts_with('/') => Err(PatternError::RelativeCgroup(whole())),
            "cgroup" => Ok(Self::Cgroup(value.to_owned())),
            _ => Err(PatternError::Form(whole())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Filter, Pattern, PatternError};

    #[test]
    fn a_cgroup_covers_all_below_it_and_no_namesake() {
        let filter = filter(&[], &["cgroup:/jobs/a"]);
        assert!(!filter.allows(1, "x", "/jobs/a"));
        assert!(!filter.allows(1, "x", "/jobs/a/b"));
        assert!(filter.allows(1, "x", "/jobs/ab"));
        assert!(filter.allows(1, "x", ""));
    }

    #[test]
    fn the_root_cgroup_covers_everything_in_the_hierarchy() {
        assert!(filter(&["cgroup:/"], &[]).allows(1, "x", "/jobs"));
    }

    #[test]
    fn an_exclude_wins_over_an_include() {
        let filter = filter(&["comm:redis-server"], &["pid:7"]);
        assert!(filter.allows(8, "redis-server", "/"));
        assert!(!filter.allows(7, "redis-server", "/"));
        assert!(!filter.allows(8, "bash", "/"));
    }

    #[test]
    fn bad_patterns_say_what_to_write_instead() {
        for bad in [
            "",
            "7",
            "pid:",
            "pid:0",
            "pid:-1",
            "user:7",
            "comm:",
            "comm:longer-than-15-by",
            "cgroup:jobs",
        ] {
            let error = bad.parse::<Pattern>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{bad}`")) && error.contains("write"), "{error}");
        }
        assert_eq!("pid:x".parse::<Pattern>(), Err(PatternError::Pid("pid:x".into())));
        assert_eq!("comm:a:b".parse(), Ok(Pattern::Comm("a:b".into())));
    }

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Filter { include: parse(include), exclude: parse(exclude) }
    }
}
