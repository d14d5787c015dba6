//! What the user may set, and the priors that stand until something is measured.
//!
//! Plain data; flags fill it in `main`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{Est, Pages, Source};

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
    /// Share of the time on local memory that waits for memory.
    pub boundness: Est,
    /// Seconds that the application loses for each page moved.
    pub price_per_page: Est,
    /// Seconds that the application loses for each move, however small.
    pub price_per_move: f64,
    /// What all moves together may move per second.
    pub pages_per_second: Pages,
    /// The most that may be moved at once after a quiet time.
    pub burst: Pages,
    /// The most that one direct move may hold up.
    pub largest_move: Pages,
    /// Kept free on the target beyond its high watermark.
    pub reserve: Pages,
    /// First cool-down after a move that failed or did not help; it doubles.
    pub cool_down_seconds: f64,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            // Near the deterministic optimum of 3 on two nodes: a stranded process costs
            // 2 + γ of the clairvoyant's cost, the adversary 2 + 1/γ.
            gamma: 0.95,
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
            // 256 MiB a second, and 4 GiB after a quiet time.
            pages_per_second: 65_536,
            burst: 1 << 20,
            // 4 GiB: about a second of migrate_pages(2) on current machines, during which 6.1
            // lets the target neither map nor unmap memory.
            largest_move: 1 << 20,
            // 64 MiB.
            reserve: 16_384,
            cool_down_seconds: 60.0,
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
    pub fn allows(&self, pid: u32, comm: &str, cgroup: &str) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(pid, comm, cgroup));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

impl Pattern {
    fn matches(&self, pid: u32, comm: &str, cgroup: &str) -> bool {
        match self {
            Self::Pid(wanted) => *wanted == pid,
            Self::Comm(wanted) => wanted == comm,
            Self::Cgroup(wanted) => {
                let below = cgroup.strip_prefix(wanted.trim_end_matches('/'));
                below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

/// Why a pattern was not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither pid:NUMBER, comm:NAME nor cgroup:/PATH")]
pub struct PatternError(String);

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let wrong = || PatternError(text.to_owned());
        match text.split_once(':').ok_or_else(wrong)? {
            ("pid", pid) => pid.parse().ok().map(Self::Pid).ok_or_else(wrong),
            ("comm", comm) if !comm.is_empty() => Ok(Self::Comm(comm.to_owned())),
            ("cgroup", path) if path.starts_with('/') => Ok(Self::Cgroup(path.to_owned())),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Filter, Pattern};

    #[test]
    fn an_exclude_wins_over_an_include() {
        let filter = Filter {
            include: vec![Pattern::Comm("redis-server".to_owned())],
            exclude: vec![Pattern::Pid(7)],
        };
        assert!(filter.allows(1, "redis-server", "/"));
        assert!(!filter.allows(7, "redis-server", "/"));
        assert!(!filter.allows(1, "postgres", "/"));
    }

    #[test]
    fn a_cgroup_means_itself_and_all_below_it_but_not_its_namesakes() {
        let filter =
            Filter { exclude: vec![Pattern::Cgroup("/a/b".to_owned())], ..Filter::default() };
        assert!(!filter.allows(1, "", "/a/b"));
        assert!(!filter.allows(1, "", "/a/b/c"));
        assert!(filter.allows(1, "", "/a/bc"));
    }

    #[test]
    fn a_pattern_that_is_none_says_what_would_be_one() {
        let error = "pid:x".parse::<Pattern>().expect_err("not a number");
        assert_eq!(error.to_string(), "`pid:x` is neither pid:NUMBER, comm:NAME nor cgroup:/PATH");
        assert_eq!("cgroup:/x".parse(), Ok(Pattern::Cgroup("/x".to_owned())));
    }
}
