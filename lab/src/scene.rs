//! A busy machine for a real Prometheus outside: our moves, the kernel's own
//! balancing, faults. Scraped through the forwarded port while it lasts.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::balancing;
use crate::controller::Controller;
use crate::test::say;
use crate::worker::Worker;

/// How long our move may take.
const PATIENCE: Duration = Duration::from_secs(40);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long it lasts once it is ready
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    // The first thing: rates need a point before what they count.
    let mut controller = Controller::start("--mode enforce --listen 0.0.0.0:9816")?;
    say("SCENE-READY");
    sleep(Duration::from_secs(5));
    let mut stranded = Worker::start("strand --from 0 --to 1 --mib 64")?;
    stranded.act()?;
    // Before the kernel begins to balance: beside it, the move would be up to who comes first.
    let moved = controller.first_outcome(stranded.pid(), PATIENCE)?;
    ensure!(moved.is_some(), "no move within {PATIENCE:?}: {}", controller.log());
    balancing::during(|| {
        let mut hinted = Worker::start("scan --memory 0 --cpu 1 --pages 4096")?;
        (0..args.seconds).try_for_each(|_| hinted.act().map(drop))
    })?;
    controller.stop().context("stop the controller")?;
    Ok(ExitCode::SUCCESS)
}
