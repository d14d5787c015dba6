//! Does each probe count what the workload did and an independent witness confirms?

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Error, Result, ensure};
use migrate_common::{Counter, CpuKey, Drain, HintKey, TaskCounters};
use migrate_ctl::hardware::Hardware;
use migrate_ctl::model::each_node;
use migrate_ctl::probes::{Counts, Probes};
use migrate_ctl::topology::Topology;

use crate::test::{
    FAULT_TIME, Lab, Machine, ONE_AND_MORE, Off, TWO_AND_MORE, Test, claim, counted, say,
};
use crate::witness::{pages_on, vmstat};
use crate::worker::{Did, Worker};
use crate::{balancing, sys};

/// Pages of the workloads whose counts are known.
pub(super) const PAGES: u64 = 2048;
/// Pages that are moved and read at the same time: eight huge ones.
const DANCERS: u64 = 4096;
/// A thread that slept for so long, in nanoseconds, has waited; it is tried so often.
const ASLEEP: u64 = 1_000_000;
const TRIES: u32 = 10;
/// Faults and isolations that a process has besides: start-up, stack, reading a line.
pub(super) const NOISE: u64 = 24;

pub(crate) const TESTS: &[Test] = &[
    test("drains_by_moves_are_counted_and_timed", Off::Probe("drains"), drains),
    Test {
        machines: ONE_AND_MORE,
        ..test("drains_of_all_are_counted_and_timed", Off::Probe("drains"), drains_of_all)
    },
    test("threads_that_wait_for_moving_pages_are_counted", Off::Probe("waits"), |lab| {
        let swapped = waits(&mut *lab.probes()?, "")?.get(Counter::FaultsSwapIn);
        near("swap-in faults, without swap", swapped, 0, 0)
    }),
    test("threads_that_wait_for_moving_huge_pages_are_counted", Off::Probe("waits"), |lab| {
        // Those for base pages would be counted by these.
        let base = ["fentry migration_entry_wait", "fexit migration_entry_wait", FAULT_TIME];
        waits(&mut lab.probes_with(&base, u32::MAX)?, "--huge").map(drop)
    }),
    test("hint_faults_name_both_nodes", Off::Probe("hint_faults"), hint_faults),
    test("hint_faults_weigh_huge_pages", Off::Probe("hint_faults"), huge_hint_faults),
    test("cpu_time_is_on_the_node_it_was_used_on", Off::Probe("cpu_time"), |lab| {
        // More than 2,500 samples at 99 Hz.
        cpu_time(&mut *lab.probes()?, &[8000, 18_000])
    }),
    Test {
        machines: &[Machine::One],
        ..test("cpu_time_on_one_node_is_all_of_it", Off::Probe("cpu_time"), |lab| {
            cpu_time(&mut *lab.probes()?, &[6000])
        })
    },
    test("rings_of_samples_name_the_process_and_its_node", Off::Nothing, rings),
    test("cpu_time_without_clocks_is_that_of_switches", Off::Probe("cpu_time"), |lab| {
        cpu_time(&mut lab.probes_with(&["perf cpu-clock", FAULT_TIME], u32::MAX)?, &[2000, 4500])
    }),
];

const fn test(name: &'static str, off: Off, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: TWO_AND_MORE, off, run }
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
    near("drains by migrate_pages", after.calls - before.calls, CALLS, 0)?;
    claim(after.nanos > before.nanos, || "drains that took no time".to_owned())
}

/// The kernel drains all once before it compacts all.
fn drains_of_all(lab: &Lab) -> Result<()> {
    const CALLS: u64 = 50;
    let mut probes = lab.probes()?;
    let began = Instant::now();
    let (before, after) = counted(&mut probes, || {
        (0..CALLS)
            .try_for_each(|_| std::fs::write("/proc/sys/vm/compact_memory", "1").context("compact"))
    })?;
    let passed = u64::try_from(began.elapsed().as_nanos())?;
    let kind = Drain::DrainAll as usize;
    let (before, after) = (before.drains[kind], after.drains[kind]);
    // khugepaged and ksmd do so, too, now and then.
    near("drains of all", after.calls - before.calls, CALLS, CALLS / 50)?;
    let nanos = after.nanos - before.nanos;
    claim(nanos > 0 && nanos < passed, || format!("the drains took {nanos} of {passed} ns"))
}

/// The witness: what the scheduler says of how long the one thread that reads was asleep.
fn waits(probes: &mut Probes, huge: &str) -> Result<TaskCounters> {
    let mut dance = || {
        let mut worker = Worker::start(&format!("dance --node 0 --to 1 --pages {DANCERS} {huge}"))?;
        let began = Instant::now();
        let (did, counters) = act(probes, &mut worker)?;
        Ok::<_, Error>((did.slept, counters, u64::try_from(began.elapsed().as_nanos())?))
    };
    let mut danced = dance()?;
    // Of eight huge pages few are met while they move.
    for _ in 1..TRIES {
        if danced.0 > ASLEEP {
            break;
        }
        danced = dance()?;
    }
    let (slept, counters, passed) = danced;
    let (waits, nanos) = (counters.get(Counter::Waits), counters.get(Counter::WaitNanos));
    say(&format!("waits: {waits} in {nanos} of {passed} ns; it slept {slept} ns"));
    ensure!(slept > ASLEEP, "it slept {slept} ns only");
    claim(waits > 0 && nanos >= slept - slept / 10, || {
        format!("{waits} waits took {nanos} ns, and it slept {slept} ns")
    })?;
    // A wait is also the way to sleep and back, on an emulated CPU longer than the sleep.
    claim(nanos <= passed, || format!("{waits} waits took {nanos} of {passed} ns"))?;
    Ok(counters)
}

fn hint_faults(lab: &Lab) -> Result<()> {
    const ALL: u64 = 4096;
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("scan --memory 0 --cpu 1 --pages {ALL}"))?;
    balancing::during(|| hints(&mut probes, &mut worker, ALL))
}

/// The kernel brings each of its pages near, one hint fault a page.
fn hints(probes: &mut Probes, worker: &mut Worker, pages: u64) -> Result<()> {
    let (pid, witness) = (worker.pid(), vmstat("numa_hint_faults")?);
    let there = pages_on(pid, 1)?;
    let came = || pages_on(pid, 1).map(|pages| pages - there);
    let (before, after) = counted(probes, || {
        for _ in 0..60 {
            worker.act()?;
            if came()? >= pages {
                break;
            }
        }
        Ok(())
    })?;
    let truth = vmstat("numa_hint_faults")? - witness;
    let came = came()?;
    ensure!(came >= pages - pages / 50, "{came} of {pages} pages came to the reader");
    let all = |counts: &Counts| counts.hints.values().map(|hints| hints.faults).sum::<u64>();
    // Everybody's, as the witness counts: tasks whose page moved meanwhile differ.
    near("hint faults", all(&after) - all(&before), truth, truth / 50 + NOISE)?;
    let key = HintKey { tgid: pid, cpu_node: 1, memory_node: 0 };
    let of = |counts: &Counts| counts.hints.get(&key).copied().unwrap_or_default();
    let remote = of(&after).since(&of(&before)).faults;
    say(&format!("hint faults: {remote} from afar of {truth}, and {came} pages came"));
    near("hint faults from node 1 to node 0", remote, came, came / 50 + NOISE)
}

/// What the kernel's balancing moved near, hint faults met before, most of it in huge pages.
fn huge_hint_faults(lab: &Lab) -> Result<()> {
    const ALL: u64 = 16 * 512;
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("scan --memory 0 --cpu 1 --pages {ALL} --huge"))?;
    let pid = worker.pid();
    let there = pages_on(pid, 1)?;
    let (before, after) = balancing::during(|| {
        counted(&mut probes, || {
            for _ in 0..60 {
                worker.act()?;
                if pages_on(pid, 1)? - there >= ALL {
                    break;
                }
            }
            Ok(())
        })
    })?;
    let came = pages_on(pid, 1)? - there;
    ensure!(came >= ALL / 2, "{came} pages came only");
    let key = HintKey { tgid: pid, cpu_node: 1, memory_node: 0 };
    let of = |counts: &Counts| counts.hints.get(&key).copied().unwrap_or_default();
    let met = of(&after).since(&of(&before));
    say(&format!("hint faults on huge pages: {met:?}, {came} pages came"));
    near("pages met by hint faults", met.pages, came, came / 50 + NOISE)?;
    claim(met.faults < came / 4, || format!("{met:?}: they were met one by one"))
}

/// So long on each node, from node 0 on.
fn cpu_time(probes: &mut Probes, millis: &[u64]) -> Result<()> {
    let words: Vec<String> = millis.iter().map(u64::to_string).collect();
    let mut worker = Worker::start(&format!("burn --millis {}", words.join(",")))?;
    let (before, after) = counted(probes, || worker.act().map(drop))?;
    let node = |(node, _)| {
        let key = CpuKey { tgid: worker.pid(), node };
        let of = |counts: &Counts| counts.cpu.get(&key).copied().unwrap_or(0);
        (of(&after) - of(&before)) / 1_000_000
    };
    let seen: Vec<u64> = (0..).zip(millis).map(node).collect();
    let all: u64 = millis.iter().sum();
    let share = |millis: &[u64]| millis[0] as f64 / millis.iter().sum::<u64>().max(1) as f64;
    let (share, truth) = (share(&seen), share(millis));
    say(&format!("CPU time: {seen:?} of {millis:?} ms, share {share:.4} of {truth:.4}"));
    claim((share - truth).abs() <= 0.02, || {
        format!("{seen:?} ms by node of {millis:?}: share {share:.4}, not {truth:.4}")
    })?;
    near("CPU time in ms", seen.iter().sum(), all, all / 50)
}

/// There is no PMU in an emulated machine: each CPU's clock samples in place of its loads, and no
/// sample of it is an access.
fn rings(_lab: &Lab) -> Result<()> {
    const HERTZ: u64 = 99;
    const SECONDS: [u64; 2] = [1, 3];
    let topology = Topology::read(Path::new("/")).context("read the topology")?;
    let mut worker =
        Worker::start(&format!("burn --millis {},{}", 1000 * SECONDS[0], 1000 * SECONDS[1]))?;
    let mut clocks = Hardware::open_clock(&topology).context("open the clocks")?;
    worker.act()?;
    let samples = clocks.take();
    claim(samples.lost == 0, || format!("{} samples were lost", samples.lost))?;
    for (node, seconds) in each_node(2).zip(SECONDS) {
        let seen = samples.accesses.get(&(worker.pid(), node)).copied().unwrap_or_default();
        claim((seen.local, seen.remote) == (0, 0), || format!("a clock is no access: {seen:?}"))?;
        // A clock that comes late leaves samples out.
        near("samples", seen.other, HERTZ * seconds * 3 / 4, HERTZ * seconds * 2 / 5)?;
    }
    claim(clocks.take().accesses.values().map(|seen| seen.other).sum::<u64>() < 4 * HERTZ, || {
        "what was taken is there again".to_owned()
    })
}

/// Lets a workload act once: what it says, and what the probes counted of it meanwhile.
pub(super) fn act(probes: &mut Probes, worker: &mut Worker) -> Result<(Did, TaskCounters)> {
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

pub(super) fn near(what: &str, found: u64, truth: u64, slack: u64) -> Result<()> {
    claim(found.abs_diff(truth) <= slack, || {
        format!("{what}: {found}, not {truth} (give or take {slack})")
    })
}
