//! What could not be counted, by the map that was full.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_log_ebpf::warn;
use migrate_common::{LOST_SLOTS, Lost};

/// Written here, read by the controller; cannot be full.
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOST_SLOTS, 0);

/// Counts one lost event; the first on each CPU is also logged.
pub(crate) fn count(ctx: &impl EbpfContext, what: Lost) {
    let Some(slot) = LOST.get_ptr_mut(what as u32) else { return };
    // SAFETY: the slot belongs to this CPU and is only written here; an interrupt may at worst
    // lose one count of the same kind.
    let before = unsafe { slot.read() };
    // SAFETY: as above.
    unsafe { slot.write(before + 1) };
    if before == 0 {
        warn!(ctx, "map of lost kind {} is full; further losses are counted only", what as u32);
    }
}
