//! Page faults, minor and major, by the rule of the kernel's own `getrusage`, and
//! what some of them were for.

use aya_ebpf::macros::{fentry, fexit, map};
use aya_ebpf::maps::{Array, LruHashMap, PerCpuArray};
use aya_ebpf::programs::{FEntryContext, FExitContext};
use migrate_common::{Counter, Durations, FAULT_KINDS, FaultKind, MAX_CALLERS};

use crate::{durations, kernel, tasks, waits};

/// `enum vm_fault_reason`: the same bits on all kernels.
const MAJOR: u32 = 0x4;
const RETRY: u32 = 0x400;
/// OOM, SIGBUS, HWPOISON, HWPOISON_LARGE, SIGSEGV, FALLBACK.
const ERROR: u32 = 0x1 | 0x2 | 0x10 | 0x20 | 0x40 | 0x800;
/// `enum fault_flag`: this is a second try, and this is somebody else's memory.
const TRIED: u32 = 0x20;
const REMOTE: u32 = 0x80;

/// 1 while the beginnings of faults are seen, and for a while after. Written by the controller.
#[map]
static TIMING: Array<u32> = Array::with_max_entries(1, 0);

/// Thread → when its fault began, ns. Written here only; the oldest give way.
#[map]
static TIMED: LruHashMap<u32, u64> = LruHashMap::with_max_entries(MAX_CALLERS, 0);

/// By [`FaultKind`]. Written here, read by the controller; cannot be full.
#[map]
static FAULT_TIME: PerCpuArray<Durations> = PerCpuArray::with_max_entries(FAULT_KINDS, 0);

/// `vm_fault_t handle_mm_fault(struct vm_area_struct *vma, unsigned long address,
/// unsigned int flags, struct pt_regs *regs)`. Checked on 6.1, 6.12, 7.3.
///
/// A result with RETRY is not a finished fault: it comes back. A finished one is major if it
/// slept for a device now or on its first try (`mm_account_fault`, mm/memory.c).
#[fexit(function = "handle_mm_fault")]
fn handle_mm_fault(ctx: FExitContext) -> i32 {
    let flags: u32 = ctx.arg(2);
    // The result stands behind the last argument.
    let result: u32 = ctx.arg(4);
    if result & (RETRY | ERROR) != 0 || flags & REMOTE != 0 {
        return 0;
    }
    let major = result & MAJOR != 0 || flags & TRIED != 0;
    let current = kernel::current();
    let counter = if major { Counter::FaultsMajor } else { Counter::FaultsMinor };
    tasks::add(&ctx, current.tgid, counter, 1);
    if TIMING.get(0) == Some(&1) {
        timed(current.id, if major { FaultKind::Major } else { FaultKind::Minor });
    }
    0
}

/// The beginning of a fault. Attached for a moment now and then, since it is on every fault's way.
#[fentry(function = "handle_mm_fault")]
fn handle_mm_fault_enter(ctx: FEntryContext) -> i32 {
    let flags: u32 = ctx.arg(2);
    // A second try goes on with the fault of the first.
    if flags & (TRIED | REMOTE) == 0 {
        // Full: this fault has no duration, and the sample is one smaller.
        let _ = TIMED.insert(kernel::current().id, kernel::now(), 0);
    }
    0
}

fn timed(thread: u32, kind: FaultKind) {
    // SAFETY: the value is copied at once; a thread's slot is its own.
    let Some(began) = (unsafe { TIMED.get(thread) }).copied() else { return };
    let _ = TIMED.remove(thread);
    if let Some(durations) = FAULT_TIME.get_ptr_mut(kind as u32) {
        durations::add(durations, kernel::now().saturating_sub(began));
    }
}

/// `vm_fault_t do_wp_page(struct vm_fault *vmf)`: once for each write to a page that is there and
/// protected. Checked on 6.1, 6.12, 7.3.
#[fexit(function = "do_wp_page")]
fn do_wp_page(ctx: FExitContext) -> i32 {
    let result: u32 = ctx.arg(1);
    if result & (RETRY | ERROR) == 0 {
        tasks::add(&ctx, kernel::current().tgid, Counter::FaultsWriteProtect, 1);
    }
    0
}

/// `vm_fault_t do_swap_page(struct vm_fault *vmf)`: for pages in swap, and for those under
/// migration, which are only waited for. Checked on 6.1, 6.12, 7.3.
#[fexit(function = "do_swap_page")]
fn do_swap_page(ctx: FExitContext) -> i32 {
    let result: u32 = ctx.arg(1);
    // Asked in any case: what this fault waited for says nothing of the next one.
    let waited = waits::waited();
    if result & (RETRY | ERROR) == 0 && !waited {
        tasks::add(&ctx, kernel::current().tgid, Counter::FaultsSwapIn, 1);
    }
    0
}
