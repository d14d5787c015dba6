//! How long threads wait for pages that are being migrated, whoever migrates them.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{fentry, fexit, map};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{FEntryContext, FExitContext};
use migrate_common::{Counter, MAX_WAITING};

use crate::{kernel, tasks};

/// Thread → when its wait began, ns; 0 once it has ended, until its fault has. Written here only.
/// The oldest give way: a wait that is not within a fault on swap leaves its 0 behind.
#[map]
static WAITING: LruHashMap<u32, u64> = LruHashMap::with_max_entries(MAX_WAITING, 0);

/// `void migration_entry_wait(struct mm_struct *mm, pmd_t *pmd, unsigned long address)`: a thread
/// has met a base page on its way. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "migration_entry_wait")]
fn migration_entry_wait_enter(_ctx: FEntryContext) -> i32 {
    began()
}

#[fexit(function = "migration_entry_wait")]
fn migration_entry_wait_leave(ctx: FExitContext) -> i32 {
    ended(&ctx)
}

/// `void pmd_migration_entry_wait(struct mm_struct *mm, pmd_t *pmd)`: the same for a huge page.
#[fentry(function = "pmd_migration_entry_wait")]
fn pmd_migration_entry_wait_enter(_ctx: FEntryContext) -> i32 {
    began()
}

#[fexit(function = "pmd_migration_entry_wait")]
fn pmd_migration_entry_wait_leave(ctx: FExitContext) -> i32 {
    ended(&ctx);
    // Not on the way of a fault on swap, which would ask.
    waited();
    0
}

/// Whether the calling thread has waited in this fault; forgets it.
pub(crate) fn waited() -> bool {
    WAITING.remove(kernel::current().id).is_ok()
}

fn began() -> i32 {
    let _ = WAITING.insert(kernel::current().id, kernel::now(), 0);
    0
}

fn ended(ctx: &impl EbpfContext) -> i32 {
    let current = kernel::current();
    // SAFETY: the value is copied at once; a thread's slot is its own.
    let began = unsafe { WAITING.get(current.id) }.copied().unwrap_or(0);
    if began == 0 {
        return 0;
    }
    let _ = WAITING.insert(current.id, 0, 0);
    tasks::add(ctx, current.tgid, Counter::Waits, 1);
    tasks::add(ctx, current.tgid, Counter::WaitNanos, kernel::now().saturating_sub(began));
    0
}
