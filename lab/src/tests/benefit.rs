//! Is the benefit of a move what the process itself has felt?
//!
//! On a far machine, where the emulator makes the other node's memory really
//! slower. The workload's own clock is the witness.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use migrate_ctl::model::{Est, Source};
use migrate_ctl::table::trial::Score;

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
    let mut loops = [stranded("--reads 512")?, stranded("--reads 0 --steps 20000")?];
    let began = each(&mut loops)?;
    std::thread::sleep(HORIZON);
    let far = each(&mut loops)?;
    let said = controller::say("mode enforce")?;
    ensure!(said.code == Some(0), "mode enforce: {said:?}");
    for worker in &loops {
        let left = until(PATIENCE, || pages_on(worker.pid(), 0), |left| left * 20 < MIB * 256)?;
        ensure!(left * 20 < MIB * 256, "{left} pages are still on node 0: {}", controller.log());
    }
    let came = each(&mut loops)?;
    let scores = [score(&controller, &loops[0])?, score(&controller, &loops[1])?];
    let near = each(&mut loops)?;
    let felt = [0, 1]
        .map(|one: usize| 1.0 - near[one].lap_since(&came[one]) / far[one].lap_since(&began[one]));
    ensure!(felt[0] > FELT && felt[1].abs() < FELT, "the loops felt {felt:?}");
    felt.into_iter().zip(scores).try_for_each(|(felt, score)| holds(felt, score.realised))
}

fn score(controller: &Controller, worker: &Worker) -> Result<Score> {
    let scores = || controller.scores(worker.pid());
    let scores = until(PATIENCE, scores, |scores| !scores.is_empty())?;
    scores.first().copied().with_context(|| format!("no score: {}", controller.log()))
}

/// The share that was scored holds what the loop has felt.
fn holds(felt: f64, scored: Est) -> Result<()> {
    let Est { low, mid, high, source } = scored;
    say(&format!("benefit: felt {felt:.3}, scored {mid:.3} ({low:.3} to {high:.3})"));
    claim(source == Source::Pace, || format!("scored by {}", source.name()))?;
    claim(f64::from(low) <= felt && felt <= f64::from(high), || {
        format!("the loop felt {felt:.3}, scored was {mid:.3} ({low:.3} to {high:.3})")
    })?;
    claim(high - low < WIDEST, || format!("{low:.3} to {high:.3} says nothing"))
}

fn stranded(work: &str) -> Result<Worker> {
    let worker = Worker::start(&format!("pace --node 0 --mib {MIB} {work}"))?;
    nodes::run_all_on(worker.pid(), 1)?;
    Ok(worker)
}

fn each(loops: &mut [Worker; 2]) -> Result<[Paced; 2]> {
    let [one, other] = loops;
    Ok([paced(one)?, paced(other)?])
}

fn paced(worker: &mut Worker) -> Result<Paced> {
    worker.go()?;
    worker.done()
}
