//! Did a process die while we were moving it?

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::BtfTracePointContext;

use crate::charge;

/// Process being moved → thread that moves it. Written by the controller, read here.
#[map]
static MOVING: HashMap<u32, u32> = HashMap::with_max_entries(64, 0);

/// Byte offsets in the running kernel, from its BTF; 0: not known there.
#[unsafe(no_mangle)]
static TASK_SIGNAL: u32 = 0;
#[unsafe(no_mangle)]
static SIGNAL_LIVE: u32 = 0;

/// `sched_process_exit(struct task_struct *p)`, `bool group_dead` behind it from 6.18: once per
/// thread, after `signal->live` has fallen (do_exit, kernel/exit.c). Checked on 6.1, 6.12, 7.3.
#[btf_tracepoint(function = "sched_process_exit")]
fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    let Some(mover) = MOVING.get_ptr(charge::current().1) else { return 0 };
    let task: *const u8 = ctx.arg(0);
    if !is_last_thread(task) {
        return 0;
    }
    // SAFETY: a map slot that the controller wrote before the move began.
    let mover = unsafe { mover.read() };
    if let Some(own) = charge::own_move_of(mover) {
        // SAFETY: a field of a map slot; one writer, the last thread of the target.
        unsafe { (*own).died_inside = 1 };
    }
    0
}

/// A main thread may exit before the others, so `signal->live` counts, not the pid.
fn is_last_thread(task: *const u8) -> bool {
    let (signal_at, live_at) = (charge::global(&TASK_SIGNAL), charge::global(&SIGNAL_LIVE));
    // SAFETY: the helper checks every address itself.
    let signal = unsafe { bpf_probe_read_kernel(task.wrapping_add(signal_at).cast::<*const u8>()) };
    let live = signal.and_then(|signal| {
        // SAFETY: as above.
        unsafe { bpf_probe_read_kernel(signal.wrapping_add(live_at).cast::<i32>()) }
    });
    live.is_ok_and(|live| live <= 0)
}
