//! `migrate-ctl status`: what the running controller is doing.

use std::path::PathBuf;

use migrate_ctl::control::SOCKET;
use migrate_ctl::{ask, status};

use super::{Exit, Output, no_answer, show};

#[derive(clap::Args)]
pub(crate) struct Status {
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Where the running controller is asked
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

pub(crate) fn status(args: &Status) -> Exit {
    match ask::get(&args.socket, "/status") {
        Ok(answer) => show::<status::Status>(args.output, &answer),
        Err(error) => no_answer(error),
    }
}
