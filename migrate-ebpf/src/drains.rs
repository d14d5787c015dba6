//! How often the per-CPU LRU caches are drained, and how long that takes. Each
//! drain makes every CPU work, whoever asked for it.

use aya_ebpf::macros::{fentry, fexit, map};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::{FEntryContext, FExitContext};
use migrate_common::{DRAIN_KINDS, Drain, Durations};

use crate::durations;
use crate::stamps::{self, Stamps};

/// By [`Drain`].
#[map]
static DRAINING: Stamps = stamps::stamps();

/// By [`Drain`]. Written here, read by the controller; cannot be full.
#[map]
static DRAINS: PerCpuArray<Durations> = PerCpuArray::with_max_entries(DRAIN_KINDS, 0);

/// `void lru_cache_disable(void)`: what every migration that a system call asks for begins with.
/// Checked on 6.1, 6.12, 7.3.
#[fentry(function = "lru_cache_disable")]
fn lru_cache_disable_enter(_ctx: FEntryContext) -> i32 {
    began(Drain::CacheDisable)
}

#[fexit(function = "lru_cache_disable")]
fn lru_cache_disable_leave(ctx: FExitContext) -> i32 {
    ended(&ctx, Drain::CacheDisable)
}

/// `void lru_add_drain_all(void)`: compaction, memory hotplug, `drop_caches`, khugepaged, ksmd.
/// Checked on 6.1, 6.12, 7.3.
#[fentry(function = "lru_add_drain_all")]
fn lru_add_drain_all_enter(_ctx: FEntryContext) -> i32 {
    began(Drain::DrainAll)
}

#[fexit(function = "lru_add_drain_all")]
fn lru_add_drain_all_leave(ctx: FExitContext) -> i32 {
    ended(&ctx, Drain::DrainAll)
}

fn began(kind: Drain) -> i32 {
    stamps::begin(&DRAINING, kind as u32);
    0
}

fn ended(ctx: &FExitContext, kind: Drain) -> i32 {
    let nanos = stamps::end(&DRAINING, kind as u32);
    if let Some(drains) = DRAINS.get_ptr_mut(kind as u32) {
        durations::add(ctx, drains, nanos);
    }
    0
}
