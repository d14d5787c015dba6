//! Durations in slots of powers of two.

use core::mem::offset_of;

use migrate_common::{BUCKETS, Latency};

use crate::slot;

/// Counts one call of so many ns.
pub(crate) fn add(latency: *mut Latency, nanos: u64) {
    add_to(latency, offset_of!(Latency, calls), 1);
    add_time(latency, nanos);
}

/// Counts the duration of a call that is counted already.
pub(crate) fn add_time(latency: *mut Latency, nanos: u64) {
    add_to(latency, offset_of!(Latency, nanos), nanos);
    // The last slot takes all that is longer than 2^39 ns, nine minutes.
    let bucket = (nanos.max(1).ilog2() as usize).min(BUCKETS - 1);
    add_to(latency, offset_of!(Latency, buckets) + bucket * size_of::<u64>(), 1);
}

/// Adds to the `u64` at `field`, which is an `offset_of!` in [`Latency`].
pub(crate) fn add_to(latency: *mut Latency, field: usize, value: u64) {
    slot::add(latency.wrapping_byte_add(field).cast(), value);
}
