//! What runs inside the NUMA guest, besides the controller itself.

mod controller;
mod ksm;
mod nodes;
mod sys;
mod test;
mod tests;
mod witness;
mod work;
mod worker;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// A workload with a known count
    Work {
        #[command(subcommand)]
        work: work::Work,
    },
    /// The VM tests of one guest
    Test(test::Args),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Work { work } => work::run(&work).map(|()| ExitCode::SUCCESS),
        Command::Test(args) => Ok(test::run(&args)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}
