//! Children that are stranded from their first moment on.

use std::io;

use anyhow::{Context, Result};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::acts::placed;
use super::say;
use crate::{nodes, sys};

#[derive(Args)]
pub(crate) struct Brood {
    #[arg(long)]
    from: u16,
    #[arg(long)]
    to: u16,
    #[arg(long)]
    mib: usize,
}

/// A child that has just begun.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Born {
    pub(crate) pid: u32,
}

/// At each line one child in place of the last: it has nothing to load and begins at once.
pub(super) fn run(args: &Brood) -> Result<()> {
    say("ready")?;
    let mut last = None;
    while io::stdin().read_line(&mut String::new()).context("read a line")? > 0 {
        if let Some(last) = last {
            kill_process(last, Signal::KILL).context("kill the last child")?;
        }
        let Some(pid) = sys::fork().context("fork")? else { return live(args) };
        last = i32::try_from(pid).ok().and_then(Pid::from_raw);
        say(&serde_json::to_string(&Born { pid })?)?;
    }
    Ok(())
}

/// Until it is killed, or dies with its parent.
fn live(args: &Brood) -> Result<()> {
    let mut memory = placed(args.from, args.mib * 256)?;
    nodes::run_on(None, args.to)?;
    loop {
        memory.touch_all();
    }
}
