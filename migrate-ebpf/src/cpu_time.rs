//! CPU time by node, sampled by each CPU's own clock.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_get_smp_processor_id};
use aya_ebpf::macros::{map, perf_event};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::PerfEventContext;
use migrate_common::{Counter, CpuKey, Lost, MAX_CPU_TIMES, MAX_CPUS, SAMPLE_PERIOD_NS};

use crate::kernel::{self, Offset};
use crate::slot::Slot;
use crate::{lost, tasks};

/// Written here, read and cleared of exited processes by the controller. Full: counted as lost.
#[map]
static CPU_TIME: HashMap<CpuKey, u64> = HashMap::with_max_entries(MAX_CPU_TIMES, 0);

/// Node of each CPU plus 1; 0: not a CPU that the controller knows. Written by the controller.
#[map]
static NODE_OF_CPU: Array<u32> = Array::with_max_entries(MAX_CPUS, 0);

/// When each CPU was last sampled, ns. Written and read here only; cannot be full.
#[map]
static LAST_SAMPLE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static TASK_MEMPOLICY: Offset = Offset::new(0);

/// After so many periods without a sample the CPU was off rather than late: a second.
const LATEST: u64 = 99;

/// The node of the CPU that this runs on.
pub(crate) fn current_node() -> Option<u32> {
    // SAFETY: the helper has no preconditions.
    node_of(unsafe { bpf_get_smp_processor_id() })
}

#[inline(always)]
pub(crate) fn node_of(cpu: u32) -> Option<u32> {
    NODE_OF_CPU.get(cpu).copied()?.checked_sub(1)
}

/// Software event cpu-clock. Idle CPUs tick too, in thread 0.
#[perf_event]
fn cpu_clock(ctx: PerfEventContext) -> i32 {
    let periods = periods_since_last();
    let current = kernel::current();
    if current.id == 0 || periods == 0 {
        return 0;
    }
    let Some(node) = current_node() else { return 0 };
    let key = CpuKey { tgid: current.tgid, node };
    match Slot::find_or_make(&CPU_TIME, &key, &0) {
        Some(samples) => samples.add(0, periods),
        None => lost::count(&ctx, Lost::CpuTime, periods),
    }
    if has_policy() {
        tasks::add(&ctx, current.tgid, Counter::PolicySamples, periods);
    }
    0
}

/// Periods that this sample stands for, rounded: the clock skips those for which it comes too
/// late, as when the host runs another guest.
fn periods_since_last() -> u64 {
    let Some(last) = LAST_SAMPLE.get_ptr_mut(0) else { return 1 };
    let now = kernel::now();
    // SAFETY: this CPU's slot; its clock does not interrupt itself.
    let before = unsafe { last.replace(now) };
    let periods = (now.saturating_sub(before) + SAMPLE_PERIOD_NS / 2) / SAMPLE_PERIOD_NS;
    if periods > LATEST { 1 } else { periods }
}

/// Whether the running thread has a memory policy: `current->mempolicy` is null by default.
fn has_policy() -> bool {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    kernel::field::<u64>(task, &TASK_MEMPOLICY).is_some_and(|policy| policy != 0)
}
