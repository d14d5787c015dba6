//! Fields of the running kernel's structs, at offsets that the loader found in its BTF.

use aya_ebpf::Global;
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns, bpf_probe_read_kernel,
};
use aya_ebpf::programs::FEntryContext;

/// Byte offset of a field; 0: this kernel has none (none of the fields we read stands first).
pub(crate) type Offset = Global<u32>;

#[unsafe(no_mangle)]
static TASK_FLAGS: Offset = Offset::new(0);
/// Bits to shift `page->flags` right to get the node: 64 − NODES_SHIFT, from BTF.
#[unsafe(no_mangle)]
static NODE_SHIFT: Global<u32> = Global::new(0);

/// The calling thread.
#[derive(Clone, Copy)]
pub(crate) struct Thread {
    pub(crate) id: u32,
    pub(crate) tgid: u32,
}

pub(crate) fn current() -> Thread {
    let both = bpf_get_current_pid_tgid();
    #[expect(clippy::cast_possible_truncation, reason = "the helper packs two u32")]
    Thread { id: both as u32, tgid: (both >> 32) as u32 }
}

/// CLOCK_MONOTONIC in ns.
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// The field of a struct; none where it cannot be read or this kernel has no such field.
pub(crate) fn field<T>(of: *const u8, offset: &Offset) -> Option<T> {
    match offset.load() {
        0 => None,
        bytes => read(of.wrapping_add(bytes as usize).cast()),
    }
}

pub(crate) fn read<T>(from: *const T) -> Option<T> {
    // SAFETY: the helper checks the address itself and fails where there is nothing to read.
    unsafe { bpf_probe_read_kernel(from) }.ok()
}

/// Page flags of a folio, or page, that is the program's first argument: the first field of both.
#[inline(always)]
pub(crate) fn folio_flags(ctx: &FEntryContext) -> u64 {
    let folio: *const u64 = ctx.arg(0);
    // SAFETY: the verifier knows the argument's type, and has a bad address read as 0.
    unsafe { folio.read() }
}

/// The node that page flags name.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "NODES_SHIFT is at most 10")]
pub(crate) fn node_of(flags: u64) -> u32 {
    // The mask keeps the verifier sure of a legal shift.
    (flags >> (NODE_SHIFT.load() & 63)) as u32
}

/// `PF_KTHREAD` of include/linux/sched.h.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Whether the calling thread has no process of its own.
pub(crate) fn is_kernel_thread() -> bool {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    field::<u32>(task, &TASK_FLAGS).is_some_and(|flags| flags & KERNEL_THREAD != 0)
}
