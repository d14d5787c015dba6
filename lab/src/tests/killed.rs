//! Does every move of a process that is killed around it end with a name?

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use migrate_ctl::model::End;

use crate::controller::Controller;
use crate::test::{Lab, Machine, Off, Test, claim, say};
use crate::tests::control::stranded;
use crate::worker::Worker;

const KILLS: usize = 20;
/// Of those, inside the move as the probe saw it.
const INSIDE: usize = 5;
/// Where a machine's moves are too short for our clock, more are killed, up to this.
const KILLS_AT_MOST: usize = 60;
/// Large enough that the emulator takes a while to move it.
const WORK: &str = "strand --from 0 --to 1 --mib 64";
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const TESTS: &[Test] = &[Test {
    name: "twenty_processes_killed_around_their_move_are_all_accounted_for",
    machines: &[Machine::Two],
    off: Off::Probe("life"),
    run: killed,
}];

fn killed(lab: &Lab) -> Result<()> {
    let mut ends = Vec::new();
    // It takes a second less of each without the guard, and this is about what comes after it.
    let mut controller = lab.enforce("--include comm:lab --tick 0.5 --guard-off young")?;
    let whole = unkilled(&controller)?;
    let mut aim = whole / 2;
    let count = |ends: &[Option<End>], end| ends.iter().filter(|one| **one == Some(end)).count();
    while ends.len() < KILLS
        || (count(&ends, End::DiedDuring) < INSIDE && ends.len() < KILLS_AT_MOST && !lab.broken())
    {
        let mut worker = stranded(WORK)?;
        ordered(&controller, worker.pid())?;
        // One at once, three into the move and one well after it.
        let shot = ends.len() % 5;
        std::thread::sleep(match shot {
            0 => Duration::ZERO,
            4 => whole * 3,
            _ => aim,
        });
        worker.kill();
        let end = end_of(&controller, &worker)?;
        // No two moves take alike long, nor do they begin alike soon after the order.
        aim = match (shot, end) {
            (1..4, Some(End::Vanished)) => aim * 3 / 2,
            (1..4, Some(End::Done)) => aim * 2 / 3,
            _ => aim,
        };
        ends.push(end);
    }
    claim(controller.is_up()?, || format!("the controller ended: {}", controller.log()))?;
    let counts: Vec<String> =
        End::ALL.iter().map(|&end| format!("{} {}", count(&ends, end), end.name())).collect();
    say(&format!("killed: {}", counts.join(", ")));
    let silent = ends.iter().filter(|end| end.is_none()).count();
    claim(silent == 0, || format!("{silent} of {} moves have no outcome", ends.len()))?;
    let inside = count(&ends, End::DiedDuring);
    claim(inside >= INSIDE, || format!("only {inside} died inside their move"))
}

/// How long a move takes that nobody disturbs.
fn unkilled(controller: &Controller) -> Result<Duration> {
    let worker = stranded(WORK)?;
    let outcome = controller.first_outcome(worker.pid(), PATIENCE)?;
    Ok(Duration::from_nanos(outcome.context("the first process was not moved")?.duration))
}

/// Waits until a move of this process has been ordered. The log is read in no time; the journal
/// holds every tick, and the move would be over by then.
fn ordered(controller: &Controller, pid: u32) -> Result<()> {
    let (end, line) = (Instant::now() + PATIENCE, format!("move ordered pid={pid} "));
    while !controller.log().contains(&line) {
        ensure!(Instant::now() < end, "process {pid} was not moved: {}", controller.log());
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn end_of(controller: &Controller, worker: &Worker) -> Result<Option<End>> {
    let outcome = controller.first_outcome(worker.pid(), Duration::from_secs(20));
    Ok(outcome.context("read the outcome")?.map(|outcome| outcome.end))
}
