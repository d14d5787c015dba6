//! Does the controller move what should move, and leave alone what should stay?

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use migrate_ctl::model::{Outcome, Reason};
use migrate_ctl::probes::SIGNALS;

use crate::controller::{Controller, get, say_without};
use crate::test::{Lab, Machine, Off, Test, claim};
use crate::tests::guards::{decided, unmoved};
use crate::witness::{pages_on, programs, vmstat};
use crate::worker::Worker;
use rustix::process::Signal;

/// A stranded process of 32 MiB is moved after about a second of CPU time; the emulator is slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough that one that nothing holds back would have moved several times.
pub(super) const LINGER: Duration = Duration::from_secs(6);
pub(super) const STRAND: &str = "strand --from 0 --to 1 --mib 32";
pub(super) const STRAND_PAGES: u64 = 32 * 256;
/// All pages are home within so long after the first move.
pub(super) const HOME: Duration = Duration::from_secs(30);

/// CAP_PERFMON and CAP_SYS_ADMIN of include/uapi/linux/capability.h.
const PERFMON_AND_ADMIN: &[u32] = &[38, 21];

pub(crate) const TESTS: &[Test] = &[
    test("a_stranded_process_is_followed", Off::Mode, followed),
    test("where_all_memory_is_equally_fast_nothing_moves", Off::Measurement, equally_fast),
    test("observe_moves_nothing", Off::Mode, observe),
    test("a_killed_controller_leaves_no_program", Off::Nothing, killed),
    test("sigterm_stops_cleanly", Off::Nothing, |lab| stopped(lab, Signal::TERM)),
    test("sigint_stops_cleanly", Off::Nothing, |lab| stopped(lab, Signal::INT)),
    test("a_second_controller_names_the_first", Off::Nothing, second),
    test("doctor_shows_every_signal_attached", Off::Nothing, doctor),
    test("doctor_asks_the_running_controller_what_it_lost", Off::Nothing, doctor_beside),
    test("run_stays_up_without_perfmon_and_sys_admin", Off::Nothing, unprivileged),
];

const fn test(name: &'static str, off: Off, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: &[Machine::Two], off, run }
}

/// A stranded workload that runs already.
pub(super) fn stranded(words: &str) -> Result<Worker> {
    let mut worker = Worker::start(words)?;
    worker.act()?;
    Ok(worker)
}

pub(super) fn followed(lab: &Lab) -> Result<()> {
    follows(lab, 0, 1)
}

/// A process that was stranded is moved by us, and by us alone, to the node of its CPU.
pub(super) fn follows(lab: &Lab, from: u16, to: u16) -> Result<()> {
    let worker = stranded(&format!("strand --from {from} --to {to} --mib 32"))?;
    let before = pages_on(worker.pid(), from)?;
    ensure!(before >= STRAND_PAGES, "only {before} pages are on node {from} before the move");
    let mut controller = lab.enforce(&format!("--include pid:{}", worker.pid()))?;
    let first = controller.first_outcome(worker.pid(), PATIENCE)?;
    claim(first.is_some(), || format!("no move in {PATIENCE:?}: {}", controller.log()))?;
    // What was busy in the first move comes with a later one.
    let left = until(HOME, || pages_on(worker.pid(), from), |left| left * 20 <= before)?;
    let outcomes = controller.outcomes(worker.pid())?;
    claim(left * 20 <= before, || {
        format!("{left} of {before} pages are still on node {from}: {outcomes:?}")
    })?;
    let arrived = pages_on(worker.pid(), to)?;
    claim(arrived * 20 >= before * 19, || format!("{arrived} of {before} are on node {to}"))?;
    let ours: u64 = outcomes.iter().map(Outcome::moved).sum();
    claim(ours * 20 >= arrived * 19, || format!("{arrived} pages came, we moved {ours}"))?;
    // A snapshot is made once a tick.
    let counted = |reason| metric(&format!("migrate_migration_pages_total{{reason=\"{reason}\"}}"));
    let own = until(HOME, || counted("own"), |own| *own >= ours as f64)?;
    let others = counted("syscall")?;
    claim(own == ours as f64 && others == 0.0, || {
        format!("of {ours} pages of ours {own} are counted as own, {others} for other calls")
    })?;
    ensure!(controller.is_up()?, "the controller ended: {}", controller.log());
    Ok(())
}

/// The firmware of every guest claims that other nodes are farther.
fn equally_fast(lab: &Lab) -> Result<()> {
    let worker = stranded(STRAND)?;
    let before = pages_on(worker.pid(), 0)?;
    let controller = lab.measuring(&format!("--include pid:{}", worker.pid()))?;
    let said = |log: &String| log.contains("measured");
    let log = until(PATIENCE, || Ok(controller.log()), said)?;
    std::thread::sleep(LINGER);
    unmoved(&worker, before)?;
    claim(said(&log), || format!("its summary does not say what was measured: {log}"))
}

/// The sum of a metric's series, or one series where the name has labels.
pub(super) fn metric(name: &str) -> Result<f64> {
    let (_, text) = get("/metrics")?;
    let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let lines = text.lines().filter(of);
    Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}

/// Looks until it is good, at the longest for so long; returns what it saw last.
pub(super) fn until<T>(
    patience: Duration,
    look: impl Fn() -> Result<T>,
    good: impl Fn(&T) -> bool,
) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        let seen = look()?;
        if good(&seen) || Instant::now() > end {
            return Ok(seen);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn observe(lab: &Lab) -> Result<()> {
    let worker = stranded(STRAND)?;
    let before = pages_on(worker.pid(), 0)?;
    let witness = vmstat("pgmigrate_success")?;
    let controller = lab.observe(&format!("--include pid:{}", worker.pid()))?;
    decided(lab, &controller, &worker, before, Reason::Pays)?;
    unmoved(&worker, before)?;
    // Compaction may move a few pages of others.
    let moved = vmstat("pgmigrate_success")? - witness;
    claim(moved < STRAND_PAGES / 20, || format!("the kernel migrated {moved} pages meanwhile"))?;
    let said = |log: &String| log.contains("nothing was moved: observe");
    let log = until(PATIENCE, || Ok(controller.log()), said)?;
    claim(said(&log), || format!("its summary says: {log}"))
}

fn killed(_lab: &Lab) -> Result<()> {
    let before = programs()?;
    let mut controller = Controller::start("--mode enforce")?;
    let during = programs()?;
    ensure!(during > before, "the controller loaded no program ({before} before, {during} now)");
    controller.kill();
    none_left(before)
}

fn stopped(_lab: &Lab, signal: Signal) -> Result<()> {
    let before = programs()?;
    let mut controller = Controller::start("--mode enforce")?;
    let status = controller.stop_by(signal)?;
    claim(status.success(), || format!("it ended with {status}: {}", controller.log()))?;
    let log = controller.log();
    claim(log.contains("stopped after"), || format!("its last words: {log}"))?;
    none_left(before)
}

/// The kernel frees programs a moment after their last reference is gone.
fn none_left(before: usize) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while programs()? > before && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
    let after = programs()?;
    claim(after <= before, || format!("{after} programs are loaded, {before} were before"))
}

fn second(_lab: &Lab) -> Result<()> {
    let mut first = Controller::start("--mode observe")?;
    let said = crate::controller::say("run --listen 127.0.0.1:9817")?;
    claim(said.code == Some(3), || format!("the second ended with {:?}", said.code))?;
    let named = said.err.contains(&format!("pid {}", first.pid()));
    claim(named, || format!("it does not name process {}: {}", first.pid(), said.err))?;
    claim(first.is_up()?, || "the first has ended".to_owned())
}

pub(super) fn doctor(_lab: &Lab) -> Result<()> {
    let said = crate::controller::say("doctor --output json")?;
    claim(said.code == Some(0), || format!("doctor ended with {said:?}"))?;
    let report: serde_json::Value = serde_json::from_str(&said.out).context("doctor's JSON")?;
    let hooks = report["hooks"].as_array().context("no hooks in doctor's JSON")?;
    for signal in SIGNALS {
        let mut of = hooks.iter().filter(|hook| hook["signal"] == signal).peekable();
        claim(of.peek().is_some(), || format!("doctor does not name {signal}"))?;
        for hook in of {
            claim(hook["state"] == "attached", || format!("not attached: {hook}"))?;
        }
    }
    let text = crate::controller::say("doctor")?.out;
    claim(text.contains("can run here"), || format!("doctor says: {text}"))?;
    claim(text.contains("no controller answers"), || format!("doctor says: {text}"))
}

/// Without a word of it when there is nothing to tell, nobody knows that somebody looked.
fn doctor_beside(_lab: &Lab) -> Result<()> {
    let _controller = Controller::start("--mode observe")?;
    let text = crate::controller::say("doctor")?.out;
    let said = "none since the running controller started";
    claim(text.contains(said), || format!("doctor says: {text}"))
}

fn unprivileged(_lab: &Lab) -> Result<()> {
    let said = say_without("doctor", PERFMON_AND_ADMIN)?;
    for name in ["CAP_PERFMON", "CAP_SYS_ADMIN"] {
        claim(said.out.contains(name), || format!("doctor does not name {name}: {said:?}"))?;
    }
    for signal in SIGNALS {
        let named = |line: &str| line.starts_with("lost") && line.contains(signal);
        claim(said.out.lines().any(named), || format!("doctor does not name {signal}: {said:?}"))?;
    }
    let mut controller = Controller::start_without("--mode observe", PERFMON_AND_ADMIN)?;
    let names_them = |log: &String| {
        let line = log.lines().find(|line| line.starts_with("without:"));
        line.is_some_and(|line| SIGNALS.iter().all(|signal| line.contains(signal)))
    };
    let log = until(PATIENCE, || Ok(controller.log()), names_them)?;
    claim(names_them(&log), || format!("its summary does not name what is lost: {log}"))?;
    claim(controller.is_up()?, || format!("it ended: {}", controller.log()))?;
    let (status, _) = get("/metrics")?;
    claim(status == 200, || format!("/metrics answers {status}"))
}
