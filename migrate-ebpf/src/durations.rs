//! Durations in slots of powers of two.

use core::mem::offset_of;

use migrate_common::{BUCKETS, Durations};

use crate::slot;

/// Counts one call of so many ns.
pub(crate) fn add(durations: *mut Durations, nanos: u64) {
    add_untimed(durations);
    add_to(durations, offset_of!(Durations, nanos), nanos);
    // The last slot takes all that is longer than 2^39 ns, nine minutes.
    let bucket = (nanos.max(1).ilog2() as usize).min(BUCKETS - 1);
    add_to(durations, offset_of!(Durations, buckets) + bucket * size_of::<u64>(), 1);
}

/// Counts one call of which nobody saw the beginning.
pub(crate) fn add_untimed(durations: *mut Durations) {
    add_to(durations, offset_of!(Durations, calls), 1);
}

fn add_to(durations: *mut Durations, field: usize, value: u64) {
    slot::add(durations.wrapping_byte_add(field).cast(), value);
}
