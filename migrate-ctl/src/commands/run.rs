//! `migrate-ctl run`: the daemon, from its flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::value_parser;
use migrate_ctl::config::{Config, Mode, Pattern};
use migrate_ctl::daemon::{self, Options, StartError};
use migrate_ctl::latency;
use migrate_ctl::probes::SIGNALS;

use super::{Exit, LISTEN, complain, say};

#[derive(clap::Args)]
pub(crate) struct Run {
    /// `observe` decides, explains and exports; `enforce` also moves
    #[arg(long, value_enum, default_value_t = Mode::Observe)]
    mode: Mode,
    /// Where /metrics, /-/healthy and /-/ready are served
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN)]
    listen: SocketAddr,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = tick)]
    tick: Duration,
    /// Look at these only: pid:N, comm:NAME or cgroup:PATH; repeatable
    #[arg(long, value_name = "PATTERN")]
    include: Vec<Pattern>,
    /// Leave these alone: pid:N, comm:NAME or cgroup:PATH; repeatable
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<Pattern>,
    /// Leave this signal's probes off; repeatable
    #[arg(long, value_name = "SIGNAL", value_parser = SIGNALS)]
    without: Vec<String>,
    /// Append decisions and outcomes to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// How many times slower another node's memory is than local memory: `measured`, by the
    /// `firmware`'s distances, or a number for every other node
    #[arg(long, value_name = "RATIO", default_value = "measured", value_parser = ratio)]
    latency_ratio: latency::Wanted,
    /// MiB that all moves together may move in a second
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = value_parser!(u64).range(1..=1 << 20))]
    rate: u64,
    /// MiB that may be moved at once after a quiet time
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = value_parser!(u64).range(1..=1 << 20))]
    burst: u64,
    /// Switch a guard off, by the name of its reason: only to see a test fail
    #[arg(long, value_name = "REASON", hide = true)]
    guard_off: Vec<String>,
}

/// Of 4 KiB.
const PAGES_PER_MIB: u64 = 256;

pub(crate) fn run(args: Run) -> Exit {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(tracing::Level::INFO)
        .init();
    let mut config = Config::default();
    config.filter.include = args.include;
    config.filter.exclude = args.exclude;
    config.guards_off = args.guard_off;
    config.policy.pages_per_second = args.rate * PAGES_PER_MIB;
    config.policy.burst = args.burst * PAGES_PER_MIB;
    let options = Options {
        mode: args.mode,
        listen: args.listen,
        tick: args.tick,
        without: args.without,
        journal: args.journal,
        config,
        latency: args.latency_ratio,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error.into(), Exit::Internal),
    };
    let result = runtime.block_on(daemon::run(options, |text| say(text)));
    // A thread that waits for somebody's lock must not keep us.
    runtime.shutdown_background();
    match result {
        Ok(()) => Exit::Done,
        Err(error) if error.is::<StartError>() => complain(&error, Exit::CannotRun),
        Err(error) => complain(&error, Exit::Internal),
    }
}

fn ratio(text: &str) -> Result<latency::Wanted, String> {
    match text {
        "measured" => return Ok(latency::Wanted::Measured),
        "firmware" => return Ok(latency::Wanted::Firmware),
        _ => {}
    }
    let ratio: f32 = text.parse().map_err(|error| {
        format!("`{text}` is neither measured, nor firmware, nor a ratio: {error}")
    })?;
    if (1.0..=100.0).contains(&ratio) {
        Ok(latency::Wanted::Configured(ratio))
    } else {
        Err(format!("{ratio} is not between 1 and 100 times the local latency"))
    }
}

fn tick(text: &str) -> Result<Duration, String> {
    let seconds: f64 =
        text.parse().map_err(|error| format!("`{text}` is not a number of seconds: {error}"))?;
    if (0.1..=60.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("{seconds} is not between 0.1 and 60 seconds"))
    }
}
