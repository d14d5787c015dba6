//! `migrate-ctl`: the command line. Parses, calls the library, maps errors to exit codes.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum, value_parser};
use migrate_ctl::config::{Config, Pattern};
use migrate_ctl::daemon::{self, Options, StartError};
use migrate_ctl::doctor;
use migrate_ctl::model::NodeId;
use migrate_ctl::mover::by_hand::{self, HandError, HandErrorKind};
use migrate_ctl::probes::SIGNALS;
use migrate_ctl::topology::Topology;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  internal error
  2  bad input: an unknown node, process or flag
  3  cannot run here: not root, no BTF, port in use, another controller
  4  the process is gone
  5  not permitted
  6  moved only a part, or nothing";

/// Decides when a process's memory should follow its CPU, moves it, and checks what it got for it.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where the exporter listens by default.
const LISTEN: &str = "127.0.0.1:9816";

#[derive(Subcommand)]
enum Command {
    /// Watches all processes and moves stranded memory, if asked to
    #[command(after_help = EXIT_CODES)]
    Run(Run),
    /// Moves one process's memory from one node to another, now
    #[command(after_help = EXIT_CODES)]
    Migrate(Migrate),
    /// Says whether the controller can run here and what it will see
    #[command(after_help = EXIT_CODES)]
    Doctor {
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
        /// Where a running controller serves /metrics, which know what it lost
        #[arg(long, value_name = "ADDRESS", default_value = LISTEN)]
        listen: SocketAddr,
    },
}

#[derive(clap::Args)]
struct Run {
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
    /// Take the memory of every other node for so many times slower than local memory, instead of
    /// measuring it
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    latency_ratio: Option<f32>,
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

#[derive(clap::Args)]
struct Migrate {
    pid: u32,
    /// Node that the pages leave
    #[arg(long, value_name = "NODE")]
    from: u16,
    /// Node that they go to
    #[arg(long, value_name = "NODE")]
    to: u16,
    /// Take along what other processes map too (MPOL_MF_MOVE_ALL), libc's text among it
    #[arg(long)]
    shared: bool,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Observe,
    Enforce,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// What the process ends with; `EXIT_CODES` says the same to people.
#[derive(Clone, Copy)]
enum Exit {
    Done = 0,
    Internal = 1,
    BadInput = 2,
    CannotRun = 3,
    Gone = 4,
    NotPermitted = 5,
    Partly = 6,
}

fn main() -> ExitCode {
    let exit = match Cli::parse().command {
        Command::Run(args) => run(args),
        Command::Migrate(args) => migrate(&args),
        Command::Doctor { output, listen } => examine(output, listen),
    };
    ExitCode::from(exit as u8)
}

fn run(args: Run) -> Exit {
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
        enforce: args.mode == Mode::Enforce,
        listen: args.listen,
        tick: args.tick,
        without: args.without,
        journal: args.journal,
        config,
        latency_ratio: args.latency_ratio,
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

fn migrate(args: &Migrate) -> Exit {
    let root = Path::new("/");
    let topology = match Topology::read(root) {
        Ok(topology) => topology,
        Err(error) => return complain(&error.into(), Exit::CannotRun),
    };
    let (from, to) = (NodeId(args.from), NodeId(args.to));
    if args.shared {
        warn_of_shared(root, args.pid, from);
    }
    match by_hand::by_hand(root, &topology, args.pid, from, to, args.shared) {
        Ok(report) => {
            print(args.output, &report);
            if report.complete() { Exit::Done } else { Exit::Partly }
        }
        Err(error) => {
            let exit = hand_exit(&error);
            complain(&error.into(), exit)
        }
    }
}

/// Before anything moves: whose memory comes along.
fn warn_of_shared(root: &Path, pid: u32, from: NodeId) {
    // An error here comes again from the move itself.
    for mapping in by_hand::shared_mappings(root, pid, from).unwrap_or_default() {
        let by_hand::SharedMapping { name, pages, processes } = mapping;
        eprintln!("taking along {name}: {pages} pages that up to {processes} processes share");
    }
}

fn hand_exit(error: &HandError) -> Exit {
    match error.kind() {
        HandErrorKind::BadInput => Exit::BadInput,
        HandErrorKind::Gone => Exit::Gone,
        HandErrorKind::NotPermitted => Exit::NotPermitted,
        HandErrorKind::NothingMoved => Exit::Partly,
        HandErrorKind::Internal => Exit::Internal,
    }
}

fn examine(output: Output, listen: SocketAddr) -> Exit {
    let report = doctor::examine(Path::new("/"), listen);
    print(output, &report);
    if report.can_run { Exit::Done } else { Exit::CannotRun }
}

fn print(output: Output, report: &(impl std::fmt::Display + serde::Serialize)) {
    match output {
        Output::Text => say(report),
        Output::Json => match serde_json::to_string(report) {
            Ok(json) => say(json),
            Err(error) => eprintln!("migrate-ctl: cannot write JSON: {error}"),
        },
    }
}

/// Whoever does not listen any more, as `head`, does not matter.
fn say(text: impl std::fmt::Display) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}

/// One line on stderr: what, which value, what to do.
fn complain(error: &anyhow::Error, exit: Exit) -> Exit {
    eprintln!("migrate-ctl: {error:#}");
    exit
}

fn ratio(text: &str) -> Result<f32, String> {
    let ratio: f32 = text.parse().map_err(|error| format!("`{text}` is not a ratio: {error}"))?;
    if (1.0..=100.0).contains(&ratio) {
        Ok(ratio)
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
