//! Whose pages is this thread working on?
//!
//! In a migration that a system call or a cpuset asked for, `current` is the
//! caller. While a thread migrates another process's pages, CALLERS names that
//! process; OWN_MOVES marks the threads that are the controller's mover.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{fentry, fexit, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{FEntryContext, FExitContext};
use migrate_common::{Lost, MAX_CALLERS, MAX_MOVERS, OwnMove};

use crate::kernel::{self, Offset};
use crate::lost;
use crate::slot::Slot;

/// Thread → process whose pages it migrates. Written here only. Full: the caller is charged, and
/// it is counted as lost.
#[map]
static CALLERS: HashMap<u32, Caller> = HashMap::with_max_entries(MAX_CALLERS, 0);

/// Mover thread → its move. Slots are made and taken by the controller, filled by the probes.
#[map]
static OWN_MOVES: HashMap<u32, OwnMove> = HashMap::with_max_entries(MAX_MOVERS, 0);

#[unsafe(no_mangle)]
static MM_OWNER: Offset = Offset::new(0);
#[unsafe(no_mangle)]
static TASK_TGID: Offset = Offset::new(0);

/// What a thread that migrates is doing.
#[derive(Clone, Copy)]
#[repr(C)]
struct Caller {
    target: u32,
    /// 1 where it does so for the controller: OWN_MOVES has more.
    own: u32,
}

/// Who pays for what a thread does to pages.
pub(crate) struct Charge {
    pub(crate) tgid: u32,
    /// The move that the thread carries out for the controller.
    pub(crate) own: Option<Slot<OwnMove>>,
}

/// The process whose pages the calling thread migrates now; itself if nobody else's.
pub(crate) fn target() -> Charge {
    let current = kernel::current();
    // One look-up for each folio of somebody else's migration, which is what the machine pays for.
    let caller = Slot::find(&CALLERS, &current.id).map(|caller| caller.read());
    if let Some(Caller { target, own: 0 }) = caller {
        return Charge { tgid: target, own: None };
    }
    match own_move(current.id) {
        Some(own) => Charge { tgid: own.read().target, own: Some(own) },
        None => Charge { tgid: current.tgid, own: None },
    }
}

/// The calling thread's own process, for migrations that are its own doing: AutoNUMA and mbind
/// move its own memory, and whom compaction moves nobody says.
pub(crate) fn caller() -> Charge {
    Charge { tgid: kernel::current().tgid, own: None }
}

/// The move that a thread carries out for the controller.
pub(crate) fn own_move(thread: u32) -> Option<Slot<OwnMove>> {
    Slot::find(&OWN_MOVES, &thread)
}

/// `int migrate_to_node(struct mm_struct *mm, int source, int dest, int flags)`, `long` from 6.12:
/// under `migrate_pages(2)` and cpuset writes, once per node pair. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "migrate_to_node")]
fn migrate_to_node_enter(ctx: FEntryContext) -> i32 {
    // A dying mm has no owner; then the caller is charged.
    let owner = kernel::field::<*const u8>(ctx.arg(0), &MM_OWNER).filter(|owner| !owner.is_null());
    if let Some(owner) = owner.and_then(|owner| kernel::field(owner, &TASK_TGID)) {
        works_for(&ctx, owner);
    }
    0
}

#[fexit(function = "migrate_to_node")]
fn migrate_to_node_leave(_ctx: FExitContext) -> i32 {
    works_for_itself();
    0
}

/// `int kernel_move_pages(pid_t pid, ...)`: the pid is as the caller's namespace sees it and may be
/// any thread's; 0 is the caller. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "kernel_move_pages")]
fn kernel_move_pages_enter(ctx: FEntryContext) -> i32 {
    let pid: u32 = ctx.arg(0);
    works_for(&ctx, if pid == 0 { kernel::current().tgid } else { pid });
    0
}

#[fexit(function = "kernel_move_pages")]
fn kernel_move_pages_leave(_ctx: FExitContext) -> i32 {
    works_for_itself();
    0
}

/// `int security_task_movememory(struct task_struct *p)`: what both system calls ask once they have
/// found the task. In `move_pages(2)` it turns the pid as written into the process that is meant.
/// Checked on 6.1, 6.12, 7.3.
#[fentry(function = "security_task_movememory")]
fn security_task_movememory(ctx: FEntryContext) -> i32 {
    let thread = kernel::current().id;
    // Without a slot it is migrate_pages(2), which need not clear one: it has a hook of its own.
    if Slot::find(&CALLERS, &thread).is_some()
        && let Some(tgid) = kernel::field(ctx.arg(0), &TASK_TGID)
    {
        works_for(&ctx, tgid);
    }
    0
}

fn works_for(ctx: &impl EbpfContext, target: u32) {
    let thread = kernel::current().id;
    let caller = Caller { target, own: u32::from(own_move(thread).is_some()) };
    if CALLERS.insert(thread, caller, 0).is_err() {
        lost::count(ctx, Lost::Callers, 1);
    }
}

fn works_for_itself() {
    // Absent where the map was full.
    let _ = CALLERS.remove(kernel::current().id);
}
