//! CPU time by node, sampled by each CPU's own clock; where there are no such
//! clocks, added up at each switch to another thread.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{bpf_get_current_task, bpf_get_smp_processor_id};
use aya_ebpf::macros::{btf_tracepoint, map, perf_event};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::{BtfTracePointContext, PerfEventContext};
use migrate_common::{Counter, CpuKey, Lost, MAX_CPU_TIMES, MAX_CPUS, SAMPLE_PERIOD_NS, Since};

use crate::kernel::{self, Offset};
use crate::slot::Slot;
use crate::{charge, lost, tasks};

/// Written here, read and cleared of exited processes by the controller. Full: counted as lost.
#[map]
static CPU_TIME: HashMap<CpuKey, u64> = HashMap::with_max_entries(MAX_CPU_TIMES, 0);

/// Node of each CPU plus 1; 0: not a CPU that the controller knows. Written by the controller.
#[map]
static NODE_OF_CPU: Array<u32> = Array::with_max_entries(MAX_CPUS, 0);

/// Of each CPU: who runs since when. Written by the switches, read by the controller; cannot be
/// full.
#[map]
static SINCE: PerCpuArray<Since> = PerCpuArray::with_max_entries(1, 0);

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
    ran(&ctx, current.tgid, periods * SAMPLE_PERIOD_NS);
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    if has_policy(task) {
        tasks::add(&ctx, current.tgid, Counter::PolicySamples, 1);
    }
    0
}

/// `sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, ...)`. Attached
/// only where there is no clock, since it is on the way of every switch. Checked on 6.1, 6.12, 7.3.
#[btf_tracepoint(function = "sched_switch")]
fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let Some(since) = SINCE.get_ptr_mut(0) else { return 0 };
    let now = kernel::now();
    let (before, after): (*const u8, *const u8) = (ctx.arg(1), ctx.arg(2));
    // SAFETY: this CPU's slot; a switch is not interrupted by another one.
    let ended = unsafe { since.read() };
    // 0 is the idle thread's, which uses nothing.
    let tgid = charge::process_of(after).unwrap_or(0);
    // SAFETY: as above.
    unsafe { since.write(Since { tgid: u64::from(tgid), at: now }) };
    #[expect(clippy::cast_possible_truncation, reason = "a tgid, widened for its alignment")]
    let tgid = ended.tgid as u32;
    if tgid == 0 {
        return 0;
    }
    ran(&ctx, tgid, now.saturating_sub(ended.at));
    if has_policy(before) {
        tasks::add(&ctx, tgid, Counter::PolicySamples, 1);
    }
    0
}

#[inline(always)]
fn ran(ctx: &impl EbpfContext, tgid: u32, nanos: u64) {
    let Some(node) = current_node() else { return };
    match Slot::find_or_make(&CPU_TIME, &CpuKey { tgid, node }, &0) {
        Some(time) => time.add(0, nanos),
        None => lost::count(ctx, Lost::CpuTime, 1),
    }
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

/// Whether a thread has a memory policy: `task->mempolicy` is null by default.
fn has_policy(task: *const u8) -> bool {
    kernel::field::<u64>(task, &TASK_MEMPOLICY).is_some_and(|policy| policy != 0)
}
