//! Page faults: what some of them were for, how long they take, and how many a
//! thread had when it exits.
//!
//! The kernel itself counts each thread's faults, exactly and at no further
//! cost, and /proc shows them: no probe of ours is on every fault's way.

use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, map};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext};
use migrate_common::{Counter, Durations, FAULT_KINDS, FaultKind};

use crate::kernel::{self, Offset};
use crate::stamps::{self, Stamps};
use crate::{charge, durations, tasks, waits};

/// `enum vm_fault_reason`: the same bits on all kernels.
const MAJOR: u32 = 0x4;
const RETRY: u32 = 0x400;
/// OOM, SIGBUS, HWPOISON, HWPOISON_LARGE, SIGSEGV, FALLBACK.
const ERROR: u32 = 0x1 | 0x2 | 0x10 | 0x20 | 0x40 | 0x800;
/// `enum fault_flag`: this is a second try, and this is somebody else's memory.
const TRIED: u32 = 0x20;
const REMOTE: u32 = 0x80;

#[map]
static TIMED: Stamps = stamps::stamps();

/// By [`FaultKind`]. Written here, read by the controller; cannot be full.
#[map]
static FAULT_TIME: PerCpuArray<Durations> = PerCpuArray::with_max_entries(FAULT_KINDS, 0);

#[unsafe(no_mangle)]
static TASK_MIN_FLT: Offset = Offset::new(0);
#[unsafe(no_mangle)]
static TASK_MAJ_FLT: Offset = Offset::new(0);
#[unsafe(no_mangle)]
static FAULT_FLAGS: Offset = Offset::new(0);
#[unsafe(no_mangle)]
static VMA_MM: Offset = Offset::new(0);

/// `vm_fault_t handle_mm_fault(struct vm_area_struct *vma, unsigned long address,
/// unsigned int flags, struct pt_regs *regs)`. Checked on 6.1, 6.12, 7.3. Attached, like its end,
/// for a moment now and then, since it is on every fault's way.
#[fentry(function = "handle_mm_fault")]
fn handle_mm_fault_enter(ctx: FEntryContext) -> i32 {
    let flags: u32 = ctx.arg(2);
    // A second try goes on with the fault of the first.
    if flags & (TRIED | REMOTE) == 0 {
        stamps::begin(&TIMED, 0);
    }
    0
}

/// A result with RETRY is not a finished fault: it comes back. A finished one is major if it
/// slept for a device now or on its first try (`mm_account_fault`, mm/memory.c).
#[fexit(function = "handle_mm_fault")]
fn handle_mm_fault_leave(ctx: FExitContext) -> i32 {
    let flags: u32 = ctx.arg(2);
    // The result stands behind the last argument.
    let result: u32 = ctx.arg(4);
    if result & (RETRY | ERROR) != 0 || flags & REMOTE != 0 {
        return 0;
    }
    let major = result & MAJOR != 0 || flags & TRIED != 0;
    let kind = if major { FaultKind::Major } else { FaultKind::Minor };
    // None: it began before we looked.
    if let (Some(nanos), Some(time)) = (stamps::end(&TIMED, 0), FAULT_TIME.get_ptr_mut(kind as u32))
    {
        durations::add(&ctx, time, Some(nanos));
    }
    0
}

/// `vm_fault_t do_wp_page(struct vm_fault *vmf)`: once for each write to a page that is there and
/// protected. Checked on 6.1, 6.12, 7.3.
#[fexit(function = "do_wp_page")]
fn do_wp_page(ctx: FExitContext) -> i32 {
    wrote(&ctx)
}

/// `vm_fault_t do_huge_pmd_wp_page(struct vm_fault *vmf)`: the same for a huge page. Where it has to
/// split the page (an error among ours), [`do_wp_page`] follows. Checked on 6.1, 6.12, 7.3.
#[fexit(function = "do_huge_pmd_wp_page")]
fn do_huge_pmd_wp_page(ctx: FExitContext) -> i32 {
    wrote(&ctx)
}

fn wrote(ctx: &FExitContext) -> i32 {
    let result: u32 = ctx.arg(1);
    if result & (RETRY | ERROR) == 0 {
        tasks::add(ctx, whose(ctx.arg(0)), Counter::FaultsWriteProtect, 1);
    }
    0
}

/// The process that a `struct vm_fault` is of: another one than faults where a debugger, or
/// `process_vm_writev`, reaches into its memory.
fn whose(fault: *const u8) -> u32 {
    owner_of_remote(fault).unwrap_or_else(|| kernel::current().tgid)
}

fn owner_of_remote(fault: *const u8) -> Option<u32> {
    if kernel::field::<u32>(fault, &FAULT_FLAGS)? & REMOTE == 0 {
        return None;
    }
    // The mapping is the first field.
    let mapping: *const u8 = kernel::read(fault.cast())?;
    charge::owner_of(kernel::field(mapping, &VMA_MM)?)
}

/// `vm_fault_t do_swap_page(struct vm_fault *vmf)`: for pages in swap, and for those under
/// migration, which are only waited for. Checked on 6.1, 6.12, 7.3.
#[fexit(function = "do_swap_page")]
fn do_swap_page(ctx: FExitContext) -> i32 {
    let result: u32 = ctx.arg(1);
    // Asked in any case: what this fault waited for says nothing of the next one.
    let waited = waits::waited();
    if result & (RETRY | ERROR) == 0 && !waited {
        tasks::add(&ctx, whose(ctx.arg(0)), Counter::FaultsSwapIn, 1);
    }
    0
}

/// `sched_process_exit(struct task_struct *p, ...)`: once for each thread, the current one. The
/// faults of the rest of its exit are missing, one or two. Checked on 6.1, 6.12, 7.3.
#[btf_tracepoint(function = "sched_process_exit")]
fn sched_process_exit_faults(ctx: BtfTracePointContext) -> i32 {
    let tgid = kernel::current().tgid;
    for (counter, offset) in
        [(Counter::ExitedMinor, &TASK_MIN_FLT), (Counter::ExitedMajor, &TASK_MAJ_FLT)]
    {
        let faults = kernel::field::<u64>(ctx.arg(0), offset).unwrap_or(0);
        if faults != 0 {
            tasks::add(&ctx, tgid, counter, faults);
        }
    }
    0
}
