//! `migrate-ctl mode`: the operator's switch of the running controller.

use std::path::PathBuf;

use migrate_ctl::ask;
use migrate_ctl::config::Mode;
use migrate_ctl::control::SOCKET;

use super::{Exit, no_answer, say};

#[derive(clap::Args)]
pub(crate) struct Switch {
    /// `observe` stops moves, but for the call that runs; `enforce` allows them
    #[arg(value_enum)]
    mode: Mode,
    /// Where the running controller is asked
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

pub(crate) fn switch(args: &Switch) -> Exit {
    match ask::put(&args.socket, "/mode", args.mode.name()) {
        Ok(mode) => {
            say(format!("mode {}", mode.trim_end()));
            Exit::Done
        }
        Err(error) => no_answer(error),
    }
}
