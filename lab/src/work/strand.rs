//! Memory on one node that is used from another, until the input ends.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::acts::placed;
use super::{Did, say, tell};
use crate::nodes;
use crate::sys::{self, Memory};

/// Pages of the mapping that has a policy of its own.
const BOUND_PAGES: usize = 4;

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

pub(super) fn run(args: &Strand) -> Result<()> {
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
    tell(&Did { before: usage, after: usage, pages: memory.pages(), slept: 0, off_cpu: 0 })?;
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
