//! Does each probe count what the workload did and an independent witness confirms?

use std::time::Duration;

use anyhow::{Context, Result};
use migrate_common::{
    Counter, CpuKey, HintKey, MigrationKey, MigrationTotals, SAMPLE_PERIOD_NS, TaskCounters,
};
use migrate_ctl::probes::Counts;

use crate::sys;
use crate::test::{Lab, Machine, Off, Test, claim, counted};
use crate::witness::vmstat;
use crate::worker::{Did, Worker};

/// Pages of the workloads whose counts are known.
const PAGES: u64 = 2048;
/// Faults and isolations that a process has besides: start-up, stack, reading a line.
const NOISE: u64 = 24;

pub(crate) const TESTS: &[Test] = &[
    test("isolation_counts_each_page_tried", Off::Probe("isolation"), isolation_tried),
    test("isolation_counts_refusals_of_merged_pages", Off::Probe("isolation"), isolation_refused),
    test("isolation_counts_pinned_pages_put_back", Off::Probe("isolation"), isolation_put_back),
    test("faults_count_minor_as_getrusage_does", Off::Probe("faults"), faults_minor),
    test("faults_count_major_as_getrusage_does", Off::Probe("faults"), faults_major),
    test("hint_faults_name_both_nodes", Off::Probe("hint_faults"), hint_faults),
    test("cpu_time_is_on_the_node_it_was_used_on", Off::Probe("cpu_time"), cpu_time),
    test("migrations_are_charged_to_the_process_moved", Off::Probe("migrations"), migrations),
    test("migrations_count_pinned_pages_as_failed", Off::Probe("migrations"), failed_migrations),
];

const fn test(name: &'static str, off: Off, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machine: Machine::Two, off, run }
}

fn isolation_tried(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("shift --node 0 --to 1 --pages {PAGES}"))?;
    let (did, counters) = act(&mut probes, &mut worker)?;
    near("pages that arrived, by move_pages", did.pages, PAGES, 0)?;
    near("isolation tried", counters.get(Counter::IsolationTried), PAGES, NOISE)?;
    near("isolation refused", counters.get(Counter::IsolationRefused), 0, NOISE)
}

fn isolation_refused(lab: &Lab) -> Result<()> {
    const MERGED: u64 = 512;
    let mut worker = Worker::start(&format!("ksm --pages {MERGED} --to 1"))?;
    let mut probes = lab.probes()?;
    let (_, counters) = act(&mut probes, &mut worker)?;
    near("isolation refused", counters.get(Counter::IsolationRefused), MERGED, NOISE)
}

fn isolation_put_back(lab: &Lab) -> Result<()> {
    let mut worker = Worker::start("pinned --node 0 --to 1")?;
    let mut probes = lab.probes()?;
    let (did, counters) = act(&mut probes, &mut worker)?;
    near("isolation put back", counters.get(Counter::IsolationPutBack), did.pages, 4)
}

fn faults_minor(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("touch --node 0 --pages {PAGES}"))?;
    let (did, counters) = act(&mut probes, &mut worker)?;
    let truth = did.after.minor - did.before.minor;
    near("minor faults, by getrusage", truth, PAGES, NOISE)?;
    near("minor faults", counters.get(Counter::FaultsMinor), truth, NOISE)
}

fn faults_major(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("reread --node 0 --pages {PAGES}"))?;
    let (did, counters) = act(&mut probes, &mut worker)?;
    let truth = did.after.major - did.before.major;
    anyhow::ensure!(truth >= PAGES / 2, "only {truth} of {PAGES} pages came from the disk");
    // A fault that was only retried is a major one for 6.1's getrusage.
    near("major faults", counters.get(Counter::FaultsMajor), truth, NOISE)
}

fn hint_faults(lab: &Lab) -> Result<()> {
    const SWITCH: &str = "/proc/sys/kernel/numa_balancing";
    let mut probes = lab.probes()?;
    let mut worker = Worker::start("scan --memory 0 --cpu 1 --pages 4096")?;
    let before = std::fs::read(SWITCH).with_context(|| format!("read {SWITCH}"))?;
    std::fs::write(SWITCH, "1").with_context(|| format!("write {SWITCH}"))?;
    let result = hints(&mut probes, &mut worker);
    std::fs::write(SWITCH, before).with_context(|| format!("write {SWITCH}"))?;
    result
}

fn hints(probes: &mut migrate_ctl::probes::Probes, worker: &mut Worker) -> Result<()> {
    let witness = vmstat("numa_hint_faults")?;
    let (before, after) = counted(probes, || {
        for _ in 0..60 {
            worker.act()?;
            if vmstat("numa_hint_faults")? - witness >= 4096 {
                break;
            }
        }
        Ok(())
    })?;
    let truth = vmstat("numa_hint_faults")? - witness;
    anyhow::ensure!(truth >= 1024, "the kernel made {truth} hint faults only");
    let all = |counts: &Counts| counts.hints.values().sum::<u64>();
    // Everybody's, as the witness counts: tasks whose page moved meanwhile differ.
    near("hint faults", all(&after) - all(&before), truth, truth / 50 + NOISE)?;
    let key = HintKey { tgid: worker.pid(), cpu_node: 1, memory_node: 0 };
    let of = |counts: &Counts| counts.hints.get(&key).copied().unwrap_or(0);
    let remote = of(&after) - of(&before);
    claim(remote >= truth / 2, || format!("hint faults from node 1 to node 0: {remote} of {truth}"))
}

fn cpu_time(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let mut worker = Worker::start("burn --node 1 --millis 5000")?;
    let mut did = None;
    let (before, after) = counted(&mut probes, || {
        did = Some(worker.act()?);
        Ok(())
    })?;
    let did = did.context("the workload did not act")?;
    let on = |node| {
        let key = CpuKey { tgid: worker.pid(), node };
        let of = |counts: &Counts| counts.cpu.get(&key).copied().unwrap_or(0);
        (of(&after) - of(&before)) * SAMPLE_PERIOD_NS
    };
    let (away, here) = (on(0), on(1));
    // A CPU that stood still for long does not tick, but its time goes on.
    let truth = did.after.cpu_nanos - did.before.cpu_nanos - did.stood_still;
    claim(here * 100 >= (away + here) * 98 && here > 0, || {
        format!("of {} ms on node 1, {} ms were seen there", truth / 1_000_000, here / 1_000_000)
    })?;
    let millis = Duration::from_nanos(truth).as_millis();
    near("CPU time in ns", away + here, truth, truth / 8)
        .with_context(|| format!("getrusage says {millis} ms"))
}

fn migrations(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let worker = Worker::start("fill --node 0 --mib 8")?;
    let witness = vmstat("pgmigrate_success")?;
    let (before, after) = counted(&mut probes, || {
        sys::migrate_all(worker.pid(), 0, 1).context("migrate_pages")?;
        Ok(())
    })?;
    let truth = vmstat("pgmigrate_success")? - witness;
    anyhow::ensure!(truth >= PAGES, "the kernel moved {truth} of {PAGES} pages");
    let moved = moves_of(&after, worker.pid());
    let earlier = moves_of(&before, worker.pid());
    near("pages moved of the target", moved.moved - earlier.moved, truth, NOISE)?;
    claim(moved.calls > earlier.calls && moved.nanos > earlier.nanos, || {
        format!("a call without a duration: {moved:?}")
    })?;
    let caller = moves_of(&after, std::process::id());
    claim(caller.moved == 0, || format!("charged to the caller: {caller:?}"))
}

fn failed_migrations(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let mut worker = Worker::start("pinned --node 0 --to 1")?;
    let witness = vmstat("pgmigrate_fail")?;
    let did = worker.act()?;
    let truth = vmstat("pgmigrate_fail")? - witness;
    near("failed pages, by vmstat", truth, did.pages, 4)?;
    let failed = moves_of(&probes.read().context("read the probes")?, worker.pid()).failed;
    near("failed pages", failed, truth, 4)
}

fn moves_of(counts: &Counts, tgid: u32) -> MigrationTotals {
    let mut all = MigrationTotals::default();
    let of = |key: &&MigrationKey| key.tgid == tgid;
    for key in counts.migrations.keys().filter(of) {
        let one = counts.migrations[key];
        all.calls += one.calls;
        all.moved += one.moved;
        all.failed += one.failed;
        all.nanos += one.nanos;
    }
    all
}

/// Lets a workload act once: what it says, and what the probes counted of it meanwhile.
fn act(
    probes: &mut migrate_ctl::probes::Probes,
    worker: &mut Worker,
) -> Result<(Did, TaskCounters)> {
    let mut did = None;
    let pid = worker.pid();
    let (before, after) = counted(probes, || {
        did = Some(worker.act()?);
        Ok(())
    })?;
    let of = |counts: &Counts| counts.tasks.get(&pid).copied().unwrap_or_default();
    let counters = of(&after).since(&of(&before));
    Ok((did.context("the workload did not act")?, counters))
}

fn near(what: &str, found: u64, truth: u64, slack: u64) -> Result<()> {
    claim(found.abs_diff(truth) <= slack, || {
        format!("{what}: {found}, not {truth} (give or take {slack})")
    })
}
