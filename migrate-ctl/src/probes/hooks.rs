//! Which hook feeds which signal, and which program fits this kernel.
//!
//! Pure: asks BTF only. The prototypes stand above the programs themselves.

use crate::btf::{Btf, Returns};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    FEntry,
    FExit,
    TracePoint,
    CpuClock,
}

pub(super) struct Hook {
    pub(super) signal: &'static str,
    pub(super) kind: Kind,
    /// The kernel's name.
    pub(super) function: &'static str,
    /// Ours, or why no program of ours fits.
    pub(super) program: Result<&'static str, String>,
}

impl Hook {
    pub(super) fn name(&self) -> String {
        match self.kind {
            Kind::FEntry => format!("fentry {}", self.function),
            Kind::FExit => format!("fexit {}", self.function),
            Kind::TracePoint => format!("tp_btf {}", self.function),
            Kind::CpuClock => "perf cpu-clock".to_owned(),
        }
    }
}

pub(super) fn all(btf: &Btf) -> Vec<Hook> {
    let fentry =
        |signal, function, program| function_hook(btf, signal, Kind::FEntry, function, program);
    let fexit =
        |signal, function, program| function_hook(btf, signal, Kind::FExit, function, program);
    let tracepoint = |signal, function| Hook {
        signal,
        kind: Kind::TracePoint,
        function,
        program: arguments(btf, function).map(|_| function),
    };
    vec![
        folio_isolate_lru(btf),
        fentry("isolation", "folio_putback_lru", "folio_putback_lru"),
        fexit("faults", "handle_mm_fault", "handle_mm_fault"),
        fentry("hint_faults", "mpol_misplaced", "mpol_misplaced"),
        Hook {
            signal: "cpu_time",
            kind: Kind::CpuClock,
            function: "cpu-clock",
            program: Ok("cpu_clock"),
        },
        tracepoint("migrations", "mm_migrate_pages_start"),
        mm_migrate_pages(btf),
        fentry("migrations", "migrate_to_node", "migrate_to_node_enter"),
        fexit("migrations", "migrate_to_node", "migrate_to_node_leave"),
        fentry("migrations", "kernel_move_pages", "kernel_move_pages_enter"),
        fexit("migrations", "kernel_move_pages", "kernel_move_pages_leave"),
        tracepoint("life", "sched_process_exit"),
    ]
}

fn function_hook(
    btf: &Btf,
    signal: &'static str,
    kind: Kind,
    function: &'static str,
    program: &'static str,
) -> Hook {
    let program = match btf.returns(function) {
        Some(_) => Ok(program),
        None => Err(format!("this kernel has no function {function}")),
    };
    Hook { signal, kind, function, program }
}

/// The same number means the opposite: an int of 0, or a bool of 1, is a folio taken.
fn folio_isolate_lru(btf: &Btf) -> Hook {
    let function = "folio_isolate_lru";
    let program = match btf.returns(function) {
        Some(Returns::Integer) => Ok("folio_isolate_lru_int"),
        Some(Returns::Bool) => Ok("folio_isolate_lru_bool"),
        Some(Returns::Void | Returns::Other) => {
            Err(format!("{function} returns neither an int nor a bool"))
        }
        None => Err(format!("this kernel has no function {function}")),
    };
    Hook { signal: "isolation", kind: Kind::FExit, function, program }
}

/// The reason is the last argument: the 7th until 6.1, the 8th from 6.12.
fn mm_migrate_pages(btf: &Btf) -> Hook {
    let function = "mm_migrate_pages";
    let program = match arguments(btf, function) {
        Ok(7) => Ok("mm_migrate_pages_7"),
        Ok(8) => Ok("mm_migrate_pages_8"),
        Ok(other) => Err(format!("{function} has {other} arguments here, 7 or 8 are known")),
        Err(why) => Err(why),
    };
    Hook { signal: "migrations", kind: Kind::TracePoint, function, program }
}

fn arguments(btf: &Btf, tracepoint: &str) -> Result<usize, String> {
    btf.tracepoint_arguments(tracepoint)
        .ok_or_else(|| format!("this kernel has no tracepoint {tracepoint}"))
}
