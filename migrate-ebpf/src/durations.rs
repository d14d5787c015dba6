//! Durations in slots of powers of two.

use core::mem::offset_of;

use aya_ebpf::EbpfContext;
use migrate_common::{BUCKETS, Durations, Lost};

use crate::{lost, slot};

/// Counts one call and how long it took in ns; where nobody saw its beginning, that is lost.
// Inlined: 6.1 does not let a function read the unwritten half of an Option.
#[inline(always)]
pub(crate) fn add(ctx: &impl EbpfContext, durations: *mut Durations, nanos: Option<u64>) {
    let add = |field: usize, value| slot::add(durations.wrapping_byte_add(field).cast(), value);
    add(offset_of!(Durations, calls), 1);
    let Some(nanos) = nanos else { return lost::count(ctx, Lost::Durations, 1) };
    add(offset_of!(Durations, nanos), nanos);
    // The last slot takes all that is longer than 2^39 ns, nine minutes.
    let bucket = (nanos.max(1).ilog2() as usize).min(BUCKETS - 1);
    add(offset_of!(Durations, buckets) + bucket * size_of::<u64>(), 1);
}
