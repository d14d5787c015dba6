//! Workloads with known counts, each in a process of its own.
//!
//! A workload prepares itself, prints `ready`, then does one thing for each
//! line that it reads: prints one line of JSON when the thing is done. It ends
//! with its standard input, so nothing is left behind when a test dies.

use std::fs::File;
use std::io::{self, BufRead, Write, pipe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::sys::{self, Memory, Usage};
use crate::{ksm, nodes};

/// Pages of the mapping that has a policy of its own.
const BOUND_PAGES: usize = 4;
/// Nobody writes to it, so that its pages are in no cache but that of their readers.
const DISK: &str = "/dev/vda";
/// So long a gap is the host's doing: no loop of ours takes a hundredth of it.
const STANDSTILL: Duration = Duration::from_secs(1);
/// Moves to and fro while a thread reads.
const DANCES: u32 = 20;
/// Buffers of a pipe.
const PIPE_PAGES: usize = 16;

#[derive(Subcommand)]
pub(crate) enum Work {
    /// Memory on one node; after the first line it runs on another and uses that memory
    Strand(Strand),
    /// Touches so many new pages for each line
    Touch {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        pages: usize,
    },
    /// Reads so many new pages and then writes to them, at each line
    Rewrite {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        pages: usize,
    },
    /// Has its pages swapped out and reads them back, at each line
    Swap {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        pages: usize,
    },
    /// One thread moves its pages to and fro while another reads them, at each line
    Dance {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        to: u16,
        #[arg(long)]
        pages: usize,
    },
    /// Moves its pages to a node for each line, with move_pages(2)
    Shift {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        to: u16,
        #[arg(long)]
        pages: usize,
    },
    /// Reads its pages over and over from another node's CPU, for hint faults
    Scan {
        #[arg(long)]
        memory: u16,
        #[arg(long)]
        cpu: u16,
        #[arg(long)]
        pages: usize,
    },
    /// Uses CPU time on one node for so many milliseconds, at each line
    Burn {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        millis: u64,
    },
    /// Two mappings whose pages the kernel has merged, moved at each line
    Ksm {
        #[arg(long)]
        pages: usize,
        #[arg(long)]
        to: u16,
    },
    /// Pages held by a pipe; tries to move them at each line
    Pinned {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        to: u16,
    },
    /// Maps a disk that is not cached and reads each page of it, at each line
    Reread {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        pages: usize,
    },
    /// Holds memory of one node
    Fill {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        mib: usize,
    },
}

#[derive(Args)]
pub(crate) struct Strand {
    #[arg(long)]
    from: u16,
    #[arg(long)]
    to: u16,
    #[arg(long)]
    mib: usize,
    #[arg(long, value_enum, default_value_t = Policy::None)]
    policy: Policy,
}

/// Who asked the kernel for a placement.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    None,
    /// `set_mempolicy` of the main thread.
    Task,
    /// `mbind` of one small mapping.
    Mapping,
}

/// What a workload says of what it did.
#[derive(Serialize)]
struct Did {
    before: Usage,
    after: Usage,
    /// Pages that the workload itself knows to have been touched, moved or held.
    pages: usize,
    /// In ns: the clock went on and the workload did not, for a second or more at a time.
    stood_still: u64,
}

pub(crate) fn run(work: &Work) -> Result<()> {
    match *work {
        Work::Strand(ref strand) => self::strand(strand),
        Work::Touch { node, pages } => touch(node, pages),
        Work::Rewrite { node, pages } => rewrite(node, pages),
        Work::Swap { node, pages } => swap(node, pages),
        Work::Dance { node, to, pages } => dance(node, to, pages),
        Work::Shift { node, to, pages } => shift(node, to, pages),
        Work::Scan { memory, cpu, pages } => scan(memory, cpu, pages),
        Work::Burn { node, millis } => burn(node, Duration::from_millis(millis)),
        Work::Ksm { pages, to } => merged(pages, to),
        Work::Pinned { node, to } => pinned(node, to),
        Work::Reread { node, pages } => reread(node, pages),
        Work::Fill { node, mib } => fill(node, mib),
    }
}

/// Memory on a node, there by first touch; on a node without CPUs by a policy that is gone
/// afterwards. The thread runs on the node's CPUs from then on, if it has any.
fn placed(node: u16, pages: usize) -> Result<Memory> {
    let mut memory = Memory::map(pages).context("map")?;
    if nodes::cpus(node)?.is_empty() {
        sys::bind_task(node).with_context(|| format!("bind to node {node}"))?;
        memory.touch_all();
        sys::unbind_task().context("unbind")?;
    } else {
        nodes::run_on(None, node)?;
        memory.touch_all();
    }
    Ok(memory)
}

fn strand(args: &Strand) -> Result<()> {
    let mut memory = placed(args.from, args.mib * 256)?;
    let mut small = None;
    match args.policy {
        Policy::None => {}
        Policy::Task => sys::bind_task(args.from).context("bind the task")?,
        Policy::Mapping => {
            let mut bound = Memory::map(BOUND_PAGES).context("map")?;
            bound.bind(args.from).context("bind the mapping")?;
            bound.touch_all();
            small = Some(bound);
        }
    }
    say("ready")?;
    if io::stdin().read_line(&mut String::new()).context("read a line")? == 0 {
        return Ok(());
    }
    nodes::run_on(None, args.to)?;
    let usage = sys::usage();
    tell(&Did { before: usage, after: usage, pages: memory.pages(), stood_still: 0 })?;
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The end of the input, or an error of it, ends the work.
            while io::stdin().read_line(&mut String::new()).is_ok_and(|read| read > 0) {}
            ended.store(true, Ordering::Relaxed);
        });
        let mut round = 0;
        while !ended.load(Ordering::Relaxed) {
            round += 1;
            for page in 0..memory.pages() {
                memory.write(page, memory.read(page) ^ round);
            }
        }
    });
    drop(small);
    Ok(())
}

fn touch(node: u16, pages: usize) -> Result<()> {
    nodes::run_on(None, node)?;
    at_each_line(|| {
        let mut memory = Memory::map(pages).context("map")?;
        memory.touch_all();
        Ok(pages)
    })
}

/// Reading maps the zero page; writing then meets a page that is there and protected.
fn rewrite(node: u16, pages: usize) -> Result<()> {
    nodes::run_on(None, node)?;
    at_each_line(|| {
        let mut memory = Memory::map(pages).context("map")?;
        std::hint::black_box(memory.read_all());
        memory.touch_all();
        Ok(pages)
    })
}

fn swap(node: u16, pages: usize) -> Result<()> {
    let memory = placed(node, pages)?;
    at_each_line(|| {
        memory.advise(libc::MADV_PAGEOUT).context("madvise(PAGEOUT)")?;
        std::hint::black_box(memory.read_all());
        Ok(pages)
    })
}

fn dance(node: u16, to: u16, pages: usize) -> Result<()> {
    let memory = placed(node, pages)?;
    at_each_line(|| {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    std::hint::black_box(memory.read_all());
                }
            });
            let moved = (0..DANCES).try_for_each(|turn| {
                memory.move_to(if turn % 2 == 0 { to } else { node }).map(drop)
            });
            ended.store(true, Ordering::Relaxed);
            moved.context("move_pages")
        })?;
        Ok(pages)
    })
}

fn shift(node: u16, to: u16, pages: usize) -> Result<()> {
    nodes::run_on(None, node)?;
    let memory = placed(node, pages)?;
    let mut next = to;
    at_each_line(|| {
        let moved = memory.move_to(next).context("move_pages")?;
        next = if next == to { node } else { to };
        Ok(moved)
    })
}

fn scan(node: u16, cpu: u16, pages: usize) -> Result<()> {
    let memory = placed(node, pages)?;
    nodes::run_on(None, cpu)?;
    at_each_line(|| {
        let end = Instant::now() + Duration::from_secs(1);
        let mut sum = 0_u64;
        while Instant::now() < end {
            for page in 0..memory.pages() {
                sum = sum.wrapping_add(memory.read(page));
            }
        }
        std::hint::black_box(sum);
        Ok(pages)
    })
}

fn burn(node: u16, time: Duration) -> Result<()> {
    nodes::run_on(None, node)?;
    repeat(|| {
        let began = Instant::now();
        let (mut last, mut stood_still) = (began, Duration::ZERO);
        let mut sum = 0_u64;
        while last - began < time {
            for step in 0..10_000 {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(step));
            }
            let now = Instant::now();
            if now - last >= STANDSTILL {
                stood_still += now - last;
            }
            last = now;
        }
        Ok((0, stood_still))
    })
}

fn merged(pages: usize, to: u16) -> Result<()> {
    let (one, two) = (placed(0, pages)?, placed(0, pages)?);
    ksm::merge(&[&one, &two])?;
    at_each_line(|| {
        // Both mappings are walked before anything moves, so each merged page is met twice.
        sys::migrate_all(std::process::id(), 0, to).context("migrate_pages")?;
        Ok(one.pages())
    })
}

fn pinned(node: u16, to: u16) -> Result<()> {
    let memory = placed(node, PIPE_PAGES)?;
    let (reader, writer) = pipe().context("make a pipe")?;
    let held = memory.splice_into(&writer).context("vmsplice")?;
    ensure!(held == PIPE_PAGES, "the pipe took {held} of {PIPE_PAGES} pages");
    at_each_line(|| {
        sys::migrate_all(std::process::id(), node, to).context("migrate_pages")?;
        Ok(held)
    })?;
    drop(reader);
    Ok(())
}

fn reread(node: u16, pages: usize) -> Result<()> {
    nodes::run_on(None, node)?;
    let disk = File::open(DISK).with_context(|| format!("open {DISK}"))?;
    sys::forget_cache(&disk).with_context(|| format!("drop the page cache of {DISK}"))?;
    let memory = Memory::map_file(&disk, pages).with_context(|| format!("map {DISK}"))?;
    at_each_line(|| {
        std::hint::black_box(memory.read_all());
        Ok(pages)
    })
}

fn fill(node: u16, mib: usize) -> Result<()> {
    let memory = placed(node, mib * 256)?;
    at_each_line(|| Ok(memory.pages()))
}

fn at_each_line(mut act: impl FnMut() -> Result<usize>) -> Result<()> {
    repeat(|| Ok((act()?, Duration::ZERO)))
}

/// The same for an act that also says how long it stood still.
fn repeat(mut act: impl FnMut() -> Result<(usize, Duration)>) -> Result<()> {
    let mut line = String::new();
    let mut input = io::stdin().lock();
    say("ready")?;
    while input.read_line(&mut line).context("read a line")? > 0 {
        line.clear();
        let before = sys::usage();
        let (pages, stood_still) = act()?;
        let stood_still = u64::try_from(stood_still.as_nanos()).context("too long")?;
        tell(&Did { before, after: sys::usage(), pages, stood_still })?;
    }
    Ok(())
}

fn tell(did: &Did) -> Result<()> {
    say(&serde_json::to_string(did)?)
}

fn say(line: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}
