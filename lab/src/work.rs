//! Workloads with known counts, each in a process of its own.
//!
//! A workload prepares itself, prints `ready`, then does one thing for each
//! line that it reads: prints one line of JSON when the thing is done. It ends
//! with its standard input, so nothing is left behind when a test dies.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Subcommand;
use serde::Serialize;

use crate::sys::{self, Usage};

mod acts;
pub(crate) mod brood;
pub(crate) mod costs;
mod hurt;
pub(crate) mod pace;
mod spread;
mod strand;

#[derive(Subcommand)]
pub(crate) enum Work {
    /// Memory on one node; after the first line it runs on another and uses that memory
    Strand(strand::Strand),
    /// Memory on one node that a thread on each node uses, from the first line on
    Spread(spread::Spread),
    /// Forks a child that is stranded at once, at each line
    Brood(brood::Brood),
    /// Memory on one node and laps on another, which last longer once its memory has come
    Hurt(hurt::Hurt),
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
    /// Writes to so many huge pages that it has only read so far, at one line
    RewriteHuge {
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
        /// In transparent huge pages
        #[arg(long)]
        huge: bool,
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
        /// In transparent huge pages
        #[arg(long)]
        huge: bool,
    },
    /// Reads lines of memory on two nodes, each as likely as any other, for a second at each line
    Mix {
        /// Where it runs, and where `pages` are
        #[arg(long)]
        node: u16,
        #[arg(long)]
        pages: usize,
        /// Where the other pages are bound
        #[arg(long)]
        other: u16,
        #[arg(long)]
        other_pages: usize,
    },
    /// Laps of the same work with a call after each; says at each line how far it has come
    Pace(pace::Pace),
    /// Uses so many milliseconds of CPU time on each node, from 0 on, at each line
    Burn {
        #[arg(long, value_delimiter = ',')]
        millis: Vec<u64>,
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
    /// Two threads of which one touches so many new pages and the other three times as many
    Siblings {
        #[arg(long)]
        pages: usize,
    },
    /// Threads that touch so many new pages each, after the main thread has exited, at one line
    Orphans {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        pages: usize,
        #[arg(long)]
        threads: usize,
    },
    /// Binds its pages to a node and has them moved, at one line
    Rebind {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        to: u16,
        #[arg(long)]
        pages: usize,
    },
    /// Allows its base pages to become huge ones, at one line
    Collapse {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        mib: usize,
    },
    /// Holds every other page of memory of one node
    Riddle {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        mib: usize,
    },
    /// Holds memory of one node in huge pages
    Huge {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        mib: usize,
    },
    /// Goes to the CPUs of another node and back so many times, at each line
    Hop {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        to: u16,
        #[arg(long)]
        times: usize,
    },
    /// Two threads that both need the lock of the address space, at each line
    Contend {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        mib: usize,
        #[arg(long)]
        millis: u64,
    },
    /// Holds memory of two nodes, page by page as chance has it: three of eight on the first
    Split {
        #[arg(long)]
        pages: usize,
    },
    /// Touches a few islands of a large mapping, half of them on each node, at each line
    Sparse {
        #[arg(long)]
        gib: usize,
        #[arg(long)]
        islands: usize,
        #[arg(long)]
        pages: usize,
    },
    /// Holds memory of one node and reads four times as much that was never written
    Zeros {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        pages: usize,
    },
    /// Holds shared memory, a file, transparent huge pages and those of hugetlbfs, each on a node
    Classes {
        #[arg(long)]
        other: u16,
        #[arg(long)]
        pages: usize,
    },
    /// Holds its mmap_lock nearly all the time, from the first line on
    Hold,
    /// Counts the instructions of some operations, at each line
    Costs,
    /// Holds memory of one node
    Fill {
        #[arg(long)]
        node: u16,
        #[arg(long)]
        mib: usize,
    },
}

/// What a workload says of what it did.
#[derive(Serialize)]
struct Did {
    before: Usage,
    after: Usage,
    /// Pages that the workload itself knows to have been touched, moved or held.
    pages: usize,
    /// In ns, where it is about that: its threads slept, and were off their CPUs.
    slept: u64,
    off_cpu: u64,
}

pub(crate) fn run(work: &Work) -> Result<()> {
    match *work {
        Work::Strand(ref args) => strand::run(args),
        Work::Spread(ref args) => spread::run(args),
        Work::Brood(ref args) => brood::run(args),
        Work::Hurt(ref args) => hurt::run(args),
        Work::Touch { node, pages } => acts::touch(node, pages),
        Work::Rewrite { node, pages } => acts::rewrite(node, pages),
        Work::RewriteHuge { node, pages } => acts::rewrite_huge(node, pages),
        Work::Swap { node, pages } => acts::swap(node, pages),
        Work::Dance { node, to, pages, huge } => acts::dance(node, to, pages, huge),
        Work::Shift { node, to, pages } => acts::shift(node, to, pages),
        Work::Scan { memory, cpu, pages, huge } => acts::scan(memory, cpu, pages, huge),
        Work::Mix { node, pages, other, other_pages } => acts::mix(node, pages, other, other_pages),
        Work::Pace(ref args) => pace::run(args),
        Work::Burn { ref millis } => acts::burn(millis),
        Work::Ksm { pages, to } => acts::merged(pages, to),
        Work::Pinned { node, to } => acts::pinned(node, to),
        Work::Reread { node, pages } => acts::reread(node, pages),
        Work::Orphans { node, pages, threads } => acts::orphans(node, pages, threads),
        Work::Siblings { pages } => acts::siblings(pages),
        Work::Rebind { node, to, pages } => acts::rebind(node, to, pages),
        Work::Collapse { node, mib } => acts::collapse(node, mib),
        Work::Riddle { node, mib } => acts::riddle(node, mib),
        Work::Huge { node, mib } => acts::huge(node, mib),
        Work::Hop { node, to, times } => acts::hop(node, to, times),
        Work::Contend { node, mib, millis } => {
            acts::contend(node, mib, Duration::from_millis(millis))
        }
        Work::Split { pages } => acts::split(pages),
        Work::Sparse { gib, islands, pages } => acts::sparse(gib, islands, pages),
        Work::Zeros { node, pages } => acts::zeros(node, pages),
        Work::Classes { other, pages } => acts::classes(other, pages),
        Work::Hold => acts::hold(),
        Work::Costs => costs::measure(),
        Work::Fill { node, mib } => acts::fill(node, mib),
    }
}

fn at_each_line(mut act: impl FnMut() -> Result<usize>) -> Result<()> {
    repeat(|| Ok(Done { pages: act()?, ..Done::default() }))
}

/// What an act says of itself.
#[derive(Default)]
struct Done {
    pages: usize,
    slept: u64,
    off_cpu: u64,
}

fn repeat(mut act: impl FnMut() -> Result<Done>) -> Result<()> {
    let mut line = String::new();
    let mut input = io::stdin().lock();
    say("ready")?;
    while input.read_line(&mut line).context("read a line")? > 0 {
        line.clear();
        let before = sys::usage();
        let Done { pages, slept, off_cpu } = act()?;
        tell(&Did { before, after: sys::usage(), pages, slept, off_cpu })?;
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
