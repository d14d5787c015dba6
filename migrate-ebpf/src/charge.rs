//! Whose pages is this thread working on?
//!
//! In a migration `current` is the caller. While a thread migrates another
//! process's pages, CALLERS names that process; OWN_MOVES marks the threads
//! that are the controller's mover.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::{fentry, fexit, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{FEntryContext, FExitContext};
use aya_ebpf::{EbpfContext, helpers::bpf_get_current_pid_tgid};
use migrate_common::{Lost, OwnMove};

/// Threads that may migrate at the same time.
const CALLERS_AT_ONCE: u32 = 4096;

/// Thread → process whose pages it migrates. Written here only. Full: the caller is charged, and
/// it is counted as lost.
#[map]
static CALLERS: HashMap<u32, u32> = HashMap::with_max_entries(CALLERS_AT_ONCE, 0);

/// Mover thread → its move. Slots are made and taken by the controller, filled by the probes.
#[map]
static OWN_MOVES: HashMap<u32, OwnMove> = HashMap::with_max_entries(64, 0);

/// Byte offsets in the running kernel, from its BTF; 0: not known there.
#[unsafe(no_mangle)]
static MM_OWNER: u32 = 0;
#[unsafe(no_mangle)]
static TASK_TGID: u32 = 0;

/// The calling thread and its process.
pub(crate) fn current() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    #[expect(clippy::cast_possible_truncation, reason = "the helper packs two u32")]
    (both as u32, (both >> 32) as u32)
}

/// The process to charge for what this thread does to pages now.
pub(crate) fn target() -> u32 {
    let (thread, process) = current();
    CALLERS.get_ptr(thread).map_or(process, |target| {
        // SAFETY: a map slot, written whole before the thread that reads it went on.
        unsafe { target.read() }
    })
}

/// The move that this thread carries out for the controller, if it is the mover.
pub(crate) fn own_move() -> Option<*mut OwnMove> {
    own_move_of(current().0)
}

pub(crate) fn own_move_of(thread: u32) -> Option<*mut OwnMove> {
    OWN_MOVES.get_ptr_mut(thread)
}

/// Reads a constant that the loader may have replaced.
pub(crate) fn global(constant: &u32) -> usize {
    // SAFETY: a reference is valid; volatile keeps the compiler from using the 0 it was built with.
    unsafe { core::ptr::from_ref(constant).read_volatile() as usize }
}

/// `int migrate_to_node(struct mm_struct *mm, int source, int dest, int flags)`, `long` from 6.12:
/// under `migrate_pages(2)` and cpuset writes, once per node pair. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "migrate_to_node")]
fn migrate_to_node_enter(ctx: FEntryContext) -> i32 {
    let mm: *const u8 = ctx.arg(0);
    if let Some(owner) = owner_of(mm) {
        enter(&ctx, owner);
    }
    0
}

#[fexit(function = "migrate_to_node")]
fn migrate_to_node_leave(_ctx: FExitContext) -> i32 {
    leave();
    0
}

/// `int kernel_move_pages(pid_t pid, ...)`: the pid is as the caller's namespace sees it; 0 is the
/// caller. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "kernel_move_pages")]
fn kernel_move_pages_enter(ctx: FEntryContext) -> i32 {
    let pid: u32 = ctx.arg(0);
    if pid != 0 {
        enter(&ctx, pid);
    }
    0
}

#[fexit(function = "kernel_move_pages")]
fn kernel_move_pages_leave(_ctx: FExitContext) -> i32 {
    leave();
    0
}

fn enter(ctx: &impl EbpfContext, target: u32) {
    if CALLERS.insert(current().0, target, 0).is_err() {
        crate::lost::count(ctx, Lost::Callers);
    }
}

fn leave() {
    // Absent where the target was the caller itself.
    let _ = CALLERS.remove(current().0);
}

/// `mm->owner->tgid`; none for a dying mm and on kernels without `owner` (CONFIG_MEMCG off).
fn owner_of(mm: *const u8) -> Option<u32> {
    let (owner_at, tgid_at) = (global(&MM_OWNER), global(&TASK_TGID));
    if owner_at == 0 || tgid_at == 0 {
        return None;
    }
    // SAFETY: the helper checks every address itself and fails where there is nothing to read.
    let owner = unsafe { bpf_probe_read_kernel(mm.wrapping_add(owner_at).cast::<*const u8>()) };
    let owner = owner.ok().filter(|owner| !owner.is_null())?;
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel(owner.wrapping_add(tgid_at).cast::<u32>()) }.ok()
}
