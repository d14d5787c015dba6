//! LRU isolation: folios that somebody tried to take off their list, was
//! refused, or put back.
//!
//! Reclaim and compaction take folios another way. Compaction puts them back
//! this way, though: those count for the process that had to compact.
//!
//! Costs 590 instructions a folio on 6.12, 7 % of the 8,363 of moving one page.

use core::mem::offset_of;

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{fentry, fexit};
use aya_ebpf::programs::{FEntryContext, FExitContext};
use migrate_common::{Counter, OwnMove};

use crate::{charge, tasks};

/// `int folio_isolate_lru(struct folio *folio)`, 0 = taken. Checked on 6.1.
#[fexit(function = "folio_isolate_lru")]
fn folio_isolate_lru_int(ctx: FExitContext) -> i32 {
    // The result stands behind the last argument.
    let result: i32 = ctx.arg(1);
    tried(&ctx, result == 0);
    0
}

/// `bool folio_isolate_lru(struct folio *folio)`, 1 = taken. Checked on 6.12, 7.3.
#[fexit(function = "folio_isolate_lru")]
fn folio_isolate_lru_bool(ctx: FExitContext) -> i32 {
    // Only the lowest byte of a bool's register is defined.
    let result: u8 = ctx.arg(1);
    tried(&ctx, result != 0);
    0
}

/// `void folio_putback_lru(struct folio *folio)`. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "folio_putback_lru")]
fn folio_putback_lru(ctx: FEntryContext) -> i32 {
    let target = charge::target();
    tasks::add(&ctx, target.tgid, Counter::IsolationPutBack, 1);
    if let Some(own) = target.own {
        own.add(offset_of!(OwnMove, put_back), 1);
    }
    0
}

fn tried(ctx: &impl EbpfContext, taken: bool) {
    let target = charge::target();
    tasks::add(ctx, target.tgid, Counter::IsolationTried, 1);
    if !taken {
        tasks::add(ctx, target.tgid, Counter::IsolationRefused, 1);
    }
    if let Some(own) = target.own {
        own.add(offset_of!(OwnMove, tried), 1);
        own.add(offset_of!(OwnMove, refused), u64::from(!taken));
    }
}
