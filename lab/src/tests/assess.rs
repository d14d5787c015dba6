//! Does `assess` say what enforcing then brings, that there is nothing where there is nothing, and
//! what the kernel does?

use std::time::Duration;

use anyhow::{Context, Error, Result};
use serde_json::Value;

use crate::controller::{Controller, Said, say};
use crate::test::{Lab, Machine, Off, Test, claim, say as tell};
use crate::witness::{pages_on, vmstat};
use crate::work::pace::Paced;
use crate::worker::Worker;
use crate::{balancing, nodes};

const FAR: &[Machine] = &[Machine::Far];
const TWO: &[Machine] = &[Machine::Two];
const PACE: &str = "pace --node 0 --mib 32";
/// What is assessed may be off by this share of what was measured.
const TOLERANCE: f64 = 0.25;
/// Beyond the time that it was told to watch.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const TESTS: &[Test] = &[
    test("assess_says_that_a_settled_guest_has_nothing_to_gain", FAR, settled),
    test("assess_promises_what_enforcing_then_brings", FAR, stranded),
    test("assess_counts_what_the_kernels_balancing_does", TWO, balanced),
    test("assess_beside_a_controller_names_its_journal", TWO, beside),
];

const fn test(
    name: &'static str,
    machines: &'static [Machine],
    run: fn(&Lab) -> Result<()>,
) -> Test {
    Test { name, machines, off: Off::Nothing, run }
}

fn settled(lab: &Lab) -> Result<()> {
    let worker = Worker::start(PACE)?;
    let report = report(&lab.assess(worker.pid(), 20)?.end(PATIENCE)?)?;
    let verdict = report["verdict"].as_str().context("no verdict")?;
    // Which of the two it says is up to a few stray pages.
    let nothing = ["NUMA does not matter here", "Nothing is to be gained by moving memory here"];
    claim(nothing.iter().any(|words| verdict.starts_with(words)), || verdict.to_owned())?;
    let total = &report["total"];
    let moves = total["moves"].as_u64();
    claim(moves == Some(0), || format!("it would make moves: {total}"))?;
    let [cpu, unplaced] = ["cpu_seconds", "unplaced_seconds"].map(|name| total[name].as_f64());
    let (cpu, unplaced) = cpu.zip(unplaced).context("no CPU time")?;
    claim(cpu > 10.0 && unplaced < 0.2 * cpu, || format!("it has hardly looked: {total}"))
}

/// Runs near its memory at first, so that it can be seen what it takes for a lap there.
fn stranded(lab: &Lab) -> Result<()> {
    const NEAR: Duration = Duration::from_secs(20);
    const FAR_AWAY: Duration = Duration::from_secs(60);
    let mut worker = Worker::start(PACE)?;
    let running = lab.assess(worker.pid(), (NEAR + FAR_AWAY).as_secs())?;
    std::thread::sleep(NEAR);
    nodes::run_all_on(worker.pid(), 1)?;
    let began = paced(&mut worker)?;
    std::thread::sleep(FAR_AWAY);
    // Now: what it runs until the probes are detached is in no report.
    let far = paced(&mut worker)?;
    let report = report(&running.end(PATIENCE)?)?;
    let total = &report["total"];
    let recoverable = total["recoverable"]["mid"].as_f64().context("nothing recoverable")?;
    let saved = saved_by_enforcing(lab, &mut worker, &far)?;
    let seconds = (far.cpu_nanos - began.cpu_nanos) as f64 / 1e9;
    let brings = saved * seconds;
    tell(&format!(
        "assess: {recoverable:.2} s recoverable; of {seconds:.2} s far away enforcing saves \
         {saved:.3}, {brings:.2} s; {total}"
    ));
    claim((recoverable / brings - 1.0).abs() <= TOLERANCE, || {
        format!("{recoverable:.2} s are recoverable, enforcing brings {brings:.2} s")
    })?;
    let verdict = report["verdict"].as_str().context("no verdict")?;
    claim(verdict.starts_with("NUMA matters here"), || verdict.to_owned())
}

/// Share of the CPU time of a lap that is saved once we have moved the memory, by the workload's
/// own clock: its quickest laps, since what else the host does makes laps longer only.
fn saved_by_enforcing(lab: &Lab, worker: &mut Worker, far: &Paced) -> Result<f64> {
    const WATCHED: Duration = Duration::from_secs(10);
    let controller = lab.measuring(&format!("--hold-back 0 --include pid:{}", worker.pid()))?;
    let moved = controller.first_outcome(worker.pid(), PATIENCE)?;
    claim(moved.is_some(), || format!("it was not moved: {}", controller.log()))?;
    paced(worker)?;
    std::thread::sleep(WATCHED);
    Ok(1.0 - paced(worker)?.quick_nanos as f64 / far.quick_nanos as f64)
}

fn paced(worker: &mut Worker) -> Result<Paced> {
    worker.go()?;
    worker.done()
}

/// The kernel counts the faults of everybody, and numa_maps shows where the pages are.
fn balanced(lab: &Lab) -> Result<()> {
    balancing::hasten()?;
    let (total, faults, came) = balancing::during(|| {
        // Far more than all others have together, whom nobody assesses.
        let mut worker = Worker::start("scan --memory 0 --cpu 1 --pages 16384")?;
        let running = lab.assess(worker.pid(), 10)?;
        let pid = worker.pid();
        let counts = || Ok::<_, Error>([vmstat("numa_hint_faults")?, pages_on(pid, 1)?]);
        let before = counts()?;
        // A second each, so that the last is seen.
        for _ in 0..8 {
            worker.act()?;
        }
        let report = report(&running.end(PATIENCE)?)?;
        let after = counts()?;
        Ok((report["total"].clone(), after[0] - before[0], after[1].saturating_sub(before[1])))
    })?;
    let count = |name| total["balancing"][name].as_u64().unwrap_or(0);
    let (seen, moved) = (count("hint_faults"), count("pages_moved"));
    tell(&format!("assess: {seen} of {faults} hint faults, {moved} pages moved, {came} came"));
    claim(seen <= faults && seen * 10 >= faults * 9, || {
        format!("{seen} hint faults of {faults}: {total}")
    })?;
    claim(came > 0 && moved.abs_diff(came) * 50 <= came, || {
        format!("{moved} pages moved, {came} came: {total}")
    })?;
    let nearer = total["balancing"]["pages_nearer"].as_f64().context("no pages")?;
    claim(nearer * 10.0 >= moved as f64 * 9.0, || format!("{nearer} pages came nearer: {total}"))
}

fn beside(_lab: &Lab) -> Result<()> {
    let _controller = Controller::start("--mode observe")?;
    let said = say("assess --for 3s")?;
    claim(said.code == Some(3), || format!("it ended with {said:?}"))?;
    claim(said.err.contains("journal"), || format!("it does not name the journal: {said:?}"))
}

fn report(said: &Said) -> Result<Value> {
    claim(said.code == Some(0), || format!("assess ended with {said:?}"))?;
    serde_json::from_str(&said.out).with_context(|| format!("the report: {said:?}"))
}
