//! Page faults, minor and major, by the rule of the kernel's own `getrusage`.
//!
//! The hottest of the probes: 395 instructions a fault on 6.12, 10 % of the
//! 3,789 of a first touch (QEMU, one instruction per virtual nanosecond).

use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use migrate_common::Counter;

use crate::{kernel, tasks};

/// `enum vm_fault_reason`: the same bits on all kernels.
const MAJOR: u32 = 0x4;
const RETRY: u32 = 0x400;
/// OOM, SIGBUS, HWPOISON, HWPOISON_LARGE, SIGSEGV, FALLBACK.
const ERROR: u32 = 0x1 | 0x2 | 0x10 | 0x20 | 0x40 | 0x800;
/// `enum fault_flag`: this is a second try, and this is somebody else's memory.
const TRIED: u32 = 0x20;
const REMOTE: u32 = 0x80;

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
    let counter = if result & MAJOR != 0 || flags & TRIED != 0 {
        Counter::FaultsMajor
    } else {
        Counter::FaultsMinor
    };
    tasks::add(&ctx, kernel::current().tgid, counter, 1);
    0
}
