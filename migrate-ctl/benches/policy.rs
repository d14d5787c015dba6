//! How good and how fast is the policy? Run by `cargo xtask bench policy`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use migrate_ctl::config::Config;
use migrate_ctl::contest::world::World;
use migrate_ctl::policy;
use migrate_ctl::simulation::fleet::Fleet;
use migrate_ctl::simulation::machines::Machine;
use migrate_ctl::simulation::yardstick;
use migrate_ctl::table::{Table, absorb};

/// Processes and nodes of the tick that is timed.
const FLEET: (usize, usize) = (10_000, 8);
/// The first ticks allocate, and up to the 300th no process exits.
const WARM_UP: usize = 600;
const TICKS: usize = 200;

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
    let [median, worst] = ticks(args.seed);
    let (processes, nodes) = FLEET;
    println!(
        "a tick over {processes} processes on {nodes} nodes: {:.2} ms of policy time, at most {:.2} ms \
         ({TICKS} ticks)",
        median.as_secs_f64() * 1e3,
        worst.as_secs_f64() * 1e3
    );
    ExitCode::SUCCESS
}

/// The median and the longest.
fn ticks(seed: u64) -> [Duration; 2] {
    let mut config = Config::default();
    config.policy.hold_back = 0.0;
    let mut fleet = Fleet::new(seed, FLEET.0, &Machine::uniform(FLEET.1), None);
    let (mut table, mut world) = (Table::default(), World::default());
    let mut spans: Vec<Duration> = Vec::with_capacity(TICKS);
    for number in 0..WARM_UP + TICKS {
        let mut tick = fleet.tick();
        world.show(&mut tick);
        let begin = Instant::now();
        let decisions = std::hint::black_box(policy::decide(&mut table, &config, &tick));
        if number >= WARM_UP {
            spans.push(begin.elapsed());
        }
        for input in world.carry_out(&decisions) {
            absorb(&mut table, &config, &input);
        }
    }
    spans.sort_unstable();
    [spans[TICKS / 2], spans[TICKS - 1]]
}
