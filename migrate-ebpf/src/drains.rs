//! How often the per-CPU LRU caches are drained, and how long that takes. Each
//! drain makes every CPU work, whoever asked for it.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{fentry, fexit, map};
use aya_ebpf::maps::{HashMap, PerCpuArray};
use aya_ebpf::programs::{FEntryContext, FExitContext};
use migrate_common::{DRAIN_KINDS, Drain, Durations, Lost, MAX_CALLERS};

use crate::slot::Slot;
use crate::{durations, kernel, lost};

/// Thread → when its drain began, ns. Written here only. Full: that drain is not counted, and
/// counts as lost.
#[map]
static DRAINING: HashMap<u32, u64> = HashMap::with_max_entries(MAX_CALLERS, 0);

/// By [`Drain`]. Written here, read by the controller; cannot be full.
#[map]
static DRAINS: PerCpuArray<Durations> = PerCpuArray::with_max_entries(DRAIN_KINDS, 0);

/// `void lru_cache_disable(void)`: what every migration that a system call asks for begins with.
/// Checked on 6.1, 6.12, 7.3.
#[fentry(function = "lru_cache_disable")]
fn lru_cache_disable_enter(ctx: FEntryContext) -> i32 {
    began(&ctx)
}

#[fexit(function = "lru_cache_disable")]
fn lru_cache_disable_leave(_ctx: FExitContext) -> i32 {
    ended(Drain::CacheDisable)
}

/// `void lru_add_drain_all(void)`: compaction, memory hotplug, `drop_caches`, khugepaged, ksmd.
/// Checked on 6.1, 6.12, 7.3.
#[fentry(function = "lru_add_drain_all")]
fn lru_add_drain_all_enter(ctx: FEntryContext) -> i32 {
    began(&ctx)
}

#[fexit(function = "lru_add_drain_all")]
fn lru_add_drain_all_leave(_ctx: FExitContext) -> i32 {
    ended(Drain::DrainAll)
}

fn began(ctx: &impl EbpfContext) -> i32 {
    if DRAINING.insert(kernel::current().id, kernel::now(), 0).is_err() {
        lost::count(ctx, Lost::Callers, 1);
    }
    0
}

fn ended(kind: Drain) -> i32 {
    let thread = kernel::current().id;
    let Some(began) = Slot::find(&DRAINING, &thread) else { return 0 };
    let nanos = kernel::now().saturating_sub(began.read());
    let _ = DRAINING.remove(thread);
    if let Some(durations) = DRAINS.get_ptr_mut(kind as u32) {
        durations::add(durations, nanos);
    }
    0
}
