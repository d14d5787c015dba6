//! Page migrations, by anyone: one event per `migrate_pages()` call of the kernel.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{HashMap, PerCpuArray};
use aya_ebpf::programs::BtfTracePointContext;
use migrate_common::{BUCKETS, Latency, Lost, MAX_TASKS, MigrationKey, MigrationTotals, REASONS};

use crate::{charge, lost, tasks};

/// Written here, read and cleared of exited processes by the controller. Full: counted as lost.
#[map]
static MIGRATIONS: HashMap<MigrationKey, MigrationTotals> = HashMap::with_max_entries(MAX_TASKS, 0);

/// By `enum migrate_reason`. Written here, read by the controller; cannot be full.
#[map]
static LATENCY: PerCpuArray<Latency> = PerCpuArray::with_max_entries(REASONS as u32, 0);

/// Thread → when its call began, ns. Written here only. Full: that call counts as lost.
#[map]
static BEGAN: HashMap<u32, u64> = HashMap::with_max_entries(4096, 0);

/// What one call did.
struct Call {
    moved: u64,
    failed: u64,
    reason: u32,
    nanos: u64,
}

/// `mm_migrate_pages_start(enum migrate_mode mode, int reason)`. Checked on 6.1, 6.12, 7.3.
#[btf_tracepoint(function = "mm_migrate_pages_start")]
fn mm_migrate_pages_start(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if BEGAN.insert(charge::current().0, now, 0).is_err() {
        lost::count(&ctx, Lost::Callers);
    }
    0
}

/// `mm_migrate_pages(succeeded, failed, thp_succeeded, thp_failed, thp_split, mode, reason)`.
/// Checked on 6.1.
#[btf_tracepoint(function = "mm_migrate_pages")]
fn mm_migrate_pages_7(ctx: BtfTracePointContext) -> i32 {
    ended(&ctx, ctx.arg(0), ctx.arg(1), ctx.arg(6));
    0
}

/// The same with `large_folio_split` before `mode`. Checked on 6.12, 7.3.
#[btf_tracepoint(function = "mm_migrate_pages")]
fn mm_migrate_pages_8(ctx: BtfTracePointContext) -> i32 {
    ended(&ctx, ctx.arg(0), ctx.arg(1), ctx.arg(7));
    0
}

fn ended(ctx: &impl EbpfContext, moved: u64, failed: u64, reason: u32) {
    let thread = charge::current().0;
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a map slot that only this thread writes.
    let began = BEGAN.get_ptr(thread).map(|began| unsafe { began.read() });
    let _ = BEGAN.remove(thread);
    let nanos = began.map_or(0, |began| now.saturating_sub(began));
    let call = Call { moved, failed, reason: reason.min(REASONS as u32 - 1), nanos };
    add_latency(&call);
    add_totals(ctx, &call);
    if let Some(own) = charge::own_move() {
        // SAFETY: a field of a map slot; only its address is taken.
        tasks::add(unsafe { &raw mut (*own).moved }, moved);
        // SAFETY: as above.
        tasks::add(unsafe { &raw mut (*own).failed }, failed);
    }
}

fn add_latency(call: &Call) {
    let Some(latency) = LATENCY.get_ptr_mut(call.reason) else { return };
    // SAFETY: the slot belongs to this CPU; preemption is off while a tracing program runs.
    let latency = unsafe { &mut *latency };
    latency.calls += 1;
    latency.moved += call.moved;
    latency.failed += call.failed;
    latency.nanos += call.nanos;
    let bucket = (63 - (call.nanos | 1).leading_zeros()) as usize;
    if let Some(slot) = latency.buckets.get_mut(bucket.min(BUCKETS - 1)) {
        *slot += 1;
    }
}

fn add_totals(ctx: &impl EbpfContext, call: &Call) {
    #[expect(clippy::cast_possible_truncation, reason = "below REASONS")]
    let key = MigrationKey {
        tgid: charge::target(),
        reason: call.reason as u16,
        own: u16::from(charge::own_move().is_some()),
    };
    if MIGRATIONS.get_ptr_mut(key).is_none() {
        // Another CPU may make it meanwhile; the look-up below settles it.
        let _ = MIGRATIONS.insert(key, MigrationTotals::default(), 1);
    }
    let Some(totals) = MIGRATIONS.get_ptr_mut(key) else {
        lost::count(ctx, Lost::Migrations);
        return;
    };
    // SAFETY: fields of a map slot; only their addresses are taken.
    tasks::add(unsafe { &raw mut (*totals).calls }, 1);
    // SAFETY: as above.
    tasks::add(unsafe { &raw mut (*totals).moved }, call.moved);
    // SAFETY: as above.
    tasks::add(unsafe { &raw mut (*totals).failed }, call.failed);
    // SAFETY: as above.
    tasks::add(unsafe { &raw mut (*totals).nanos }, call.nanos);
}
