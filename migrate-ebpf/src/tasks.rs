//! The counters of one process, by tgid.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use migrate_common::{Lost, MAX_TASKS, TaskCounters};

/// Written by the probes, read and cleared of exited processes by the controller. Plain rather
/// than per CPU: that would take a slot per process *and* CPU. Full: counted as lost.
#[map]
static TASKS: HashMap<u32, TaskCounters> = HashMap::with_max_entries(MAX_TASKS, 0);

/// The slot of a process, made when it is first seen.
pub(crate) fn slot(ctx: &impl EbpfContext, tgid: u32) -> Option<*mut TaskCounters> {
    if let Some(slot) = TASKS.get_ptr_mut(tgid) {
        return Some(slot);
    }
    // Another CPU may have made it meanwhile; the look-up below settles it.
    let _ = TASKS.insert(tgid, TaskCounters::default(), u64::from(aya_ebpf::bindings::BPF_NOEXIST));
    let slot = TASKS.get_ptr_mut(tgid);
    if slot.is_none() {
        crate::lost::count(ctx, Lost::Tasks);
    }
    slot
}

/// Adds to a counter in a map. Threads of one process count in the same slot.
pub(crate) fn add(counter: *mut u64, value: u64) {
    // The stable `fetch_add` is not compiled for targets without compare-and-swap.
    // SAFETY: the pointer comes from a map look-up in this program run, is 8-byte aligned by the
    // layout of the shared structs, and map memory stays valid until the program ends.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, value) };
}
