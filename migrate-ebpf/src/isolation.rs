//! LRU isolation: folios that somebody tried to take off their list, was
//! refused, or put back. Reclaim and compaction do not come through here.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{fentry, fexit};
use aya_ebpf::programs::{FEntryContext, FExitContext};

use crate::{charge, tasks};

/// `int folio_isolate_lru(struct folio *folio)`, 0 = taken. Checked on 6.1.
#[fexit(function = "folio_isolate_lru")]
fn folio_isolate_lru_int(ctx: FExitContext) -> i32 {
    let result: i32 = ctx.arg(1);
    tried(&ctx, result == 0);
    0
}

/// `bool folio_isolate_lru(struct folio *folio)`, 1 = taken. Checked on 6.12, 7.3.
#[fexit(function = "folio_isolate_lru")]
fn folio_isolate_lru_bool(ctx: FExitContext) -> i32 {
    let result: u64 = ctx.arg(1);
    // Only the lowest byte of a bool's register is defined.
    tried(&ctx, result & 0xff != 0);
    0
}

/// `void folio_putback_lru(struct folio *folio)`. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "folio_putback_lru")]
fn folio_putback_lru(ctx: FEntryContext) -> i32 {
    if let Some(slot) = tasks::slot(&ctx, charge::target()) {
        // SAFETY: a field of a map slot; only its address is taken.
        tasks::add(unsafe { &raw mut (*slot).isolation_put_back }, 1);
    }
    if let Some(own) = charge::own_move() {
        // SAFETY: as above.
        tasks::add(unsafe { &raw mut (*own).put_back }, 1);
    }
    0
}

fn tried(ctx: &impl EbpfContext, taken: bool) {
    let refused = u64::from(!taken);
    if let Some(slot) = tasks::slot(ctx, charge::target()) {
        // SAFETY: a field of a map slot; only its address is taken.
        tasks::add(unsafe { &raw mut (*slot).isolation_tried }, 1);
        // SAFETY: as above.
        tasks::add(unsafe { &raw mut (*slot).isolation_refused }, refused);
    }
    if let Some(own) = charge::own_move() {
        // SAFETY: as above.
        tasks::add(unsafe { &raw mut (*own).tried }, 1);
        // SAFETY: as above.
        tasks::add(unsafe { &raw mut (*own).refused }, refused);
    }
}
