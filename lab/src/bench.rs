//! What do the probes cost, in instructions an operation?
//!
//! For a guest whose clock counts instructions, one a nanosecond, on one
//! processor. Says one line of JSON for each set of probes; the numbers are
//! the least of several rounds, since an interrupt only adds.

use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
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

/// One-liners that count what a signal of ours counts, and nothing else of it.
const ONE_LINERS: [(&str, &str); 6] = [
    ("isolation", "kretfunc:folio_isolate_lru { @[pid, retval] = count(); }"),
    ("faults", "kretfunc:handle_mm_fault { @[pid, retval & 4] = count(); }"),
    ("touched", "tracepoint:exceptions:page_fault_user { @[pid] = count(); }"),
    ("cpu_time", "profile:hz:99 { @[pid, cpu] = count(); }"),
    ("scheduling", "tracepoint:sched:sched_migrate_task { @[args->pid] = count(); }"),
    (
        "migrations",
        "tracepoint:migrate:mm_migrate_pages { @[pid, args->reason] = sum(args->succeeded); }",
    ),
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// One-liners of bpftrace as well
    #[arg(long)]
    bpftrace: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // The kernel still works on its own start for a while.
    thread::sleep(SETTLE);
    nodes::run_on(None, 0)?;
    say("none")?;
    let mut attached = load(&[])?;
    say("default")?;
    attached.time_faults();
    say("everything")?;
    drop(attached);
    for signal in SIGNALS {
        let off: Vec<&str> = SIGNALS.into_iter().filter(|other| *other != signal).collect();
        let attached = load(&off)?;
        say(signal)?;
        drop(attached);
    }
    if args.bpftrace {
        for (signal, program) in ONE_LINERS {
            let mut tracer = Tracer::start(program).with_context(|| program.to_owned())?;
            say(&format!("bpftrace: {signal}"))?;
            tracer.stop()?;
        }
    }
    Ok(())
}

/// bpftrace with its programs attached.
struct Tracer {
    child: Child,
    /// Without a reader it would end.
    _output: BufReader<ChildStdout>,
}

impl Tracer {
    fn start(program: &str) -> Result<Self> {
        // Attached in this order: what it says comes when the first is.
        let program = format!(r#"{program} interval:s:1 {{ printf("ticks\n"); }}"#);
        let mut command = Command::new("/usr/bin/bpftrace");
        let mut child = command
            .args(["-B", "none", "-e", &program])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start bpftrace")?;
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        if !output.by_ref().lines().any(|line| line.is_ok_and(|line| line == "ticks")) {
            bail!("bpftrace ended with {}", child.wait().context("wait for bpftrace")?);
        }
        Ok(Self { child, _output: output })
    }

    fn stop(&mut self) -> Result<()> {
        self.child.kill().context("stop bpftrace")?;
        self.child.wait().context("wait for bpftrace")?;
        Ok(())
    }
}

/// With whatever is attached now.
fn say(name: &str) -> Result<()> {
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
