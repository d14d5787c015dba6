//! How do the kernel's log2 slots become a Prometheus histogram?

use migrate_common::{BUCKETS, Durations};
use prometheus::proto;

/// Upper bounds as powers of two in nanoseconds: 4.1 µs to 69 s by factors of four.
///
/// Every second slot of the kernel ends at one of them, so nothing is
/// interpolated. With `+Inf` these are 14 buckets.
const BOUNDS: [usize; 13] = [12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36];

const _: () = assert!(BOUNDS[BOUNDS.len() - 1] < BUCKETS);

/// A classic histogram in seconds.
///
/// The count is the sum of the slots, not `calls`: the probes write while we
/// read, and a histogram whose parts disagree is an invalid one. A slot holds
/// what is below its end, a bucket what is at most its bound; a call of
/// exactly 2^n ns is the one case in which that differs.
pub(super) fn classic(calls: &Durations) -> proto::Histogram {
    let mut histogram = proto::Histogram::default();
    histogram.set_sample_count(calls.buckets.iter().sum());
    histogram.set_sample_sum(calls.nanos as f64 / 1e9);
    histogram.set_bucket(BOUNDS.iter().map(|&power| bucket(calls, power)).collect());
    histogram
}

fn bucket(calls: &Durations, power: usize) -> proto::Bucket {
    let mut bucket = proto::Bucket::default();
    bucket.set_upper_bound((1_u64 << power) as f64 / 1e9);
    bucket.set_cumulative_count(calls.buckets[..power].iter().sum());
    bucket
}
