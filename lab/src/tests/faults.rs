//! Are page faults counted and timed as the kernel's own accounts have them?

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use migrate_common::{Counter, FaultKind, Lost};
use migrate_ctl::probes::{Counts, Probes, SIGNALS};
use migrate_ctl::procfs::{Thread, process, threads};

use crate::swap::Swap;
use crate::sys;
use crate::test::{Lab, ONE_AND_MORE, Off, Test, claim, counted, say};
use crate::tests::counts::{NOISE, PAGES, act, near};
use crate::witness::vmstat;
use crate::worker::{Did, Worker};

/// Bytes.
const PAGE: u64 = 4096;
/// Processes that fault at the same time, on four CPUs.
const CROWD: usize = 16;
/// Entries of a map that is too small for them.
const FEW: u32 = 8;

pub(crate) const TESTS: &[Test] = &[
    test("faults_of_a_process_are_those_of_getrusage", Off::Nothing, of_a_process),
    test("faults_of_threads_are_told_apart", Off::Nothing, of_threads),
    test("faults_of_exited_threads_are_those_of_getrusage", Off::Probe("faults"), exited),
    test("faults_count_writes_to_protected_pages", Off::Probe("faults"), write_protect),
    test("faults_count_writes_to_huge_pages", Off::Probe("faults"), write_protect_huge),
    test("faults_by_others_are_those_of_whose_memory_it_is", Off::Probe("faults"), by_others),
    test("faults_count_pages_that_were_in_swap", Off::Probe("faults"), swap_in),
    test("faults_are_timed_for_a_moment", Off::Probe("fault_time"), fault_time),
    test("faults_of_a_crowd_are_counted_or_lost", Off::Probe("faults"), crowd),
];

const fn test(name: &'static str, off: Off, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: ONE_AND_MORE, off, run }
}

/// The kernel counts; we must only read the right fields.
fn of_a_process(_lab: &Lab) -> Result<()> {
    for (words, major) in [("touch", false), ("reread", true)] {
        let mut worker = Worker::start(&format!("{words} --node 0 --pages {PAGES}"))?;
        let faults = |worker: &Worker| {
            process("/".as_ref(), worker.pid()).map(|process| process.faults).context("gone")
        };
        let before = faults(&worker)?;
        let did = worker.act()?;
        let found = faults(&worker)?.since(before);
        let (found, truth) = if major {
            (found.major, did.after.major - did.before.major)
        } else {
            (found.minor, did.after.minor - did.before.minor)
        };
        ensure!(truth >= PAGES / 2, "{words} had {truth} faults for {PAGES} pages");
        near(words, found, truth, NOISE)?;
    }
    Ok(())
}

/// The kernel counts for each thread; what they have together `getrusage` says.
fn of_threads(_lab: &Lab) -> Result<()> {
    let mut worker = Worker::start(&format!("siblings --pages {PAGES}"))?;
    let did = worker.act()?;
    let all = threads("/".as_ref(), worker.pid()).context("gone")?;
    let sum = all.iter().map(|thread| thread.faults.minor).sum();
    near("minor faults of all threads", sum, did.after.minor, NOISE)?;
    for pages in [PAGES, 3 * PAGES] {
        let near = |thread: &&Thread| thread.faults.minor.abs_diff(pages) <= NOISE;
        let of = all.iter().filter(near).count();
        claim(of == 1, || format!("{of} threads with {pages} faults: {all:?}"))?;
    }
    Ok(())
}

/// The main thread goes first, and the others then fault on.
fn exited(lab: &Lab) -> Result<()> {
    const THREADS: u64 = 4;
    let mut probes = lab.probes()?;
    let earlier = sys::usage_of_children();
    let (before, after) = counted(&mut probes, || {
        let mut worker =
            Worker::start(&format!("orphans --node 0 --pages {PAGES} --threads {THREADS}"))?;
        worker.act()?;
        worker.wait()
    })?;
    let truth = sys::usage_of_children();
    let minor = truth.minor - earlier.minor;
    ensure!(minor >= THREADS * PAGES, "they had {minor} faults only");
    near("minor faults of exited threads", all_minor(&after) - all_minor(&before), minor, NOISE)
}

fn write_protect(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("rewrite --node 0 --pages {PAGES}"))?;
    let (did, counters) = act(&mut probes, &mut worker)?;
    let truth = did.after.minor - did.before.minor;
    near("minor faults, by getrusage", truth, 2 * PAGES, NOISE)?;
    near("write-protect faults", counters.get(Counter::FaultsWriteProtect), PAGES, NOISE)
}

/// The kernel may split what it has protected: then each of its base pages is a fault.
fn write_protect_huge(lab: &Lab) -> Result<()> {
    const HUGE: u64 = 64;
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("rewrite-huge --node 0 --pages {HUGE}"))?;
    let (did, counters) = act(&mut probes, &mut worker)?;
    let truth = did.after.minor - did.before.minor;
    ensure!(truth >= HUGE - 1, "it had {truth} faults");
    let found = counters.get(Counter::FaultsWriteProtect);
    say(&format!("write-protect faults on huge pages: {found}, {truth} by getrusage"));
    near("write-protect faults", found, truth, truth / 50 + 4)
}

/// We write into a process's memory: the kernel counts the faults as ours, but the pages are its.
fn by_others(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let worker = Worker::start(&format!("zeros --node 0 --pages {PAGES}"))?;
    let pid = worker.pid();
    let read = first_mapping_of(pid, 4 * PAGES * PAGE)?;
    let file = format!("/proc/{pid}/mem");
    let memory = OpenOptions::new().write(true).open(&file).with_context(|| file.clone())?;
    let ours = sys::usage().minor;
    let (before, after) = counted(&mut probes, || {
        let mut pages = (0..PAGES).map(|page| read + page * PAGE);
        pages.try_for_each(|at| memory.write_all_at(&[1], at)).with_context(|| file.clone())
    })?;
    let truth = sys::usage().minor - ours;
    ensure!(truth >= PAGES, "the kernel counts {truth} faults of ours");
    let of = |pid: u32| {
        let of = |counts: &Counts| counts.tasks.get(&pid).copied().unwrap_or_default();
        of(&after).since(&of(&before)).get(Counter::FaultsWriteProtect)
    };
    near("write-protect faults of the process", of(pid), PAGES, NOISE)?;
    near("write-protect faults of ours", of(std::process::id()), 0, NOISE)
}

/// The lowest mapping of a process that has at least so many bytes and is nobody's file.
fn first_mapping_of(pid: u32, bytes: u64) -> Result<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).context("read maps")?;
    let large = maps.lines().filter(|line| line.split_whitespace().count() == 5).find_map(|line| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let at = |text| u64::from_str_radix(text, 16).ok();
        let (start, end) = (at(start)?, at(end)?);
        (end - start >= bytes).then_some(start)
    });
    large.context("no mapping is so large")
}

fn swap_in(lab: &Lab) -> Result<()> {
    let _swap = Swap::on()?;
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("swap --node 0 --pages {PAGES}"))?;
    let out = vmstat("pswpout")?;
    let (did, counters) = act(&mut probes, &mut worker)?;
    let out = vmstat("pswpout")? - out;
    // Pages that are on their way to the LRU lists cannot be swapped out.
    ensure!(out + NOISE >= PAGES, "only {out} of {PAGES} pages went to swap");
    let swapped = counters.get(Counter::FaultsSwapIn);
    near("swap-in faults", swapped, out, NOISE)?;
    let truth = did.after.minor + did.after.major - did.before.minor - did.before.major;
    near("swap-in faults, by getrusage", swapped, truth, NOISE)
}

fn fault_time(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes_with(&[], u32::MAX)?;
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

/// Nothing vanishes where a map is too small: what it cannot hold counts as lost.
fn crowd(lab: &Lab) -> Result<()> {
    // Whatever else a full map cannot count would be counted as lost as well.
    let others = SIGNALS.into_iter().filter(|signal| !["faults", "life"].contains(signal));
    let others: Vec<&str> = others.chain(["fexit do_wp_page", "fexit do_swap_page"]).collect();
    for most in [u32::MAX, FEW] {
        let mut probes = lab.probes_with(&others, most)?;
        let earlier = sys::usage_of_children();
        let (before, after) = counted(&mut probes, || {
            let words = format!("touch --node 0 --pages {PAGES}");
            let mut workers =
                (0..CROWD).map(|_| Worker::start(&words)).collect::<Result<Vec<_>>>()?;
            workers.iter_mut().try_for_each(Worker::go)?;
            workers.into_iter().try_for_each(|mut worker| {
                worker.done::<Did>()?;
                worker.wait()
            })
        })?;
        let minor = sys::usage_of_children().minor - earlier.minor;
        let lost = after.unplaced.since(&before.unplaced).get(Counter::ExitedMinor);
        let found = all_minor(&after) - all_minor(&before);
        // Besides, the processes that the machine itself starts and ends.
        say(&format!("crowd: {found} found, {lost} lost, {minor} by getrusage"));
        let updates = after.lost[Lost::Tasks as usize] - before.lost[Lost::Tasks as usize];
        claim((updates > 0) == (lost > 0), || format!("{updates} updates are said to be lost"))?;
        near("minor faults counted or lost", found + lost, minor, minor / 50)?;
        let full = most == FEW;
        claim((lost > 0) == full, || format!("{lost} faults were lost of {minor}"))?;
    }
    Ok(())
}

/// Of all threads that have exited.
fn all_minor(counts: &Counts) -> u64 {
    counts.tasks.values().map(|task| task.get(Counter::ExitedMinor)).sum()
}
