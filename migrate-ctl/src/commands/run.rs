//! `migrate-ctl run`: the daemon, from its flags.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::value_parser;
use migrate_ctl::config::Mode;
use migrate_ctl::control::SOCKET;
use migrate_ctl::daemon::{self, Options, StartError};

use super::watching::{Watching, block_on, log};
use super::{Exit, LISTEN, complain, say};

#[derive(clap::Args)]
pub(crate) struct Run {
    /// `observe` decides, explains and exports; `enforce` also moves
    #[arg(long, value_enum, default_value_t = Mode::Observe)]
    mode: Mode,
    /// Where /metrics, /-/healthy and /-/ready are served
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN)]
    listen: SocketAddr,
    #[command(flatten)]
    watching: Watching,
    /// Write all that is seen, decided and done to this file, for `migrate-ctl journal` and
    /// `replay`; what it held before becomes FILE.1
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Where `explain`, `status` and `mode` ask
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
    /// Let the members of this group, by name or number, ask; otherwise only root may
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// MiB that FILE and FILE.1 may take together
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = value_parser!(u64).range(16..=1 << 20))]
    journal_limit: u64,
    /// MiB that all moves together may move in a second
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = value_parser!(u64).range(1..=1 << 20))]
    rate: u64,
    /// MiB that may be moved at once after a quiet time
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = value_parser!(u64).range(1..=1 << 20))]
    burst: u64,
    /// Moves that may be under way at once
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = value_parser!(u16).range(1..=1024))]
    concurrent_moves: u16,
    /// Share of the moves, 0 to 0.5, that are held back for one horizon at first, to see what comes
    /// without them
    #[arg(long, value_name = "SHARE", default_value = "0.05", value_parser = hold_back)]
    hold_back: f64,
    /// Seconds for which the effect of a move is watched, and a move is held back
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = value_parser!(u32).range(5..=3600))]
    horizon: u32,
    /// Switch a guard off, by the name of its reason: only to see a test fail
    #[arg(long, value_name = "REASON", hide = true)]
    guard_off: Vec<String>,
}

/// Of 4 KiB.
const PAGES_PER_MIB: u64 = 256;

pub(crate) fn run(args: Run) -> Exit {
    log(tracing::Level::INFO);
    let mut config = args.watching.config();
    config.guards_off = args.guard_off;
    config.policy.pages_per_second = args.rate * PAGES_PER_MIB;
    config.policy.burst = args.burst * PAGES_PER_MIB;
    config.policy.concurrent_moves = args.concurrent_moves.into();
    config.policy.hold_back = args.hold_back;
    config.policy.horizon_seconds = args.horizon.into();
    let options = Options {
        mode: args.mode,
        listen: args.listen,
        tick: args.watching.tick,
        without: args.watching.without,
        journal: args.journal,
        socket: args.socket,
        group: args.group,
        journal_limit: args.journal_limit << 20,
        config,
        latency: args.watching.latency_ratio,
    };
    let result = block_on(daemon::run(options, |text| say(text)));
    match result {
        Ok(()) => Exit::Done,
        Err(error) if error.is::<StartError>() => complain(&error, Exit::CannotRun),
        Err(error) => complain(&error, Exit::Internal),
    }
}

fn hold_back(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|error| format!("`{text}` is not a share: {error}"))?;
    if (0.0..=0.5).contains(&share) {
        Ok(share)
    } else {
        Err(format!("{share} is not a share of the moves between 0 and 0.5"))
    }
}
