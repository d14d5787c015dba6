//! Does the controller behave on machines that are not two equal nodes?

use std::time::Duration;

use anyhow::Result;

use crate::controller::{Controller, get};
use crate::test::{Lab, Machine, Off, Test, claim};
use crate::tests::control::stranded;
use crate::witness::{pages_on, vmstat};

const PATIENCE: Duration = Duration::from_secs(60);
/// The summary comes after six seconds; the emulator is slow.
const SUMMARY: Duration = Duration::from_secs(12);
const PAGES: u64 = 32 * 256;

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "on_one_node_it_is_ready_and_has_nothing_to_do",
        machine: Machine::One,
        off: Off::Nothing,
        run: one,
    },
    Test {
        name: "on_four_nodes_memory_goes_to_the_right_one",
        machine: Machine::Four,
        off: Off::Mode,
        run: four,
    },
    Test {
        name: "memory_leaves_a_node_without_cpus",
        machine: Machine::Cpuless,
        off: Off::Mode,
        run: leaves_cpuless,
    },
    Test {
        name: "nothing_goes_to_a_node_without_memory",
        machine: Machine::Memoryless,
        off: Off::Nothing,
        run: stays_off_memoryless,
    },
    Test {
        name: "beside_a_node_without_memory_the_others_work",
        machine: Machine::Memoryless,
        off: Off::Mode,
        run: beside_memoryless,
    },
];

fn one(_lab: &Lab) -> Result<()> {
    let worker = stranded("strand --from 0 --to 0 --mib 32")?;
    let witness = vmstat("pgmigrate_success")?;
    let mut controller = Controller::start("--mode enforce")?;
    std::thread::sleep(SUMMARY);
    claim(controller.is_up()?, || format!("it ended: {}", controller.log()))?;
    let (status, _) = get("/-/ready")?;
    claim(status == 200, || format!("/-/ready answers {status}"))?;
    let log = controller.log();
    claim(log.contains("nothing to do here"), || format!("its summary says: {log}"))?;
    let moved = vmstat("pgmigrate_success")? - witness;
    claim(moved < PAGES / 20, || format!("{moved} pages were migrated"))?;
    let home = pages_on(worker.pid(), 0)?;
    claim(home >= PAGES, || format!("{home} pages are on the only node"))
}

fn four(lab: &Lab) -> Result<()> {
    arrives(lab, 0, 3)
}

fn leaves_cpuless(lab: &Lab) -> Result<()> {
    arrives(lab, 2, 0)
}

fn beside_memoryless(lab: &Lab) -> Result<()> {
    arrives(lab, 0, 2)
}

fn arrives(lab: &Lab, from: u16, to: u16) -> Result<()> {
    let worker = stranded(&format!("strand --from {from} --to {to} --mib 32"))?;
    let controller = lab.enforce(&format!("--include pid:{}", worker.pid()))?;
    controller.first_outcome(worker.pid(), PATIENCE)?;
    let arrived = pages_on(worker.pid(), to)?;
    claim(arrived * 20 >= PAGES * 19, || {
        format!("{arrived} of {PAGES} pages are on node {to}: {}", controller.log())
    })
}

fn stays_off_memoryless(_lab: &Lab) -> Result<()> {
    let worker = stranded("strand --from 0 --to 1 --mib 32")?;
    let mut controller =
        Controller::start(&format!("--mode enforce --include pid:{}", worker.pid()))?;
    std::thread::sleep(SUMMARY);
    claim(controller.is_up()?, || format!("it ended: {}", controller.log()))?;
    let ordered =
        controller.decisions(worker.pid())?.into_iter().find_map(|decision| {
            match decision.verdict {
                migrate_ctl::model::Verdict::Move(order) => Some(order.to),
                migrate_ctl::model::Verdict::Stay => None,
            }
        });
    // Node 2 may be as near as node 0, but node 1 cannot take a page.
    claim(ordered.is_none_or(|to| to.0 != 1), || "a move to node 1 was ordered".to_owned())
}
