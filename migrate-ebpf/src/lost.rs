//! What could not be counted, mostly by the map that had no room.

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
            Lost::Tasks => warn!(ctx, "map TASKS has no room: new processes are charged nothing"),
            Lost::CpuTime => warn!(ctx, "map CPU_TIME has no room: CPU time is not counted"),
            Lost::Hints => warn!(ctx, "map HINTS has no room: hint faults are not counted"),
            Lost::Migrations => {
                warn!(ctx, "map MIGRATIONS has no room: migrations are charged to nobody")
            }
            Lost::Crossings => {
                warn!(ctx, "map CROSSINGS has no room: moves of threads are not counted")
            }
            Lost::Callers => warn!(ctx, "too many migrations at once: some are charged to callers"),
            Lost::Touched => warn!(ctx, "map TOUCHED has no room: new processes' pages are lost"),
            Lost::Durations => warn!(ctx, "the beginning of a call was not seen, or forgotten"),
            Lost::Scans => warn!(ctx, "too many compactions at once: some batches are lost"),
        }
    }
}
