//! Laps with a call after each, which last longer once its memory has come to where it runs.
//!
//! A simulation: what could really make a process slower near its memory, as a full memory
//! controller, no guest has. From outside it looks the same, as the kernel counts the CPU time and
//! the calls. Laps are work, not time: what else the host does lengthens both kinds alike.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::Args;

use super::acts::placed;
use super::{Did, say, tell};
use crate::nodes;
use crate::sys::{self, Memory};

/// A lap reads each page so often, which takes a few milliseconds in the emulator.
const ROUNDS: u32 = 2;
/// So many times as often afterwards: there still are some laps in each tick.
const LONGER: u32 = 8;

#[derive(Args)]
pub(crate) struct Hurt {
    #[arg(long)]
    from: u16,
    #[arg(long)]
    to: u16,
    #[arg(long)]
    mib: usize,
}

/// From the first line to the end of the input.
pub(super) fn run(args: &Hurt) -> Result<()> {
    let memory = placed(args.from, args.mib * 256)?;
    say("ready")?;
    if io::stdin().read_line(&mut String::new()).context("read a line")? == 0 {
        return Ok(());
    }
    nodes::run_on(None, args.to)?;
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let laps = scope.spawn(|| laps(&memory, args.to, &ended));
        let usage = sys::usage();
        let did = Did { before: usage, after: usage, pages: memory.pages(), slept: 0, off_cpu: 0 };
        let told = tell(&did);
        // The end of the input, or an error of it, ends the work.
        while io::stdin().read_line(&mut String::new()).is_ok_and(|read| read > 0) {}
        ended.store(true, Ordering::Relaxed);
        told.and(laps.join().map_err(|_panic| anyhow::anyhow!("the laps have panicked"))?)
    })
}

fn laps(memory: &Memory, here: u16, ended: &AtomicBool) -> Result<()> {
    let mut null = File::options().write(true).open("/dev/null").context("open /dev/null")?;
    let mut rounds = ROUNDS;
    while !ended.load(Ordering::Relaxed) {
        for _ in 0..rounds {
            black_box(memory.read_all());
        }
        null.write_all(&[0]).context("write to /dev/null")?;
        // For good: it stays as slow wherever its memory is afterwards.
        if memory.node_of(0).context("look for a page")? == Some(here) {
            rounds = ROUNDS * LONGER;
        }
    }
    Ok(())
}
