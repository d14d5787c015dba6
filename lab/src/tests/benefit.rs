//! Is the benefit of a move what the process itself has felt?
//!
//! On a far machine, where the emulator makes the other node's memory really
//! slower. The workload's own clock is the witness.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use migrate_ctl::model::{Est, Source};

use crate::controller::{self, Controller};
use crate::nodes;
use crate::test::{Lab, Machine, Off, Test, claim, say};
use crate::tests::control::until;
use crate::witness::pages_on;
use crate::work::pace::Paced;
use crate::worker::Worker;

/// From one step to the next, on a slow emulator.
const PATIENCE: Duration = Duration::from_secs(120);
const MIB: u64 = 16;
/// How long their paces are watched before the moves are allowed, and after them.
const HORIZON: Duration = Duration::from_secs(15);
/// Share of its CPU time that a loop must be spared to have felt its move.
const FELT: f64 = 0.1;
/// An interval wider than this would hold any truth.
const WIDEST: f32 = 0.4;

pub(crate) const TESTS: &[Test] = &[Test {
    name: "a_memory_bound_loop_scores_what_it_felt_and_a_compute_bound_one_nothing",
    machines: &[Machine::Far],
    off: Off::Nothing,
    run: scores,
}];

/// Both are stranded before they are seen for the first time, so that only the prior tells how
/// they work.
fn scores(_lab: &Lab) -> Result<()> {
    // First, since the emulator is slow to load probes beside two loops.
    let controller = Controller::measuring("--mode observe --horizon 15 --include comm:lab")?;
    let mut reads = stranded("--reads 512")?;
    let mut computes = stranded("--reads 0 --steps 20000")?;
    std::thread::sleep(HORIZON);
    let far = [paced(&mut reads)?, paced(&mut computes)?];
    let said = controller::say("mode enforce")?;
    ensure!(said.code == Some(0), "mode enforce: {said:?}");
    let (felt, nothing) =
        (judge(&controller, &mut reads, far[0])?, judge(&controller, &mut computes, far[1])?);
    ensure!(felt > FELT && nothing.abs() < FELT, "the loops felt {felt:.3} and {nothing:.3}");
    Ok(())
}

/// Holds the score of a move against what the loop has felt of it, which is returned.
fn judge(controller: &Controller, worker: &mut Worker, far: Paced) -> Result<f64> {
    let pid = worker.pid();
    // An order that waits too long behind the other one is given anew.
    let left = until(PATIENCE, || pages_on(pid, 0), |left| left * 20 < MIB * 256)?;
    ensure!(left * 20 < MIB * 256, "{left} pages are still on node 0: {}", controller.log());
    paced(worker)?;
    let scores = until(PATIENCE, || controller.scores(pid), |scores| !scores.is_empty())?;
    let near = paced(worker)?;
    let score = scores.first().with_context(|| format!("no score: {}", controller.log()))?;
    let truth = 1.0 - near.quick_nanos as f64 / far.quick_nanos as f64;
    let Est { low, mid, high, source } = score.realised;
    say(&format!("benefit: felt {truth:.3}, scored {mid:.3} ({low:.3} to {high:.3})"));
    claim(source == Source::Pace, || format!("scored by {}", source.name()))?;
    claim(f64::from(low) <= truth && truth <= f64::from(high), || {
        format!("the loop felt {truth:.3}, scored was {mid:.3} ({low:.3} to {high:.3})")
    })?;
    claim(high - low < WIDEST, || format!("{low:.3} to {high:.3} says nothing"))?;
    Ok(truth)
}

fn stranded(work: &str) -> Result<Worker> {
    let mut worker = Worker::start(&format!("pace --node 0 --mib {MIB} {work}"))?;
    nodes::run_all_on(worker.pid(), 1)?;
    paced(&mut worker)?;
    Ok(worker)
}

fn paced(worker: &mut Worker) -> Result<Paced> {
    worker.go()?;
    worker.done()
}
