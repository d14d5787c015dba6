//! Workloads whose true counts are known.
//!
//! Each prints `ready` with its numbers when its memory is in place, then does
//! one thing for each line on its standard input, and ends with it.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use crate::sys::{self, Memory};
use crate::witness;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(value_enum)]
    kind: Kind,
    /// Pages of private anonymous memory
    #[arg(long, default_value_t = 2048)]
    pages: usize,
    /// Node on whose CPUs it starts, and whose memory it touches first
    #[arg(long, default_value_t = 0)]
    node: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Nothing special
    Plain,
    /// A task policy that binds to its node
    TaskPolicy,
    /// One small mapping bound to its node beside the large one without a policy
    MappingPolicy,
    /// Two mappings of equal pages, to be merged by KSM
    Twins,
    /// Some of its pages in a pipe
    Pinned,
}

/// Pages in the pipe of `Pinned`: what a pipe holds by default.
pub(crate) const PINNED: usize = 16;

pub(crate) fn run(args: &Args) -> Result<()> {
    sys::pin(0, &witness::cpus_of(args.node))?;
    if args.kind == Kind::TaskPolicy {
        sys::bind_task(args.node)?;
    }
    let memory = Memory::map(args.pages)?;
    let (minor, major) = sys::own_faults();
    memory.touch(1);
    let (minor, major) = (sys::own_faults().0 - minor, sys::own_faults().1 - major);
    let bound = Memory::map(16)?;
    if args.kind == Kind::MappingPolicy {
        bound.bind(args.node)?;
        bound.touch(1);
    }
    let twin = if args.kind == Kind::Twins { Some(merge(&memory)?) } else { None };
    let pipe = if args.kind == Kind::Pinned { Some(memory.into_pipe(PINNED)?) } else { None };
    say(&format!("ready {minor} {major}"))?;
    for line in io::stdin().lock().lines() {
        obey(&line?, &memory)?;
    }
    drop((twin, pipe));
    Ok(())
}

fn merge(memory: &Memory) -> Result<Memory> {
    let twin = Memory::map(memory.pages)?;
    memory.number();
    twin.number();
    memory.advise(libc::MADV_MERGEABLE)?;
    twin.advise(libc::MADV_MERGEABLE)?;
    Ok(twin)
}

fn obey(line: &str, memory: &Memory) -> Result<()> {
    static BURNING: AtomicBool = AtomicBool::new(false);
    let mut words = line.split(' ');
    match (words.next(), words.next()) {
        // Use the memory, for good, while further lines are read.
        (Some("burn"), None) => {
            let (start, pages) = (memory.address(), memory.pages);
            if !BURNING.swap(true, Ordering::Relaxed) {
                std::thread::spawn(move || Memory::at(start, pages).burn());
            }
        }
        (Some("touch"), None) => memory.touch(2),
        (Some("out"), None) => memory.advise(libc::MADV_PAGEOUT)?,
        (Some("move"), Some(node)) => memory.move_to(node.parse()?)?,
        (Some("faults"), None) => {}
        _ => bail!("unknown order `{line}`"),
    }
    let (minor, major) = sys::own_faults();
    say(&format!("done {minor} {major}"))
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush().context("speak")
}

/// A workload in its own process, ready. Dropping it kills it.
pub(crate) struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Faults of the touching alone: minor, major.
    pub(crate) touched: (u64, u64),
}

impl Worker {
    pub(crate) fn start(kind: &str, pages: usize, node: u16) -> Result<Self> {
        let mut child = Command::new("/bin/lab")
            .args(["work", kind, "--pages", &pages.to_string(), "--node", &node.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a workload")?;
        let orders = child.stdin.take().context("its input")?;
        let answers = BufReader::new(child.stdout.take().context("its output")?);
        let mut worker = Self { child, orders, answers, touched: (0, 0) };
        worker.touched = worker.answer("ready")?;
        Ok(worker)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends one order; returns all faults of the process so far, by getrusage.
    pub(crate) fn order(&mut self, order: &str) -> Result<(u64, u64)> {
        writeln!(self.orders, "{order}").with_context(|| format!("order {order}"))?;
        self.answer("done")
    }

    /// Moves its CPUs, not its memory, as a scheduler would.
    pub(crate) fn run_on(&self, node: u16) -> Result<()> {
        run_on(self.pid(), node)
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill the workload")?;
        self.child.wait().context("wait for the workload")?;
        Ok(())
    }

    fn answer(&mut self, wanted: &str) -> Result<(u64, u64)> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("hear the workload")?;
        let mut words = line.split_whitespace();
        if words.next() != Some(wanted) {
            bail!("the workload says `{}` instead of {wanted}", line.trim());
        }
        let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        Ok((number(), number()))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended already if this fails.
        let _ = self.kill();
    }
}

/// Pins all threads of a process to a node's CPUs.
pub(crate) fn run_on(pid: u32, node: u16) -> Result<()> {
    let cpus = witness::cpus_of(node);
    witness::threads_of(pid).into_iter().try_for_each(|thread| sys::pin(thread, &cpus))
}
