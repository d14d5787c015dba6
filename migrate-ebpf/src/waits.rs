//! How long threads wait for pages that are being migrated, whoever migrates them.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{fentry, fexit, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{FEntryContext, FExitContext};
use migrate_common::{Counter, Lost, MAX_WAITING};

use crate::slot::Slot;
use crate::{kernel, lost, tasks};

/// Thread → when its wait began, ns; 0 once it has ended, until its fault has. Written here only.
/// Full: that wait is not counted, and counts as lost.
#[map]
static WAITING: HashMap<u32, u64> = HashMap::with_max_entries(MAX_WAITING, 0);

/// `void migration_entry_wait(struct mm_struct *mm, pmd_t *pmd, unsigned long address)`: a thread
/// has met a base page on its way. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "migration_entry_wait")]
fn migration_entry_wait_enter(ctx: FEntryContext) -> i32 {
    began(&ctx)
}

#[fexit(function = "migration_entry_wait")]
fn migration_entry_wait_leave(ctx: FExitContext) -> i32 {
    ended(&ctx)
}

/// `void pmd_migration_entry_wait(struct mm_struct *mm, pmd_t *pmd)`: the same for a huge page.
#[fentry(function = "pmd_migration_entry_wait")]
fn pmd_migration_entry_wait_enter(ctx: FEntryContext) -> i32 {
    began(&ctx)
}

#[fexit(function = "pmd_migration_entry_wait")]
fn pmd_migration_entry_wait_leave(ctx: FExitContext) -> i32 {
    ended(&ctx)
}

/// Whether the calling thread has waited in this fault; forgets it.
pub(crate) fn waited() -> bool {
    WAITING.remove(kernel::current().id).is_ok()
}

fn began(ctx: &impl EbpfContext) -> i32 {
    if WAITING.insert(kernel::current().id, kernel::now(), 0).is_err() {
        lost::count(ctx, Lost::Waiting, 1);
    }
    0
}

fn ended(ctx: &impl EbpfContext) -> i32 {
    let current = kernel::current();
    let Some(began) = Slot::find(&WAITING, &current.id) else { return 0 };
    let nanos = kernel::now().saturating_sub(began.read());
    let _ = WAITING.insert(current.id, 0, 0);
    tasks::add(ctx, current.tgid, Counter::Waits, 1);
    tasks::add(ctx, current.tgid, Counter::WaitNanos, nanos);
    0
}
