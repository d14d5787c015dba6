//! Which hook feeds which signal, and which program fits this kernel.
//!
//! Pure: asks BTF only. The prototypes stand above the programs themselves.

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

/// Its fentry is on every fault's way, so it is attached only while faults are timed.
const FAULT_BEGINNING: &str = "handle_mm_fault";

impl Hook {
    /// Whether the hook is attached for a moment now and then rather than for good.
    pub(super) fn is_momentary(&self) -> bool {
        self.kind == Kind::FEntry && self.function == FAULT_BEGINNING
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
            (Kind::FEntry, function) => (Kind::FExit, function),
            (Kind::TracePoint | Kind::FExit | Kind::CpuClock, _) => return None,
        };
        hooks.iter().position(|other| (other.kind, other.function) == (kind, function))
    }
}

/// Offsets and numbers of the running kernel, by the name of the global that takes them. 0: this
/// kernel has none; the programs that cannot do without one are not chosen then.
pub(super) fn globals(btf: &Btf) -> [(&'static str, u32); 8] {
    let offset = |structure, field| btf.offset(structure, field).unwrap_or(0);
    [
        ("MM_OWNER", offset("mm_struct", "owner")),
        ("TASK_FLAGS", offset("task_struct", "flags")),
        ("TASK_TGID", offset("task_struct", "tgid")),
        ("TASK_MEMPOLICY", offset("task_struct", "mempolicy")),
        ("TASK_SIGNAL", offset("task_struct", "signal")),
        ("SIGNAL_LIVE", offset("signal_struct", "live")),
        ("NODE_SHIFT", node_shift(btf).unwrap_or(0)),
        ("REASON_SYSCALL", btf.value("migrate_reason", "MR_SYSCALL").unwrap_or(u32::MAX)),
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
        function("isolation", FExit, "folio_isolate_lru", folio_isolate_lru),
        function("isolation", FEntry, "folio_putback_lru", |_, _| Ok("folio_putback_lru")),
        function("faults", FExit, "handle_mm_fault", |_, prototype| {
            handle_mm_fault(prototype, "handle_mm_fault")
        }),
        function("faults", FEntry, FAULT_BEGINNING, |_, prototype| {
            handle_mm_fault(prototype, "handle_mm_fault_enter")
        }),
        function("faults", FExit, "do_wp_page", |_, prototype| of_fault("do_wp_page", prototype)),
        function("faults", FExit, "do_swap_page", |_, prototype| {
            of_fault("do_swap_page", prototype)
        }),
        function("hint_faults", FEntry, "mpol_misplaced", mpol_misplaced),
        clock,
        tracepoint("migrations", "mm_migrate_pages_start", mm_migrate_pages_start),
        tracepoint("migrations", "mm_migrate_pages", mm_migrate_pages),
        function("migrations", FEntry, "migrate_to_node", migrate_to_node),
        function("migrations", FExit, "migrate_to_node", |_, _| Ok("migrate_to_node_leave")),
        function("migrations", FEntry, "kernel_move_pages", |_, _| Ok("kernel_move_pages_enter")),
        function("migrations", FExit, "kernel_move_pages", |_, _| Ok("kernel_move_pages_leave")),
        function("migrations", FEntry, "security_task_movememory", security_task_movememory),
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
        tracepoint("life", "sched_process_exit", sched_process_exit),
    ]
}

/// The program that fits, or why none does.
type Fit = Result<&'static str, String>;

/// The same number means the opposite: an int of 0, or a bool of 1, is a folio taken.
fn folio_isolate_lru(_: &Btf, prototype: Prototype) -> Fit {
    match prototype {
        Prototype { returns: Returns::Integer, arguments: 1 } => Ok("folio_isolate_lru_int"),
        Prototype { returns: Returns::Bool, arguments: 1 } => Ok("folio_isolate_lru_bool"),
        other => Err(unknown("folio_isolate_lru", other)),
    }
}

/// The result is read from behind the last argument, so their number must be as we know it.
fn handle_mm_fault(prototype: Prototype, program: &'static str) -> Fit {
    match prototype {
        Prototype { returns: Returns::Integer, arguments: 4 } => Ok(program),
        other => Err(unknown("handle_mm_fault", other)),
    }
}

/// The result of a part of the fault stands behind its only argument.
fn of_fault(function: &'static str, prototype: Prototype) -> Fit {
    match prototype {
        Prototype { returns: Returns::Integer, arguments: 1 } => Ok(function),
        other => Err(unknown(function, other)),
    }
}

fn mpol_misplaced(btf: &Btf, _: Prototype) -> Fit {
    let shift = node_shift(btf).map(|_| "mpol_misplaced");
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
