//! How long threads wait for pages that are being migrated, whoever migrates
//! them, and for the lock of their address space, which some movers hold.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_task;
use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, map};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext};
use migrate_common::{Counter, Lost};

use crate::kernel::{self, Offset};
use crate::stamps::{self, Stamps};
use crate::{lost, tasks};

#[map]
static WAITING: Stamps = stamps::stamps();

/// A wait begins, and a wait has been in the fault that is still going on.
const WAIT: u32 = 0;
const WAITED: u32 = 1;
/// A wait for the lock of the address space, mmap_lock.
const LOCK: u32 = 2;

#[unsafe(no_mangle)]
static TASK_MM: Offset = Offset::new(0);
#[unsafe(no_mangle)]
static MM_LOCK: Offset = Offset::new(0);

/// `void migration_entry_wait(struct mm_struct *mm, pmd_t *pmd, unsigned long address)`: a thread
/// has met a base page on its way. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "migration_entry_wait")]
fn migration_entry_wait_enter(_ctx: FEntryContext) -> i32 {
    began()
}

#[fexit(function = "migration_entry_wait")]
fn migration_entry_wait_leave(ctx: FExitContext) -> i32 {
    ended(&ctx, WAIT, Counter::Waits, Counter::WaitNanos);
    stamps::begin(&WAITING, WAITED);
    0
}

/// `void pmd_migration_entry_wait(struct mm_struct *mm, pmd_t *pmd)`: the same for a huge page,
/// which is not on the way of a fault on swap.
#[fentry(function = "pmd_migration_entry_wait")]
fn pmd_migration_entry_wait_enter(_ctx: FEntryContext) -> i32 {
    began()
}

#[fexit(function = "pmd_migration_entry_wait")]
fn pmd_migration_entry_wait_leave(ctx: FExitContext) -> i32 {
    ended(&ctx, WAIT, Counter::Waits, Counter::WaitNanos);
    0
}

/// `contention_begin(void *lock, unsigned int flags)`: a thread goes to sleep, or spins, for any
/// lock of the kernel. We look at that of its own address space only. Checked on 6.1, 6.12, 7.3.
#[btf_tracepoint(function = "contention_begin")]
fn contention_begin(ctx: BtfTracePointContext) -> i32 {
    if is_own_mmap_lock(ctx.arg(0)) {
        stamps::begin(&WAITING, LOCK);
    }
    0
}

/// `contention_end(void *lock, int ret)`. Checked on 6.1, 6.12, 7.3.
#[btf_tracepoint(function = "contention_end")]
fn contention_end(ctx: BtfTracePointContext) -> i32 {
    if is_own_mmap_lock(ctx.arg(0)) {
        ended(&ctx, LOCK, Counter::LockWaits, Counter::LockWaitNanos);
    }
    0
}

fn is_own_mmap_lock(lock: u64) -> bool {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    let mm = kernel::field::<u64>(task, &TASK_MM).filter(|mm| *mm != 0);
    mm.is_some_and(|mm| mm + u64::from(MM_LOCK.load()) == lock)
}

/// Whether the calling thread has waited in this fault; forgets it.
pub(crate) fn waited() -> bool {
    stamps::end(&WAITING, WAITED).is_some()
}

fn began() -> i32 {
    stamps::begin(&WAITING, WAIT);
    0
}

fn ended(ctx: &impl EbpfContext, what: u32, waits: Counter, sum: Counter) {
    let tgid = kernel::current().tgid;
    tasks::add(ctx, tgid, waits, 1);
    match stamps::end(&WAITING, what) {
        Some(nanos) => tasks::add(ctx, tgid, sum, nanos),
        None => lost::count(ctx, Lost::Durations, 1),
    }
}
