//! The counters of one process, by tgid.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use migrate_common::{Lost, MAX_TASKS, TaskCounters};

use crate::slot::Slot;

/// Written by the probes, read and cleared of exited processes by the controller. Plain rather
/// than per CPU: that would take a slot per process *and* CPU. Full: counted as lost.
#[map]
static TASKS: HashMap<u32, TaskCounters> = HashMap::with_max_entries(MAX_TASKS, 0);

const NOTHING: TaskCounters = TaskCounters {
    isolation_tried: 0,
    isolation_refused: 0,
    isolation_put_back: 0,
    faults_minor: 0,
    faults_major: 0,
    policy_samples: 0,
};

/// Adds to one counter, an `offset_of!` in [`TaskCounters`], of a process.
pub(crate) fn add(ctx: &impl EbpfContext, tgid: u32, counter: usize, value: u64) {
    if let Some(slot) = Slot::find_or_make(ctx, &TASKS, &tgid, &NOTHING, Lost::Tasks) {
        slot.add(counter, value);
    }
}
