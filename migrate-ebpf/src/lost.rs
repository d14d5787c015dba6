//! What could not be counted, by the map that was full.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_log_ebpf::warn;
use migrate_common::{LOST_SLOTS, Lost};

use crate::slot;

/// Written here, read by the controller; cannot be full. Not per CPU: it is touched in trouble only.
#[map]
static LOST: Array<u64> = Array::with_max_entries(LOST_SLOTS, 0);

/// Counts lost events; the first of each kind is also logged.
pub(crate) fn count(ctx: &impl EbpfContext, what: Lost, events: u64) {
    let Some(lost) = LOST.get_ptr_mut(what as u32) else { return };
    // SAFETY: a slot of this map; two CPUs that both see 0 log twice, nothing worse.
    let before = unsafe { lost.read_volatile() };
    slot::add(lost, events);
    if before == 0 {
        match what {
            Lost::Tasks => warn!(ctx, "map TASKS is full: new processes are not counted"),
            Lost::CpuTime => warn!(ctx, "map CPU_TIME is full: CPU time is not counted"),
            Lost::Hints => warn!(ctx, "map HINTS is full: hint faults are not counted"),
            Lost::Migrations => warn!(ctx, "map MIGRATIONS is full: migrations are not counted"),
            Lost::Crossings => {
                warn!(ctx, "map CROSSINGS is full: moves of threads are not counted")
            }
            Lost::Callers => warn!(ctx, "too many migrations at once: some are charged to callers"),
            Lost::Touched => warn!(ctx, "map TOUCHED is full: new processes' pages are not kept"),
        }
    }
}
