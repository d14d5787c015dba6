//! How good is the policy? Run by `cargo xtask bench policy`.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use migrate_ctl::simulation::yardstick;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Cargo says so to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its result")]
fn main() -> ExitCode {
    let args = Args::parse();
    let figures: Vec<yardstick::Figures> =
        [2, 4].into_iter().flat_map(|nodes| yardstick::measure(args.seed, nodes)).collect();
    if args.output == Output::Json {
        return match serde_json::to_string_pretty(&figures) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(_) => ExitCode::FAILURE,
        };
    }
    println!("seed {}: paid / what a clairvoyant would have paid", args.seed);
    println!(
        "{:16} {:>5} {:>7} {:>10} {:>9} {:>9} {:>7} {:>7} {:>6}",
        "policy",
        "nodes",
        "mean",
        "worst cell",
        "elsewhere",
        "here only",
        "hostile",
        "wrong b",
        "stay"
    );
    for f in &figures {
        println!(
            "{:16} {:>5} {:>7.3} {:>10.2} {:>9.2} {:>9.2} {:>7.2} {:>7.2} {:>6.2}",
            f.policy,
            f.nodes,
            f.mean,
            f.worst_cell,
            f.elsewhere,
            f.here_only,
            f.hostile,
            f.wrong_b,
            f.stay
        );
    }
    ExitCode::SUCCESS
}
