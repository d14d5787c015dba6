//! A program with memory on two nodes, and a controller that says how much of it is remote.
//!
//! What the emulator counted is compared outside, in `cargo xtask bench share`.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::controller::Controller;
use crate::test::say;
use crate::worker::Worker;

/// A cgroup of its own, so that nobody else is in its share.
const GROUP: &str = "/sys/fs/cgroup/share";

/// Seconds of work before the first window.
const SETTLE: u64 = 10;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long it lasts once it is ready
    #[arg(long)]
    seconds: u64,
    /// Pages of 16,384 that are on node 0, while it runs on node 1
    #[arg(long, value_parser = clap::value_parser!(u16).range(0..=16_384))]
    remote: u16,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let near = 16_384 - args.remote;
    let words = format!("mix --node 1 --pages {near} --other 0 --other-pages {}", args.remote);
    let mut worker = Worker::start(&words)?;
    fs::create_dir(GROUP).with_context(|| format!("create {GROUP}"))?;
    fs::write(format!("{GROUP}/cgroup.procs"), worker.pid().to_string()).context("attach")?;
    let mut controller = Controller::start("--mode observe --listen 0.0.0.0:9816")?;
    // It has to see the program work before it has a share of it.
    for second in 0..args.seconds + SETTLE {
        if second == SETTLE {
            say("SHARE-READY");
        }
        worker.act()?;
    }
    controller.stop().context("stop the controller")?;
    Ok(ExitCode::SUCCESS)
}
