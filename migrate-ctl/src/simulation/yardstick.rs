//! The figures by which policies are compared.

use serde::Serialize;

use crate::config::Forecasting;
use crate::plain::Plain;
use crate::simulation::game::{Migrate, Paid, Policy, Rules};
use crate::simulation::traces::{BAD, Dice, LAWS, Law, PRICES, TICKS, Trace, traces};

/// An adversary plays so long,
const DUEL: usize = 4_000;
/// for moves of such prices, in seconds.
const DUEL_PRICES: [f64; 3] = [0.3, 1.0, 3.0];
/// A hostile forecast says to move when staying has lost this share of the price.
const HOSTILE: f64 = 0.02;
/// How far the memory-bound share may be off.
const WRONG: f64 = 2.0;

/// One policy's figures: what it paid ÷ what the clairvoyant would have.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub policy: &'static str,
    pub nodes: usize,
    /// Over all cells; a cell is the traces of one law and one price.
    pub mean: f64,
    pub worst_cell: f64,
    /// Against a task that runs on a random node where its memory is not.
    pub elsewhere: f64,
    /// Against an adversary that makes only the memory's node slow.
    pub here_only: f64,
    /// The worse of the two when each forecast is wrong.
    pub hostile: f64,
    /// The worst cell with penalties that look twice or half as large as they are.
    pub wrong_b: f64,
    /// The mean over the cells of tasks that stay for good.
    pub stay: f64,
    /// The mean by law; not part of the JSON.
    #[serde(skip)]
    pub by_law: Vec<f64>,
}

/// Ours first, then the plain ones.
pub fn measure(seed: u64, nodes: usize) -> Vec<Figures> {
    let traces = traces(seed, nodes);
    let ours = figures("migrate", seed, nodes, &traces, Migrate::unguarded);
    let plain = Plain::ALL.map(|plain| figures(plain.name(), seed, nodes, &traces, |_| plain));
    std::iter::once(ours).chain(plain).collect()
}

fn figures<P: Policy>(
    policy: &'static str,
    seed: u64,
    nodes: usize,
    traces: &[Trace],
    new: impl Fn(Forecasting) -> P,
) -> Figures {
    let cells = |looks| cells(&mut new(Forecasting::Learned), nodes, looks, traces);
    let duels = |forecast| duels(seed, nodes, || new(forecast));
    let [elsewhere, here_only] = duels(Forecasting::Learned);
    let [hostile_elsewhere, hostile_here] = duels(Forecasting::Always(HOSTILE));
    let ratios = cells(1.0);
    let by_law = ratios.chunks(PRICES.len()).map(mean).collect::<Vec<_>>();
    let stay = LAWS.iter().position(|&law| law == Law::Stay);
    Figures {
        policy,
        nodes,
        mean: mean(&ratios),
        worst_cell: worst(&ratios),
        elsewhere,
        here_only,
        hostile: hostile_elsewhere.max(hostile_here),
        wrong_b: worst(&cells(WRONG)).max(worst(&cells(1.0 / WRONG))),
        stay: stay.map_or(f64::NAN, |law| by_law[law]),
        by_law,
    }
}

/// The ratio of each cell, by law and price.
fn cells(policy: &mut impl Policy, nodes: usize, looks: f64, traces: &[Trace]) -> Vec<f64> {
    let mut cells = vec![Paid::default(); LAWS.len() * PRICES.len()];
    for trace in traces {
        let rules = Rules { nodes, ticks: TICKS, price: PRICES[trace.price], looks };
        let mut world = |tick: usize, _: usize| all_but(nodes, trace.runs_on[tick]);
        let paid = policy.play(rules, &LAWS[trace.law].name(), &mut world);
        let cell = &mut cells[trace.law * PRICES.len() + trace.price];
        cell.ours += paid.ours;
        cell.optimum += paid.optimum;
    }
    cells.iter().map(|cell| cell.ours / cell.optimum).collect()
}

/// The worst ratio against each of the two adversaries.
fn duels<P: Policy>(seed: u64, nodes: usize, new: impl Fn() -> P) -> [f64; 2] {
    let ratios = DUEL_PRICES.map(|price| {
        let rules = Rules { nodes, ticks: DUEL, price, looks: 1.0 };
        let mut dice = Dice::new(seed);
        let mut elsewhere =
            |_: usize, at: usize| all_but(nodes, (at + 1 + dice.below(nodes - 1)) % nodes);
        let elsewhere = new().play(rules, "duel", &mut elsewhere);
        let here = new().play(rules, "duel", &mut |_: usize, at: usize| only(nodes, at));
        [elsewhere, here].map(|paid| paid.ours / paid.optimum)
    });
    [0, 1].map(|duel| worst(&ratios.map(|pair| pair[duel])))
}

fn all_but(nodes: usize, runs_on: usize) -> Vec<f64> {
    (0..nodes).map(|node| if node == runs_on { 0.0 } else { BAD }).collect()
}

fn only(nodes: usize, at: usize) -> Vec<f64> {
    (0..nodes).map(|node| if node == at { BAD } else { 0.0 }).collect()
}

fn mean(ratios: &[f64]) -> f64 {
    ratios.iter().sum::<f64>() / ratios.len() as f64
}

fn worst(ratios: &[f64]) -> f64 {
    ratios.iter().copied().fold(f64::NAN, f64::max)
}
