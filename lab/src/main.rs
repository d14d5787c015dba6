//! What runs inside the NUMA guest, besides the controller itself: its first
//! process, workloads whose true counts are known, the tests and the demo.

mod sys;
mod init;
mod nodes;
mod witness;

mod work;
mod worker;
mod ksm;
mod swap;
mod balancing;
mod controller;
mod far;

mod test;
mod tests;
mod demo;
mod scene;
mod share;
mod bench;

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
    /// Three acts with a real server: nobody, observe, enforce
    Demo(demo::Args),
    /// A busy machine for a Prometheus outside
    Scene(scene::Args),
    /// A program with memory on two nodes, and what the controller says of it
    Share(share::Args),
    /// Reads each node's memory from each node, for the check of a far machine
    Far,
    /// Instructions that the probes cost, where the clock counts them
    Bench(bench::Args),
}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    let result = match Command::parse() {
        Command::Work { work } => work::run(&work).map(|()| ExitCode::SUCCESS),
        Command::Test(args) => Ok(test::run(&args)),
        Command::Demo(args) => demo::run(&args),
        Command::Scene(args) => scene::run(&args),
        Command::Share(args) => share::run(&args),
        Command::Far => far::check().map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}
