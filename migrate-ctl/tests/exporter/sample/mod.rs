//! A snapshot in which everything has happened, on a machine with nodes 0 and 2.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use migrate_common::{BUCKETS, Durations, Hints, Isolated, Migrations, Scanned, TaskCounters};
use migrate_ctl::journal::files;
use migrate_ctl::ledger::{Ledger, PairTotals};
use migrate_ctl::model::{
    Accesses, Class, End, Est, Faults, Node, NodeId, NodeVec, Reason, Source, each_node,
};
use migrate_ctl::placement::ClassPages;
use migrate_ctl::policy::prices::PageSize;
use migrate_ctl::snapshot::{
    CgroupLoad, HookState, HookVerdict, LateProcess, OwnCost, Snapshot, Totals,
};
use migrate_ctl::table::Modelled;
use migrate_ctl::table::feedback::Benefit;
use migrate_ctl::table::learned::{Learned, PagePrice};

/// The snapshot after so many ticks of one second; its counters grow with them.
pub(crate) fn snapshot(ticks: u64) -> Snapshot {
    let ids = [NodeId(0), NodeId(2)];
    Snapshot {
        mode: "enforce",
        nodes: NodeVec::from_fn(ids.len(), |node| ids[usize::from(node.0)]),
        totals: totals(ticks),
        migrations: vec![
            ("own".to_owned(), migrations(ticks, 21)),
            ("numa_misplaced".to_owned(), migrations(3 * ticks, 14)),
        ],
        isolated: [(0, "own"), (2, "numa_misplaced"), (2, "other")]
            .map(|(node, reason)| {
                let isolated = Isolated { tried: 500 * ticks, refused: 7 * ticks, put_back: ticks };
                ((NodeId(node), reason.to_owned()), isolated)
            })
            .into(),
        scans: ids.map(|id| (id, [Scanned { scanned: 90 * ticks, taken: 60 * ticks }; 2])).into(),
        probes: probes(),
        ledger: ledger(ticks),
        learned: learned(ticks),
        cgroups: vec![
            load("/system.slice/redis-server.service", 0.97, 0.28),
            load("/user.slice/user-1000.slice", 0.31, 0.02),
        ],
        resident: vec![
            resident(Class::PrivateAnonymous, [40_000.0, 2_000.4], [512.0, 0.0]),
            resident(Class::Hugetlb, [0.0, 0.0], [1024.0, 0.0]),
        ],
        late: vec![late(true), late(false)],
        journal: files::Totals { bytes: 5000 * ticks, lost_records: ticks / 9 },
        cost: OwnCost {
            ticks,
            tick_errors: ticks / 10,
            tick_seconds: 0.004,
            cpu_seconds: 0.006 * ticks as f64,
            resident_bytes: 9 << 20,
            open_fds: 41,
            start_time_seconds: 1_700_000_000.0,
        },
        good_until: Instant::now() + Duration::from_secs(60),
    }
}

/// So many calls, all in one slot of the kernel's histogram.
pub(crate) fn durations(calls: u64, slot: usize) -> Durations {
    let mut buckets = [0; BUCKETS];
    buckets[slot] = calls;
    Durations { calls, nanos: calls << slot, buckets }
}

pub(crate) fn migrations(calls: u64, slot: usize) -> Migrations {
    Migrations {
        durations: durations(calls, slot),
        moved: 512 * calls,
        failed: 2 * calls,
        huge_moved: calls,
        huge_failed: calls / 2,
        huge_split: calls / 3,
        modes: [calls, 0, 1, 0],
    }
}

pub(crate) fn load(cgroup: &str, remote_share: f32, loss_rate: f32) -> CgroupLoad {
    let (low, high) = (0.9 * remote_share, remote_share);
    let remote = Est { low, mid: remote_share, high, source: Source::CpuPlacement };
    let loss_rate = Est { low: 0.3 * loss_rate, mid: loss_rate, high: 2.0 * loss_rate, ..remote };
    CgroupLoad { cgroup: cgroup.to_owned(), remote: Some(remote), loss_rate }
}

fn resident(class: Class, base: [f64; 2], huge: [f64; 2]) -> ClassPages {
    let by_node = |pages: [f64; 2]| NodeVec::from_fn(2, |node| pages[usize::from(node.0)]);
    ClassPages { class, base: by_node(base), huge: by_node(huge) }
}

fn late(being_read: bool) -> LateProcess {
    let waited = Duration::from_secs(3);
    LateProcess { pid: 4242, comm: "database".to_owned(), waited, being_read }
}

fn totals(ticks: u64) -> Totals {
    Totals {
        counters: TaskCounters(
            [500, 7, 3, 1000, 1, 0, 9, 2, 4, 40_000, 3, 9000, 1, 2].map(|each| each * ticks),
        ),
        faults: Faults { minor: 1000 * ticks, major: ticks },
        fault_time: [durations(50 * ticks, 13), durations(ticks, 18)],
        accesses: Some(NodeVec::from_fn(2, |cpu| Accesses {
            local: 70 * ticks,
            remote: (20 + 10 * u64::from(cpu.0)) * ticks,
            other: 5 * ticks,
        })),
        lost_accesses: ticks,
        drains: [durations(ticks, 16), durations(2 * ticks, 15)],
        hints: NodeVec::from_fn(2, |cpu| {
            NodeVec::from_fn(2, |memory| {
                let faults = ticks * u64::from(1 + 2 * cpu.0 + memory.0);
                Hints { faults, pages: 3 * faults }
            })
        }),
        cpu: NodeVec::from_fn(2, |node| ticks * (1 + u64::from(node.0)) * 300_000_000),
        cpus_missed: 1,
        lost: [ticks, 0, 0, 1, 2, 0, 0, 0, 0],
        crossings: NodeVec::filled(2, NodeVec::filled(2, 7 * ticks)),
        placement_entries: 3000 * ticks,
        placement_seconds: 0.002 * ticks as f64,
        placement_late: ticks / 7,
    }
}

fn probes() -> Vec<HookVerdict> {
    let verdict = |signal, hook: &str, state| HookVerdict { signal, hook: hook.to_owned(), state };
    vec![
        verdict("isolation", "fentry folio_isolate_lru", HookState::Attached),
        verdict("faults", "fexit do_wp_page", HookState::Attached),
        verdict("hint_faults", "fentry task_numa_fault", HookState::Attached),
        verdict("cpu_time", "perf cpu-clock", HookState::Refused("EACCES".to_owned())),
        verdict("cpu_time", "tp_btf sched_switch", HookState::Attached),
        verdict("migrations", "tp_btf mm_migrate_pages", HookState::Absent("no".to_owned())),
    ]
}

fn learned(ticks: u64) -> Learned {
    let share = |mid: f32| Est { low: mid - 0.05, mid, high: mid + 0.05, source: Source::Pace };
    let price = |size, mid: f32| PagePrice {
        size,
        from: Node(0),
        to: Node(1),
        price: Est { low: 0.5 * mid, mid, high: 2.0 * mid, source: Source::Moves },
    };
    Learned {
        prices: vec![price(PageSize::Base, 4e-6), price(PageSize::Huge, 1e-6)],
        hit_rate: Some(0.9),
        hold_back: 0.05,
        benefit: Benefit {
            moved: Some(share(0.3)),
            held_back: Some(share(0.05)),
            difference: Some(share(0.25)),
        },
        modelled: Modelled { paid: 0.12 * ticks as f64, optimum: 0.1 * ticks as f64 },
    }
}

fn ledger(ticks: u64) -> Ledger {
    let pair = PairTotals {
        calls: ticks,
        moved: 65_536 * ticks,
        failed: 5 * ticks,
        seconds: 0.4 * ticks as f64,
    };
    let mut decisions: BTreeMap<_, _> =
        Reason::ALL.into_iter().map(|reason| (("stay", reason), 10 * ticks)).collect();
    decisions.remove(&("stay", Reason::Pays));
    decisions.insert(("move", Reason::Pays), ticks);
    decisions.insert(("hold_back", Reason::HeldBack), ticks);
    Ledger {
        pairs: each_node(2).map(|from| ((from, Node(1 - from.0)), pair)).collect(),
        ended: End::ALL.into_iter().map(|end| (end, ticks)).collect(),
        decisions,
        predicted: ticks,
        hits: ticks / 2,
        held_back: ticks / 8,
        helped: ticks,
        not_helped: ticks / 4,
    }
}
