//! Page migrations, by anyone: one event per `migrate_pages()` call of the kernel.
//!
//! So a page of a large move costs nothing measurable here.

use core::mem::offset_of;

use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{HashMap, PerCpuArray};
use aya_ebpf::programs::BtfTracePointContext;
use aya_ebpf::{EbpfContext, Global};
use migrate_common::{
    Latency, Lost, MAX_CALLERS, MAX_TASKS, MigrationKey, MigrationTotals, OwnMove, REASONS,
};

use crate::slot::Slot;
use crate::{charge, kernel, latency, lost};

/// Written here, read and cleared of exited processes by the controller. Full: counted as lost.
#[map]
static MIGRATIONS: HashMap<MigrationKey, MigrationTotals> = HashMap::with_max_entries(MAX_TASKS, 0);

/// By `enum migrate_reason`. Written here, read by the controller; cannot be full.
#[map]
static LATENCY: PerCpuArray<Latency> = PerCpuArray::with_max_entries(REASONS, 0);

/// When a call began, ns. Written here only. Full: that call has no duration, and counts as lost.
#[map]
static BEGAN: HashMap<BeganKey, u64> = HashMap::with_max_entries(MAX_CALLERS, 0);

/// MR_SYSCALL of this kernel: `migrate_pages(2)`, `move_pages(2)` and cpusets.
#[unsafe(no_mangle)]
static REASON_SYSCALL: Global<u32> = Global::new(0);

/// Calls nest: allocating the target of one may compact or demote, which migrates in turn.
#[repr(C)]
#[derive(Clone, Copy)]
struct BeganKey {
    thread: u32,
    reason: u32,
}

/// What one call did.
struct Call {
    moved: u64,
    failed: u64,
    reason: u32,
    /// None: it began before the probes.
    nanos: Option<u64>,
}

/// `mm_migrate_pages_start(enum migrate_mode mode, int reason)`. Checked on 6.1, 6.12, 7.3.
#[btf_tracepoint(function = "mm_migrate_pages_start")]
fn mm_migrate_pages_start(ctx: BtfTracePointContext) -> i32 {
    let key = BeganKey { thread: kernel::current().id, reason: ctx.arg(1) };
    if BEGAN.insert(key, kernel::now(), 0).is_err() {
        lost::count(&ctx, Lost::Callers, 1);
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
    let key = BeganKey { thread: kernel::current().id, reason };
    let began = Slot::find(&BEGAN, &key).map(|began| began.read());
    let _ = BEGAN.remove(key);
    let nanos = began.map(|began| kernel::now().saturating_sub(began));
    let call = Call { moved, failed, reason: reason.min(REASONS - 1), nanos };
    add_latency(&call);
    let payer = if reason == REASON_SYSCALL.load() { charge::target() } else { charge::caller() };
    add_totals(ctx, &call, payer.tgid, payer.own.is_some());
    if let Some(own) = payer.own {
        own.add(offset_of!(OwnMove, moved), moved);
        own.add(offset_of!(OwnMove, failed), failed);
    }
}

fn add_latency(call: &Call) {
    let Some(latency) = LATENCY.get_ptr_mut(call.reason) else { return };
    latency::add_to(latency, offset_of!(Latency, calls), 1);
    latency::add_to(latency, offset_of!(Latency, moved), call.moved);
    latency::add_to(latency, offset_of!(Latency, failed), call.failed);
    if let Some(nanos) = call.nanos {
        latency::add_time(latency, nanos);
    }
}

fn add_totals(ctx: &impl EbpfContext, call: &Call, tgid: u32, own: bool) {
    #[expect(clippy::cast_possible_truncation, reason = "below REASONS")]
    let key = MigrationKey { tgid, reason: call.reason as u16, own: u16::from(own) };
    let nothing = MigrationTotals { calls: 0, moved: 0, failed: 0, nanos: 0 };
    let Some(totals) = Slot::find_or_make(&MIGRATIONS, &key, &nothing) else {
        return lost::count(ctx, Lost::Migrations, 1);
    };
    totals.add(offset_of!(MigrationTotals, calls), 1);
    totals.add(offset_of!(MigrationTotals, moved), call.moved);
    totals.add(offset_of!(MigrationTotals, failed), call.failed);
    totals.add(offset_of!(MigrationTotals, nanos), call.nanos.unwrap_or(0));
}
