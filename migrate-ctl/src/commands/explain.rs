//! `migrate-ctl explain`: why a process stays or moves.

use std::path::PathBuf;

use migrate_ctl::ask::{self, AskError};
use migrate_ctl::control::SOCKET;
use migrate_ctl::explain::{AloneError, Explanation, WATCHED, watch_alone};
use migrate_ctl::latency;
use migrate_ctl::start::WatchError;

use super::watching::ratio;
use super::{Exit, Output, complain, no_answer, print, show};

#[derive(clap::Args)]
pub(crate) struct Explain {
    pid: u32,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Where the running controller is asked
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
    /// Where no controller runs: how many times slower another node's memory is than local memory,
    /// as for `run`
    #[arg(long, value_name = "RATIO", default_value = "measured", value_parser = ratio)]
    latency_ratio: latency::Wanted,
}

pub(crate) fn explain(args: &Explain) -> Exit {
    match ask::get(&args.socket, &format!("/explain/{}", args.pid)) {
        Ok(answer) => show::<Explanation>(args.output, &answer),
        Err(AskError::NoController(_)) => alone(args),
        Err(error) => no_answer(error),
    }
}

fn alone(args: &Explain) -> Exit {
    eprintln!("no controller answers on {}; watching for {WATCHED} s", args.socket.display());
    match watch_alone(args.pid, args.latency_ratio) {
        Ok(explanation) => {
            print(args.output, &explanation);
            Exit::Done
        }
        Err(error) => {
            let exit = match error {
                AloneError::Gone(_) => Exit::Gone,
                AloneError::Watch(WatchError::NotRoot(_)) => Exit::NotPermitted,
                AloneError::Watch(_) => Exit::CannotRun,
                AloneError::Tick(_) => Exit::Internal,
            };
            complain(&error.into(), exit)
        }
    }
}
