//! What people may see: one immutable value per tick.
//!
//! The exporter and the views read this and nothing else, so that a scrape
//! costs the kernel nothing. Counters count from the controller's start.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use migrate_common::{
    DRAIN_KINDS, Durations, FAULT_KINDS, Hints, Isolated, LOST_SLOTS, Migrations, SCAN_KINDS,
    Scanned, TaskCounters,
};

use crate::journal::files;
use crate::ledger::Ledger;
use crate::model::{Accesses, Est, Faults, Nanos, NodeId, NodeVec};
use crate::placement::ClassPages;
use crate::table::learned::Learned;

#[derive(Clone, Debug)]
pub struct Snapshot {
    /// `observe` or `enforce`.
    pub mode: &'static str,
    /// Kernel numbers of the nodes, by position.
    pub nodes: NodeVec<NodeId>,
    pub totals: Totals,
    /// Everybody's migrations by reason: a reason as the running kernel names it, or ours.
    pub migrations: Vec<(String, Migrations)>,
    /// What was taken off the LRU lists, by node and reason, where there was anything.
    pub isolated: BTreeMap<(NodeId, String), Isolated>,
    /// By node and `migrate_common::Scan`: what reclaim and compaction took off them.
    pub scans: Vec<(NodeId, [Scanned; SCAN_KINDS as usize])>,
    pub probes: Vec<HookVerdict>,
    pub ledger: Ledger,
    /// What the policy has learned.
    pub learned: Learned,
    /// The busiest cgroups by what remote memory costs them, bounded, most first.
    pub cgroups: Vec<CgroupLoad>,
    /// Resident pages of the processes that were looked into.
    pub resident: Vec<ClassPages>,
    /// Processes that could not be looked into in time, by pid.
    pub late: Vec<LateProcess>,
    /// What became of the journal's records; nothing where there is no journal.
    pub journal: files::Totals,
    pub cost: OwnCost,
    /// Without a newer one by then something is stuck.
    pub good_until: Instant,
}

/// Sums over all processes, the exited ones too.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub counters: TaskCounters,
    /// Of all processes since the machine started.
    pub faults: Faults,
    /// By `migrate_common::FaultKind`: the faults that were timed.
    pub fault_time: [Durations; FAULT_KINDS as usize],
    /// By `migrate_common::Drain`.
    pub drains: [Durations; DRAIN_KINDS as usize],
    /// `hints[cpu node][memory node]`: NUMA-hint faults.
    pub hints: NodeVec<NodeVec<Hints>>,
    /// `crossings[from][to]`: times that the scheduler moved a thread to another node.
    pub crossings: NodeVec<NodeVec<u64>>,
    /// Samples of loads by the node of the CPU; none where no PMU takes them.
    pub accesses: Option<NodeVec<Accesses>>,
    /// Of those, what found a ring full.
    pub lost_accesses: u64,
    /// CPU time by node; sampled, or from /proc where sampling is refused.
    pub cpu: NodeVec<Nanos>,
    /// CPUs that came online since the start: what runs there is not counted.
    pub cpus_missed: usize,
    /// By slot of `migrate_common::Lost`.
    pub lost: [u64; LOST_SLOTS as usize],
    /// Pagemap entries that the placements took.
    pub placement_entries: u64,
    /// Time that they took, of all threads, with the waiting for locks.
    pub placement_seconds: f64,
    /// Times that a process could not be looked into in time.
    pub placement_late: u64,
}

/// A process whose lock we wait for, or which waits for a thread of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateProcess {
    pub pid: u32,
    /// Raw.
    pub comm: String,
    pub waited: Duration,
    /// False: others have taken all threads.
    pub being_read: bool,
}

/// What became of one hook on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct HookVerdict {
    /// The signal that it feeds: one of `probes::SIGNALS`.
    pub signal: &'static str,
    /// Kind and kernel name, as in `fexit folio_isolate_lru`.
    pub hook: String,
    #[serde(flatten)]
    pub state: HookState,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "why")]
pub enum HookState {
    Attached,
    /// This kernel has no such function or tracepoint.
    Absent(String),
    /// The kernel refused to load or attach it.
    Refused(String),
    /// The user switched it off.
    Off,
}

/// One cgroup in the last tick.
#[derive(Clone, Debug, PartialEq)]
pub struct CgroupLoad {
    /// Path, made printable and at most 64 bytes.
    pub cgroup: String,
    /// Share of CPU time × placement that crossed nodes, 0 to 1, of its processes whose placement
    /// is known; none if no placement is.
    pub remote: Option<Est>,
    /// Seconds lost by its processes per second, as the policy models it.
    pub loss_rate: Est,
}

/// What the controller itself costs.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnCost {
    pub ticks: u64,
    /// Ticks in which something could not be read.
    pub tick_errors: u64,
    /// Wall time of the last tick's work.
    pub tick_seconds: f64,
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub open_fds: u64,
    /// Unix time.
    pub start_time_seconds: f64,
}
