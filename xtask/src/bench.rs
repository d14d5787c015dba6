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
use clap::builder::PossibleValue;
use serde::{Deserialize, Serialize};

use crate::guest::{self, Accel, End, Guest, Load, Node, Rig};
use crate::kernels;
use crate::packages;
use crate::paths::{self, cargo, say};

const TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// What the guest puts before a line of results.
const RESULT: &str = "BENCH ";

#[derive(clap::Subcommand)]
pub(crate) enum Args {
    /// Instructions an operation, by probe, in a guest whose clock counts them.
    Probes(Probes),
    /// What the policy pays on simulated traces, beside plain policies and a clairvoyant.
    Policy(Policy),
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

#[derive(clap::Args)]
pub(crate) struct Policy {
    /// Of the traces.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
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
    /// Of a single program: the line with all that were attached before it.
    beyond: Option<String>,
    fault: u64,
    write_fault: u64,
    hint_fault: u64,
    moved_page: u64,
    own_moved_page: u64,
    switches: u64,
    system_call: u64,
}

impl Line {
    fn costs(&self) -> [f64; COLUMNS.len()] {
        [
            self.fault,
            self.write_fault,
            self.hint_fault,
            self.moved_page,
            self.own_moved_page,
            self.switches,
            self.system_call,
        ]
        .map(|cost| cost as f64)
    }
}

const COLUMNS: [&str; 7] = [
    "fault",
    "write fault",
    "hint fault",
    "moved page",
    "own moved page",
    "switch and back",
    "system call",
];
/// In percent of an operation; what adds less to each of them is not on its way. The same probes
/// differ by half of that at most, by where an interrupt falls.
const LITTLE: f64 = 0.4;

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match args {
        Args::Probes(args) => probes(args),
        Args::Policy(args) => policy(args),
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

fn policy(args: &Policy) -> Result<ExitCode> {
    let (seed, output) = (args.seed.to_string(), args.output.to_possible_value());
    let output = output.as_ref().map_or("text", PossibleValue::get_name);
    let mut bench = cargo();
    bench.args(["bench", "--quiet", "--package", "migrate-ctl", "--bench", "policy", "--"]);
    paths::run(bench.args(["--seed", &seed, "--output", output]))?;
    Ok(ExitCode::SUCCESS)
}

/// Instructions without probes in the first row, then what each set or program adds.
fn table(kernel: &str, lines: &[Line]) -> String {
    let mut text = format!("kernel {kernel}: instructions an operation, and what the probes add");
    let Some((base, others)) = lines.split_first() else { return text };
    let mut row = |name: &str, cells: [String; COLUMNS.len()]| {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{name:42}");
        for cell in cells {
            let _ = write!(text, " {cell:>15}");
        }
    };
    let costs = base.costs();
    let percent = |added: [f64; COLUMNS.len()]| -> [f64; COLUMNS.len()] {
        std::array::from_fn(|column| added[column] * 100.0 / costs[column].max(1.0))
    };
    let cells = |added| {
        let percent = percent(added);
        std::array::from_fn(|column| format!("{:+} ({:+.1} %)", added[column], percent[column]))
    };
    row("probes", COLUMNS.map(str::to_owned));
    row(&base.probes, costs.map(|cost| cost.to_string()));
    let mut rest = [0.0; COLUMNS.len()];
    for line in others {
        let beyond = line.beyond.as_ref();
        let beyond = beyond.and_then(|name| lines.iter().find(|other| other.probes == *name));
        let (with, without) = (line.costs(), beyond.unwrap_or(base).costs());
        let added = std::array::from_fn(|column| with[column] - without[column]);
        if line.beyond.is_some() && percent(added).iter().all(|percent| percent.abs() < LITTLE) {
            rest = std::array::from_fn(|column| rest[column] + added[column]);
        } else {
            row(&line.probes, cells(added));
        }
    }
    row("all other programs", cells(rest));
    text
}
