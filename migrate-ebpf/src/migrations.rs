//! Page migrations, by anyone: one event per `migrate_pages()` call of the kernel.
//!
//! So a page of a large move costs nothing measurable here.

use core::mem::offset_of;

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{HashMap, PerCpuArray};
use aya_ebpf::programs::BtfTracePointContext;
use migrate_common::{
    ALL_REASONS, Lost, MAX_TASKS, MODES, MigrationKey, MigrationTotals, Migrations, OwnMove,
    REASON_OWN, REASONS,
};

use crate::slot::{self, Slot};
use crate::stamps::{self, Stamps};
use crate::{charge, durations, kernel, lost};

/// Written here, read and cleared of exited processes by the controller. Full: counted as lost.
#[map]
static MIGRATIONS: HashMap<MigrationKey, MigrationTotals> = HashMap::with_max_entries(MAX_TASKS, 0);

/// By reason. Written here, read by the controller; cannot be full.
#[map]
static BY_REASON: PerCpuArray<Migrations> = PerCpuArray::with_max_entries(ALL_REASONS, 0);

/// By reason: compaction may have to make room for a migration.
#[map]
static BEGAN: Stamps = stamps::stamps();

/// What one call did.
struct Call {
    moved: u64,
    failed: u64,
    huge_moved: u64,
    huge_failed: u64,
    huge_split: u64,
    mode: u32,
    reason: u32,
    /// None: it began before the probes.
    nanos: Option<u64>,
}

/// `mm_migrate_pages_start(enum migrate_mode mode, int reason)`. Checked on 6.1, 6.12, 7.3.
#[btf_tracepoint(function = "mm_migrate_pages_start")]
fn mm_migrate_pages_start(ctx: BtfTracePointContext) -> i32 {
    stamps::begin(&BEGAN, cut(ctx.arg(1)));
    0
}

/// `mm_migrate_pages(succeeded, failed, thp_succeeded, thp_failed, thp_split, mode, reason)`.
/// Checked on 6.1.
#[btf_tracepoint(function = "mm_migrate_pages")]
fn mm_migrate_pages_7(ctx: BtfTracePointContext) -> i32 {
    ended(&ctx, call(&ctx, ctx.arg(5), ctx.arg(6)))
}

/// The same with `large_folio_split` before `mode`. Checked on 6.12, 7.3.
#[btf_tracepoint(function = "mm_migrate_pages")]
fn mm_migrate_pages_8(ctx: BtfTracePointContext) -> i32 {
    ended(&ctx, call(&ctx, ctx.arg(6), ctx.arg(7)))
}

// Inlined, like what takes it: 6.1's verifier does not let a function read the half of a value that
// its caller left unwritten.
#[inline(always)]
fn call(ctx: &BtfTracePointContext, mode: u32, reason: u32) -> Call {
    let reason = cut(reason);
    Call {
        moved: ctx.arg(0),
        failed: ctx.arg(1),
        huge_moved: ctx.arg(2),
        huge_failed: ctx.arg(3),
        huge_split: ctx.arg(4),
        mode,
        reason,
        nanos: stamps::end(&BEGAN, reason),
    }
}

#[inline(always)]
fn ended(ctx: &impl EbpfContext, call: Call) -> i32 {
    let current = kernel::current();
    let (tgid, reason) = match charge::held(current.id) {
        // The kernel gives system calls and cpusets the same reason.
        Some(caller) if charge::is_asked_for(call.reason) || call.reason == caller.reason() => {
            (caller.target(), caller.reason())
        }
        // Within a call that asked for something else, as when memory is compacted for it.
        Some(_) => (current.tgid, call.reason),
        None => {
            charge::remember(call.reason);
            (current.tgid, call.reason)
        }
    };
    add_to_reason(ctx, &call, reason);
    add_to_task(ctx, &call, MigrationKey { tgid, reason, caller: current.tgid });
    if reason == REASON_OWN
        && let Some(own) = charge::own_move(current.id)
    {
        own.add(offset_of!(OwnMove, moved), call.moved);
        own.add(offset_of!(OwnMove, failed), call.failed);
        own.add(offset_of!(OwnMove, huge), call.huge_moved);
    }
    0
}

#[inline(always)]
fn add_to_reason(ctx: &impl EbpfContext, call: &Call, reason: u32) {
    let Some(sums) = BY_REASON.get_ptr_mut(reason) else { return };
    let add = |field, value| slot::add(sums.wrapping_byte_add(field).cast(), value);
    add(offset_of!(Migrations, moved), call.moved);
    add(offset_of!(Migrations, failed), call.failed);
    add(offset_of!(Migrations, huge_moved), call.huge_moved);
    add(offset_of!(Migrations, huge_failed), call.huge_failed);
    add(offset_of!(Migrations, huge_split), call.huge_split);
    let mode = (call.mode as usize).min(MODES - 1);
    add(offset_of!(Migrations, modes) + mode * size_of::<u64>(), 1);
    let durations = sums.wrapping_byte_add(offset_of!(Migrations, durations)).cast();
    durations::add(ctx, durations, call.nanos);
}

#[inline(always)]
fn add_to_task(ctx: &impl EbpfContext, call: &Call, key: MigrationKey) {
    let nothing = MigrationTotals { calls: 0, moved: 0, failed: 0, nanos: 0 };
    let Some(totals) = Slot::find_or_make(&MIGRATIONS, &key, &nothing) else {
        return lost::count(ctx, Lost::Migrations, 1);
    };
    totals.add(offset_of!(MigrationTotals, calls), 1);
    totals.add(offset_of!(MigrationTotals, moved), call.moved);
    totals.add(offset_of!(MigrationTotals, failed), call.failed);
    totals.add(offset_of!(MigrationTotals, nanos), call.nanos.unwrap_or(0));
}

/// Later kernels may have more reasons than we have room for.
fn cut(reason: u32) -> u32 {
    reason.min(REASONS - 1)
}
