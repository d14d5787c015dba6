//! Does each guard hold back what it is there to hold back?
//!
//! Here those that ask the kernel something, on every kernel.

pub(super) mod process;
pub(super) mod moves;
pub(super) mod feedback;

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, ensure};
use migrate_ctl::model::{Decision, Outcome, Reason};

use crate::controller::Controller;
use crate::swap::Swap;
use crate::test::{Lab, Machine, Off, Test, claim};
use crate::tests::control::{LINGER, PATIENCE, STRAND, STRAND_PAGES, followed, stranded, until};
use crate::witness::{pages_on, vmstat};
use crate::worker::Worker;
use crate::{nodes, sys};

pub(crate) const TESTS: &[Test] = &[
    test("a_process_with_a_task_policy_stays", Off::Guard("mempolicy"), task_policy),
    test("a_process_with_one_bound_mapping_stays", Off::Guard("mempolicy"), bound_mapping),
    test("an_excluded_process_stays", Off::Guard("excluded"), excluded),
    test("clean_page_cache_on_the_target_makes_room", Off::Guard("page_cache"), page_cache),
    test("a_full_target_is_left_alone", Off::Guard("no_room"), full),
    test("the_byte_budget_bounds_what_moves_at_once", Off::Guard("rate_limit"), rate_limit),
    test("a_cpuset_is_obeyed", Off::Guard("cpuset"), cpuset),
];

const fn test(name: &'static str, off: Off, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: &[Machine::Two], off, run }
}

fn task_policy(lab: &Lab) -> Result<()> {
    stays(lab, &format!("{STRAND} --policy task"), "", Reason::Mempolicy)
}

fn bound_mapping(lab: &Lab) -> Result<()> {
    stays(lab, &format!("{STRAND} --policy mapping"), "", Reason::Mempolicy)
}

fn excluded(lab: &Lab) -> Result<()> {
    // By name, so that the guard alone keeps it from being moved.
    stays(lab, STRAND, "--exclude comm:lab", Reason::Excluded)
}

/// Everything stays, and the journal says why.
fn stays(lab: &Lab, work: &str, words: &str, reason: Reason) -> Result<()> {
    let worker = stranded(work)?;
    let before = pages_on(worker.pid(), 0)?;
    so_many_stay(lab, &worker, before, words, reason)
}

/// So many pages on node 0 stay there, and the journal says why.
fn so_many_stay(lab: &Lab, worker: &Worker, pages: u64, words: &str, reason: Reason) -> Result<()> {
    let controller = lab.enforce(words)?;
    decided(lab, &controller, worker, pages, reason)?;
    unmoved(worker, pages)
}

/// Waits until a decision has this reason, and on for as long as a move would have taken.
pub(super) fn decided(
    lab: &Lab,
    controller: &Controller,
    worker: &Worker,
    pages: u64,
    reason: Reason,
) -> Result<()> {
    let look = || -> Result<(Vec<Decision>, u64, Vec<Outcome>)> {
        let outcomes = controller.outcomes(worker.pid())?;
        Ok((controller.decisions(worker.pid())?, pages_on(worker.pid(), 0)?, outcomes))
    };
    let gives = |decisions: &[Decision]| decisions.iter().any(|one| one.reason == reason);
    let left = |left: u64| left * 20 < pages * 19;
    let (decisions, there, outcomes) = until(PATIENCE, look, |(all, there, outcomes)| {
        gives(all) || left(*there) || !outcomes.is_empty()
    })?;
    if left(there) {
        // The caller looks at them.
        return Ok(());
    }
    // Where the kernel refuses, too, no page tells that we tried.
    claim(outcomes.is_empty(), || format!("it was to be moved: {outcomes:?}"))?;
    let (says, last) = (gives(&decisions), decisions.last());
    // What stays without the guard would stay with it, too: the test proves nothing.
    ensure!(says || !lab.broken(), "it stays although nothing stands against it: {last:?}");
    claim(says, || format!("no decision says {}: {last:?}", reason.name()))?;
    std::thread::sleep(LINGER);
    Ok(())
}

pub(super) fn unmoved(worker: &Worker, before: u64) -> Result<()> {
    let left = pages_on(worker.pid(), 0)?;
    claim(left * 20 >= before * 19, || format!("only {left} of {before} pages stayed on node 0"))
}

fn page_cache(lab: &Lab) -> Result<()> {
    let _swap = Swap::on()?;
    let mut disk = File::open("/dev/vda").context("open /dev/vda")?;
    fill_with_cache(&mut disk)?;
    let free = nodes::free_mib(1)?;
    ensure!(free < 128, "node 1 has {free} MiB free, the page cache should have filled it");
    let swapped = vmstat("pswpout")?;
    let result = followed(lab);
    sys::forget_cache(&disk).context("drop the page cache")?;
    result?;
    let swapped = vmstat("pswpout")? - swapped;
    claim(swapped == 0, || format!("{swapped} pages went to swap"))
}

/// Clean page cache goes to the node of its reader.
fn fill_with_cache(disk: &mut File) -> Result<()> {
    let mut here = disk.try_clone().context("share /dev/vda")?;
    let reader = std::thread::spawn(move || -> Result<()> {
        nodes::run_on(None, 1)?;
        let mut buffer = vec![0; 1 << 20];
        while nodes::free_mib(1)? >= 96 && here.read(&mut buffer)? > 0 {}
        Ok(())
    });
    reader.join().map_err(|_panic| anyhow::anyhow!("the reader has panicked"))?
}

fn full(lab: &Lab) -> Result<()> {
    // More than there is: the rest goes to the other node.
    let filler = Worker::start(&format!("fill --node 1 --mib {}", nodes::free_mib(1)?))?;
    let free = nodes::free_mib(1)?;
    ensure!(free < 48, "node 1 still has {free} MiB free");
    let worker = stranded(STRAND)?;
    let before = pages_on(worker.pid(), 0)?;
    let controller = lab.enforce(&format!("--include pid:{}", worker.pid()))?;
    decided(lab, &controller, &worker, before, Reason::NoRoom)?;
    unmoved(&worker, before)?;
    drop(filler);
    Ok(())
}

fn rate_limit(lab: &Lab) -> Result<()> {
    // 48 MiB at once and 1 MiB a second: 32 of them go with one, and a quarter of a minute passes
    // before there are enough for the other.
    let workers = [stranded(STRAND)?, stranded(STRAND)?];
    let controller = lab.enforce("--include comm:lab --burst 48 --rate 1")?;
    let look = || -> Result<(bool, usize)> {
        let (mut waits, mut gone) = (false, 0);
        for worker in &workers {
            let decisions = controller.decisions(worker.pid())?;
            waits |= decisions.iter().any(|one| one.reason == Reason::RateLimit);
            gone += usize::from(pages_on(worker.pid(), 0)? * 20 < STRAND_PAGES);
        }
        Ok((waits, gone))
    };
    let (waits, gone) = until(PATIENCE, look, |(waits, gone)| (*waits && *gone > 0) || *gone > 1)?;
    claim(waits && gone == 1, || format!("{gone} of 2 were moved; one waits: {waits}"))?;
    std::thread::sleep(LINGER);
    let (_, gone) = look()?;
    claim(gone == 1, || format!("{gone} of 2 were moved"))
}

fn cpuset(lab: &Lab) -> Result<()> {
    const GROUP: &str = "/sys/fs/cgroup/lab-cpuset";
    std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset").context("cpuset")?;
    std::fs::create_dir_all(GROUP).with_context(|| format!("create {GROUP}"))?;
    std::fs::write(format!("{GROUP}/cpuset.mems"), "0").context("cpuset.mems")?;
    let mut worker = Worker::start(STRAND)?;
    std::fs::write(format!("{GROUP}/cgroup.procs"), worker.pid().to_string()).context("attach")?;
    worker.act()?;
    let before = pages_on(worker.pid(), 0)?;
    let controller = lab.enforce(&format!("--include pid:{}", worker.pid()))?;
    let result = decided(lab, &controller, &worker, before, Reason::Cpuset)
        .and_then(|()| unmoved(&worker, before));
    drop(worker);
    std::fs::remove_dir(GROUP).with_context(|| format!("remove {GROUP}"))?;
    result
}
