//! The counters of one process, by tgid. A look-up each: nothing that is on
//! every fault's or every page's way counts here.
//!
//! What finds no slot is charged to nobody, but is still in the sum of all.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use migrate_common::{COUNTERS, Counter, Lost, MAX_TASKS, TaskCounters};

use crate::lost;
use crate::slot::{self, Slot};

/// Written by the probes, read and cleared of exited processes by the controller. Full: what did
/// not fit is in UNPLACED and counted as lost.
#[map]
static TASKS: HashMap<u32, TaskCounters> = HashMap::with_max_entries(MAX_TASKS, 0);

/// By counter, of all processes that have no slot. Written here, read by the controller.
#[map]
static UNPLACED: Array<u64> = Array::with_max_entries(COUNTERS, 0);

const NOTHING: TaskCounters = TaskCounters([0; COUNTERS as usize]);

/// Adds to one counter of a process.
#[inline(never)]
pub(crate) fn add(ctx: &impl EbpfContext, tgid: u32, counter: Counter, value: u64) {
    if let Some(task) = Slot::find_or_make(&TASKS, &tgid, &NOTHING) {
        return task.add(counter as usize * size_of::<u64>(), value);
    }
    if let Some(sum) = UNPLACED.get_ptr_mut(counter as u32) {
        slot::add(sum, value);
    }
    lost::count(ctx, Lost::Tasks, 1);
}
