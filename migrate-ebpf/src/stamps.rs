//! When did the call begin that this thread is in?
//!
//! A slot for each thread, found by its number: no look-up, and nothing that
//! could be full. Where two threads fall on one slot at the same time, the
//! later one has it, and the duration of the other's call is lost.

use aya_ebpf::maps::Array;
use migrate_common::STAMPS;

use crate::kernel;

/// Written and read by the probes only.
pub(crate) type Stamps = Array<Stamp>;

#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Stamp {
    /// Thread and what it began; 0: nothing.
    owner: u64,
    /// CLOCK_MONOTONIC, ns.
    at: u64,
}

pub(crate) const fn stamps() -> Stamps {
    Array::with_max_entries(STAMPS, 0)
}

/// `what` is below 16: one call may be within another of its kind.
#[inline(always)]
pub(crate) fn begin(stamps: &Stamps, what: u32) {
    let (slot, owner) = slot(what);
    if let Some(stamp) = stamps.get_ptr_mut(slot) {
        // SAFETY: a slot of the map. Two threads that share it may mix a duration up.
        unsafe { stamp.write_volatile(Stamp { owner, at: kernel::now() }) };
    }
}

/// How long ago it began, in ns; none where its beginning was not seen.
#[inline(always)]
pub(crate) fn end(stamps: &Stamps, what: u32) -> Option<u64> {
    let (slot, owner) = slot(what);
    let stamp = stamps.get_ptr_mut(slot)?;
    // SAFETY: as above.
    unsafe {
        if (*stamp).owner != owner {
            return None;
        }
        (*stamp).owner = 0;
        Some(kernel::now().saturating_sub((*stamp).at))
    }
}

fn slot(what: u32) -> (u32, u64) {
    let thread = kernel::current().id;
    // Neighbours in number are often at the same work: they share no slot.
    let number = thread.wrapping_add(what.wrapping_mul(STAMPS / 16 + 1));
    (number % STAMPS, u64::from(thread) << 32 | 1 << 31 | u64::from(what))
}
