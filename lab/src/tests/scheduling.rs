//! Are moves between nodes and cgroups seen, and waits for the lock of an address space?

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use migrate_common::{Counter, CrossKey};
use migrate_ctl::probes::Counts;

use crate::nodes;
use crate::test::{Lab, ONE_AND_MORE, Off, TWO_AND_MORE, Test, claim, counted};
use crate::tests::counts::{act, near};
use crate::worker::Worker;

const GROUPS: [&str; 2] = ["/sys/fs/cgroup/lab-one", "/sys/fs/cgroup/lab-two"];

pub(crate) const TESTS: &[Test] = &[
    test("threads_that_change_the_node_are_counted", Off::Probe("scheduling"), crossings),
    Test {
        machines: ONE_AND_MORE,
        ..test("attaching_to_cgroups_is_counted", Off::Probe("scheduling"), attached)
    },
    Test {
        machines: ONE_AND_MORE,
        ..test("waits_for_the_address_space_are_timed", Off::Probe("waits"), lock_waits)
    },
];

const fn test(name: &'static str, off: Off, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: TWO_AND_MORE, off, run }
}

fn crossings(lab: &Lab) -> Result<()> {
    const TIMES: u64 = 20;
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("hop --node 0 --to 1 --times {TIMES}"))?;
    let (before, after) = counted(&mut probes, || worker.act().map(drop))?;
    for (from, to) in [(0, 1), (1, 0)] {
        let key = CrossKey { tgid: worker.pid(), from, to };
        let of = |counts: &Counts| counts.crossings.get(&key).copied().unwrap_or(0);
        near("forced crossings", of(&after) - of(&before), TIMES, 0)?;
    }
    Ok(())
}

fn attached(lab: &Lab) -> Result<()> {
    const TIMES: usize = 6;
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset").context("cpuset")?;
    let one_node = nodes::with_memory()?.len() == 1;
    let both = if one_node { "0" } else { "0-1" };
    for (group, nodes) in GROUPS.into_iter().zip(["0", both]) {
        fs::create_dir_all(group).with_context(|| format!("create {group}"))?;
        fs::write(format!("{group}/cpuset.mems"), nodes).context("cpuset.mems")?;
    }
    let mut probes = lab.probes()?;
    let worker = Worker::start("fill --node 0 --mib 1")?;
    let pid = worker.pid();
    let (before, after) = counted(&mut probes, || {
        GROUPS.into_iter().cycle().take(TIMES).try_for_each(|group| {
            fs::write(format!("{group}/cgroup.procs"), pid.to_string()).context("attach")
        })
    })?;
    drop(worker);
    for group in GROUPS {
        fs::remove_dir(group).with_context(|| format!("remove {group}"))?;
    }
    let of = |counts: &Counts| counts.tasks.get(&pid).copied().unwrap_or_default();
    let counters = of(&after).since(&of(&before));
    near("attached", counters.get(Counter::Attached), TIMES as u64, 0)?;
    // One thread. Each of the cpusets allows other nodes than the one before, but for the first.
    let changed = counters.get(Counter::MemsChanged);
    let changes = if one_node { 0 } else { TIMES as u64 };
    near("threads whose nodes changed", changed, changes, 1)
}

/// The witness: what the scheduler says of how long the threads neither ran nor could have.
fn lock_waits(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let mut worker = Worker::start("contend --node 0 --mib 64 --millis 3000")?;
    let began = Instant::now();
    let (did, counters) = act(&mut probes, &mut worker)?;
    let passed = u64::try_from(began.elapsed().as_nanos())?;
    let (waits, nanos) = (counters.get(Counter::LockWaits), counters.get(Counter::LockWaitNanos));
    anyhow::ensure!(did.slept > 30_000_000, "its threads slept {} ns only", did.slept);
    claim(waits > 0 && nanos <= 2 * passed, || format!("{waits} waits took {nanos} ns"))?;
    // A waiter queues for a CPU once it is woken, and may spin before it sleeps: on 7.3 that is in
    // it, and was half as long as the sleep.
    claim(nanos >= did.slept - did.slept / 10 && nanos <= 2 * did.off_cpu, || {
        let (slept, off) = (did.slept, did.off_cpu);
        format!("{waits} waits took {nanos} ns; they slept {slept} ns and were off for {off} ns")
    })
}
