//! Does memory follow a task that has come to stay, once, and leave one alone that has not?

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use migrate_ctl::model::{Node, Reason};

use crate::controller::Controller;
use crate::nodes;
use crate::test::{Lab, Machine, Off, Test, claim};
use crate::tests::control::{PATIENCE, STRAND, stranded, until};
use crate::witness::pages_on;
use crate::worker::Worker;

/// So long after the first move there is no second.
const SETTLED: Duration = Duration::from_secs(20);
/// At home until somebody sends it elsewhere.
const AT_HOME: &str = "strand --from 0 --to 0 --mib 32";
const AT_HOME_PAGES: u64 = 32 * 256;
/// With 32 MiB, the move of which costs 0.04 s by the prior, and so little slower memory, staying
/// away pays for the move in two seconds; the controller looks ten times as often.
const RATIO: &str = "1.2";
const TICK: &str = "--tick 0.2";
/// The task goes away and comes back so often.
const TRIPS: u32 = 12;

pub(crate) const TESTS: &[Test] = &[
    test("a_stranded_process_is_moved_once", Off::Nothing, once),
    test("a_short_dwell_is_not_followed", Off::Nothing, short),
    test("a_long_dwell_is_followed_once", Off::Mode, long),
];

const fn test(name: &'static str, off: Off, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: &[Machine::Two], off, run }
}

fn once(lab: &Lab) -> Result<()> {
    let worker = stranded(STRAND)?;
    let controller = lab.enforce(&format!("--include pid:{}", worker.pid()))?;
    let moved = controller.first_outcome(worker.pid(), PATIENCE)?.is_some();
    claim(moved, || format!("no move in {PATIENCE:?}: {}", controller.log()))?;
    std::thread::sleep(SETTLED);
    let orders = controller.orders(worker.pid())?;
    claim(orders.len() == 1, || format!("{} orders: {orders:?}", orders.len()))
}

/// A fifth of the break-even that the policy itself prints, on each node.
fn short(lab: &Lab) -> Result<()> {
    let (worker, controller) = at_home(lab)?;
    let break_even = break_even(&controller, &worker)?;
    for _ in 0..TRIPS {
        dwell(&worker, 1, break_even / 5)?;
        dwell(&worker, 0, break_even / 5)?;
    }
    let orders = controller.orders(worker.pid())?;
    claim(orders.is_empty(), || format!("after {:?} each: {orders:?}", break_even / 5))?;
    let waits = controller.decisions(worker.pid())?;
    let waits = waits.iter().filter(|one| one.reason == Reason::NotYet).count();
    ensure!(waits >= TRIPS as usize, "it was seen away {waits} times only");
    Ok(())
}

/// Five times that. And the journal of it, decided anew, says the same.
fn long(lab: &Lab) -> Result<()> {
    let (worker, mut controller) = at_home(lab)?;
    let break_even = break_even(&controller, &worker)?;
    for (changes, node) in [(1, 1), (2, 0)] {
        dwell(&worker, node, break_even * 5)?;
        let orders = controller.orders(worker.pid())?;
        claim(orders.len() == changes, || {
            format!("{changes} changes, each for {:?}: {orders:?}", break_even * 5)
        })?;
        let there = pages_on(worker.pid(), node)?;
        claim(there * 20 >= AT_HOME_PAGES * 19, || format!("{there} pages came to node {node}"))?;
    }
    let reproduced = &controller.replay()?["reproduced"];
    let [all, same] = ["decisions", "same"].map(|name| reproduced[name].as_u64());
    claim(all > Some(0) && same == all && reproduced["exact"] == true, || {
        format!("replay decides otherwise: {reproduced}")
    })
}

fn at_home(lab: &Lab) -> Result<(Worker, Controller)> {
    let worker = stranded(AT_HOME)?;
    let words = format!("{TICK} --include pid:{}", worker.pid());
    let controller = lab.enforce_at(RATIO, &words)?;
    Ok((worker, controller))
}

/// As the policy has it when the task has just gone to node 1; it comes back at once.
fn break_even(controller: &Controller, worker: &Worker) -> Result<Duration> {
    nodes::run_all_on(worker.pid(), 1)?;
    let look = || -> Result<Option<f32>> {
        let decisions = controller.decisions(worker.pid())?;
        // The first may have seen it on both nodes.
        let away = decisions.iter().filter(|one| one.forecast.best == Some(Node(1)));
        Ok(away.skip(1).find_map(|one| one.forecast.break_even))
    };
    let seconds = until(PATIENCE, look, Option::is_some)?;
    nodes::run_all_on(worker.pid(), 0)?;
    Ok(Duration::from_secs_f32(seconds.context("the policy prints no break-even")?))
}

fn dwell(worker: &Worker, node: u16, time: Duration) -> Result<()> {
    nodes::run_all_on(worker.pid(), node)?;
    std::thread::sleep(time);
    Ok(())
}
