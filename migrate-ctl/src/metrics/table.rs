//! Which metrics are there?
//!
//! The only place that names one. `docs/metrics.md` and the dashboard are held
//! against [`METRICS`] by tests. Labels are bounded: nodes, words of ours or of
//! the kernel, and the few busiest cgroups; never a pid.

use migrate_common::{Counter, Drain, FaultKind, Lost};

use super::{Kind, Metric, Rows};
use crate::ledger::PairTotals;
use crate::model::{End, Node, NodeId, Reason, Source};
use crate::snapshot::{CgroupLoad, HookState, Snapshot};

/// Up to so many nodes every pair of them starts at 0; beyond, a pair appears
/// once something crossed it, since pairs grow with the square.
const PRESET_NODES: usize = 8;

const NO_FAILURE: Option<&str> = Some("nothing failed");

const LOCAL: Option<&str> = Some("all memory in use is local, as after a move");

const PAIR: &[&str] = &["from_node", "to_node"];

/// Every metric, in the order of the exposition.
pub static METRICS: &[Metric] = &[
    Metric {
        name: "migrate_build_info",
        kind: Kind::Gauge,
        unit: "info",
        help: "The running version; always 1.",
        labels: &["version"],
        empty_when: None,
        read: |_, rows| rows.add([env!("CARGO_PKG_VERSION")], 1.0),
    },
    Metric {
        name: "migrate_mode_info",
        kind: Kind::Gauge,
        unit: "info",
        help: "The mode, observe or enforce; always 1.",
        labels: &["mode"],
        empty_when: None,
        read: |s, rows| rows.add([s.mode], 1.0),
    },
    Metric {
        name: "migrate_nodes",
        kind: Kind::Gauge,
        unit: "nodes",
        help: "NUMA nodes of this machine; with one there is nothing to do.",
        labels: &[],
        empty_when: None,
        read: |s, rows| rows.add([], count(s.nodes.len())),
    },
    // Is NUMA a problem here?
    Metric {
        name: "migrate_cgroup_remote_ratio",
        kind: Kind::Gauge,
        unit: "ratio",
        help: "Share of the busiest cgroups' CPU time that faced memory of another node, 0 to 1, by where that number comes from.",
        labels: &["cgroup", "source"],
        empty_when: LOCAL,
        read: |s, rows| cgroups(s, |labels, c| rows.highest(labels, c.remote_share.into())),
    },
    Metric {
        name: "migrate_cgroup_modelled_loss_ratio",
        kind: Kind::Gauge,
        unit: "seconds per second",
        help: "Seconds that the busiest cgroups' threads lose to remote memory per second, as the policy models it; many threads lose more than 1.",
        labels: &["cgroup", "source"],
        empty_when: LOCAL,
        read: |s, rows| cgroups(s, |labels, c| rows.add(labels, c.loss_rate.into())),
    },
    Metric {
        name: "migrate_cpu_seconds_total",
        kind: Kind::Counter,
        unit: "seconds",
        help: "CPU time of all processes by the node that it was spent on.",
        labels: &["node"],
        empty_when: None,
        read: |s, rows| {
            for (node, id) in s.nodes.iter() {
                let nanos = s.totals.cpu.get(node).copied().unwrap_or(0);
                rows.add([&id.to_string()], nanos as f64 / 1e9);
            }
        },
    },
    Metric {
        name: "migrate_hint_faults_total",
        kind: Kind::Counter,
        unit: "faults",
        help: "NUMA-hint faults by the node of the CPU and the node of the page: who touched which page once, not how often.",
        labels: &["cpu_node", "memory_node"],
        empty_when: Some("the kernel makes them only while NUMA balancing is on"),
        read: hint_faults,
    },
    Metric {
        name: "migrate_page_faults_total",
        kind: Kind::Counter,
        unit: "faults",
        help: "Page faults of all processes; major ones waited for a device.",
        labels: &["kind"],
        empty_when: None,
        read: |s, rows| {
            rows.add(["minor"], counter(s, Counter::FaultsMinor));
            rows.add(["major"], counter(s, Counter::FaultsMajor));
        },
    },
    Metric {
        name: "migrate_page_fault_duration_seconds",
        kind: Kind::Histogram,
        unit: "seconds",
        help: "Duration of a sample of the page faults: those of one tick in sixty.",
        labels: &["kind"],
        empty_when: None,
        read: |s, rows| {
            rows.calls(["minor"], &s.totals.fault_time[FaultKind::Minor as usize]);
            rows.calls(["major"], &s.totals.fault_time[FaultKind::Major as usize]);
        },
    },
    Metric {
        name: "migrate_page_faults_by_cause_total",
        kind: Kind::Counter,
        unit: "faults",
        help: "Of the page faults of all processes, those for two causes: a write to a protected page, and a page in swap.",
        labels: &["cause"],
        empty_when: None,
        read: |s, rows| {
            rows.add(["write_protect"], counter(s, Counter::FaultsWriteProtect));
            rows.add(["swap_in"], counter(s, Counter::FaultsSwapIn));
        },
    },
    Metric {
        name: "migrate_waits_total",
        kind: Kind::Counter,
        unit: "waits",
        help: "Times that a thread met a page that was being migrated and waited for it.",
        labels: &[],
        empty_when: Some("no thread used a page while it was being migrated"),
        read: |s, rows| rows.add([], counter(s, Counter::Waits)),
    },
    Metric {
        name: "migrate_wait_seconds_total",
        kind: Kind::Counter,
        unit: "seconds",
        help: "Time that threads waited for pages that were being migrated.",
        labels: &[],
        empty_when: Some("no thread used a page while it was being migrated"),
        read: |s, rows| rows.add([], counter(s, Counter::WaitNanos) / 1e9),
    },
    // What did we do?
    Metric {
        name: "migrate_decisions_total",
        kind: Kind::Counter,
        unit: "decisions",
        help: "Decisions of the policy, one for each process and tick, by what it said and why.",
        labels: &["verdict", "reason"],
        empty_when: None,
        read: decisions,
    },
    Metric {
        name: "migrate_moves_total",
        kind: Kind::Counter,
        unit: "moves",
        help: "Moves that we ordered and that ended, however they did.",
        labels: &[],
        empty_when: None,
        read: |s, rows| rows.add([], s.ledger.ended.values().sum::<u64>() as f64),
    },
    Metric {
        name: "migrate_moves_failed_total",
        kind: Kind::Counter,
        unit: "moves",
        help: "Moves that we ordered and that did not go through every page, by how they ended.",
        labels: &["reason"],
        empty_when: NO_FAILURE,
        read: |s, rows| {
            for end in End::ALL.into_iter().filter(|end| *end != End::Done) {
                rows.add([end.name()], s.ledger.ended.get(&end).copied().unwrap_or(0) as f64);
            }
        },
    },
    Metric {
        name: "migrate_move_calls_total",
        kind: Kind::Counter,
        unit: "calls",
        help: "Our migrate_pages calls by source and target node.",
        labels: PAIR,
        empty_when: None,
        read: |s, rows| pairs(s, rows, |pair| pair.calls as f64),
    },
    Metric {
        name: "migrate_move_seconds_total",
        kind: Kind::Counter,
        unit: "seconds",
        help: "Time inside our migrate_pages calls by source and target node.",
        labels: PAIR,
        empty_when: None,
        read: |s, rows| pairs(s, rows, |pair| pair.seconds),
    },
    Metric {
        name: "migrate_move_pages_total",
        kind: Kind::Counter,
        unit: "pages",
        help: "Pages of 4 KiB that our moves brought over, by source and target node.",
        labels: PAIR,
        empty_when: None,
        read: |s, rows| pairs(s, rows, |pair| pair.moved as f64),
    },
    Metric {
        name: "migrate_move_failed_pages_total",
        kind: Kind::Counter,
        unit: "pages",
        help: "Pages of 4 KiB that our moves tried and could not bring over, by source and target node.",
        labels: PAIR,
        empty_when: NO_FAILURE,
        read: |s, rows| pairs(s, rows, |pair| pair.failed as f64),
    },
    Metric {
        name: "migrate_moves_scored_total",
        kind: Kind::Counter,
        unit: "moves",
        help: "Moves after which the remote share was compared with that before.",
        labels: &[],
        empty_when: Some("a move is scored some ticks after it ended"),
        read: |s, rows| rows.add([], (s.ledger.helped + s.ledger.not_helped) as f64),
    },
    Metric {
        name: "migrate_moves_unhelpful_total",
        kind: Kind::Counter,
        unit: "moves",
        help: "Of the scored moves, those after which more than half of the remote share was left.",
        labels: &[],
        empty_when: Some("every scored move helped"),
        read: |s, rows| rows.add([], s.ledger.not_helped as f64),
    },
    // What did it cost?
    Metric {
        name: "migrate_migration_duration_seconds",
        kind: Kind::Histogram,
        unit: "seconds",
        help: "Duration of the kernel's page migrations by reason: the kernel's own, but for our moves (own) and cpusets (cpuset).",
        labels: &["reason"],
        empty_when: None,
        read: |s, rows| {
            for (reason, calls) in &s.migrations {
                rows.calls([reason], &calls.durations);
            }
        },
    },
    Metric {
        name: "migrate_migration_pages_total",
        kind: Kind::Counter,
        unit: "pages",
        help: "Pages of 4 KiB that the kernel migrated, whoever asked, by its reason.",
        labels: &["reason"],
        empty_when: None,
        read: |s, rows| {
            for (reason, calls) in &s.migrations {
                rows.add([reason], calls.moved as f64);
            }
        },
    },
    Metric {
        name: "migrate_migration_failed_pages_total",
        kind: Kind::Counter,
        unit: "pages",
        help: "Pages of 4 KiB that the kernel tried to migrate and could not, whoever asked, by its reason.",
        labels: &["reason"],
        empty_when: NO_FAILURE,
        read: |s, rows| {
            for (reason, calls) in &s.migrations {
                rows.add([reason], calls.failed as f64);
            }
        },
    },
    Metric {
        name: "migrate_migration_huge_pages_total",
        kind: Kind::Counter,
        unit: "pages",
        help: "Huge pages that the kernel migrated whole, could not migrate, or split on the way.",
        labels: &["reason", "result"],
        empty_when: Some("no huge page was migrated"),
        read: |s, rows| {
            for (reason, calls) in &s.migrations {
                rows.add([reason, "moved"], calls.huge_moved as f64);
                rows.add([reason, "failed"], calls.huge_failed as f64);
                rows.add([reason, "split"], calls.huge_split as f64);
            }
        },
    },
    Metric {
        name: "migrate_migration_calls_total",
        kind: Kind::Counter,
        unit: "calls",
        help: "The kernel's page migrations by how long they may wait for a page.",
        labels: &["reason", "mode"],
        empty_when: None,
        read: |s, rows| {
            for (reason, calls) in &s.migrations {
                for (mode, count) in MODES.iter().zip(&calls.modes) {
                    rows.add([reason, mode], *count as f64);
                }
            }
        },
    },
    Metric {
        name: "migrate_isolation_folios_total",
        kind: Kind::Counter,
        unit: "folios",
        help: "Folios that anybody tried to take off their LRU list.",
        labels: &[],
        empty_when: None,
        read: |s, rows| rows.add([], counter(s, Counter::IsolationTried)),
    },
    Metric {
        name: "migrate_isolation_refused_folios_total",
        kind: Kind::Counter,
        unit: "folios",
        help: "Of those tried, folios that were busy or on no LRU list.",
        labels: &[],
        empty_when: Some("no folio was busy when it was tried"),
        read: |s, rows| rows.add([], counter(s, Counter::IsolationRefused)),
    },
    Metric {
        name: "migrate_isolation_put_back_folios_total",
        kind: Kind::Counter,
        unit: "folios",
        help: "Folios that were taken off their LRU list and put back without having moved.",
        labels: &[],
        empty_when: Some("every isolated folio moved"),
        read: |s, rows| rows.add([], counter(s, Counter::IsolationPutBack)),
    },
    Metric {
        name: "migrate_lru_drain_duration_seconds",
        kind: Kind::Histogram,
        unit: "seconds",
        help: "Duration of the drains of the per-CPU LRU caches, whoever asked: by a migration (cache_disable) or else (drain_all).",
        labels: &["path"],
        empty_when: None,
        read: |s, rows| {
            rows.calls(["cache_disable"], &s.totals.drains[Drain::CacheDisable as usize]);
            rows.calls(["drain_all"], &s.totals.drains[Drain::DrainAll as usize]);
        },
    },
    Metric {
        name: "migrate_probe_attached",
        kind: Kind::Gauge,
        unit: "bool",
        help: "1 where a signal's hook is attached on this kernel, 0 where it is absent, refused or off.",
        labels: &["signal", "hook"],
        empty_when: None,
        read: |s, rows| {
            for probe in &s.probes {
                let attached = probe.state == HookState::Attached;
                rows.highest([probe.signal, &probe.hook], f64::from(u8::from(attached)));
            }
        },
    },
    Metric {
        name: "migrate_events_lost_total",
        kind: Kind::Counter,
        unit: "events",
        help: "Events that the probes could not count because a map was full, by map.",
        labels: &["map"],
        empty_when: Some("every map had room"),
        read: |s, rows| {
            for (map, name) in MAPS {
                // The slots are few and each map's number is one of them.
                rows.add([name], s.totals.lost[map as usize] as f64);
            }
        },
    },
    Metric {
        name: "migrate_ticks_total",
        kind: Kind::Counter,
        unit: "ticks",
        help: "Rounds of the controller.",
        labels: &[],
        empty_when: None,
        read: |s, rows| rows.add([], s.cost.ticks as f64),
    },
    Metric {
        name: "migrate_tick_errors_total",
        kind: Kind::Counter,
        unit: "ticks",
        help: "Rounds in which something could not be read.",
        labels: &[],
        empty_when: Some("everything could be read"),
        read: |s, rows| rows.add([], s.cost.tick_errors as f64),
    },
    Metric {
        name: "migrate_tick_duration_seconds",
        kind: Kind::Gauge,
        unit: "seconds",
        help: "Duration of the controller's last round.",
        labels: &[],
        empty_when: None,
        read: |s, rows| rows.add([], s.cost.tick_seconds),
    },
    Metric {
        name: "process_cpu_seconds_total",
        kind: Kind::Counter,
        unit: "seconds",
        help: "User and system CPU time of the controller, without its probes.",
        labels: &[],
        empty_when: None,
        read: |s, rows| rows.add([], s.cost.cpu_seconds),
    },
    Metric {
        name: "process_resident_memory_bytes",
        kind: Kind::Gauge,
        unit: "bytes",
        help: "Resident memory of the controller, without its maps in the kernel.",
        labels: &[],
        empty_when: None,
        read: |s, rows| rows.add([], s.cost.resident_bytes as f64),
    },
    Metric {
        name: "process_open_fds",
        kind: Kind::Gauge,
        unit: "descriptors",
        help: "Open file descriptors of the controller.",
        labels: &[],
        empty_when: None,
        read: |s, rows| rows.add([], s.cost.open_fds as f64),
    },
    Metric {
        name: "process_start_time_seconds",
        kind: Kind::Gauge,
        unit: "seconds",
        help: "Start of the controller as Unix time.",
        labels: &[],
        empty_when: None,
        read: |s, rows| rows.add([], s.cost.start_time_seconds),
    },
];

/// `enum migrate_mode`; the last is until 6.1 only.
const MODES: [&str; migrate_common::MODES] = ["async", "sync_light", "sync", "sync_no_copy"];

/// The probes' maps as the label calls them.
const MAPS: [(Lost, &str); migrate_common::LOST_SLOTS as usize] = [
    (Lost::Tasks, "tasks"),
    (Lost::CpuTime, "cpu_time"),
    (Lost::Hints, "hints"),
    (Lost::Migrations, "migrations"),
    (Lost::Callers, "callers"),
];

fn decisions(s: &Snapshot, rows: &mut Rows) {
    // Only one reason moves; every other one says stay.
    for reason in Reason::ALL {
        rows.add([verdict(reason == Reason::Pays), reason.name()], 0.0);
    }
    for ((moves, reason), n) in &s.ledger.decisions {
        rows.add([verdict(*moves), reason.name()], *n as f64);
    }
}

const fn verdict(moves: bool) -> &'static str {
    if moves { "move" } else { "stay" }
}

fn hint_faults(s: &Snapshot, rows: &mut Rows) {
    for (cpu, cpu_id) in s.nodes.iter() {
        for (memory, memory_id) in s.nodes.iter() {
            let n = s.totals.hints.get(cpu).and_then(|row| row.get(memory)).copied().unwrap_or(0);
            if n > 0 || s.nodes.len() <= PRESET_NODES {
                rows.add([&cpu_id.to_string(), &memory_id.to_string()], n as f64);
            }
        }
    }
}

fn pairs(s: &Snapshot, rows: &mut Rows, value: fn(&PairTotals) -> f64) {
    let mut add = |from: &NodeId, to: &NodeId, value| {
        rows.add([&from.to_string(), &to.to_string()], value);
    };
    if s.nodes.len() <= PRESET_NODES {
        for (from, from_id) in s.nodes.iter() {
            for (_, to_id) in s.nodes.iter().filter(|(to, _)| *to != from) {
                add(from_id, to_id, 0.0);
            }
        }
    }
    for ((from, to), pair) in &s.ledger.pairs {
        if let (Some(from), Some(to)) = (id(s, *from), id(s, *to)) {
            add(from, to, value(pair));
        }
    }
}

fn id(s: &Snapshot, node: Node) -> Option<&NodeId> {
    s.nodes.get(node)
}

fn cgroups(s: &Snapshot, mut each: impl FnMut([&str; 2], &CgroupLoad)) {
    for cgroup in &s.cgroups {
        each([&cgroup.cgroup, source(cgroup.source)], cgroup);
    }
}

const fn source(source: Source) -> &'static str {
    match source {
        Source::Firmware => "firmware",
        Source::Prior => "prior",
        Source::Pagemap => "pagemap",
        Source::MovePages => "move_pages",
        Source::CpuPlacement => "cpu_placement",
    }
}

/// A number of nodes or the like; far below what a float counts exactly.
fn counter(snapshot: &Snapshot, counter: Counter) -> f64 {
    snapshot.totals.counters.get(counter) as f64
}

fn count(n: usize) -> f64 {
    n as f64
}
