//! What do the probes cost, in instructions an operation?
//!
//! For a guest whose clock counts instructions, one a nanosecond, on one
//! processor. Says one line of JSON for each set of probes: first none and
//! all, then sets of which each has one program more than the one before. So
//! what the programs add one by one is what all of them cost together.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use migrate_ctl::model::NodeId;
use migrate_ctl::mover::MoveCounter;
use migrate_ctl::probes::{OwnMoves, Probes, SIGNALS};
use migrate_ctl::snapshot::{HookState, HookVerdict};
use migrate_ctl::sys::{boottime, drop_sys_nice, migrate_pages, thread_id};
use migrate_ctl::topology::Topology;
use serde::Serialize;

use crate::test;
use crate::work::costs::{Costs, least};
use crate::worker::Worker;
use crate::{nodes, witness};

const SETTLE: Duration = Duration::from_secs(60);
const NOBODY: &str = "none";

/// Instructions an operation.
#[derive(Serialize)]
struct Line<'a> {
    /// Which probes were attached.
    probes: &'a str,
    /// Of a single program: the line with all that were attached before it.
    beyond: Option<&'a str>,
    #[serde(flatten)]
    costs: Costs,
    /// By `migrate_pages(2)`, as the controller's mover calls it.
    own_moved_page: u64,
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
    let mut bench = Bench::start()?;
    bench.say(NOBODY, None, None)?;
    let mut all = load(&[])?;
    let mut own = all.own_moves();
    bench.say("default", None, own.as_mut())?;
    all.time_faults();
    bench.say("everything", None, own.as_mut())?;
    let hooks = all.verdicts().to_vec();
    drop((own, all));
    if args.bpftrace {
        for (signal, program) in ONE_LINERS {
            let mut tracer = Tracer::start(program).with_context(|| program.to_owned())?;
            bench.say(&format!("bpftrace: {signal}"), None, None)?;
            tracer.stop()?;
        }
    }
    one_by_one(&mut bench, &hooks)
}

/// From the last to the first: so an end is there before its beginning, which would be let go
/// without, and the brackets of moves before isolation, which is dearer without.
fn one_by_one(bench: &mut Bench, hooks: &[HookVerdict]) -> Result<()> {
    let mut beyond = NOBODY.to_owned();
    for (index, hook) in hooks.iter().enumerate().rev() {
        if hook.state != HookState::Attached {
            continue;
        }
        let (off, on) = hooks.split_at(index);
        // A signal that only lacks its hook would take another.
        let signals = SIGNALS.into_iter().filter(|name| on.iter().all(|hook| hook.signal != *name));
        let off: Vec<&str> = off.iter().map(|hook| hook.hook.as_str()).chain(signals).collect();
        let mut attached = load(&off)?;
        let mut own = attached.own_moves();
        let name = format!("{}: {}", hook.signal, hook.hook);
        bench.say(&name, Some(&beyond), own.as_mut())?;
        beyond = name;
    }
    Ok(())
}

/// Who does what is measured.
struct Bench {
    operations: Worker,
    /// Its memory is moved.
    target: Worker,
}

impl Bench {
    fn start() -> Result<Self> {
        let mut operations = Worker::start("costs")?;
        // Its first time leaves mappings behind, which every later look-up of an address meets.
        operations.go()?;
        operations.done::<Costs>()?;
        Ok(Self { operations, target: Worker::start("fill --node 0 --mib 4")? })
    }

    /// With whatever is attached now.
    fn say(
        &mut self,
        probes: &str,
        beyond: Option<&str>,
        mut own: Option<&mut OwnMoves>,
    ) -> Result<()> {
        self.operations.go()?;
        let costs = self.operations.done()?;
        let target = self.target.pid();
        let own_moved_page = thread::scope(|scope| {
            let mover = scope.spawn(|| {
                drop_sys_nice().context("drop CAP_SYS_NICE")?;
                least(|| own_moves(target, own.as_deref_mut()))
            });
            mover.join().map_err(|_panic| anyhow::anyhow!("the mover has panicked"))?
        })?;
        let line = Line { probes, beyond, costs, own_moved_page };
        test::say(&format!("BENCH {}", serde_json::to_string(&line)?));
        Ok(())
    }
}

/// There and back, by the calling thread; instructions a page.
fn own_moves(target: u32, mut counter: Option<&mut OwnMoves>) -> Result<u64> {
    let moved = witness::vmstat("pgmigrate_success")?;
    let mut passed = 0;
    for (from, to) in [(NodeId(0), NodeId(1)), (NodeId(1), NodeId(0))] {
        if let Some(counter) = &mut counter {
            counter.begin(thread_id(), target);
        }
        let began = boottime();
        let result = migrate_pages(target, &[from], to);
        passed += boottime() - began;
        if let Some(counter) = &mut counter {
            counter.end(thread_id());
        }
        result.context("migrate_pages")?;
    }
    let moved = witness::vmstat("pgmigrate_success")? - moved;
    ensure!(moved >= 2048, "{moved} pages have moved");
    Ok(passed / moved)
}

fn load(off: &[&str]) -> Result<Probes> {
    let topology = Topology::read(Path::new("/")).context("read the topology")?;
    Probes::load(off, &topology).context("load the probes")
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
