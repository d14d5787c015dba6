//! Memory on one node that is used from another, until the input ends.
//!
//! The main thread reads and writes all of it, round after round. Whatever
//! else goes on beside that makes a case that a controller must tell apart.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use rustix::pipe::fcntl_setpipe_size;

use super::acts::placed;
use super::{Did, say, tell};
use crate::nodes;
use crate::sys::{self, Memory, PAGE};

/// Pages of the mapping that has a policy of its own.
const BOUND_PAGES: usize = 4;
/// Between two things that are done over and over beside the work.
const PAUSE: Duration = Duration::from_millis(100);
/// The most by which it grows.
const GROWN_MIB: usize = 256;

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
    /// Shares so many MiB more with a child, which uses them on the first node
    #[arg(long, default_value_t = 0)]
    shared: usize,
    /// Holds so many MiB more in a pipe, and has tried to move them
    #[arg(long, default_value_t = 0)]
    pinned: usize,
    /// Touches so many new MiB a second, until the second line
    #[arg(long, default_value_t = 0)]
    grow: usize,
    /// Has so many MiB more swapped out and reads them back, over and over
    #[arg(long, default_value_t = 0)]
    swapped: usize,
    /// Moves so many MiB more to and fro, over and over
    #[arg(long, default_value_t = 0)]
    shifted: usize,
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

/// What is done beside the work goes on as long as these say so.
#[derive(Default)]
struct Until {
    second_line: AtomicBool,
    end: AtomicBool,
}

pub(super) fn run(args: &Strand) -> Result<()> {
    // Before there is anything else: the child gets all that there is.
    let shared = (args.shared > 0).then(|| share(args.from, args.shared * 256)).transpose()?;
    let memory = placed(args.from, args.mib * 256)?;
    let small = with_policy(args)?;
    let pinned = (args.pinned > 0).then(|| pin(args)).transpose()?;
    let [swapped, shifted] = [args.swapped, args.shifted].map(|mib| more(args.from, mib));
    let (swapped, shifted) = (swapped?, shifted?);
    say("ready")?;
    if io::stdin().read_line(&mut String::new()).context("read a line")? == 0 {
        return Ok(());
    }
    if let Some((pages, _)) = &pinned {
        let moved = pages.move_to(args.to).context("move what the pipe holds")?;
        ensure!(moved == 0, "{moved} pages moved although a pipe holds them");
    }
    nodes::run_on(None, args.to)?;
    let usage = sys::usage();
    tell(&Did { before: usage, after: usage, pages: memory.pages(), slept: 0, off_cpu: 0 })?;
    let until = Until::default();
    std::thread::scope(|scope| {
        scope.spawn(|| listen(&until));
        if args.grow > 0 {
            scope.spawn(|| grow(args.grow, &until));
        }
        if let Some(swapped) = &swapped {
            scope.spawn(|| repeat(&until, || swap(swapped)));
        }
        if let Some(shifted) = &shifted {
            scope.spawn(|| repeat(&until, || shift(shifted, args)));
        }
        work(memory, &until);
    });
    drop((shared, small, pinned));
    Ok(())
}

/// What is there beside what it works on.
fn more(node: u16, mib: usize) -> Result<Option<Memory>> {
    (mib > 0).then(|| placed(node, mib * 256)).transpose()
}

fn work(mut memory: Memory, until: &Until) {
    let mut round = 0;
    while !until.end.load(Ordering::Relaxed) {
        round += 1;
        for page in 0..memory.pages() {
            memory.write(page, memory.read(page) ^ round);
        }
    }
}

/// The end of the input, or an error of it, ends the work.
fn listen(until: &Until) {
    while io::stdin().read_line(&mut String::new()).is_ok_and(|read| read > 0) {
        until.second_line.store(true, Ordering::Relaxed);
    }
    until.second_line.store(true, Ordering::Relaxed);
    until.end.store(true, Ordering::Relaxed);
}

fn with_policy(args: &Strand) -> Result<Option<Memory>> {
    match args.policy {
        Policy::None => Ok(None),
        Policy::Task => {
            sys::bind_task(args.from).context("bind the task")?;
            Ok(None)
        }
        Policy::Mapping => {
            let mut bound = Memory::map(BOUND_PAGES).context("map")?;
            bound.bind(args.from).context("bind the mapping")?;
            bound.touch_all();
            Ok(Some(bound))
        }
    }
}

/// Memory that a child reads, too: neither has written to it since, so that both map its pages.
fn share(node: u16, pages: usize) -> Result<Memory> {
    let memory = placed(node, pages)?;
    if sys::fork().context("fork")?.is_some() {
        return Ok(memory);
    }
    loop {
        std::hint::black_box(memory.read_all());
        std::thread::sleep(PAUSE);
    }
}

/// Pages that a pipe holds, and both of its ends.
fn pin(args: &Strand) -> Result<(Memory, (io::PipeReader, io::PipeWriter))> {
    let memory = placed(args.from, args.pinned * 256)?;
    let (reader, writer) = io::pipe().context("make a pipe")?;
    fcntl_setpipe_size(&writer, memory.pages() * PAGE).context("make the pipe larger")?;
    let held = memory.splice_into(&writer).context("vmsplice")?;
    ensure!(held == memory.pages(), "the pipe took {held} of {} pages", memory.pages());
    Ok((memory, (reader, writer)))
}

/// New pages come from the node where it runs.
fn grow(mib_per_second: usize, until: &Until) {
    let Ok(mut memory) = Memory::map(GROWN_MIB * 256) else { return };
    let began = Instant::now();
    let mut grown = 0;
    while grown < memory.pages() && !until.second_line.load(Ordering::Relaxed) {
        // Whole: a fraction of a page waits for the next time.
        let due = began.elapsed().as_millis() * (mib_per_second * 256) as u128 / 1000;
        let due = usize::try_from(due).unwrap_or(usize::MAX).min(memory.pages());
        for page in grown..due {
            memory.write(page, 0);
        }
        grown = due.max(grown);
        std::thread::sleep(PAUSE);
    }
    while !until.end.load(Ordering::Relaxed) {
        std::thread::sleep(PAUSE);
    }
}

/// Without swap nothing goes out, which is noticed.
fn swap(memory: &Memory) {
    let _ = memory.advise(libc::MADV_PAGEOUT);
    std::hint::black_box(memory.read_all());
}

/// Pages that stay where they are are noticed, too.
fn shift(memory: &Memory, args: &Strand) {
    let _ = memory.move_to(args.to);
    std::thread::sleep(PAUSE);
    let _ = memory.move_to(args.from);
}

fn repeat(until: &Until, act: impl Fn()) {
    while !until.end.load(Ordering::Relaxed) {
        act();
        std::thread::sleep(PAUSE);
    }
}
