//! The assessment for people and for programs: a table by cgroup and a verdict.

use std::fmt;
use std::time::Duration;

use migrate_common::Durations;
use serde::Serialize;

use super::{Assessment, Span, Sums};
use crate::model::{NodeObs, NodeVec};
use crate::report::machine;

/// Cgroups shown; the rest is summed up.
const SHOWN: usize = 16;
/// Below this share of the CPU time a loss or a gain is none: no estimate of ours is that good.
const MATTERS: f64 = 0.01;
/// Beyond this share of the CPU time too much is unknown for a verdict without a reserve.
const UNKNOWN: f64 = 0.1;
const PAGES_PER_MIB: f64 = 256.0;

/// How long a hint fault takes: as long as minor faults do on the mean, of which it is one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FaultTime {
    pub mean_seconds: f64,
    /// Minor faults that were timed.
    pub sampled: u64,
}

impl FaultTime {
    /// None where none was timed.
    pub fn of(minor: &Durations) -> Option<Self> {
        let sampled: u64 = minor.buckets.iter().sum();
        (sampled > 0)
            .then(|| Self { mean_seconds: minor.nanos as f64 / 1e9 / sampled as f64, sampled })
    }
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    pub cgroup: String,
    #[serde(flatten)]
    pub sums: Sums,
    /// Hint faults × what one takes; none where that is not known.
    pub balancing_seconds: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub seconds: f64,
    pub ticks: u64,
    pub machine: String,
    /// Those that lost most, then those that used most CPU time.
    pub cgroups: Vec<Group>,
    /// How many more there are, and all of them together.
    pub more: usize,
    pub other: Group,
    pub total: Group,
    pub fault_time: Option<FaultTime>,
    pub verdict: String,
}

impl Assessment {
    /// What came of it so far.
    pub fn report(&self, fault_time: Option<FaultTime>) -> Report {
        let group = |(cgroup, sums): (&String, &Sums)| line(cgroup, *sums, fault_time);
        let mut cgroups: Vec<Group> = self.groups.iter().map(group).collect();
        cgroups.sort_by(|a, b| {
            let (a, b) = (&a.sums, &b.sums);
            b.lost.mid.total_cmp(&a.lost.mid).then(b.cpu_seconds.total_cmp(&a.cpu_seconds))
        });
        let rest = cgroups.split_off(cgroups.len().min(SHOWN));
        let sum = |start: Sums, groups: &[Group]| {
            groups.iter().fold(start, |mut sum, group| {
                sum.add(&group.sums);
                sum
            })
        };
        let other = sum(self.others, &rest);
        let total = sum(other, &cgroups);
        Report {
            seconds: self.seconds,
            ticks: self.ticks,
            machine: machine(&self.nodes),
            cgroups,
            more: rest.len(),
            other: line("other", other, fault_time),
            total: line("all", total, fault_time),
            fault_time,
            verdict: verdict(&self.nodes, &total),
        }
    }
}

fn line(cgroup: &str, sums: Sums, fault_time: Option<FaultTime>) -> Group {
    let sums = Sums { recoverable: sums.recoverable.ordered(), ..sums };
    let faults = sums.balancing.hint_faults as f64;
    let balancing_seconds = fault_time.map(|time| faults * time.mean_seconds);
    Group { cgroup: cgroup.to_owned(), sums, balancing_seconds }
}

/// One sentence, or two.
fn verdict(nodes: &NodeVec<NodeObs>, total: &Sums) -> String {
    if total.cpu_seconds <= 0.0 {
        return "Nothing ran that could be watched: there is nothing to say.".to_owned();
    }
    if nodes.values().filter(|node| node.has_memory).count() < 2 {
        return "NUMA does not matter here: there is one node with memory.".to_owned();
    }
    let share = |seconds: f64| seconds / total.cpu_seconds;
    let (lost, net) = (total.lost, net(total));
    let costs = format!("remote memory costs {} of the CPU time", percents(total, lost));
    let said = if share(lost.high) < MATTERS {
        format!("NUMA does not matter here: {costs}.")
    } else if share(net.high) < MATTERS {
        format!("Nothing is to be gained by moving memory here: {costs}, and no move would pay.")
    } else if share(net.low) >= MATTERS {
        format!(
            "NUMA matters here: {costs}, and moving memory would win back {}, its price paid.",
            percents(total, net)
        )
    } else {
        format!(
            "NUMA may matter here: {costs}, and moving memory would win back {}, its price paid; \
             what is only assumed makes the difference.",
            percents(total, net)
        )
    };
    let unplaced = share(total.unplaced_seconds);
    if unplaced < UNKNOWN {
        return said;
    }
    format!(
        "{said} That leaves out {:.0} %, whose memory could not be looked at.",
        unplaced * 100.0
    )
}

/// What is won once the price is paid: least with the highest price, most with the lowest.
fn net(sums: &Sums) -> Span {
    let Span { low, mid, high } = sums.recoverable.ordered();
    let price = sums.price;
    Span { low: low - price.high, mid: mid - price.mid, high: high - price.low }
}

fn percents(total: &Sums, seconds: Span) -> String {
    let percent = |seconds: f64| 100.0 * seconds / total.cpu_seconds;
    let Span { low, mid, high } = seconds;
    format!("{:.1} % ({:.1} to {:.1})", percent(mid), percent(low), percent(high))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watched = humantime::format_duration(Duration::from_secs_f64(self.seconds.round()));
        writeln!(f, "watched {watched}; {}", self.machine)?;
        self.losses(f)?;
        self.unknown(f)?;
        self.balancing(f)?;
        write!(f, "{}", self.verdict)
    }
}

impl Report {
    fn losses(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.width();
        writeln!(
            f,
            "\n{:width$}  {:>9}  {:>26}  {:>26}  {:>8}  {:>5}  {:>7}  {:>8}  {:>5}",
            "cgroup",
            "CPU s",
            "lost s (low to high)",
            "recoverable s",
            "price s",
            "moves",
            "MiB",
            "unplaced",
            "prior"
        )?;
        for group in self.lines() {
            let sums = &group.sums;
            let of_cpu = |seconds: f64| 100.0 * seconds / sums.cpu_seconds.max(f64::MIN_POSITIVE);
            writeln!(
                f,
                "{:width$}  {:>9.1}  {:>26}  {:>26}  {:>8.2}  {:>5}  {:>7.0}  {:>6.0} %  {:>3.0} %",
                group.cgroup,
                sums.cpu_seconds,
                seconds(sums.lost),
                seconds(sums.recoverable),
                sums.price.mid,
                sums.moves,
                sums.pages as f64 / PAGES_PER_MIB,
                of_cpu(sums.unplaced_seconds),
                of_cpu(sums.prior_seconds),
            )?;
        }
        Ok(())
    }

    fn unknown(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = &self.total.sums;
        writeln!(
            f,
            "\nunknown: where the memory is, for {:.1} s of {:.1} s of CPU time (unplaced); how much \
             of it waits for memory, for {:.1} s more, where a prior stands in and makes {:.2} s of \
             the {:.2} s between low and high",
            all.unplaced_seconds,
            all.cpu_seconds,
            all.prior_seconds,
            all.lost_width_by_priors,
            all.lost.width()
        )
    }

    fn balancing(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.total.sums.balancing.is_idle() {
            return writeln!(f, "\nthe kernel's own balancing did nothing\n");
        }
        let width = self.width();
        writeln!(
            f,
            "\n{:width$}  {:>11}  {:>7}  {:>11}  {:>10}  {:>13}",
            "kernel's own balancing",
            "hint faults",
            "cost s",
            "pages moved",
            "moved back",
            "became nearer"
        )?;
        for group in self.lines().filter(|group| !group.sums.balancing.is_idle()) {
            let balancing = &group.sums.balancing;
            let cost = group.balancing_seconds;
            writeln!(
                f,
                "{:width$}  {:>11}  {:>7}  {:>11}  {:>10.0}  {:>13.0}",
                group.cgroup,
                balancing.hint_faults,
                cost.map_or_else(|| "?".to_owned(), |cost| format!("{cost:.2}")),
                balancing.pages_moved,
                balancing.pages_back,
                balancing.pages_nearer,
            )?;
        }
        match self.fault_time {
            Some(FaultTime { mean_seconds, sampled }) => writeln!(
                f,
                "a hint fault is taken for a minor fault: {:.1} us, the mean of {sampled}\n",
                mean_seconds * 1e6
            ),
            None => writeln!(f, "what a hint fault takes is not known: no fault was timed\n"),
        }
    }

    /// What is shown, with what it comes to.
    fn lines(&self) -> impl Iterator<Item = &Group> {
        let other = (self.other.sums != Sums::default()).then_some(&self.other);
        self.cgroups.iter().chain(other).chain([&self.total])
    }

    /// Of the first column.
    fn width(&self) -> usize {
        let names = self.cgroups.iter().map(|group| group.cgroup.chars().count());
        names.max().unwrap_or(0).max("kernel's own balancing".len())
    }
}

fn seconds(Span { low, mid, high }: Span) -> String {
    format!("{mid:.2} ({low:.2} to {high:.2})")
}
