//! NUMA-hint faults by the node of the CPU and the node of the memory.
//!
//! A hint fault says who touched which page, never how often. It only happens
//! while the kernel's NUMA balancing is on.

use core::mem::offset_of;

use aya_ebpf::macros::{fentry, map};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::FEntryContext;
use migrate_common::{HintKey, Hints, Lost, MAX_CALLERS, MAX_HINTS};

use crate::slot::Slot;
use crate::{charge, cpu_time, kernel, lost};

/// Written here, read and cleared of exited processes by the controller. Full: counted as lost.
#[map]
static HINTS: HashMap<HintKey, Hints> = HashMap::with_max_entries(MAX_HINTS, 0);

/// The fault that a thread is in, by its number as for CALLERS. Written and read here only; the
/// later thread has the slot, and the huge page of the other counts as one page, the rest as lost.
#[map]
static MET: Array<Met> = Array::with_max_entries(MAX_CALLERS, 0);

#[derive(Clone, Copy)]
#[repr(C)]
struct Met {
    thread: u64,
    key: HintKey,
}

/// `int mpol_misplaced(struct page *page, ...)` on 6.1, `struct folio *` from 6.12: once for every
/// hint fault, before the page moves. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "mpol_misplaced")]
fn mpol_misplaced(ctx: FEntryContext) -> i32 {
    let Some(cpu_node) = cpu_time::current_node() else { return 0 };
    charge::remember_hint();
    let current = kernel::current();
    #[expect(clippy::cast_possible_truncation, reason = "NODES_SHIFT is at most 10")]
    let key = HintKey {
        tgid: current.tgid,
        cpu_node: cpu_node as u16,
        memory_node: kernel::node_of(kernel::folio_flags(&ctx)) as u16,
    };
    if let Some(met) = MET.get_ptr_mut(charge::place_of(current.id)) {
        // SAFETY: a slot of the map, all integers.
        unsafe { met.write(Met { thread: u64::from(current.id), key }) };
    }
    let Some(hints) = Slot::find_or_make(&HINTS, &key, &Hints { faults: 0, pages: 0 }) else {
        lost::count(&ctx, Lost::Hints, 1);
        return 0;
    };
    hints.add(offset_of!(Hints, faults), 1);
    hints.add(offset_of!(Hints, pages), 1);
    0
}

/// `void task_numa_fault(int last_cpupid, int mem_node, int pages, int flags)`, once the page has
/// moved or stays; `mem_node` is where it is now. A fault whose move fails may leave it out.
/// Checked on 6.1, 6.12, 7.3.
#[fentry(function = "task_numa_fault")]
fn task_numa_fault(ctx: FEntryContext) -> i32 {
    let pages: i32 = ctx.arg(2);
    let more = pages.saturating_sub(1);
    if more <= 0 {
        return 0;
    }
    let more = u64::from(more.unsigned_abs());
    let thread = kernel::current().id;
    if let Some(met) = MET.get(charge::place_of(thread))
        && met.thread == u64::from(thread)
        && let Some(hints) = Slot::find(&HINTS, &met.key)
    {
        hints.add(offset_of!(Hints, pages), more);
    } else {
        lost::count(&ctx, Lost::Hints, more);
    }
    0
}
