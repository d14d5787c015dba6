//! Does bad input end with one line that says what, which value and what to do?

use std::net::TcpListener;

use anyhow::{Context, Result};

use crate::controller::{Said, say, say_as};
use crate::sys;
use crate::test::{Lab, Machine, Off, Test, claim};
use crate::worker::Worker;

/// Larger than any pid that a guest gives out.
const NO_PROCESS: u32 = 4_000_000;
/// The kernel's own `kthreadd`, on every machine.
const KERNEL_THREAD: u32 = 2;
const NOBODY: u32 = 65534;

pub(crate) const TESTS: &[Test] = &[
    test("migrate_to_an_unknown_node_lists_the_nodes", unknown_node),
    test("migrate_of_a_process_that_is_gone_says_so", gone),
    test("migrate_of_a_kernel_thread_says_so", kernel_thread),
    test("migrate_from_a_node_to_itself_says_so", same_node),
    test("migrate_of_somebody_elses_process_is_not_permitted", not_permitted),
    test("migrate_by_hand_moves_and_says_what", by_hand),
    test("run_wants_root", not_root),
    test("run_names_a_port_that_is_in_use", port_in_use),
    test("run_refuses_a_bad_pattern", bad_pattern),
    test("run_says_that_there_is_no_btf", no_btf),
    Test {
        name: "migrate_to_a_node_without_memory_says_so",
        machines: &[Machine::Memoryless],
        off: Off::Nothing,
        run: no_memory,
    },
];

const fn test(name: &'static str, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: &[Machine::Two], off: Off::Nothing, run }
}

fn unknown_node(_lab: &Lab) -> Result<()> {
    let worker = Worker::start("fill --node 0 --mib 1")?;
    let said = say(&format!("migrate {} --from 0 --to 7", worker.pid()))?;
    one_line(&said, 2, &["node 7", "0, 1"])
}

fn no_memory(_lab: &Lab) -> Result<()> {
    let worker = Worker::start("fill --node 0 --mib 1")?;
    let said = say(&format!("migrate {} --from 0 --to 1", worker.pid()))?;
    one_line(&said, 2, &["node 1", "no memory"])
}

fn gone(_lab: &Lab) -> Result<()> {
    let said = say(&format!("migrate {NO_PROCESS} --from 0 --to 1"))?;
    one_line(&said, 4, &[&NO_PROCESS.to_string()])
}

fn kernel_thread(_lab: &Lab) -> Result<()> {
    let said = say(&format!("migrate {KERNEL_THREAD} --from 0 --to 1"))?;
    one_line(&said, 2, &["process 2", "kernel thread"])
}

fn same_node(_lab: &Lab) -> Result<()> {
    let worker = Worker::start("fill --node 0 --mib 1")?;
    let said = say(&format!("migrate {} --from 1 --to 1", worker.pid()))?;
    one_line(&said, 2, &["node 1"])
}

fn not_permitted(_lab: &Lab) -> Result<()> {
    let worker = Worker::start("fill --node 0 --mib 1")?;
    let pid = worker.pid();
    let said = say_as(NOBODY, &format!("migrate {pid} --from 0 --to 1"))?;
    one_line(&said, 5, &[&pid.to_string()])
}

fn by_hand(_lab: &Lab) -> Result<()> {
    let worker = Worker::start("fill --node 0 --mib 8")?;
    let pid = worker.pid();
    let said = say(&format!("migrate {pid} --from 0 --to 1"))?;
    claim(said.out.contains("moved: "), || format!("it said {said:?}"))?;
    let arrived = crate::witness::pages_on(pid, 1)?;
    claim(arrived >= 2048, || format!("{arrived} of 2048 pages are on node 1: {said:?}"))?;
    claim(matches!(said.code, Some(0 | 6)), || format!("it ended with {said:?}"))
}

fn not_root(_lab: &Lab) -> Result<()> {
    one_line(&say_as(NOBODY, "run")?, 3, &[&NOBODY.to_string(), "root"])
}

fn port_in_use(_lab: &Lab) -> Result<()> {
    let _taken = TcpListener::bind("127.0.0.1:9816").context("take the port")?;
    one_line(&say("run")?, 3, &["9816"])
}

fn bad_pattern(_lab: &Lab) -> Result<()> {
    let said = say("run --exclude pid:x")?;
    claim(said.code == Some(2) && said.err.contains("pid:x"), || format!("it said {said:?}"))
}

fn no_btf(_lab: &Lab) -> Result<()> {
    const BTF: &str = "/sys/kernel/btf";
    const EMPTY: &str = "/tmp/empty";
    std::fs::create_dir_all(EMPTY).with_context(|| format!("create {EMPTY}"))?;
    sys::bind_mount(EMPTY, BTF).with_context(|| format!("mount {EMPTY} on {BTF}"))?;
    let (run, doctor) = (say("run"), say("doctor"));
    sys::unmount(BTF).with_context(|| format!("unmount {BTF}"))?;
    one_line(&run?, 3, &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"])?;
    let doctor = doctor?;
    claim(doctor.code == Some(3), || format!("doctor ended with {doctor:?}"))?;
    claim(doctor.out.contains("FATAL"), || format!("doctor says {}", doctor.out))
}

/// The exit code, and one line on standard error with these words in it.
fn one_line(said: &Said, code: i32, words: &[&str]) -> Result<()> {
    claim(said.code == Some(code), || {
        format!("it ended with {:?}, not {code}: {said:?}", said.code)
    })?;
    let lines: Vec<&str> =
        said.err.lines().filter(|line| line.starts_with("migrate-ctl:")).collect();
    let [line] = lines[..] else {
        return claim(false, || format!("not one line: {:?}", said.err));
    };
    for word in words {
        claim(line.contains(word), || format!("it does not say {word:?}: {line}"))?;
    }
    claim(!said.err.contains("panicked"), || format!("it panicked: {}", said.err))
}
