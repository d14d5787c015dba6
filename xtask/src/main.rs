//! Sets up, builds, runs, demonstrates and tests migrate: `cargo xtask help`.
//!
//! Only maps subcommands to modules and errors to exit codes.

mod paths;
mod setup;
mod toolchain;
mod apt;
mod packages;
mod kernels;
mod elf;
mod build;
mod run;
mod guest;
mod initramfs;
mod vm;
mod demo;
mod test;
mod bench;
mod lint;
mod tidy;
mod clean;
mod prometheus;

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::paths::{root, say};

#[derive(clap::Parser)]
#[command(name = "cargo xtask", about = "Sets up, builds, runs, demonstrates and tests migrate")]
struct Cli {
    /// Builds the probes with this toolchain; MIGRATE_TOOLCHAIN does the same.
    #[arg(long, global = true, value_enum)]
    toolchain: Option<toolchain::Kind>,
    /// Install what is missing without asking.
    #[arg(long, global = true)]
    yes: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Find or install what is missing: prints its plan first.
    Setup(setup::Args),
    /// Build probes and controller; the last line is the binary's path.
    Build,
    /// Build as you, then run the controller as root on this machine.
    Run(run::Args),
    /// A shell or a command in a NUMA guest.
    Vm(vm::Args),
    /// Show the whole in a guest: a stranded server is found and moved.
    Demo(demo::Args),
    /// Lint, unit tests, and the tests in guests on every kernel.
    Test(test::Args),
    /// What the probes cost.
    #[command(subcommand)]
    Bench(bench::Args),
    /// Format, clippy, rustdoc and tidy, warnings denied.
    Lint,
    /// Remove what xtask made, and name what it leaves.
    Clean,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(kind) = cli.toolchain {
        toolchain::request(kind);
    }
    if cli.yes {
        setup::agree();
    }
    perform(cli.command).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn perform(command: Command) -> Result<ExitCode> {
    refuse_sudo()?;
    match command {
        Command::Setup(args) => return setup::main(args),
        Command::Build => say(build::build()?.controller.display().to_string()),
        Command::Run(args) => run::main(args)?,
        Command::Vm(args) => return vm::run(args),
        Command::Demo(args) => return demo::run(args),
        Command::Test(args) => return test::run(args),
        Command::Bench(args) => return bench::run(&args),
        Command::Lint => lint::main()?,
        Command::Clean => clean::main()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Built through sudo in another user's clone, files would be root's.
fn refuse_sudo() -> Result<()> {
    let owner = fs::metadata(root()).context("look at the clone's folder")?.uid();
    let sudo = rustix::process::geteuid().is_root() && env::var_os("SUDO_UID").is_some();
    ensure!(!sudo || owner == 0, "run it without sudo: it builds as you and asks sudo itself");
    Ok(())
}
