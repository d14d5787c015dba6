//! Does every move of a process that is killed around it end with a name?

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use migrate_ctl::model::End;

use crate::controller::{Controller, Decided, Fact};
use crate::test::{Lab, Machine, Off, Test, claim, say};
use crate::tests::control::stranded;
use crate::worker::Worker;

const KILLS: u32 = 20;
/// Of those, inside the move as the probe saw it.
const INSIDE: usize = 5;
/// Large enough that the emulator takes a while to move it.
const WORK: &str = "strand --from 0 --to 1 --mib 64";
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const TESTS: &[Test] = &[Test {
    name: "twenty_processes_killed_around_their_move_are_all_accounted_for",
    machine: Machine::Two,
    off: Off::Probe("life"),
    run: killed,
}];

fn killed(lab: &Lab) -> Result<()> {
    let mut ends = Vec::new();
    let mut controller = lab.enforce("--include comm:lab --tick 0.5")?;
    for kill in 0..KILLS {
        let mut worker = stranded(WORK)?;
        wait_for_order(&controller, worker.pid())?;
        // From at once to well into the move, and every fifth after its end.
        let delay = if kill % 5 == 4 { 1000 } else { u64::from(kill % 5) * 25 };
        std::thread::sleep(Duration::from_millis(delay));
        worker.kill();
        ends.push(end_of(&controller, &worker)?);
    }
    claim(controller.is_up()?, || format!("the controller ended: {}", controller.log()))?;
    let count = |end| ends.iter().filter(|one| **one == Some(end)).count();
    let counts: Vec<String> =
        End::ALL.iter().map(|&end| format!("{} {}", count(end), end.name())).collect();
    say(&format!("killed: {}", counts.join(", ")));
    let silent = ends.iter().filter(|end| end.is_none()).count();
    claim(silent == 0, || format!("{silent} of {KILLS} moves have no outcome"))?;
    let inside = count(End::DiedDuring);
    claim(inside >= INSIDE, || format!("only {inside} died inside their move"))
}

/// The order and its process are joined by the decision's number.
fn wait_for_order(controller: &Controller, pid: u32) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let facts = controller.facts()?;
        let of_pid = |decision: &migrate_ctl::model::Decision| decision.extent.domain.pid == pid;
        let ordered = facts.iter().any(|fact| {
            let Fact::Ordered { seq, .. } = fact else { return false };
            facts.iter().any(|fact| {
                matches!(fact, Fact::Decision(one) if one.decision.seq == *seq && of_pid(&one.decision))
            })
        });
        if ordered {
            return Ok(());
        }
        ensure!(Instant::now() < end, "process {pid} was not moved: {:?}", last(&facts, pid));
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn last(facts: &[Fact], pid: u32) -> Option<&Decided> {
    facts.iter().rev().find_map(|fact| match fact {
        Fact::Decision(one) if one.decision.extent.domain.pid == pid => Some(one),
        Fact::Decision(_) | Fact::Ordered { .. } | Fact::Outcome(_) => None,
    })
}

fn end_of(controller: &Controller, worker: &Worker) -> Result<Option<End>> {
    let outcome = controller.first_outcome(worker.pid(), Duration::from_secs(20));
    Ok(outcome.context("read the outcome")?.map(|outcome| outcome.end))
}
