//! `migrate-ctl replay`: a journal or simulated processes, through our policy and others.

use std::path::PathBuf;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::value_parser;
use migrate_ctl::config::set::Setting;
use migrate_ctl::plain::Plain;
use migrate_ctl::replay::source::{Plan, Source};
use migrate_ctl::replay::{self, OURS};
use migrate_ctl::simulation::machines::Machine;
use migrate_ctl::simulation::traces::{LAWS, Law};

use super::{Exit, Output, complain, print};

#[derive(clap::Args)]
pub(crate) struct Replay {
    /// What `migrate-ctl run --journal FILE` wrote
    #[arg(required_unless_present = "generate", conflicts_with = "generate")]
    file: Option<PathBuf>,
    /// Show this policy; repeatable [default: all but work_function]
    #[arg(long, value_name = "NAME", value_parser = policies())]
    policy: Vec<String>,
    /// Change a number of the policy's settings, as in gamma=0.9; repeatable
    #[arg(long, value_name = "KEY=NUMBER")]
    set: Vec<Setting>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Simulate processes that stay on a node for so many ticks of 0.1 s each time: stay,
    /// period:TICKS, exp:MEAN, pareto:SCALE:ALPHA, mix:SHORT:LONG, several with commas, or all
    #[arg(long, value_name = "LAWS")]
    generate: Option<String>,
    /// The same seed, the same processes
    #[arg(long, default_value_t = 1, requires = "generate")]
    seed: u64,
    /// Nodes of the simulated machine [default: 2, or all that the machine has]
    #[arg(long, requires = "generate", value_parser = value_parser!(u64).range(2..=8))]
    nodes: Option<u64>,
    /// Distances of the simulated machine: uniform, naples, rome or opteron
    #[arg(long, value_name = "NAME", default_value = "uniform", requires = "generate")]
    machine: String,
    /// Simulated processes at any time; who exits is replaced
    #[arg(long, default_value_t = 100, requires = "generate", value_parser = value_parser!(u64).range(1..=1_000_000))]
    processes: u64,
    #[arg(long, default_value_t = 3_000, requires = "generate", value_parser = value_parser!(u64).range(1..=10_000_000))]
    ticks: u64,
    /// Write the simulated inputs to this file, as a journal
    #[arg(long, value_name = "FILE", requires = "generate")]
    save: Option<PathBuf>,
}

fn policies() -> PossibleValuesParser {
    PossibleValuesParser::new(std::iter::once(OURS).chain(Plain::ALL.map(Plain::name)))
}

pub(crate) fn replay(args: &Replay) -> Exit {
    match report(args) {
        Ok(report) => {
            print(args.output, &report);
            Exit::Done
        }
        Err(error) => complain(&error, Exit::BadInput),
    }
}

fn report(args: &Replay) -> anyhow::Result<replay::report::Report> {
    let source = match (&args.file, &args.generate) {
        (Some(file), _) => Source::Journal(file.clone()),
        (None, laws) => Source::Fleet(plan(args, laws.as_deref().unwrap_or("all"))?),
    };
    if let (Source::Fleet(plan), Some(path)) = (&source, &args.save) {
        plan.save(path).with_context(|| format!("write {}", path.display()))?;
    }
    let all = || {
        let plain = Plain::ALL.iter().filter(|plain| **plain != Plain::WorkFunction);
        std::iter::once(OURS).chain(plain.map(|plain| plain.name())).collect()
    };
    let chosen: Vec<&str> = args.policy.iter().map(String::as_str).collect();
    let shown = if chosen.is_empty() { all() } else { chosen };
    Ok(replay::replay(&source, &args.set, &shown)?)
}

fn plan(args: &Replay, laws: &str) -> anyhow::Result<Plan> {
    let laws = match laws {
        "all" => LAWS.to_vec(),
        some => some.split(',').map(str::parse).collect::<Result<Vec<Law>, _>>()?,
    };
    let machine: Machine = match (args.machine.as_str(), args.nodes) {
        ("uniform", nodes) => nodes.unwrap_or(2).to_string().parse()?,
        (name, None) => name.parse()?,
        (name, Some(nodes)) => name.parse::<Machine>()?.first(usize::try_from(nodes)?),
    };
    Ok(Plan {
        laws,
        seed: args.seed,
        machine,
        processes: usize::try_from(args.processes)?,
        ticks: usize::try_from(args.ticks)?,
    })
}
