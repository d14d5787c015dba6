//! What do the probes cost, and how true is the remote share?
//!
//! Wall time says nothing under emulation, so the guest's clock counts
//! instructions: the same in every run, whatever else this machine does.

mod share;

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::guest::{self, Accel, End, Guest, Load, Node, Rig};
use crate::kernels;
use crate::packages;
use crate::paths::say;

const TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// What the guest puts before a line of results.
const RESULT: &str = "BENCH ";

#[derive(clap::Subcommand)]
pub(crate) enum Args {
    /// Instructions an operation, by probe, in a guest whose clock counts them.
    Probes(Probes),
    /// The remote share as exported, beside what a far guest's emulator has counted.
    Share(share::Args),
}

#[derive(clap::Args)]
pub(crate) struct Probes {
    /// Kernel series such as 6.1, or "newest".
    #[arg(long, default_value = "6.12")]
    kernel: String,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Beside bpftrace one-liners that count the same.
    #[arg(long)]
    bpftrace: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Instructions an operation with one set of probes.
#[derive(Debug, Deserialize, Serialize)]
struct Line {
    probes: String,
    fault: u64,
    migrated_page: u64,
    context_switches: u64,
    system_call: u64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match args {
        Args::Probes(args) => probes(args),
        Args::Share(args) => share::run(args),
    }
}

fn probes(args: &Probes) -> Result<ExitCode> {
    let kernel = kernels::find(&args.kernel)?;
    let mut command = ["/bin/lab", "bench"].map(str::to_owned).to_vec();
    let mut load = Load::default();
    // One processor: the clock counts the instructions of all of them together.
    let mut memory_mib = 768;
    if args.bpftrace {
        command.push("--bpftrace".to_owned());
        load.programs = Some(packages::bpftrace()?);
        // Its libraries lie in the guest's memory.
        memory_mib = 2560;
    }
    load.command = command;
    let guest = Rig::new()?.guest("bench-probes", &kernel, &load)?;
    let nodes = vec![Node { cpus: 1, memory_mib }, Node { cpus: 0, memory_mib: 256 }];
    let guest = Guest { nodes, accel: Some(Accel::Counted), timeout: TIMEOUT, ..guest };
    let mut lines = Vec::new();
    let end = guest::boot(&guest, |line| {
        if let Some((_, json)) = line.split_once(RESULT) {
            lines.push(serde_json::from_str::<Line>(json));
        }
    })?;
    let log = guest::log(&guest.name);
    ensure!(end == End::Exit(0), "the guest ended with {end:?}; log: {}", log.display());
    let lines = lines.into_iter().collect::<Result<Vec<_>, _>>().context("read the results")?;
    match args.output {
        Output::Json => say(serde_json::to_string_pretty(&lines)?),
        Output::Text => say(table(&kernel.release, &lines)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Instructions without probes in the first row, then what each set adds.
fn table(kernel: &str, lines: &[Line]) -> String {
    let mut text = format!(
        "kernel {kernel}: instructions an operation, and what the probes add\n\
         {:24} {:>16} {:>16} {:>16} {:>16}",
        "probes", "fault", "migrated page", "switch and back", "system call"
    );
    let Some((base, others)) = lines.split_first() else { return text };
    let columns: [fn(&Line) -> u64; 4] = [
        |line| line.fault,
        |line| line.migrated_page,
        |line| line.context_switches,
        |line| line.system_call,
    ];
    // Writing to a String cannot fail.
    let _ = write!(text, "\n{:24}", base.probes);
    for column in columns {
        let _ = write!(text, " {:>16}", column(base));
    }
    for line in others {
        let _ = write!(text, "\n{:24}", line.probes);
        for column in columns {
            let added = column(line) as f64 - column(base) as f64;
            let percent = added * 100.0 / column(base).max(1) as f64;
            let _ = write!(text, " {:>16}", format!("{added:+} ({percent:+.1} %)"));
        }
    }
    text
}
