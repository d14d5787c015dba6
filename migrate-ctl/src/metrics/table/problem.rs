//! Is NUMA a problem here?

use migrate_common::{Counter, FaultKind, Hints};

use super::PRESET_NODES;
use crate::metrics::{Kind, Metric, Rows};
use crate::model::{Class, Est, NodeVec};
use crate::snapshot::Snapshot;
use crate::sys::PAGE_SIZE;

const LOCAL: Option<&str> = Some("all memory in use is local, as after a move");

const BALANCING_OFF: Option<&str> = Some("the kernel makes them only while NUMA balancing is on");

pub(super) static METRICS: &[Metric] = &[
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
        read: |s, rows| rows.add([], s.nodes.len() as f64),
    },
    Metric {
        name: "migrate_cgroup_remote_ratio",
        kind: Kind::Gauge,
        unit: "ratio",
        help: "Share of the busiest cgroups' CPU time that faced memory of another node, 0 to 1, by where that number comes from.",
        labels: &["cgroup", "source"],
        empty_when: LOCAL,
        read: |s, rows| remote(s, rows, |remote| remote.mid),
    },
    Metric {
        name: "migrate_cgroup_remote_low_ratio",
        kind: Kind::Gauge,
        unit: "ratio",
        help: "The low end of that share's 95 % interval, without the processes whose placement is unknown.",
        labels: &["cgroup", "source"],
        empty_when: LOCAL,
        read: |s, rows| remote(s, rows, |remote| remote.low),
    },
    Metric {
        name: "migrate_cgroup_remote_high_ratio",
        kind: Kind::Gauge,
        unit: "ratio",
        help: "The high end of that share's 95 % interval, without the processes whose placement is unknown.",
        labels: &["cgroup", "source"],
        empty_when: LOCAL,
        read: |s, rows| remote(s, rows, |remote| remote.high),
    },
    Metric {
        name: "migrate_cgroup_modelled_loss_ratio",
        kind: Kind::Gauge,
        unit: "seconds per second",
        help: "Seconds that the busiest cgroups' threads lose to remote memory per second, as the policy models it; many threads lose more than 1.",
        labels: &["cgroup", "source"],
        empty_when: LOCAL,
        read: |s, rows| loss(s, rows, |loss| loss.mid),
    },
    Metric {
        name: "migrate_cgroup_modelled_loss_low_ratio",
        kind: Kind::Gauge,
        unit: "seconds per second",
        help: "The low end of that loss, by which the policy decides.",
        labels: &["cgroup", "source"],
        empty_when: LOCAL,
        read: |s, rows| loss(s, rows, |loss| loss.low),
    },
    Metric {
        name: "migrate_cgroup_modelled_loss_high_ratio",
        kind: Kind::Gauge,
        unit: "seconds per second",
        help: "The high end of that loss.",
        labels: &["cgroup", "source"],
        empty_when: LOCAL,
        read: |s, rows| loss(s, rows, |loss| loss.high),
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
        empty_when: BALANCING_OFF,
        read: |s, rows| hint_faults(s, rows, |hints| hints.faults),
    },
    Metric {
        name: "migrate_hint_fault_pages_total",
        kind: Kind::Counter,
        unit: "pages",
        help: "Pages of 4 KiB that NUMA-hint faults met, by the same nodes; a huge page is one fault and 512 pages.",
        labels: &["cpu_node", "memory_node"],
        empty_when: BALANCING_OFF,
        read: |s, rows| hint_faults(s, rows, |hints| hints.pages),
    },
    Metric {
        name: "migrate_access_samples_total",
        kind: Kind::Counter,
        unit: "samples",
        help: "Samples of loads by the node of the CPU and by what answered them, as the processor says: local or remote memory, or other, which is a cache or unknown.",
        labels: &["cpu_node", "answer"],
        empty_when: Some("only where there is a PMU that samples loads"),
        read: |s, rows| {
            for (node, accesses) in s.totals.accesses.iter().flat_map(NodeVec::iter) {
                let node = s.nodes[node].to_string();
                rows.add([&node, "local"], accesses.local as f64);
                rows.add([&node, "remote"], accesses.remote as f64);
                rows.add([&node, "other"], accesses.other as f64);
            }
        },
    },
    Metric {
        name: "migrate_page_faults_total",
        kind: Kind::Counter,
        unit: "faults",
        help: "Page faults of all processes since the machine started, by /proc/vmstat; major ones waited for a device.",
        labels: &["kind"],
        empty_when: None,
        read: |s, rows| {
            rows.add(["minor"], s.totals.faults.minor as f64);
            rows.add(["major"], s.totals.faults.major as f64);
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
        empty_when: Some("nobody wrote to a page that was protected, and none was in swap"),
        read: |s, rows| {
            rows.add(["write_protect"], counter(s, Counter::FaultsWriteProtect));
            rows.add(["swap_in"], counter(s, Counter::FaultsSwapIn));
        },
    },
    Metric {
        name: "migrate_waits_total",
        kind: Kind::Counter,
        unit: "waits",
        help: "Times that a thread met a page that was being migrated and waited for it, or waited for the lock of its address space.",
        labels: &["wait"],
        empty_when: None,
        read: |s, rows| {
            rows.add(["page"], counter(s, Counter::Waits));
            rows.add(["mmap_lock"], counter(s, Counter::LockWaits));
        },
    },
    Metric {
        name: "migrate_wait_seconds_total",
        kind: Kind::Counter,
        unit: "seconds",
        help: "Time that threads waited for pages that were being migrated, and for the lock of their address space.",
        labels: &["wait"],
        empty_when: None,
        read: |s, rows| {
            rows.add(["page"], counter(s, Counter::WaitNanos) / 1e9);
            rows.add(["mmap_lock"], counter(s, Counter::LockWaitNanos) / 1e9);
        },
    },
    Metric {
        name: "migrate_thread_crossings_total",
        kind: Kind::Counter,
        unit: "crossings",
        help: "Times that the scheduler moved a thread to another node.",
        labels: &["from_node", "to_node"],
        empty_when: Some("there is one node only"),
        read: |s, rows| {
            for (from, from_id) in s.nodes.iter() {
                for (to, to_id) in s.nodes.iter().filter(|(to, _)| *to != from) {
                    let crossings = s.totals.crossings.get(from).and_then(|row| row.get(to));
                    let crossings = crossings.copied().unwrap_or(0);
                    if crossings > 0 || s.nodes.len() <= PRESET_NODES {
                        rows.add([&from_id.to_string(), &to_id.to_string()], crossings as f64);
                    }
                }
            }
        },
    },
    Metric {
        name: "migrate_cgroup_attaches_total",
        kind: Kind::Counter,
        unit: "attaches",
        help: "Times that a process or thread was attached to a cgroup.",
        labels: &[],
        empty_when: Some("no process was attached to a cgroup"),
        read: |s, rows| rows.add([], counter(s, Counter::Attached)),
    },
    Metric {
        name: "migrate_cpuset_changes_total",
        kind: Kind::Counter,
        unit: "threads",
        help: "Times that the nodes that a thread may use changed, by its cpuset or by another one.",
        labels: &[],
        empty_when: Some("no cpuset changed its nodes or its threads"),
        read: |s, rows| rows.add([], counter(s, Counter::MemsChanged)),
    },
    Metric {
        name: "migrate_resident_bytes",
        kind: Kind::Gauge,
        unit: "bytes",
        help: "Resident memory of the processes that were looked into, by node, class and page size, from a sample; what several of them map counts for each.",
        labels: &["node", "class", "page_size"],
        empty_when: None,
        read: resident,
    },
];

fn hint_faults(s: &Snapshot, rows: &mut Rows, of: fn(Hints) -> u64) {
    for (cpu, cpu_id) in s.nodes.iter() {
        for (memory, memory_id) in s.nodes.iter() {
            let hints = s.totals.hints.get(cpu).and_then(|row| row.get(memory)).copied();
            let n = of(hints.unwrap_or_default());
            if n > 0 || s.nodes.len() <= PRESET_NODES {
                rows.add([&cpu_id.to_string(), &memory_id.to_string()], n as f64);
            }
        }
    }
}

fn remote(s: &Snapshot, rows: &mut Rows, end: impl Fn(Est) -> f32) {
    for cgroup in &s.cgroups {
        if let Some(remote) = cgroup.remote {
            rows.highest([&cgroup.cgroup, remote.source.name()], end(remote).into());
        }
    }
}

/// A number of nodes or the like; far below what a float counts exactly.
fn counter(snapshot: &Snapshot, counter: Counter) -> f64 {
    snapshot.totals.counters.get(counter) as f64
}

fn loss(s: &Snapshot, rows: &mut Rows, end: fn(Est) -> f32) {
    for cgroup in &s.cgroups {
        rows.add([&cgroup.cgroup, cgroup.loss_rate.source.name()], end(cgroup.loss_rate).into());
    }
}

fn resident(s: &Snapshot, rows: &mut Rows) {
    for of in &s.resident {
        // Those of hugetlbfs are never base pages, whether or not their size could be seen.
        let (small, large) = match of.class {
            Class::Hugetlb => ("huge", "huge"),
            Class::PrivateAnonymous | Class::Shared | Class::File => ("base", "huge"),
        };
        for (node, id) in s.nodes.iter() {
            for (size, pages) in [(small, of.base.get(node)), (large, of.huge.get(node))] {
                let bytes = pages.copied().unwrap_or(0.0).round() * PAGE_SIZE as f64;
                rows.add([&id.to_string(), of.class.name(), size], bytes);
            }
        }
    }
}
