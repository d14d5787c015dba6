//! The counters of one process, by tgid. A look-up each: nothing that is on
//! every fault's or every page's way counts here.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use migrate_common::{COUNTERS, Counter, Lost, MAX_TASKS, TaskCounters};

use crate::lost;
use crate::slot::Slot;

/// Written by the probes, read and cleared of exited processes by the controller. Full: what did
/// not fit is counted as lost.
#[map]
static TASKS: HashMap<u32, TaskCounters> = HashMap::with_max_entries(MAX_TASKS, 0);

const NOTHING: TaskCounters = TaskCounters([0; COUNTERS]);

/// Adds to one counter of a process.
#[inline(never)]
pub(crate) fn add(ctx: &impl EbpfContext, tgid: u32, counter: Counter, value: u64) {
    match Slot::find_or_make(&TASKS, &tgid, &NOTHING) {
        Some(task) => task.add(counter as usize * size_of::<u64>(), value),
        // A time belongs to events that are lost with it.
        None if matches!(counter, Counter::WaitNanos | Counter::LockWaitNanos) => {}
        None => lost::count(ctx, Lost::Tasks, value),
    }
}
