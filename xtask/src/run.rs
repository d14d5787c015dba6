//! How does the controller start on this machine?
//!
//! Built as the user, run as root: nothing in `target/` becomes root's.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Error, Result, bail};

use crate::build::build;
use crate::paths::{program, say, shown};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What `migrate-ctl run` gets, such as `-- --mode enforce`.
    #[arg(last = true)]
    args: Vec<String>,
}

pub(crate) fn main(args: Args) -> Result<()> {
    let controller = build()?.controller;
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(&controller)
    } else if program("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        sudo.arg(&controller);
        sudo
    } else {
        bail!("not root and no sudo: run as root  {} run", controller.display());
    };
    command.arg("run").args(args.args);
    say(shown(&command));
    // Replaces this process: signals and the exit code are the controller's own.
    Err(Error::new(command.exec()).context(format!("start {}", shown(&command))))
}
