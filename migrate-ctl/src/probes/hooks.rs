//! Which hook feeds which signal, and which program fits this kernel.
//!
//! Pure: asks BTF only. The prototypes stand above the programs themselves.

use migrate_common::REASON_OTHER;

use crate::btf::{Btf, Prototype, Returns};

#[cfg(test)]
mod tests;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    FEntry,
    FExit,
    TracePoint,
    CpuClock,
}

#[derive(Debug)]
pub(super) struct Hook {
    pub(super) signal: &'static str,
    pub(super) kind: Kind,
    /// The kernel's name.
    pub(super) function: &'static str,
    /// Ours, or why no program of ours fits.
    pub(super) program: Result<&'static str, String>,
}

/// On every fault's way, so it is attached only while faults are timed.
const EVERY_FAULT: &str = "handle_mm_fault";

impl Hook {
    /// Whether the hook is attached for a moment now and then rather than for good.
    pub(super) fn is_momentary(&self) -> bool {
        self.function == EVERY_FAULT
    }

    pub(super) fn name(&self) -> String {
        match self.kind {
            Kind::FEntry => format!("fentry {}", self.function),
            Kind::FExit => format!("fexit {}", self.function),
            Kind::TracePoint => format!("tp_btf {}", self.function),
            Kind::CpuClock => "perf cpu-clock".to_owned(),
        }
    }

    /// Of a hook at a call's beginning, the position of the one at its end.
    pub(super) fn ended_by(&self, hooks: &[Self]) -> Option<usize> {
        let (kind, function) = match (self.kind, self.function) {
            (Kind::TracePoint, "mm_migrate_pages_start") => (Kind::TracePoint, "mm_migrate_pages"),
            (Kind::TracePoint, "mm_compaction_begin") => (Kind::TracePoint, "mm_compaction_end"),
            (Kind::TracePoint, "contention_begin") => (Kind::TracePoint, "contention_end"),
            (Kind::FEntry, function) => (Kind::FExit, function),
            (Kind::TracePoint | Kind::FExit | Kind::CpuClock, _) => return None,
        };
        hooks.iter().position(|other| (other.kind, other.function) == (kind, function))
    }
}

/// Offsets and numbers of the running kernel, by the name of the global that takes them. 0: this
/// kernel has none; the programs that cannot do without one are not chosen then.
pub(super) fn globals(btf: &Btf) -> [(&'static str, u32); 25] {
    let offset = |structure, field| btf.offset(structure, field).unwrap_or(0);
    let reason = |name| btf.value("migrate_reason", name).unwrap_or(REASON_OTHER);
    [
        ("MM_OWNER", offset("mm_struct", "owner")),
        ("TASK_FLAGS", offset("task_struct", "flags")),
        ("TASK_TGID", offset("task_struct", "tgid")),
        ("TASK_MEMPOLICY", offset("task_struct", "mempolicy")),
        ("TASK_SIGNAL", offset("task_struct", "signal")),
        ("SIGNAL_LIVE", offset("signal_struct", "live")),
        ("NODE_SHIFT", node_shift(btf).unwrap_or(0)),
        ("TASK_MIN_FLT", offset("task_struct", "min_flt")),
        ("TASK_MAJ_FLT", offset("task_struct", "maj_flt")),
        ("TASK_CPU", task_cpu(btf).unwrap_or(0)),
        ("TASK_MM", offset("task_struct", "mm")),
        ("MM_LOCK", offset("mm_struct", "mmap_lock")),
        ("LRUVEC_PGDAT", offset("lruvec", "pgdat")),
        ("PGDAT_NODE", offset("pglist_data", "node_id")),
        ("CC_ZONE", offset("compact_control", "zone")),
        ("CC_SCANNED", offset("compact_control", "total_migrate_scanned")),
        ("CC_TAKEN", offset("compact_control", "nr_migratepages")),
        ("ZONE_NODE", offset("zone", "node")),
        ("LRU_FLAG", lru_flag(btf).unwrap_or(0)),
        ("FAULT_FLAGS", offset("vm_fault", "flags")),
        ("VMA_MM", offset("vm_area_struct", "vm_mm")),
        ("REASON_COMPACTION", reason("MR_COMPACTION")),
        ("REASON_SYSCALL", reason("MR_SYSCALL")),
        ("REASON_MBIND", reason("MR_MEMPOLICY_MBIND")),
        ("REASON_HINT", reason("MR_NUMA_MISPLACED")),
    ]
}

pub(super) fn all(btf: &Btf) -> Vec<Hook> {
    let function = |signal, kind, function, fits: fn(&Btf, Prototype) -> Fit| {
        let program = match btf.function(function) {
            Some(prototype) => fits(btf, prototype),
            None => Err(format!("this kernel has no function {function}")),
        };
        Hook { signal, kind, function, program }
    };
    let tracepoint = |signal, function, fits: fn(&Btf, usize) -> Fit| {
        let program = match btf.tracepoint_arguments(function) {
            Some(arguments) => fits(btf, arguments),
            None => Err(format!("this kernel has no tracepoint {function}")),
        };
        Hook { signal, kind: Kind::TracePoint, function, program }
    };
    let clock = Hook {
        signal: "cpu_time",
        kind: Kind::CpuClock,
        function: "cpu-clock",
        program: Ok("cpu_clock"),
    };
    use Kind::{FEntry, FExit};
    vec![
        function("isolation", FEntry, "folio_isolate_lru", folio_isolate_lru),
        function("isolation", FEntry, "folio_putback_lru", folio_putback_lru),
        tracepoint("isolation", "mm_compaction_begin", |_, _| Ok("mm_compaction_begin")),
        tracepoint("isolation", "mm_compaction_end", |_, _| Ok("mm_compaction_end")),
        tracepoint("faults", "sched_process_exit", sched_process_exit_faults),
        function("fault_time", FEntry, EVERY_FAULT, |_, prototype| {
            handle_mm_fault(prototype, "handle_mm_fault_enter")
        }),
        function("fault_time", FExit, EVERY_FAULT, |_, prototype| {
            handle_mm_fault(prototype, "handle_mm_fault_leave")
        }),
        function("faults", FExit, "do_wp_page", |btf, prototype| {
            of_fault(btf, "do_wp_page", prototype)
        }),
        function("faults", FExit, "do_huge_pmd_wp_page", |btf, prototype| {
            of_fault(btf, "do_huge_pmd_wp_page", prototype)
        }),
        function("faults", FExit, "do_swap_page", |btf, prototype| {
            of_fault(btf, "do_swap_page", prototype)
        }),
        tracepoint("touched", "page_fault_user", page_fault_user),
        function("hint_faults", FEntry, "mpol_misplaced", mpol_misplaced),
        function("hint_faults", FEntry, "task_numa_fault", task_numa_fault),
        clock,
        tracepoint("migrations", "mm_migrate_pages_start", mm_migrate_pages_start),
        tracepoint("migrations", "mm_migrate_pages", mm_migrate_pages),
        function("migrations", FEntry, "migrate_to_node", migrate_to_node),
        function("migrations", FExit, "migrate_to_node", |_, _| Ok("migrate_to_node_leave")),
        function("migrations", FEntry, "kernel_move_pages", |_, _| Ok("kernel_move_pages_enter")),
        function("migrations", FExit, "kernel_move_pages", |_, _| Ok("kernel_move_pages_leave")),
        function("migrations", FEntry, "security_task_movememory", security_task_movememory),
        function("migrations", FEntry, "kernel_mbind", |_, _| Ok("kernel_mbind_enter")),
        function("migrations", FExit, "kernel_mbind", |_, _| Ok("kernel_mbind_leave")),
        function("drains", FEntry, "lru_cache_disable", |_, _| Ok("lru_cache_disable_enter")),
        function("drains", FExit, "lru_cache_disable", |_, _| Ok("lru_cache_disable_leave")),
        function("drains", FEntry, "lru_add_drain_all", |_, _| Ok("lru_add_drain_all_enter")),
        function("drains", FExit, "lru_add_drain_all", |_, _| Ok("lru_add_drain_all_leave")),
        function("waits", FEntry, "migration_entry_wait", |_, _| Ok("migration_entry_wait_enter")),
        function("waits", FExit, "migration_entry_wait", |_, _| Ok("migration_entry_wait_leave")),
        function("waits", FEntry, "pmd_migration_entry_wait", |_, _| {
            Ok("pmd_migration_entry_wait_enter")
        }),
        function("waits", FExit, "pmd_migration_entry_wait", |_, _| {
            Ok("pmd_migration_entry_wait_leave")
        }),
        tracepoint("waits", "contention_begin", |btf, arguments| {
            contention("contention_begin", btf, arguments)
        }),
        tracepoint("waits", "contention_end", |btf, arguments| {
            contention("contention_end", btf, arguments)
        }),
        function("scans", FEntry, "isolate_lru_folios", isolate_lru_folios),
        function("scans", FEntry, "isolate_folios", isolate_folios),
        tracepoint("scans", "mm_vmscan_lru_isolate", mm_vmscan_lru_isolate),
        function("scans", FEntry, "isolate_migratepages_block", |btf, _| {
            compacts(btf, "isolate_migratepages_block_enter")
        }),
        function("scans", FExit, "isolate_migratepages_block", |btf, _| {
            compacts(btf, "isolate_migratepages_block_leave")
        }),
        tracepoint("scheduling", "sched_migrate_task", sched_migrate_task),
        tracepoint("scheduling", "cgroup_attach_task", cgroup_attach_task),
        function("scheduling", FEntry, "cpuset_change_task_nodemask", |btf, _| {
            needs(btf, &[("task_struct", "tgid")])?;
            Ok("cpuset_change_task_nodemask")
        }),
        tracepoint("life", "sched_process_exit", sched_process_exit),
    ]
}

/// What counts CPU time where there is no clock to sample it.
pub(super) fn without_clock(btf: &Btf) -> Hook {
    let function = "sched_switch";
    let program = match btf.tracepoint_arguments(function) {
        Some(3 | 4) => needs(btf, &[("task_struct", "tgid")]).map(|()| function),
        Some(other) => Err(format!("{function} has {other} arguments here, 3 or 4 are known")),
        None => Err(format!("this kernel has no tracepoint {function}")),
    };
    Hook { signal: "cpu_time", kind: Kind::TracePoint, function, program }
}

/// The program that fits, or why none does.
type Fit = Result<&'static str, String>;

/// Whether it returns `int` or `bool` does not matter: we look at the folio beforehand.
fn folio_isolate_lru(btf: &Btf, _: Prototype) -> Fit {
    knows_flags(btf)?;
    lru_flag(btf).ok_or_else(|| "BTF does not say which page flag is PG_lru".to_owned())?;
    Ok("folio_isolate_lru")
}

fn folio_putback_lru(btf: &Btf, _: Prototype) -> Fit {
    knows_flags(btf)?;
    Ok("folio_putback_lru")
}

/// `1 << PG_lru`.
fn lru_flag(btf: &Btf) -> Option<u32> {
    1_u32.checked_shl(btf.value("pageflags", "PG_lru")?)
}

/// The result is read from behind the last argument, so their number must be as we know it.
fn handle_mm_fault(prototype: Prototype, program: &'static str) -> Fit {
    match prototype {
        Prototype { returns: Returns::Integer, arguments: 4 } => Ok(program),
        other => Err(unknown("handle_mm_fault", other)),
    }
}

/// The result of a part of the fault stands behind its only argument.
fn of_fault(btf: &Btf, function: &'static str, prototype: Prototype) -> Fit {
    needs(btf, &[("vm_fault", "flags"), ("vm_area_struct", "vm_mm"), ("mm_struct", "owner")])?;
    match prototype {
        Prototype { returns: Returns::Integer, arguments: 1 } => Ok(function),
        other => Err(unknown(function, other)),
    }
}

/// Absent where the architecture has no such tracepoint, as on arm64.
fn page_fault_user(_: &Btf, arguments: usize) -> Fit {
    match arguments {
        3 => Ok("page_fault_user"),
        other => Err(format!("page_fault_user has {other} arguments here, 3 are known")),
    }
}

fn mpol_misplaced(btf: &Btf, _: Prototype) -> Fit {
    knows_flags(btf)?;
    Ok("mpol_misplaced")
}

fn task_numa_fault(_: &Btf, prototype: Prototype) -> Fit {
    match prototype {
        Prototype { arguments: 4, .. } => Ok("task_numa_fault"),
        other => Err(unknown("task_numa_fault", other)),
    }
}

fn knows_flags(btf: &Btf) -> Result<(), String> {
    let shift = node_shift(btf).map(drop);
    shift.ok_or_else(|| "BTF does not say where page flags hold the node".to_owned())
}

fn migrate_to_node(btf: &Btf, _: Prototype) -> Fit {
    needs(btf, &[("mm_struct", "owner"), ("task_struct", "tgid")])?;
    Ok("migrate_to_node_enter")
}

fn security_task_movememory(btf: &Btf, _: Prototype) -> Fit {
    needs(btf, &[("task_struct", "tgid")])?;
    Ok("security_task_movememory")
}

fn mm_migrate_pages_start(_: &Btf, arguments: usize) -> Fit {
    match arguments {
        2 => Ok("mm_migrate_pages_start"),
        other => Err(format!("mm_migrate_pages_start has {other} arguments here, 2 are known")),
    }
}

/// The reason is the last argument: the 7th until 6.1, the 8th from 6.12.
fn mm_migrate_pages(_: &Btf, arguments: usize) -> Fit {
    match arguments {
        7 => Ok("mm_migrate_pages_7"),
        8 => Ok("mm_migrate_pages_8"),
        other => Err(format!("mm_migrate_pages has {other} arguments here, 7 or 8 are known")),
    }
}

/// The lock comes first in both, and nothing else is used.
fn contention(tracepoint: &'static str, btf: &Btf, arguments: usize) -> Fit {
    needs(btf, &[("task_struct", "mm"), ("mm_struct", "mmap_lock")])?;
    match arguments {
        2 => Ok(tracepoint),
        other => Err(format!("{tracepoint} has {other} arguments here, 2 are known")),
    }
}

fn isolate_lru_folios(btf: &Btf, prototype: Prototype) -> Fit {
    knows_lruvec(btf)?;
    match prototype.arguments {
        6 => Ok("isolate_lru_folios"),
        _ => Err(unknown("isolate_lru_folios", prototype)),
    }
}

/// From 6.18 the number of pages to scan comes before the lruvec.
fn isolate_folios(btf: &Btf, prototype: Prototype) -> Fit {
    knows_lruvec(btf)?;
    match prototype.arguments {
        5 => Ok("isolate_folios_0"),
        6 | 8 => Ok("isolate_folios_1"),
        _ => Err(unknown("isolate_folios", prototype)),
    }
}

/// Until 6.1 there is an isolation mode between the pages taken and the list.
fn mm_vmscan_lru_isolate(_: &Btf, arguments: usize) -> Fit {
    match arguments {
        7 | 8 => Ok("mm_vmscan_lru_isolate"),
        other => Err(format!("mm_vmscan_lru_isolate has {other} arguments here, 7 or 8 are known")),
    }
}

fn knows_lruvec(btf: &Btf) -> Result<(), String> {
    needs(btf, &[("lruvec", "pgdat"), ("pglist_data", "node_id")])
}

fn compacts(btf: &Btf, program: &'static str) -> Fit {
    let control = "compact_control";
    needs(
        btf,
        &[
            (control, "zone"),
            (control, "total_migrate_scanned"),
            (control, "nr_migratepages"),
            ("zone", "node"),
        ],
    )?;
    Ok(program)
}

fn sched_migrate_task(btf: &Btf, arguments: usize) -> Fit {
    needs(btf, &[("task_struct", "tgid")])?;
    task_cpu(btf).ok_or("BTF does not say where a task holds its CPU")?;
    match arguments {
        2 => Ok("sched_migrate_task"),
        other => Err(format!("sched_migrate_task has {other} arguments here, 2 are known")),
    }
}

/// In `thread_info`, which is a part of the task.
fn task_cpu(btf: &Btf) -> Option<u32> {
    Some(btf.offset("task_struct", "thread_info")? + btf.offset("thread_info", "cpu")?)
}

fn cgroup_attach_task(btf: &Btf, arguments: usize) -> Fit {
    needs(btf, &[("task_struct", "tgid")])?;
    match arguments {
        4 => Ok("cgroup_attach_task"),
        other => Err(format!("cgroup_attach_task has {other} arguments here, 4 are known")),
    }
}

/// From 6.18 the tracepoint itself says whether it was the last thread.
fn sched_process_exit(btf: &Btf, arguments: usize) -> Fit {
    match arguments {
        1 => {
            needs(btf, &[("task_struct", "signal"), ("signal_struct", "live")])?;
            Ok("sched_process_exit_1")
        }
        2 => Ok("sched_process_exit_2"),
        other => Err(format!("sched_process_exit has {other} arguments here, 1 or 2 are known")),
    }
}

/// Only what is the same everywhere: the task.
fn sched_process_exit_faults(btf: &Btf, _: usize) -> Fit {
    needs(btf, &[("task_struct", "min_flt"), ("task_struct", "maj_flt")])?;
    Ok("sched_process_exit_faults")
}

fn needs(btf: &Btf, fields: &[(&str, &str)]) -> Result<(), String> {
    match fields.iter().find(|(structure, field)| btf.offset(structure, field).is_none()) {
        None => Ok(()),
        Some((structure, field)) => Err(format!("this kernel has no field {structure}.{field}")),
    }
}

fn unknown(function: &str, prototype: Prototype) -> String {
    let Prototype { returns, arguments } = prototype;
    format!("{function} has {arguments} arguments and returns {returns:?} here: not known")
}

/// The node sits in the uppermost NODES_SHIFT bits of page flags. A zone list has a place for each
/// zone of each of the 2^NODES_SHIFT nodes and one more; `nodemask_t` would round small ones up.
fn node_shift(btf: &Btf) -> Option<u32> {
    let places = btf.array_length("zonelist", "_zonerefs")?.checked_sub(1)?;
    let nodes = places.checked_div(btf.value("zone_type", "__MAX_NR_ZONES")?)?;
    (nodes > 1 && nodes.is_power_of_two()).then(|| u64::BITS - nodes.ilog2())
}
