//! CPU time by node, sampled by each CPU's own clock.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_get_smp_processor_id, bpf_probe_read_kernel};
use aya_ebpf::macros::{map, perf_event};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::PerfEventContext;
use migrate_common::{CpuKey, Lost, MAX_CPUS, MAX_TASKS};

use crate::{charge, lost, tasks};

/// Written here, read and cleared of exited processes by the controller. Full: counted as lost.
#[map]
static CPU_TIME: HashMap<CpuKey, u64> = HashMap::with_max_entries(2 * MAX_TASKS, 0);

/// Node of each CPU plus 1; 0: not a CPU that the controller knows. Written by the controller.
#[map]
static NODE_OF_CPU: Array<u32> = Array::with_max_entries(MAX_CPUS, 0);

/// Byte offset in the running kernel, from its BTF; 0: not known there.
#[unsafe(no_mangle)]
static TASK_MEMPOLICY: u32 = 0;

/// The node of the CPU that this runs on.
pub(crate) fn current_node() -> Option<u32> {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    NODE_OF_CPU.get(cpu).copied()?.checked_sub(1)
}

/// Software event cpu-clock. Idle CPUs tick too, in thread 0.
#[perf_event]
fn cpu_clock(ctx: PerfEventContext) -> i32 {
    let (thread, tgid) = charge::current();
    let Some(node) = current_node().filter(|_| thread != 0) else { return 0 };
    let key = CpuKey { tgid, node };
    if let Some(count) = CPU_TIME.get_ptr_mut(key) {
        tasks::add(count, 1);
    } else if CPU_TIME.insert(key, 1, 0).is_err() {
        lost::count(&ctx, Lost::CpuTime);
    }
    if has_policy()
        && let Some(slot) = tasks::slot(&ctx, tgid)
    {
        // SAFETY: a field of a map slot; only its address is taken.
        tasks::add(unsafe { &raw mut (*slot).policy_samples }, 1);
    }
    0
}

/// Whether the running thread has a memory policy: `current->mempolicy` is null by default.
fn has_policy() -> bool {
    let at = charge::global(&TASK_MEMPOLICY);
    if at == 0 {
        return false;
    }
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    // SAFETY: the helper checks the address itself.
    let policy = unsafe { bpf_probe_read_kernel(task.wrapping_add(at).cast::<u64>()) };
    policy.is_ok_and(|policy| policy != 0)
}
