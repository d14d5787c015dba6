//! What did it cost?

use migrate_common::{Drain, Lost};

use super::NO_FAILURE;
use crate::metrics::{Kind, Metric};
use crate::snapshot::HookState;

pub(super) static METRICS: &[Metric] = &[
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
        help: "Folios that somebody tried to take off their LRU list, that were busy or on none, or that were put back: by node and by what for.",
        labels: &["node", "reason", "result"],
        empty_when: Some(
            "nobody took a folio off its list by itself; reclaim and compaction take them by the page",
        ),
        read: |s, rows| {
            for ((node, reason), isolated) in &s.isolated {
                let node = node.to_string();
                rows.add([&node, reason, "tried"], isolated.tried as f64);
                rows.add([&node, reason, "refused"], isolated.refused as f64);
                rows.add([&node, reason, "put_back"], isolated.put_back as f64);
            }
        },
    },
    Metric {
        name: "migrate_lru_scan_pages_total",
        kind: Kind::Counter,
        unit: "pages",
        help: "Pages of 4 KiB on the LRU lists that reclaim and compaction looked at, and that they took off.",
        labels: &["node", "reason", "result"],
        empty_when: Some("no memory was short and nothing was compacted"),
        read: |s, rows| {
            for (node, kinds) in &s.scans {
                let node = node.to_string();
                for (reason, scanned) in ["reclaim", "compaction"].iter().zip(kinds) {
                    rows.add([&node, reason, "scanned"], scanned.scanned as f64);
                    rows.add([&node, reason, "taken"], scanned.taken as f64);
                }
            }
        },
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
        help: "What could not be counted, or not be charged, as a map, a slot or the ring of the PMU's samples had no room: by what was lost.",
        labels: &["event"],
        empty_when: Some("there was room for everything"),
        read: |s, rows| {
            for (event, name) in LOST {
                // The slots are few and each event's number is one of them.
                rows.add([name], s.totals.lost[event as usize] as f64);
            }
            rows.add(["access_samples"], s.totals.lost_accesses as f64);
        },
    },
    Metric {
        name: "migrate_cpus_missed",
        kind: Kind::Gauge,
        unit: "CPUs",
        help: "CPUs that came online since the start: what runs there is not counted until the controller is started anew.",
        labels: &[],
        empty_when: Some("no CPU came online since the start"),
        read: |s, rows| rows.add([], s.totals.cpus_missed as f64),
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
        name: "migrate_placement_entries_total",
        kind: Kind::Counter,
        unit: "entries",
        help: "Pagemap entries that were read to see where processes have their memory.",
        labels: &[],
        empty_when: None,
        read: |s, rows| rows.add([], s.totals.placement_entries as f64),
    },
    Metric {
        name: "migrate_placement_seconds_total",
        kind: Kind::Counter,
        unit: "seconds",
        help: "Time that our threads took for that, waits for the processes' locks included.",
        labels: &[],
        empty_when: None,
        read: |s, rows| rows.add([], s.totals.placement_seconds),
    },
    Metric {
        name: "migrate_placement_late_total",
        kind: Kind::Counter,
        unit: "processes",
        help: "Times that a process could not be looked into within the tick, so that its last placement stood.",
        labels: &[],
        empty_when: Some("no process held its lock for long"),
        read: |s, rows| rows.add([], s.totals.placement_late as f64),
    },
    Metric {
        name: "migrate_placement_waiting",
        kind: Kind::Gauge,
        unit: "processes",
        help: "Processes that keep one of our threads waiting (reading), or that wait for a thread (queued).",
        labels: &["state"],
        empty_when: Some("no process held its lock for long"),
        read: |s, rows| {
            for (state, being_read) in [("reading", true), ("queued", false)] {
                let late = s.late.iter().filter(|late| late.being_read == being_read);
                rows.add([state], late.count() as f64);
            }
        },
    },
    Metric {
        name: "migrate_journal_written_bytes_total",
        kind: Kind::Counter,
        unit: "bytes",
        help: "Bytes that were written to the journal.",
        labels: &[],
        empty_when: Some("there is no journal unless --journal names one"),
        read: |s, rows| rows.add([], s.journal.bytes as f64),
    },
    Metric {
        name: "migrate_journal_lost_records_total",
        kind: Kind::Counter,
        unit: "records",
        help: "Records that the journal lacks, as they could not be written: the disk was full.",
        labels: &[],
        empty_when: Some("everything could be written"),
        read: |s, rows| rows.add([], s.journal.lost_records as f64),
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

/// As the label calls them.
const LOST: [(Lost, &str); migrate_common::LOST_SLOTS as usize] = [
    (Lost::Tasks, "tasks"),
    (Lost::CpuTime, "cpu_time"),
    (Lost::Hints, "hints"),
    (Lost::Migrations, "migrations"),
    (Lost::Callers, "callers"),
    (Lost::Crossings, "crossings"),
    (Lost::Touched, "touched"),
    (Lost::Durations, "durations"),
    (Lost::Scans, "scans"),
];
