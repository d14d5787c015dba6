//! What a process is or does that speaks against moving its memory.

use anyhow::{Context, Result, ensure};
use migrate_ctl::model::Reason;

use super::{decided, so_many_stay, stays, unmoved};
use crate::controller::Controller;
use crate::swap::Swap;
use crate::test::{Lab, Machine, Off, Test, claim};
use crate::tests::control::{HOME, PATIENCE, STRAND_PAGES, stranded, until};
use crate::witness::pages_on;
use crate::work::brood::Born;
use crate::worker::Worker;

/// An age at which a process may be moved, in seconds.
const GROWN_UP: f64 = 1.0;
/// So many processes in a row begin at the most: the emulator is slow, and one may be a second old
/// before anybody has looked.
const YOUNG: usize = 10;

pub(crate) const TESTS: &[Test] = &[
    test("threads_that_spread_over_nodes_stay", Off::Guard("spread"), spread),
    test("memory_that_two_nodes_processes_share_stays", Off::Guard("shared"), shared),
    test("a_process_is_not_moved_in_its_first_second", Off::Guard("young"), young),
    test("a_growing_process_is_moved_once_it_has_grown", Off::Guard("growing"), growing),
    test("a_swapping_process_stays", Off::Guard("swapping"), swapping),
    test("a_process_that_could_not_be_moved_stays", Off::Guard("unmovable"), unmovable),
    test("a_process_that_fits_the_caches_stays", Off::Guard("too_small"), too_small),
];

const fn test(name: &'static str, off: Off, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: &[Machine::Two], off, run }
}

fn spread(lab: &Lab) -> Result<()> {
    stays(lab, "spread --node 0 --mib 32 --percent 60,90", "", Reason::Spread)
}

fn shared(lab: &Lab) -> Result<()> {
    // What the parent alone maps could be moved, and would be torn from what the child uses.
    stays(lab, "strand --from 0 --to 1 --mib 12 --shared 20", "", Reason::Shared)
}

fn young(lab: &Lab) -> Result<()> {
    let mut parent = Worker::start("brood --from 0 --to 1 --mib 8")?;
    let controller = lab.enforce("--include comm:lab --tick 0.1")?;
    let mut held = false;
    for _ in 0..YOUNG {
        parent.go()?;
        let Born { pid } = parent.done()?;
        let moved = controller.first_outcome(pid, PATIENCE)?.is_some();
        claim(moved, || format!("no move in {PATIENCE:?}: {}", controller.log()))?;
        let age = age_when_ordered(&controller, pid)?;
        claim(age >= GROWN_UP, || format!("it was {age:.2} s old when it was ordered to move"))?;
        held = controller.decisions(pid)?.iter().any(|one| one.reason == Reason::Young);
        if held {
            break;
        }
    }
    ensure!(held || !lab.broken(), "nobody would have been moved so early without the guard");
    claim(held, || "no decision says young".to_owned())
}

/// By the first order, in seconds.
fn age_when_ordered(controller: &Controller, pid: u32) -> Result<f64> {
    let decisions = controller.decisions(pid)?;
    let start = decisions.first().context("nothing was decided about it")?.extent.domain.start;
    let ordered = *controller.orders(pid)?.first().context("no order")?;
    // Field 22 of /proc/PID/stat counts hundredths of a second, `now` ns, both since boot.
    Ok(ordered as f64 / 1e9 - start as f64 / 100.0)
}

fn growing(lab: &Lab) -> Result<()> {
    let mut worker = Worker::start("strand --from 0 --to 1 --mib 32 --grow 12")?;
    let controller = lab.enforce(&format!("--include pid:{}", worker.pid()))?;
    // Only now: the more there is, the less it grows for its size.
    worker.act()?;
    decided(lab, &controller, &worker, STRAND_PAGES, Reason::Growing)?;
    unmoved(&worker, STRAND_PAGES)?;
    worker.go()?;
    let left = until(HOME, || pages_on(worker.pid(), 0), |left| left * 20 <= STRAND_PAGES)?;
    claim(left * 20 <= STRAND_PAGES, || format!("{left} pages are on node 0 after it has grown"))
}

fn swapping(lab: &Lab) -> Result<()> {
    let _swap = Swap::on()?;
    // What is swapped comes back on node 1; the rest would have to be moved.
    let worker = stranded("strand --from 0 --to 1 --mib 32 --swapped 4")?;
    so_many_stay(lab, &worker, STRAND_PAGES, "", Reason::Swapping)
}

fn unmovable(lab: &Lab) -> Result<()> {
    let mut worker = Worker::start("strand --from 0 --to 1 --mib 4 --pinned 12")?;
    let controller = lab.enforce(&format!("--include pid:{}", worker.pid()))?;
    // Only now it tries: somebody must be there to see it.
    worker.act()?;
    let before = pages_on(worker.pid(), 0)?;
    decided(lab, &controller, &worker, before, Reason::Unmovable)?;
    unmoved(&worker, before)
}

fn too_small(lab: &Lab) -> Result<()> {
    stays(lab, "strand --from 0 --to 1 --mib 1", "", Reason::TooSmall)
}
