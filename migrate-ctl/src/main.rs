//! `migrate-ctl`: the command line. Parses and hands over to one of the commands.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod commands;

use commands::assess::Assess;
use commands::doctor::Doctor;
use commands::explain::Explain;
use commands::journal::Journal;
use commands::migrate::Migrate;
use commands::mode::Switch;
use commands::replay::Replay;
use commands::run::Run;
use commands::status::Status;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  internal error
  2  bad input: an unknown node, process or flag
  3  cannot run here: not root, no BTF, port in use, another controller, none to ask
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

#[derive(Subcommand)]
enum Command {
    /// Says what remote memory costs here and what moving would win back; moves nothing
    #[command(after_help = EXIT_CODES)]
    Assess(Assess),
    /// Watches all processes and moves stranded memory, if asked to
    #[command(after_help = EXIT_CODES)]
    Run(Box<Run>),
    /// Moves one process's memory from one node to another, now
    #[command(after_help = EXIT_CODES)]
    Migrate(Migrate),
    /// Says why a process's memory stays or moves, and what would change that
    #[command(after_help = EXIT_CODES)]
    Explain(Explain),
    /// Says what the running controller is doing
    #[command(after_help = EXIT_CODES)]
    Status(Status),
    /// Stops or allows moves in the running controller
    #[command(after_help = EXIT_CODES)]
    Mode(Switch),
    /// Says whether the controller can run here and what it will see
    #[command(after_help = EXIT_CODES)]
    Doctor(Doctor),
    /// Says what a journal holds: each decision and each move, in plain words
    #[command(after_help = EXIT_CODES)]
    Journal(Journal),
    /// Plays a journal or simulated processes once more: what would this and other policies have
    /// cost?
    #[command(after_help = EXIT_CODES)]
    Replay(Box<Replay>),
}

fn main() -> ExitCode {
    let exit = match Cli::parse().command {
        Command::Assess(args) => commands::assess::assess(args),
        Command::Run(args) => commands::run::run(*args),
        Command::Migrate(args) => commands::migrate::migrate(&args),
        Command::Explain(args) => commands::explain::explain(&args),
        Command::Status(args) => commands::status::status(&args),
        Command::Mode(args) => commands::mode::switch(&args),
        Command::Doctor(args) => commands::doctor::examine(&args),
        Command::Journal(args) => commands::journal::journal(&args),
        Command::Replay(args) => commands::replay::replay(&args),
    };
    ExitCode::from(exit as u8)
}
