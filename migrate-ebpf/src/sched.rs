//! Threads that the scheduler moves to another node, and processes that somebody
//! moves to another cgroup or whose cpuset changes.

use aya_ebpf::macros::{btf_tracepoint, fentry, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext};
use migrate_common::{Counter, CrossKey, Lost, MAX_CPU_TIMES};

use crate::kernel::{self, Offset};
use crate::slot::Slot;
use crate::{charge, cpu_time, lost, tasks};

/// Written here, read and cleared of exited processes by the controller. Full: counted as lost.
#[map]
static CROSSINGS: HashMap<CrossKey, u64> = HashMap::with_max_entries(MAX_CPU_TIMES, 0);

/// Of `thread_info.cpu` in `struct task_struct`.
#[unsafe(no_mangle)]
static TASK_CPU: Offset = Offset::new(0);

/// `sched_migrate_task(struct task_struct *p, int dest_cpu)`: before the thread is moved. Checked
/// on 6.1, 6.12, 7.3.
#[btf_tracepoint(function = "sched_migrate_task")]
fn sched_migrate_task(ctx: BtfTracePointContext) -> i32 {
    let task: *const u8 = ctx.arg(0);
    // One after the other: the verifier does not let us carry a value that may not be there.
    let Some(cpu) = kernel::field::<u32>(task, &TASK_CPU) else { return 0 };
    let Some(from) = cpu_time::node_of(cpu) else { return 0 };
    let Some(to) = cpu_time::node_of(ctx.arg(1)) else { return 0 };
    if from == to {
        return 0;
    }
    let Some(tgid) = charge::process_of(task) else { return 0 };
    #[expect(clippy::cast_possible_truncation, reason = "the kernel has at most 1,024 nodes")]
    let key = CrossKey { tgid, from: from as u16, to: to as u16 };
    match Slot::find_or_make(&CROSSINGS, &key, &0) {
        Some(count) => count.add(0, 1),
        None => lost::count(&ctx, Lost::Crossings, 1),
    }
    0
}

/// `cgroup_attach_task(struct cgroup *dst, const char *path, struct task_struct *leader,
/// bool threadgroup)`. Checked on 6.1, 6.12, 7.3.
#[btf_tracepoint(function = "cgroup_attach_task")]
fn cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
    if let Some(tgid) = charge::process_of(ctx.arg(2)) {
        tasks::add(&ctx, tgid, Counter::Attached, 1);
    }
    0
}

/// `void cpuset_change_task_nodemask(struct task_struct *tsk, nodemask_t *newmems)`: for each
/// thread whose cpuset changes or is another now. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "cpuset_change_task_nodemask")]
fn cpuset_change_task_nodemask(ctx: FEntryContext) -> i32 {
    if let Some(tgid) = charge::process_of(ctx.arg(0)) {
        tasks::add(&ctx, tgid, Counter::MemsChanged, 1);
    }
    0
}
