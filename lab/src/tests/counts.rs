//! Does each probe count what the workload did and an independent witness confirms?

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use migrate_common::{
    Counter, CpuKey, Drain, FaultKind, HintKey, MigrationKey, MigrationTotals, SAMPLE_PERIOD_NS,
    TaskCounters,
};
use migrate_ctl::probes::{Counts, Probes};

use crate::swap::Swap;
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
    test("faults_count_writes_to_protected_pages", Off::Probe("faults"), write_protect),
    test("faults_count_pages_that_were_in_swap", Off::Probe("faults"), swap_in),
    test("faults_are_timed_for_a_moment", Off::Probe("faults"), fault_time),
    test("drains_are_counted_and_timed", Off::Probe("drains"), drains),
    test("threads_that_wait_for_moving_pages_are_counted", Off::Probe("waits"), waits),
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

fn write_protect(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("rewrite --node 0 --pages {PAGES}"))?;
    let (did, counters) = act(&mut probes, &mut worker)?;
    let truth = did.after.minor - did.before.minor;
    near("minor faults, by getrusage", truth, 2 * PAGES, NOISE)?;
    near("minor faults", counters.get(Counter::FaultsMinor), truth, NOISE)?;
    near("write-protect faults", counters.get(Counter::FaultsWriteProtect), PAGES, NOISE)
}

fn swap_in(lab: &Lab) -> Result<()> {
    let _swap = Swap::on()?;
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("swap --node 0 --pages {PAGES}"))?;
    let out = vmstat("pswpout")?;
    let (did, counters) = act(&mut probes, &mut worker)?;
    let out = vmstat("pswpout")? - out;
    anyhow::ensure!(out >= PAGES, "only {out} of {PAGES} pages went to swap");
    let swapped = counters.get(Counter::FaultsSwapIn);
    near("swap-in faults", swapped, PAGES, NOISE)?;
    let truth = did.after.minor + did.after.major - did.before.minor - did.before.major;
    let all = counters.get(Counter::FaultsMinor) + counters.get(Counter::FaultsMajor);
    near("faults", all, truth, NOISE)
}

fn fault_time(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("touch --node 0 --pages {PAGES}"))?;
    // A fault that begins while they are switched on is counted and not timed.
    let minor = |counts: &Counts| counts.fault_time[FaultKind::Minor as usize];
    let timed = |probes: &mut Probes, worker: &mut Worker| -> Result<(u64, u64, Duration)> {
        let before = minor(&probes.read().context("read the probes")?);
        let began = Instant::now();
        let did = worker.act()?;
        let passed = began.elapsed();
        let after = minor(&probes.read().context("read the probes")?);
        claim(did.after.minor - did.before.minor >= PAGES, || format!("{did:?}"))?;
        Ok((after.calls - before.calls, after.nanos - before.nanos, passed))
    };
    let (calls, ..) = timed(&mut probes, &mut worker)?;
    near("faults timed before", calls, 0, 0)?;
    probes.time_faults();
    let (calls, nanos, passed) = timed(&mut probes, &mut worker)?;
    probes.stop_timing_faults();
    probes.end_timed_faults();
    claim(calls >= PAGES, || format!("{calls} of {PAGES} faults were timed"))?;
    let passed = u64::try_from(passed.as_nanos())? * 4;
    claim(nanos > calls * 100 && nanos < passed, || {
        format!("{calls} faults took {nanos} ns, and four CPUs had {passed} ns")
    })?;
    let (calls, ..) = timed(&mut probes, &mut worker)?;
    near("faults timed after", calls, 0, 0)
}

fn drains(lab: &Lab) -> Result<()> {
    const CALLS: u64 = 5;
    let mut probes = lab.probes()?;
    let worker = Worker::start("fill --node 0 --mib 1")?;
    let (before, after) = counted(&mut probes, || {
        for call in 0..CALLS {
            let (from, to) = if call % 2 == 0 { (0, 1) } else { (1, 0) };
            sys::migrate_all(worker.pid(), from, to).context("migrate_pages")?;
        }
        Ok(())
    })?;
    let kind = Drain::CacheDisable as usize;
    let (before, after) = (before.drains[kind], after.drains[kind]);
    near("drains by migrate_pages", after.calls - before.calls, CALLS, 1)?;
    claim(after.nanos > before.nanos, || "drains that took no time".to_owned())?;
    let (before, after) = counted(&mut probes, || {
        std::fs::write("/proc/sys/vm/compact_memory", "1").context("compact")
    })?;
    let kind = Drain::DrainAll as usize;
    let calls = after.drains[kind].calls - before.drains[kind].calls;
    // khugepaged and ksmd do so, too.
    claim(calls >= 1, || "no drain by a compaction".to_owned())
}

fn waits(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("dance --node 0 --to 1 --pages {PAGES}"))?;
    let began = Instant::now();
    let (_, counters) = act(&mut probes, &mut worker)?;
    let passed = u64::try_from(began.elapsed().as_nanos())?;
    let (waits, nanos) = (counters.get(Counter::Waits), counters.get(Counter::WaitNanos));
    claim(waits > 0, || "nobody waited for a page".to_owned())?;
    // One thread reads.
    claim(nanos > 0 && nanos < passed, || format!("{waits} waits took {nanos} of {passed} ns"))?;
    let swapped = counters.get(Counter::FaultsSwapIn);
    near("swap-in faults, without swap", swapped, 0, 0)
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

fn hints(probes: &mut Probes, worker: &mut Worker) -> Result<()> {
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
fn act(probes: &mut Probes, worker: &mut Worker) -> Result<(Did, TaskCounters)> {
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
