//! What does the controller say when it is asked, and to whom?

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use migrate_ctl::config::Mode;
use migrate_ctl::control::SOCKET;
use migrate_ctl::explain::{Explanation, State};
use migrate_ctl::model::{Forecast, Reason};
use migrate_ctl::status::Status;

use super::control::{metric, stranded, until};
use crate::controller::{Said, say, say_as, say_as_member};
use crate::test::{Lab, Machine, Off, Test, claim};
use crate::witness::pages_on;
use crate::worker::Worker;

const STRAND: &str = "strand --from 0 --to 1 --mib 32";
const PATIENCE: Duration = Duration::from_secs(60);
/// Larger than any pid that a guest gives out.
const NO_PROCESS: u32 = 4_000_000;
/// The kernel's own `kthreadd`, on every machine.
const KERNEL_THREAD: u32 = 2;
const NOBODY: u32 = 65534;
const GROUP: u32 = 70;

pub(crate) const TESTS: &[Test] = &[
    test("explain_says_what_the_journal_has", Off::Nothing, as_in_the_journal),
    test("explain_names_the_guard_that_spoke", Off::Guard("mempolicy"), names_the_guard),
    test("explain_tells_apart_who_cannot_be_explained", Off::Nothing, nothing_to_explain),
    test("explain_without_a_controller_watches_for_itself", Off::Nothing, alone),
    test("only_root_and_the_group_are_answered", Off::Nothing, callers),
    test("the_mode_is_switched_while_it_runs", Off::Mode, switched),
    test("a_killed_controllers_socket_is_replaced", Off::Nothing, replaced),
];

const fn test(name: &'static str, off: Off, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: &[Machine::Two], off, run }
}

/// What it says of a process, as JSON.
fn explained(pid: u32) -> Result<Explanation> {
    let said = say(&format!("explain {pid} --output json"))?;
    ensure!(said.code == Some(0), "explain ended with {said:?}");
    serde_json::from_str(&said.out).with_context(|| format!("explain's JSON: {}", said.out))
}

/// The same once its last decision has one of these reasons.
fn explained_as(worker: &Worker, reasons: &[Reason]) -> Result<Explanation> {
    let reason = |said: &Explanation| said.last.as_ref().map(|last| last.decision.reason);
    let good = |said: &Explanation| reason(said).is_some_and(|reason| reasons.contains(&reason));
    let said = until(PATIENCE, || explained(worker.pid()), good)?;
    claim(good(&said), || format!("none of {reasons:?}: {said:?}"))?;
    Ok(said)
}

fn as_in_the_journal(lab: &Lab) -> Result<()> {
    let worker = stranded(STRAND)?;
    let controller = lab.observe(&format!("--include pid:{}", worker.pid()))?;
    let said = explained_as(&worker, &[Reason::NotYet, Reason::Pays])?;
    claim(said.state == State::Running, || format!("it is {:?}", said.state))?;
    let last = said.last.as_ref().context("a running process without a decision")?;
    let decided = controller.decided(worker.pid())?;
    let same = decided.into_iter().find(|one| one.decision.seq == last.decision.seq);
    let Some(same) = same else {
        return claim(false, || format!("the journal has no decision {}", last.decision.seq));
    };
    claim(same.why == said.why, || format!("{} in the journal, {} here", same.why, said.why))?;
    let (ours, its) = (&last.decision, &same.decision);
    claim((ours.verdict.name(), ours.reason) == (its.verdict.name(), its.reason), || {
        format!("{its:?} in the journal, {ours:?} here")
    })?;
    agree(&ours.forecast, &its.forecast)?;
    let remote = ours.forecast.remote.map_or(0.0, |remote| remote.mid);
    claim(remote > 0.9, || format!("a stranded process is {remote} remote"))?;
    claim(last.domain.id == its.extent.domain && said.nodes.len() == 2, || format!("{said:?}"))?;
    let text = say(&format!("explain {}", worker.pid()))?.out;
    for part in ["crosses nodes", "to node 1 would cost", "price ", "break-even ", "clairvoyant"] {
        claim(text.contains(part), || format!("no {part:?} in {text}"))?;
    }
    claim(!text.contains("No controller"), || text)
}

/// Written and read as text once more: the last digit may differ.
fn agree(ours: &Forecast, its: &Forecast) -> Result<()> {
    let numbers = |of: &Forecast| {
        let Forecast { loss_rate, price, saves, .. } = *of;
        let estimates = [loss_rate, price, saves].map(|est| [est.low, est.mid, est.high]);
        let mut numbers: Vec<f64> = estimates.as_flattened().iter().map(|&n| n.into()).collect();
        numbers.extend([of.lost, of.paid, of.optimum]);
        numbers.extend(of.break_even.map(f64::from));
        numbers.extend(of.move_in.map(f64::from));
        numbers
    };
    let (ours, its) = (numbers(ours), numbers(its));
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-6 * a.abs().max(1.0);
    let same = ours.len() == its.len() && ours.iter().zip(&its).all(near);
    claim(same, || format!("{its:?} in the journal, {ours:?} here"))
}

fn names_the_guard(lab: &Lab) -> Result<()> {
    let worker = stranded(&format!("{STRAND} --policy task"))?;
    let _controller = lab.enforce(&format!("--include pid:{}", worker.pid()))?;
    let said = explained_as(&worker, &[Reason::Mempolicy])?;
    claim(said.why.contains("(mempolicy)"), || said.why.clone())?;
    let text = say(&format!("explain {}", worker.pid()))?.out;
    claim(text.contains("stay (mempolicy)"), || text)
}

fn nothing_to_explain(lab: &Lab) -> Result<()> {
    // It waits for a word.
    let idle = Worker::start("fill --node 0 --mib 1")?;
    let controller = lab.observe("")?;
    one_line(&say(&format!("explain {NO_PROCESS}"))?, 4, &NO_PROCESS.to_string())?;
    let kernel = explained(KERNEL_THREAD)?;
    claim(kernel.state == State::KernelThread && kernel.last.is_none(), || format!("{kernel:?}"))?;
    claim(explained(controller.pid())?.state == State::Controller, || "not itself".to_owned())?;
    let idle = explained(idle.pid())?;
    claim(idle.state == State::Unseen && idle.why.contains("no CPU time"), || format!("{idle:?}"))
}

fn alone(_lab: &Lab) -> Result<()> {
    one_line(&say("status")?, 3, SOCKET)?;
    one_line(&say("mode observe")?, 3, "migrate-ctl run")?;
    one_line(&say(&format!("explain {NO_PROCESS}"))?, 4, &NO_PROCESS.to_string())?;
    let worker = stranded(STRAND)?;
    let before = pages_on(worker.pid(), 0)?;
    let words = format!("explain {} --latency-ratio 2.1", worker.pid());
    one_line(&say_as(NOBODY, &words)?, 5, "root")?;
    let said = say(&format!("{words} --output json"))?;
    ensure!(said.code == Some(0), "explain ended with {said:?}");
    let found: Explanation = serde_json::from_str(&said.out).context("explain's JSON")?;
    claim(found.watched_seconds == Some(5), || format!("{found:?}"))?;
    let last = found.last.as_ref();
    let remote = last.and_then(|last| last.decision.forecast.remote).map_or(0.0, |est| est.mid);
    claim(found.state == State::Running && remote > 0.9, || format!("{found:?}"))?;
    let text = say(&words)?.out;
    claim(text.contains("No controller is running: watched for 5 s"), || text.clone())?;
    claim(text.contains("to node 1 would cost"), || text)?;
    let left = pages_on(worker.pid(), 0)?;
    claim(left >= before, || format!("{left} of {before} pages are where they were"))
}

fn callers(lab: &Lab) -> Result<()> {
    std::fs::write("/etc/group", format!("root:x:0:\nreaders:x:{GROUP}:\n"))
        .context("/etc/group")?;
    one_line(&say("run --group nosuch")?, 3, "`nosuch`")?;
    {
        let _controller = lab.observe("")?;
        one_line(&say_as(NOBODY, "status")?, 5, SOCKET)?;
        one_line(&say_as_member(NOBODY, GROUP, "status")?, 5, SOCKET)?;
    }
    let worker = stranded(STRAND)?;
    let _controller = lab.observe(&format!("--group readers --include pid:{}", worker.pid()))?;
    let member = |words: &str| say_as_member(NOBODY, GROUP, words);
    let explain = format!("explain {}", worker.pid());
    one_line(&say_as(NOBODY, &explain)?, 5, SOCKET)?;
    let said = member(&explain)?;
    claim(said.code == Some(0) && said.out.contains("verdict"), || format!("{said:?}"))?;
    claim(member("status")?.code == Some(0), || "a member may not read".to_owned())?;
    one_line(&member("mode enforce")?, 5, "be root")?;
    claim(status()?.mode == Mode::Observe.name(), || "a member has switched the mode".to_owned())
}

fn status() -> Result<Status> {
    let said = say("status --output json")?;
    ensure!(said.code == Some(0), "status ended with {said:?}");
    serde_json::from_str(&said.out).with_context(|| format!("status's JSON: {}", said.out))
}

fn switched(lab: &Lab) -> Result<()> {
    let worker = stranded(STRAND)?;
    let before = pages_on(worker.pid(), 0)?;
    let mut controller = lab.observe(&format!("--include pid:{}", worker.pid()))?;
    // Whoever moves at once has no decision of that kind twice.
    explained_as(&worker, &[Reason::Pays, Reason::Moving, Reason::Settled])?;
    let left = pages_on(worker.pid(), 0)?;
    claim(left * 20 >= before * 19, || format!("observe has moved: {left} of {before} are left"))?;
    switch(Mode::Enforce)?;
    let first = controller.first_outcome(worker.pid(), PATIENCE)?;
    claim(first.is_some(), || format!("no move in {PATIENCE:?}: {}", controller.log()))?;
    let left = until(PATIENCE, || pages_on(worker.pid(), 0), |left| left * 20 <= before)?;
    claim(left * 20 <= before, || format!("{left} of {before} pages are still on node 0"))?;
    switch(Mode::Observe)?;
    let counted = until(PATIENCE, status, |status| status.moved_pages > 0)?;
    claim(counted.moves > 0 && counted.moved_pages > 0, || format!("{counted:?}"))?;
    claim(controller.log().contains("mode set"), || controller.log())?;
    ensure!(controller.is_up()?, "the controller ended: {}", controller.log());
    Ok(())
}

/// The command, and everywhere that the mode is shown.
pub(super) fn switch(mode: Mode) -> Result<()> {
    let word = mode.name();
    let said = say(&format!("mode {word}"))?;
    claim(said.code == Some(0) && said.out.contains(word), || format!("{said:?}"))?;
    let shown = metric(&format!("migrate_mode_info{{mode=\"{word}\"}}"))?;
    claim(shown == 1.0, || format!("migrate_mode_info does not say {word}"))?;
    let status = status()?;
    claim(status.mode == word, || format!("{status:?}"))
}

fn replaced(lab: &Lab) -> Result<()> {
    let mut first = lab.observe("")?;
    claim(say("status")?.code == Some(0), || "the first does not answer".to_owned())?;
    first.kill();
    claim(Path::new(SOCKET).exists(), || "nothing is left, so nothing was tested".to_owned())?;
    one_line(&say("status")?, 3, SOCKET)?;
    let mut second = lab.observe("")?;
    claim(say("status")?.code == Some(0), || "the second does not answer".to_owned())?;
    let ended = second.stop()?;
    ensure!(ended.success(), "it ended with {ended}: {}", second.log());
    claim(!Path::new(SOCKET).exists(), || format!("{SOCKET} is left"))
}

/// The exit code, and one line of ours on standard error with this in it.
fn one_line(said: &Said, code: i32, part: &str) -> Result<()> {
    claim(said.code == Some(code), || format!("it ended with {:?}, not {code}", said))?;
    let lines = said.err.lines().filter(|line| line.starts_with("migrate-ctl:"));
    let lines: Vec<&str> = lines.collect();
    claim(matches!(lines[..], [line] if line.contains(part)), || {
        format!("not one line with {part:?}: {:?}", said.err)
    })
}
