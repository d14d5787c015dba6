//! Memory on one node that a thread on each node uses, each for a share of its time.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::acts::placed;
use super::{Did, say, tell};
use crate::nodes;
use crate::sys::{self, Memory};

/// A thread works for its share of this and rests for the remainder.
const TURN: Duration = Duration::from_millis(50);

#[derive(Args)]
pub(crate) struct Spread {
    /// Where the memory is
    #[arg(long)]
    node: u16,
    #[arg(long)]
    mib: usize,
    /// Share of a CPU that the thread of each node uses, from 0 on
    #[arg(long, value_delimiter = ',')]
    percent: Vec<u32>,
}

/// From the first line to the end of the input.
pub(super) fn run(args: &Spread) -> Result<()> {
    let memory = placed(args.node, args.mib * 256)?;
    say("ready")?;
    if io::stdin().read_line(&mut String::new()).context("read a line")? == 0 {
        return Ok(());
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (node, &percent) in (0..).zip(&args.percent) {
            let (memory, ended) = (&memory, &ended);
            scope.spawn(move || use_from(node, percent, memory, ended));
        }
        let usage = sys::usage();
        let did = Did { before: usage, after: usage, pages: memory.pages(), slept: 0, off_cpu: 0 };
        let told = tell(&did);
        // The end of the input, or an error of it, ends the work.
        while io::stdin().read_line(&mut String::new()).is_ok_and(|read| read > 0) {}
        ended.store(true, Ordering::Relaxed);
        told
    })
}

fn use_from(node: u16, percent: u32, memory: &Memory, ended: &AtomicBool) -> Result<()> {
    nodes::run_on(None, node)?;
    while !ended.load(Ordering::Relaxed) {
        let end = sys::thread_cpu_time() + TURN * percent / 100;
        while sys::thread_cpu_time() < end {
            std::hint::black_box(memory.read_all());
        }
        std::thread::sleep(TURN * 100_u32.saturating_sub(percent) / 100);
    }
    Ok(())
}
