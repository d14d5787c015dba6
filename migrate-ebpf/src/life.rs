//! Did a process die while we were moving it?

use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::BtfTracePointContext;
use migrate_common::MAX_MOVERS;

use crate::charge;
use crate::kernel::{self, Offset};
use crate::slot::Slot;

/// Process being moved → thread that moves it. Written by the controller, read here.
#[map]
static MOVING: HashMap<u32, u32> = HashMap::with_max_entries(MAX_MOVERS, 0);

#[unsafe(no_mangle)]
static TASK_SIGNAL: Offset = Offset::new(0);
#[unsafe(no_mangle)]
static SIGNAL_LIVE: Offset = Offset::new(0);

/// `sched_process_exit(struct task_struct *p)`: once per thread, after `signal->live` has fallen
/// (do_exit, kernel/exit.c). A main thread may exit before the others, so that counter tells, not
/// the pid. Checked on 6.1, 6.12.
#[btf_tracepoint(function = "sched_process_exit")]
fn sched_process_exit_1(ctx: BtfTracePointContext) -> i32 {
    let Some(mover) = mover_of_current() else { return 0 };
    let signal = kernel::field::<*const u8>(ctx.arg(0), &TASK_SIGNAL);
    let live = signal.and_then(|signal| kernel::field::<i32>(signal, &SIGNAL_LIVE));
    if live.is_some_and(|live| live <= 0) {
        died(mover);
    }
    0
}

/// The same with `bool group_dead` from 6.18: this was the last thread. Checked on 7.3.
#[btf_tracepoint(function = "sched_process_exit")]
fn sched_process_exit_2(ctx: BtfTracePointContext) -> i32 {
    let Some(mover) = mover_of_current() else { return 0 };
    // Only the lowest byte of a bool's register is defined.
    if ctx.arg::<u8>(1) != 0 {
        died(mover);
    }
    0
}

/// The thread that moves the exiting process, if one does: first, as it is nearly always none.
fn mover_of_current() -> Option<u32> {
    Slot::find(&MOVING, &kernel::current().tgid).map(|mover| mover.read())
}

fn died(mover: u32) {
    if let Some(own) = charge::own_move(mover) {
        // SAFETY: a slot of the map, and only the last thread of its target writes this field.
        unsafe { (*own.as_ptr()).died_inside = 1 };
    }
}
