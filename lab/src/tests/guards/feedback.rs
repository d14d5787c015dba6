//! What came of moves before, and what is to be learned from those that are not made.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use migrate_ctl::config::Mode;
use migrate_ctl::model::{Decision, Nanos, Reason, Source, Verdict};
use migrate_ctl::sys::boottime;
use migrate_ctl::table::trial::Score;

use super::moves::orders_once;
use super::unmoved;
use crate::controller::Controller;
use crate::sys;
use crate::test::{Lab, Machine, Off, Test, claim, say};
use crate::tests::control::{PATIENCE, stranded, until};
use crate::tests::faces::switch;
use crate::witness::pages_on;
use crate::worker::Worker;

/// So little slower than local memory that the pace says nothing of how much a process waits for
/// memory: that cannot speak against the move, only what the move did.
const HURT_RATIO: &str = "1.08";
/// Nothing else may hold it: it was moved, though by others, and its first move did what it should
/// to the remote share.
const HURT_ALONE: &str = "--guard-off cool_down --guard-off other_mover";
/// Of 0.2 seconds.
const HURT_TICKS: usize = 25;

/// A lot falls on each: that it is the same for all happens once in two thousand times.
const LOTS: usize = 12;
const SMALL_MIB: u64 = 4;
/// Seconds for which one that the lot has fallen on stays.
const HORIZON: f64 = 5.0;
/// Between two looks at where they are.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) const TESTS: &[Test] = &[
    test("a_move_that_hurt_is_not_made_again", Off::Guard("hurt"), hurt),
    test("a_move_held_back_for_comparison_waits_for_it", Off::Guard("held_back"), held_back),
];

const fn test(name: &'static str, off: Off, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: &[Machine::Two], off, run }
}

fn hurt(lab: &Lab) -> Result<()> {
    let worker = stranded("hurt --from 0 --to 1 --mib 32")?;
    let before = pages_on(worker.pid(), 0)?;
    let watch = format!("--include pid:{} --tick 0.2 --horizon 10", worker.pid());
    let controller = lab.observe_at(HURT_RATIO, &format!("{watch} {HURT_ALONE}"))?;
    // It has to know the pace before the move.
    let seen = || Ok(controller.decisions(worker.pid())?.len());
    let seen = until(PATIENCE, seen, |seen| *seen >= HURT_TICKS)?;
    ensure!(seen >= HURT_TICKS, "it was seen in {seen} ticks only: {}", controller.log());
    switch(Mode::Enforce)?;
    let score = first_score(&controller, &worker)?;
    ensure!(score.hurt() && score.realised.source == Source::Pace, "no harm was seen: {score:?}");
    say(&format!("it saved {:?}", score.realised));
    sys::migrate_all(worker.pid(), 1, 0).context("move it back")?;
    let back = pages_on(worker.pid(), 0)?;
    ensure!(back * 20 >= before * 19, "only {back} of {before} pages came back to node 0");
    let orders = orders_once(&controller, worker.pid(), Reason::Hurt)?;
    claim(orders.len() == 1, || format!("it was ordered to move {} times", orders.len()))?;
    unmoved(&worker, before)
}

fn first_score(controller: &Controller, worker: &Worker) -> Result<Score> {
    let scores = until(PATIENCE, || controller.scores(worker.pid()), |all| !all.is_empty())?;
    let none = || format!("no move was scored in {PATIENCE:?}: {}", controller.log());
    scores.into_iter().next().with_context(none)
}

fn held_back(lab: &Lab) -> Result<()> {
    let start = |_| stranded(&format!("strand --from 0 --to 1 --mib {SMALL_MIB}"));
    let workers = (0..LOTS).map(start).collect::<Result<Vec<_>>>()?;
    let words = format!("--include comm:lab --hold-back 0.5 --horizon {HORIZON}");
    let controller = lab.enforce(&words)?;
    let left = departures(&workers)?;
    let (mut held, mut moved) = (Vec::new(), Vec::new());
    for worker in &workers {
        let left = left.get(&worker.pid()).copied();
        let (is_held, stayed) = stayed(&controller, worker, left)?;
        if is_held { held.push(stayed) } else { moved.push(stayed) }
    }
    say(&format!("stayed for so many seconds, held back: {held:.1?}; moved at once: {moved:.1?}"));
    ensure!(!held.is_empty() && !moved.is_empty(), "the lot is the same for all");
    Ok(())
}

/// When each was first seen to have left node 0.
fn departures(workers: &[Worker]) -> Result<BTreeMap<u32, Nanos>> {
    let end = Instant::now() + PATIENCE;
    let mut left = BTreeMap::new();
    while left.len() < workers.len() && Instant::now() < end {
        for pid in workers.iter().map(Worker::pid) {
            if !left.contains_key(&pid) && pages_on(pid, 0)? < SMALL_MIB * 256 / 2 {
                left.insert(pid, boottime());
            }
        }
        std::thread::sleep(LOOK);
    }
    Ok(left)
}

/// Whether the lot has fallen on it, and how long it stayed once its move was due, in seconds: for
/// the horizon then, and no longer than that needs otherwise.
fn stayed(controller: &Controller, worker: &Worker, left: Option<Nanos>) -> Result<(bool, f64)> {
    let decisions = controller.decisions(worker.pid())?;
    let due: Vec<&Decision> = decisions.iter().filter(|one| one.verdict != Verdict::Stay).collect();
    let first = due.first().context("no move of it was ever due")?;
    let left = left.with_context(|| format!("it never left node 0: {:?}", decisions.last()))?;
    let seconds = left.saturating_sub(first.now) as f64 / 1e9;
    let is_held = |one: &Decision| matches!(one.verdict, Verdict::HoldBack(_));
    let long = seconds >= HORIZON;
    claim(long == is_held(first), || {
        format!("it stayed for {seconds} s once it was decided to {}", first.verdict.name())
    })?;
    if long {
        waited(controller, worker, &decisions)?;
    }
    Ok((long, seconds))
}

/// It was said to wait, held back once, and scored as one that was not moved.
fn waited(controller: &Controller, worker: &Worker, decisions: &[Decision]) -> Result<()> {
    let waits = |one: &Decision| one.verdict == Verdict::Stay && one.reason == Reason::HeldBack;
    claim(decisions.iter().any(waits), || format!("it is never said to wait: {decisions:?}"))?;
    let held = |one: &&Decision| matches!(one.verdict, Verdict::HoldBack(_));
    let times = decisions.iter().filter(held).count();
    claim(times == 1, || format!("it was held back {times} times: {decisions:?}"))?;
    let scores = controller.scores(worker.pid())?;
    claim(scores.iter().any(|score| score.held_back), || format!("its scores: {scores:?}"))
}
