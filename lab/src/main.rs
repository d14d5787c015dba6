//! What runs inside the NUMA guest: its first process, workloads whose true
//! counts are known, the tests and the demo.

mod sys;
mod init;
mod work;
mod witness;
mod controller;
mod demo;
mod tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A workload, told what to do by lines on its standard input
    Work(work::Args),
    /// The tests that need this guest
    Test(tests::Args),
    /// Three acts: nobody, observe, enforce
    Demo(demo::Args),
}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    let result = match Cli::parse().command {
        Command::Work(args) => work::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Test(args) => tests::run(&args),
        Command::Demo(args) => demo::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}
