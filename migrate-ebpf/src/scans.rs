//! Pages that reclaim and compaction take off the LRU lists, by node. They take
//! them by the batch, not through the function that migrations use.

use core::mem::offset_of;

use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, map};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext};
use migrate_common::{Lost, SCAN_KINDS, STAMPS, Scan, Scanned};

use crate::kernel::{self, Offset};
use crate::{lost, slot};

/// By node and kind: `node × SCAN_KINDS + kind`. Written here, read by the controller, who makes
/// it as large as there are nodes; cannot be full.
#[map]
static SCANS: PerCpuArray<Scanned> = PerCpuArray::with_max_entries(SCAN_KINDS, 0);

/// The node of the batch that reclaim takes on each CPU, which it does with interrupts off: it
/// holds the lock of the list. Written and read here only; cannot be full.
#[map]
static RECLAIMING: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// By the number of the thread, cut to the size: the batch that it compacts, which may sleep.
/// Written and read here only. Where two threads share a slot, the later one has it, and the batch
/// of the other counts as lost.
#[map]
static COMPACTING: Array<Compacting> = Array::with_max_entries(STAMPS, 0);

#[unsafe(no_mangle)]
static LRUVEC_PGDAT: Offset = Offset::new(0);
#[unsafe(no_mangle)]
static PGDAT_NODE: Offset = Offset::new(0);
#[unsafe(no_mangle)]
static CC_ZONE: Offset = Offset::new(0);
#[unsafe(no_mangle)]
static CC_SCANNED: Offset = Offset::new(0);
#[unsafe(no_mangle)]
static CC_TAKEN: Offset = Offset::new(0);
#[unsafe(no_mangle)]
static ZONE_NODE: Offset = Offset::new(0);

#[derive(Clone, Copy)]
#[repr(C)]
struct Compacting {
    thread: u32,
    node: u32,
    /// Its counters before this batch.
    before: Scanned,
}

/// `unsigned long isolate_lru_folios(unsigned long nr_to_scan, struct lruvec *lruvec, ...)`: a
/// batch of the classic LRU. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "isolate_lru_folios")]
fn isolate_lru_folios(ctx: FEntryContext) -> i32 {
    reclaims(ctx.arg(1))
}

/// `int isolate_folios(struct lruvec *lruvec, ...)`: a batch of the multi-generational LRU.
/// Checked on 6.12.
#[fentry(function = "isolate_folios")]
fn isolate_folios_0(ctx: FEntryContext) -> i32 {
    reclaims(ctx.arg(0))
}

/// `int isolate_folios(unsigned long nr_to_scan, struct lruvec *lruvec, ...)`. Checked on 7.3.
#[fentry(function = "isolate_folios")]
fn isolate_folios_1(ctx: FEntryContext) -> i32 {
    reclaims(ctx.arg(1))
}

/// `mm_vmscan_lru_isolate(int highest_zoneidx, int order, unsigned long nr_requested,
/// unsigned long nr_scanned, unsigned long nr_skipped, unsigned long nr_taken, ...)`: within the
/// above, and silent on 6.1 with the multi-generational LRU. Checked on 6.1, 6.12, 7.3.
#[btf_tracepoint(function = "mm_vmscan_lru_isolate")]
fn mm_vmscan_lru_isolate(ctx: BtfTracePointContext) -> i32 {
    if let Some(&node) = RECLAIMING.get(0) {
        add(node, Scan::Reclaim, Scanned { scanned: ctx.arg(3), taken: ctx.arg(5) });
    }
    0
}

/// `int isolate_migratepages_block(struct compact_control *cc, ...)`. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "isolate_migratepages_block")]
fn isolate_migratepages_block_enter(ctx: FEntryContext) -> i32 {
    let control: *const u8 = ctx.arg(0);
    let zone = kernel::field::<*const u8>(control, &CC_ZONE);
    if let (Some(node), Some(compacting)) =
        (zone.and_then(|zone| kernel::field::<u32>(zone, &ZONE_NODE)), compacting())
    {
        let thread = kernel::current().id;
        // SAFETY: a slot of the map.
        unsafe { compacting.write(Compacting { thread, node, before: compacted(control) }) };
    }
    0
}

#[fexit(function = "isolate_migratepages_block")]
fn isolate_migratepages_block_leave(ctx: FExitContext) -> i32 {
    let Some(compacting) = compacting() else { return 0 };
    // SAFETY: a slot of the map, all integers.
    let Compacting { thread, node, before } = unsafe { compacting.read() };
    if thread != kernel::current().id {
        lost::count(&ctx, Lost::Scans, 1);
        return 0;
    }
    let after = compacted(ctx.arg(0));
    let scanned = after.scanned.saturating_sub(before.scanned);
    let taken = after.taken.saturating_sub(before.taken);
    add(node, Scan::Compaction, Scanned { scanned, taken });
    0
}

/// What a `struct compact_control` has counted so far.
fn compacted(control: *const u8) -> Scanned {
    let scanned = kernel::field::<u64>(control, &CC_SCANNED).unwrap_or(0);
    let taken = kernel::field::<u32>(control, &CC_TAKEN).unwrap_or(0);
    Scanned { scanned, taken: u64::from(taken) }
}

fn reclaims(lruvec: *const u8) -> i32 {
    let pgdat = kernel::field::<*const u8>(lruvec, &LRUVEC_PGDAT);
    if let (Some(node), Some(reclaiming)) = (
        pgdat.and_then(|pgdat| kernel::field::<u32>(pgdat, &PGDAT_NODE)),
        RECLAIMING.get_ptr_mut(0),
    ) {
        // SAFETY: this CPU's slot.
        unsafe { reclaiming.write(node) };
    }
    0
}

fn compacting() -> Option<*mut Compacting> {
    COMPACTING.get_ptr_mut(kernel::current().id % STAMPS)
}

#[inline(always)]
fn add(node: u32, kind: Scan, batch: Scanned) {
    if let Some(sums) = SCANS.get_ptr_mut(node * SCAN_KINDS + kind as u32) {
        let add = |field, value| slot::add(sums.wrapping_byte_add(field).cast(), value);
        add(offset_of!(Scanned, scanned), batch.scanned);
        add(offset_of!(Scanned, taken), batch.taken);
    }
}
