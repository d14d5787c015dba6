//! What do the probes cost, in instructions an operation?
//!
//! For a guest whose clock counts instructions, one a nanosecond, on one
//! processor. Says one line of JSON for each set of probes; the numbers are
//! the least of several rounds, since an interrupt only adds.

use std::io::{Read, Write, pipe};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use migrate_ctl::probes::{Probes, SIGNALS};
use migrate_ctl::sys::boottime;
use migrate_ctl::topology::Topology;
use serde::Serialize;

use crate::sys::Memory;
use crate::{nodes, test};

/// Each operation is repeated so often in a round.
const OPERATIONS: u64 = 2048;
const ROUNDS: usize = 7;
const SETTLE: Duration = Duration::from_secs(60);

/// Instructions an operation.
#[derive(Serialize)]
struct Line {
    /// Which probes were attached.
    probes: String,
    fault: u64,
    migrated_page: u64,
    /// To another thread and back.
    context_switches: u64,
    system_call: u64,
}

pub(crate) fn run() -> Result<()> {
    // The kernel still works on its own start for a while.
    thread::sleep(SETTLE);
    nodes::run_on(None, 0)?;
    say("none", None)?;
    say("default", Some(&load(&[])?))?;
    let mut everything = load(&[])?;
    everything.time_faults();
    say("everything", Some(&everything))?;
    drop(everything);
    for signal in SIGNALS {
        let off: Vec<&str> = SIGNALS.into_iter().filter(|other| *other != signal).collect();
        say(signal, Some(&load(&off)?))?;
    }
    Ok(())
}

/// With these probes attached.
fn say(name: &str, _attached: Option<&Probes>) -> Result<()> {
    let line = Line {
        probes: name.to_owned(),
        fault: least(faults)?,
        migrated_page: least(migrated_pages)?,
        context_switches: least(context_switches)?,
        system_call: least(system_calls)?,
    };
    test::say(&format!("BENCH {}", serde_json::to_string(&line)?));
    Ok(())
}

fn load(off: &[&str]) -> Result<Probes> {
    let topology = Topology::read(Path::new("/")).context("read the topology")?;
    Probes::load(off, &topology).context("load the probes")
}

fn least(round: fn() -> Result<u64>) -> Result<u64> {
    let rounds = (0..ROUNDS).map(|_| round()).collect::<Result<Vec<u64>>>()?;
    Ok(rounds.into_iter().min().unwrap_or(0) / OPERATIONS)
}

fn faults() -> Result<u64> {
    let mut memory = Memory::map(usize::try_from(OPERATIONS)?).context("map")?;
    let began = boottime();
    memory.touch_all();
    Ok(boottime() - began)
}

/// There and back, so that each round finds the pages where the one before did.
fn migrated_pages() -> Result<u64> {
    let mut memory = Memory::map(usize::try_from(OPERATIONS / 2)?).context("map")?;
    memory.touch_all();
    let began = boottime();
    memory.move_to(1).context("move_pages")?;
    memory.move_to(0).context("move_pages")?;
    Ok(boottime() - began)
}

fn context_switches() -> Result<u64> {
    let (mut here, mut to_there) = pipe().context("make a pipe")?;
    let (mut there, mut to_here) = pipe().context("make a pipe")?;
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while here.read_exact(&mut byte).is_ok() && to_here.write_all(&byte).is_ok() {}
    });
    let mut turn = || to_there.write_all(&[1]).and_then(|()| there.read_exact(&mut [0]));
    turn().context("wake the other thread")?;
    let began = boottime();
    for _ in 0..OPERATIONS {
        turn().context("switch")?;
    }
    let passed = boottime() - began;
    drop(to_there);
    echo.join().map_err(|_panic| anyhow::anyhow!("the other thread has panicked"))?;
    Ok(passed)
}

fn system_calls() -> Result<u64> {
    let began = boottime();
    for _ in 0..OPERATIONS {
        std::hint::black_box(rustix::process::getppid());
    }
    Ok(boottime() - began)
}
