//! What runs inside the NUMA guest, besides the controller itself.

mod init;

use std::process::ExitCode;

use clap::Parser;

/// What the guest's tests and the demo are made of.
#[derive(Parser)]
#[command(name = "lab")]
enum Command {}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    match Command::parse() {}
}
