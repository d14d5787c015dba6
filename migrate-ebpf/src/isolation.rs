//! LRU isolation: folios that somebody tried to take off their list, was
//! refused, or put back; by node and by who asked.
//!
//! Reclaim and compaction take folios another way: `scans`. Compaction puts
//! them back this way, though.

use core::mem::offset_of;

use aya_ebpf::Global;
use aya_ebpf::macros::{fentry, map};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::FEntryContext;
use migrate_common::{ALL_REASONS, Counter, Isolated, REASON_OTHER};

use crate::{charge, kernel, slot, tasks};

/// By node and reason: `node × ALL_REASONS + reason`. Written here, read by the controller, who
/// makes it as large as there are nodes; cannot be full.
#[map]
static ISOLATED: PerCpuArray<Isolated> = PerCpuArray::with_max_entries(ALL_REASONS, 0);

/// `1 << PG_lru`, from BTF.
#[unsafe(no_mangle)]
static LRU_FLAG: Global<u32> = Global::new(0);

/// `folio_isolate_lru(struct folio *folio)`; returns `int` on 6.1, 0 = taken, and `bool` from 6.12,
/// 1 = taken. It takes the folio if it bears PG_lru, which tells us beforehand, and costs a page
/// less than to come back for the result. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "folio_isolate_lru")]
fn folio_isolate_lru(ctx: FEntryContext) -> i32 {
    let flags = kernel::folio_flags(&ctx);
    let refused = flags & u64::from(LRU_FLAG.load()) == 0;
    let thread = kernel::current();
    if let Some(caller) = charge::held(thread.id) {
        caller.is_on(&ctx, kernel::node_of(flags));
        caller.tried(refused);
        return 0;
    }
    let reason = charge::reason_of(thread.id, &ctx);
    // A hint is for one folio, and what was migrated before says nothing of this one.
    charge::remember(REASON_OTHER);
    tasks::add(&ctx, thread.tgid, Counter::IsolationTried, 1);
    if refused {
        tasks::add(&ctx, thread.tgid, Counter::IsolationRefused, 1);
    }
    let isolated = Isolated { tried: 1, refused: u64::from(refused), put_back: 0 };
    add(kernel::node_of(flags), reason, &isolated);
    0
}

/// `void folio_putback_lru(struct folio *folio)`. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "folio_putback_lru")]
fn folio_putback_lru(ctx: FEntryContext) -> i32 {
    let node = kernel::node_of(kernel::folio_flags(&ctx));
    let thread = kernel::current();
    let compacts = charge::is_compacting(thread.id);
    if !compacts && let Some(caller) = charge::held(thread.id) {
        caller.is_on(&ctx, node);
        caller.put_back();
        return 0;
    }
    // What compaction takes is anybody's.
    if !compacts {
        tasks::add(&ctx, thread.tgid, Counter::IsolationPutBack, 1);
    }
    let isolated = Isolated { tried: 0, refused: 0, put_back: 1 };
    add(node, charge::reason_of(thread.id, &ctx), &isolated);
    0
}

/// Counts folios of a node, taken for a reason.
#[inline(always)]
pub(crate) fn add(node: u32, reason: u32, more: &Isolated) {
    let Some(sums) = ISOLATED.get_ptr_mut(node * ALL_REASONS + reason) else { return };
    let add = |field, value| slot::add(sums.wrapping_byte_add(field).cast(), value);
    add(offset_of!(Isolated, tried), more.tried);
    add(offset_of!(Isolated, refused), more.refused);
    add(offset_of!(Isolated, put_back), more.put_back);
}
