//! Whose pages is this thread working on, and who asked for it?
//!
//! In a migration that a system call or a cpuset asked for, `current` is the
//! caller. From the beginning of such a call to its end CALLERS says so, and
//! takes what is counted of it meanwhile. OWN_MOVES marks the threads that are
//! the controller's mover.

use core::mem::offset_of;

use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, map};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext};
use aya_ebpf::{EbpfContext, Global};
use migrate_common::{
    Counter, Isolated, Lost, MAX_CALLERS, MAX_MOVERS, OwnMove, REASON_CPUSET, REASON_KHUGEPAGED,
    REASON_OTHER, REASON_OWN,
};

use crate::kernel::{self, Offset};
use crate::slot::{self, Slot};
use crate::{isolation, lost, tasks};

/// By the number of the thread, cut to the size: no look-up on any page's way. Written here only.
/// Where another thread has the slot already, the caller is charged, and it is counted as lost.
#[map]
static CALLERS: Array<Caller> = Array::with_max_entries(MAX_CALLERS, 0);

/// What a thread did to pages last where no call says who asked for it. As CALLERS; the later
/// thread has the slot.
#[map]
static RECENT: Array<Recent> = Array::with_max_entries(MAX_CALLERS, 0);

/// Mover thread → its move. Slots are made and taken by the controller, filled by the probes.
#[map]
static OWN_MOVES: HashMap<u32, OwnMove> = HashMap::with_max_entries(MAX_MOVERS, 0);

/// Slots of CALLERS less one, a power of two less one.
#[unsafe(no_mangle)]
static CALLERS_MASK: Global<u32> = Global::new(MAX_CALLERS - 1);
#[unsafe(no_mangle)]
static MM_OWNER: Offset = Offset::new(0);
#[unsafe(no_mangle)]
static TASK_TGID: Offset = Offset::new(0);
/// `MR_COMPACTION`, `MR_SYSCALL`, `MR_MEMPOLICY_MBIND` and `MR_NUMA_MISPLACED` of
/// `enum migrate_reason`.
#[unsafe(no_mangle)]
static REASON_COMPACTION: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static REASON_SYSCALL: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static REASON_MBIND: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static REASON_HINT: Global<u32> = Global::new(0);

const NOTHING: Isolated = Isolated { tried: 0, refused: 0, put_back: 0 };

/// What a thread that migrates is doing, and what has been counted of it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Caller {
    /// 1 while somebody has the slot.
    taken: u64,
    /// Who: 0 until all else is written, and for nobody.
    thread: u64,
    target: u32,
    reason: u32,
    /// Of the folios counted since they were handed over last.
    node: u64,
    isolated: Isolated,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Recent {
    of: u32,
    reason: u32,
}

/// Of the thread that holds it; valid until the program ends.
pub(crate) struct Held(*mut Caller);

impl Held {
    #[inline(always)]
    pub(crate) fn reason(&self) -> u32 {
        // SAFETY: a slot of the map, all integers, written by this thread only.
        unsafe { (*self.0).reason }
    }

    #[inline(always)]
    pub(crate) fn target(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).target }
    }

    /// From here on it works on folios of this node: nearly always that of the one before.
    #[inline(always)]
    pub(crate) fn is_on(&self, ctx: &impl EbpfContext, node: u32) {
        // SAFETY: as above.
        unsafe {
            if (*self.0).node != u64::from(node) {
                hand_over(ctx, self.0);
                (*self.0).node = u64::from(node);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn tried(&self, refused: bool) {
        // SAFETY: as above.
        unsafe {
            (*self.0).isolated.tried += 1;
            (*self.0).isolated.refused += u64::from(refused);
        }
    }

    #[inline(always)]
    pub(crate) fn put_back(&self) {
        // SAFETY: as above.
        unsafe { (*self.0).isolated.put_back += 1 };
    }
}

/// The slot of a thread in CALLERS and whatever else has one for each number.
#[inline(always)]
pub(crate) fn place_of(thread: u32) -> u32 {
    thread & CALLERS_MASK.load()
}

/// The call that the thread is in.
#[inline(always)]
pub(crate) fn held(thread: u32) -> Option<Held> {
    let caller = CALLERS.get_ptr_mut(place_of(thread))?;
    // SAFETY: a slot of the map, all integers.
    let holder = unsafe { (*caller).thread };
    (holder == u64::from(thread)).then_some(Held(caller))
}

/// Who asked for what a thread does to pages outside of any call that says so.
#[inline(always)]
pub(crate) fn reason_of(thread: u32, ctx: &impl EbpfContext) -> u32 {
    /// The first 16 bytes of its name, two words in the order of this machine.
    const KHUGEPAGED: [u8; 16] = *b"khugepaged\0\0\0\0\0\0";
    if ctx.command() == Ok(KHUGEPAGED) && kernel::is_kernel_thread() {
        return REASON_KHUGEPAGED;
    }
    recent(thread).unwrap_or(REASON_OTHER)
}

#[inline(always)]
fn recent(thread: u32) -> Option<u32> {
    match RECENT.get(place_of(thread)) {
        Some(&Recent { of, reason }) if of == thread => Some(reason),
        _ => None,
    }
}

/// Whether a thread compacts memory, which it may have to within a call for something else.
#[inline(always)]
pub(crate) fn is_compacting(thread: u32) -> bool {
    recent(thread) == Some(REASON_COMPACTION.load())
}

/// The calling thread works for this reason until it says otherwise.
#[inline(always)]
pub(crate) fn remember(reason: u32) {
    let thread = kernel::current().id;
    if let Some(recent) = RECENT.get_ptr_mut(place_of(thread)) {
        // SAFETY: a slot of the map; a thread that shares it may take the reason away.
        unsafe { recent.write_volatile(Recent { of: thread, reason }) };
    }
}

/// The calling thread met a page that the kernel's NUMA balancing may move now.
pub(crate) fn remember_hint() {
    remember(REASON_HINT.load());
}

/// The process of a `struct task_struct`.
#[inline(always)]
pub(crate) fn process_of(task: *const u8) -> Option<u32> {
    kernel::field(task, &TASK_TGID)
}

/// The process of a `struct mm_struct`; a dying one has none.
#[inline(always)]
pub(crate) fn owner_of(mm: *const u8) -> Option<u32> {
    let owner = kernel::field::<*const u8>(mm, &MM_OWNER).filter(|owner| !owner.is_null());
    owner.and_then(process_of)
}

/// The reason that the kernel gives for system calls and cpusets.
pub(crate) fn is_asked_for(reason: u32) -> bool {
    reason == REASON_SYSCALL.load()
}

/// The move that a thread carries out for the controller.
pub(crate) fn own_move(thread: u32) -> Option<Slot<OwnMove>> {
    Slot::find(&OWN_MOVES, &thread)
}

/// `int migrate_to_node(struct mm_struct *mm, int source, int dest, int flags)`, `long` from 6.12:
/// under `migrate_pages(2)` and cpuset writes, once per node pair. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "migrate_to_node")]
fn migrate_to_node_enter(ctx: FEntryContext) -> i32 {
    // Where there is no owner the caller is charged.
    if let Some(owner) = owner_of(ctx.arg(0)) {
        let by_cpuset = kernel::is_kernel_thread();
        begin(&ctx, owner, if by_cpuset { REASON_CPUSET } else { REASON_SYSCALL.load() });
    }
    0
}

#[fexit(function = "migrate_to_node")]
fn migrate_to_node_leave(ctx: FExitContext) -> i32 {
    end(&ctx)
}

/// `int kernel_move_pages(pid_t pid, ...)`: the pid is as the caller's namespace sees it and may be
/// any thread's; 0 is the caller. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "kernel_move_pages")]
fn kernel_move_pages_enter(ctx: FEntryContext) -> i32 {
    let pid: u32 = ctx.arg(0);
    let target = if pid == 0 { kernel::current().tgid } else { pid };
    begin(&ctx, target, REASON_SYSCALL.load());
    0
}

#[fexit(function = "kernel_move_pages")]
fn kernel_move_pages_leave(ctx: FExitContext) -> i32 {
    end(&ctx)
}

/// `int security_task_movememory(struct task_struct *p)`: what both system calls ask once they have
/// found the task. In `move_pages(2)` it turns the pid as written into the process that is meant.
/// Checked on 6.1, 6.12, 7.3.
#[fentry(function = "security_task_movememory")]
fn security_task_movememory(ctx: FEntryContext) -> i32 {
    // Nobody holds a slot yet in migrate_pages(2), which has a hook of its own.
    if let Some(caller) = held(kernel::current().id)
        && let Some(tgid) = process_of(ctx.arg(0))
    {
        // SAFETY: this thread's slot.
        unsafe { (*caller.0).target = tgid };
    }
    0
}

/// `mm_compaction_begin(struct compact_control *cc, ...)` and `mm_compaction_end`: around all that
/// is isolated, migrated and put back. Checked on 6.1, 6.12, 7.3.
#[btf_tracepoint(function = "mm_compaction_begin")]
fn mm_compaction_begin(_ctx: BtfTracePointContext) -> i32 {
    remember(REASON_COMPACTION.load());
    0
}

#[btf_tracepoint(function = "mm_compaction_end")]
fn mm_compaction_end(_ctx: BtfTracePointContext) -> i32 {
    remember(REASON_OTHER);
    0
}

/// `long kernel_mbind(unsigned long start, unsigned long len, ...)`. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "kernel_mbind")]
fn kernel_mbind_enter(ctx: FEntryContext) -> i32 {
    begin(&ctx, kernel::current().tgid, REASON_MBIND.load());
    0
}

#[fexit(function = "kernel_mbind")]
fn kernel_mbind_leave(ctx: FExitContext) -> i32 {
    end(&ctx)
}

fn begin(ctx: &impl EbpfContext, target: u32, reason: u32) {
    let thread = kernel::current().id;
    let Some(caller) = CALLERS.get_ptr_mut(place_of(thread)) else { return };
    // SAFETY: a slot of the map, all integers; it is ours once we have claimed it.
    unsafe {
        if !slot::claim(&raw mut (*caller).taken) && (*caller).thread != u64::from(thread) {
            lost::count(ctx, Lost::Callers, 1);
            return;
        }
        (*caller).target = target;
        (*caller).reason = if own_move(thread).is_some() { REASON_OWN } else { reason };
        (*caller).isolated = NOTHING;
        (&raw mut (*caller).thread).write_volatile(u64::from(thread));
    }
}

/// Hands over what has been counted, and the slot.
fn end(ctx: &impl EbpfContext) -> i32 {
    let Some(Held(caller)) = held(kernel::current().id) else { return 0 };
    hand_over(ctx, caller);
    // SAFETY: this thread's slot, until the last write.
    unsafe {
        (&raw mut (*caller).thread).write_volatile(0);
        (&raw mut (*caller).taken).write_volatile(0);
    }
    0
}

/// To the process that it works for, to the node, and to the move if it is ours.
#[inline(never)]
fn hand_over(ctx: &impl EbpfContext, caller: *mut Caller) {
    // SAFETY: this thread's slot.
    let done = unsafe { caller.read() };
    // SAFETY: as above.
    unsafe { (*caller).isolated = NOTHING };
    let own = if done.reason == REASON_OWN { own_move(kernel::current().id) } else { None };
    for (counter, field, folios) in [
        (Counter::IsolationTried, offset_of!(OwnMove, tried), done.isolated.tried),
        (Counter::IsolationRefused, offset_of!(OwnMove, refused), done.isolated.refused),
        (Counter::IsolationPutBack, offset_of!(OwnMove, put_back), done.isolated.put_back),
    ] {
        if folios != 0 {
            tasks::add(ctx, done.target, counter, folios);
            if let Some(own) = &own {
                own.add(field, folios);
            }
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "a node, widened for its alignment")]
    isolation::add(done.node as u32, done.reason, &done.isolated);
}
