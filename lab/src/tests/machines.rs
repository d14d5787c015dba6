//! Does the controller behave on machines that are not two equal nodes?

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use migrate_ctl::model::Verdict;

use crate::controller::{Controller, get};
use crate::test::{Lab, Machine, Off, Test, claim};
use crate::tests::control::{doctor, follows, metric, stranded, until};
use crate::witness::{pages_on, vmstat};

const PATIENCE: Duration = Duration::from_secs(60);
/// One a tick.
const DECISIONS: f64 = 15.0;
const PAGES: u64 = 32 * 256;

pub(crate) const TESTS: &[Test] = &[
    test(&[Machine::One], "on_one_node_it_is_ready_and_has_nothing_to_do", one),
    test(&[Machine::One], "signals_that_cannot_be_on_one_node_are_named", not_applicable),
    test(&[Machine::One, Machine::Four], "cpus_that_come_online_are_named", comes_online),
    test(&[Machine::Four], "on_four_nodes_memory_goes_to_the_right_one", |lab| follows(lab, 0, 3)),
    test(&[Machine::Cpuless], "memory_leaves_a_node_without_cpus", |lab| follows(lab, 2, 0)),
    test(&[Machine::Memoryless], "nothing_goes_to_a_node_without_memory", stays_off_memoryless),
    test(&[Machine::Memoryless], "beside_a_node_without_memory_the_others_work", |lab| {
        follows(lab, 0, 2)
    }),
    test(&[Machine::One], "doctor_shows_every_signal_attached_on_one_node", doctor),
    test(&[Machine::Four], "doctor_shows_every_signal_attached_on_four_nodes", doctor),
    test(&[Machine::Cpuless], "doctor_shows_every_signal_attached_beside_a_cpuless_node", doctor),
    test(
        &[Machine::Memoryless],
        "doctor_shows_every_signal_attached_beside_a_memoryless_node",
        doctor,
    ),
];

/// What they depend on is switched off on the machine with two equal nodes.
const fn test(
    machines: &'static [Machine],
    name: &'static str,
    run: fn(&Lab) -> Result<()>,
) -> Test {
    Test { name, machines, off: Off::Nothing, run }
}

/// Those that cannot be, by name.
fn not_applicable(_lab: &Lab) -> Result<()> {
    let said = crate::controller::say("doctor")?.out;
    claim(said.contains("hint faults are not applicable"), || format!("doctor says: {said}"))?;
    claim(said.contains("no PMU here"), || format!("doctor says: {said}"))
}

fn one(_lab: &Lab) -> Result<()> {
    let worker = stranded("strand --from 0 --to 0 --mib 32")?;
    let witness = vmstat("pgmigrate_success")?;
    let mut controller = Controller::start("--mode enforce")?;
    let said = |log: &String| log.contains("nothing to do here");
    let log = until(PATIENCE, || Ok(controller.log()), said)?;
    claim(said(&log), || format!("its summary says: {log}"))?;
    claim(controller.is_up()?, || format!("it ended: {}", controller.log()))?;
    let (status, _) = get("/-/ready")?;
    claim(status == 200, || format!("/-/ready answers {status}"))?;
    let moved = vmstat("pgmigrate_success")? - witness;
    claim(moved < PAGES / 20, || format!("{moved} pages were migrated"))?;
    let home = pages_on(worker.pid(), 0)?;
    claim(home >= PAGES, || format!("{home} pages are on the only node"))
}

/// The probes have no clock on a CPU that was not there when they were loaded.
fn comes_online(_lab: &Lab) -> Result<()> {
    const SWITCH: &str = "/sys/devices/system/cpu/cpu1/online";
    let set = |state| fs::write(SWITCH, state).with_context(|| format!("write {SWITCH}"));
    set("0")?;
    let _controller = Controller::start("--mode observe")?;
    let missed = || metric("migrate_cpus_missed");
    let before = missed()?;
    set("1")?;
    claim(before == 0.0, || format!("{before} CPUs are said to be missed"))?;
    let after = until(PATIENCE, missed, |missed| *missed > 0.0)?;
    claim(after == 1.0, || format!("{after} CPUs are said to be missed of the one"))
}

fn stays_off_memoryless(_lab: &Lab) -> Result<()> {
    let worker = stranded("strand --from 0 --to 1 --mib 32")?;
    let mut controller =
        Controller::start(&format!("--mode enforce --include pid:{}", worker.pid()))?;
    // A stranded process would have been moved by then; one that is settled is in no journal.
    let counted = until(PATIENCE, decisions_counted, |counted| *counted >= DECISIONS)?;
    claim(counted >= DECISIONS, || format!("{counted} decisions only"))?;
    let decisions = controller.decisions(worker.pid())?;
    claim(controller.is_up()?, || format!("it ended: {}", controller.log()))?;
    // Node 2 may be as near as node 0, but node 1 cannot take a page.
    let goes_there = |verdict: &Verdict| match verdict {
        Verdict::Move(order) => order.to.0 == 1,
        Verdict::Stay | Verdict::HoldBack(_) => false,
    };
    claim(!decisions.iter().any(|one| goes_there(&one.verdict)), || {
        "a move to node 1 was ordered".to_owned()
    })
}

/// Decisions about all processes, as /metrics has them.
fn decisions_counted() -> Result<f64> {
    metric("migrate_decisions_total")
}
