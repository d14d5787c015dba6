//! The counters of one process, by tgid.
//!
//! A look-up for every fault would be the dearest part of it. So each CPU adds
//! to a slot of its own for as long as one process keeps it, and the sums go to
//! the map when another process comes.

use core::mem::offset_of;

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use migrate_common::{COUNTERS, Counter, Lost, MAX_TASKS, Running, TaskCounters};

use crate::lost;
use crate::slot::{self, Slot};

/// Written by the probes, read and cleared of exited processes by the controller. Full: what did
/// not fit is counted as lost.
#[map]
static TASKS: HashMap<u32, TaskCounters> = HashMap::with_max_entries(MAX_TASKS, 0);

/// Written by the probes of each CPU, read by the controller; cannot be full.
#[map]
static RUNNING: PerCpuArray<Running> = PerCpuArray::with_max_entries(1, 0);

const NOTHING: TaskCounters = TaskCounters([0; COUNTERS]);

/// Adds to one counter of a process.
#[inline(always)]
pub(crate) fn add(ctx: &impl EbpfContext, tgid: u32, counter: Counter, value: u64) {
    let counter = counter as usize * size_of::<u64>();
    let Some(running) = RUNNING.get_ptr_mut(0) else { return };
    let at = |field: usize| running.wrapping_byte_add(field).cast::<u64>();
    // An interrupt or another thread may come in the middle of this: it finds the slot taken.
    if slot::swap(at(offset_of!(Running, busy)), 1) != 0 {
        add_to(ctx, tgid, counter, value);
        return;
    }
    // SAFETY: this CPU's slot, which nobody else touches while it is taken; all fields are u64.
    unsafe {
        let owner = at(offset_of!(Running, tgid));
        if owner.read() != u64::from(tgid) {
            hand_over(ctx, running);
            owner.write(u64::from(tgid));
        }
        let counter = at(offset_of!(Running, counters) + counter);
        counter.write(counter.read() + value);
        at(offset_of!(Running, busy)).write_volatile(0);
    }
}

/// Adds what the slot holds to the map and empties it.
///
/// # Safety
/// The slot is this CPU's and taken.
#[inline(never)]
unsafe fn hand_over(ctx: &impl EbpfContext, running: *mut Running) {
    let at = |field: usize| running.wrapping_byte_add(field).cast::<u64>();
    // SAFETY: as promised above; all fields are u64.
    #[expect(clippy::cast_possible_truncation, reason = "a tgid, widened for its alignment")]
    let tgid = unsafe { at(offset_of!(Running, tgid)).read() } as u32;
    let task = Slot::find_or_make(&TASKS, &tgid, &NOTHING);
    let mut lost = 0;
    for counter in 0..COUNTERS {
        let counter = counter * size_of::<u64>();
        let value = at(offset_of!(Running, counters) + counter);
        // SAFETY: as above.
        let count = unsafe { value.replace(0) };
        match &task {
            Some(task) if count != 0 => task.add(counter, count),
            Some(_) => {}
            None => lost += count,
        }
    }
    if lost != 0 {
        lost::count(ctx, Lost::Tasks, lost);
    }
}

/// Without the CPU's slot.
#[inline(never)]
fn add_to(ctx: &impl EbpfContext, tgid: u32, counter: usize, value: u64) {
    match Slot::find_or_make(&TASKS, &tgid, &NOTHING) {
        Some(task) => task.add(counter, value),
        None => lost::count(ctx, Lost::Tasks, value),
    }
}
