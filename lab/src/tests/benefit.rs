//! Is the benefit of a move what the process itself has felt?
//!
//! On a far machine, where the emulator makes the other node's memory really
//! slower. The workload's own clock is the witness: its quickest laps, since
//! what else the host does makes laps longer only.

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
/// How long its pace is watched before the move is allowed, and after it.
const HORIZON: Duration = Duration::from_secs(25);
/// An interval wider than this would hold any truth.
const WIDEST: f32 = 0.4;

pub(crate) const TESTS: &[Test] = &[
    test("a_memory_bound_loop_scores_what_its_move_saved", memory_bound),
    test("a_compute_bound_loop_scores_no_benefit", compute_bound),
];

const fn test(name: &'static str, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: &[Machine::Far], off: Off::Nothing, run }
}

fn memory_bound(_lab: &Lab) -> Result<()> {
    let (felt, scored) = moved("--reads 1024")?;
    ensure!(felt > 0.2, "it has hardly felt its move: {felt:.3}");
    holds(felt, scored)
}

/// All that far memory slows is the call at the end of each lap.
fn compute_bound(_lab: &Lab) -> Result<()> {
    let (felt, scored) = moved("--reads 0 --steps 1000000")?;
    ensure!(felt.abs() < 0.05, "it has felt its move: {felt:.3}");
    holds(0.0, scored)
}

/// What a loop has felt of its move, and what was scored. It is stranded before it is seen for
/// the first time, so that only the prior tells how it works.
fn moved(work: &str) -> Result<(f64, Est)> {
    // First, since the emulator is slow to load probes beside a loop.
    let words = format!("--mode observe --horizon {} --include comm:lab", HORIZON.as_secs());
    let controller = Controller::measuring(&words)?;
    let mut worker = Worker::start(&format!("pace --node 0 --mib {MIB} {work}"))?;
    nodes::run_all_on(worker.pid(), 1)?;
    paced(&mut worker)?;
    std::thread::sleep(HORIZON);
    let far = paced(&mut worker)?.quick_nanos;
    let said = controller::say("mode enforce")?;
    ensure!(said.code == Some(0), "mode enforce: {said:?}");
    let left = until(PATIENCE, || pages_on(worker.pid(), 0), |left| left * 20 < MIB * 256)?;
    ensure!(left * 20 < MIB * 256, "{left} pages are still on node 0: {}", controller.log());
    paced(&mut worker)?;
    // As quiet as before the move: whoever reads the journal is a neighbour.
    std::thread::sleep(HORIZON);
    let near = paced(&mut worker)?.quick_nanos;
    let scores = until(PATIENCE, || controller.scores(worker.pid()), |all| !all.is_empty())?;
    let score = scores.first().with_context(|| format!("no score: {}", controller.log()))?;
    Ok((1.0 - near as f64 / far as f64, score.realised))
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

fn paced(worker: &mut Worker) -> Result<Paced> {
    worker.go()?;
    worker.done()
}
