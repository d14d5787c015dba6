//! The same costs and the same work function once more, as `docs/policy.md` writes them: slow and
//! obvious, with a fresh vector for each value and every way between two states tried.

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::test_runner::Config as Runs;

use crate::config::PolicyConfig;
use crate::model::{Est, NodeObs, NodeVec, Source};
use crate::policy::cost::{Costs, Distances};
use crate::policy::lanes::walls;
use crate::policy::prices::Prices;
use crate::policy::scene::{Proc, Scene};
use crate::policy::work::Work;

/// One process in one tick, and what happens after it.
#[derive(Clone, Debug)]
struct Moment {
    /// CPU seconds by node.
    cpu: Vec<f64>,
    pages: Vec<f32>,
    open: Vec<bool>,
    /// A move is under way.
    moving: bool,
    /// What a move that is over then has cost.
    moved: Option<f64>,
}

#[derive(Clone, Debug)]
struct Machine {
    /// From the CPU's node to the memory's.
    ratios: Vec<Vec<f32>>,
    bound: f32,
    page: f32,
    call: f64,
}

impl Machine {
    fn observe(&self) -> NodeVec<NodeObs> {
        let mut nodes = Scene::new(self.ratios.len()).nodes;
        for (node, ratios) in nodes.values_mut().zip(&self.ratios) {
            for (est, ratio) in node.latency.values_mut().zip(ratios) {
                *est = Est::exact(*ratio, Source::Firmware);
            }
        }
        nodes
    }

    fn config(&self) -> PolicyConfig {
        let price_per_page = Est::exact(self.page, Source::Prior);
        PolicyConfig { price_per_page, price_per_move: self.call, ..PolicyConfig::default() }
    }

    fn ratio(&self, from: usize, to: usize) -> f64 {
        f64::from(self.ratios[from][to])
    }
}

/// The real ones, fed with the same.
struct Real {
    distances: Distances,
    prices: Prices,
    config: PolicyConfig,
    bound: Est,
    costs: Costs,
    work: Work,
}

impl Real {
    fn of(machine: &Machine) -> Self {
        Self {
            distances: Distances::of(&machine.observe()),
            prices: Prices::default(),
            config: machine.config(),
            bound: Est::exact(machine.bound, Source::Prior),
            costs: Costs::default(),
            work: Work::default(),
        }
    }

    fn measure(&mut self, moment: &Moment) {
        let mut proc = Proc::new(1, 0, 0.0, &moment.pages);
        proc.cpu.clone_from(&moment.cpu);
        let domain = proc.observe();
        let pricing = (&self.prices, &self.config);
        let extent = &domain.extents[0];
        self.costs.measure(&domain, extent, self.bound, &self.distances, pricing);
        assert!(self.costs.known);
    }

    fn step(&mut self, moment: &Moment) {
        self.measure(moment);
        self.work.step(&self.costs, &walls(moment.open.iter().copied()), moment.moving);
    }
}

/// Σ over the CPU's nodes n of c(n) ÷ (1 + b·(ρ(n,m) − 1)) · b · (ρ(n,s) − 1).
fn losses(machine: &Machine, moment: &Moment) -> Vec<f64> {
    let nodes = moment.pages.len();
    let total: f64 = moment.pages.iter().map(|&on| f64::from(on)).sum();
    let bound = f64::from(machine.bound);
    let placed = |n: usize| {
        (0..nodes).map(|k| f64::from(moment.pages[k]) / total * machine.ratio(n, k)).sum::<f64>()
    };
    let lost = |state: usize| {
        let at = |n: usize| {
            let there = if state == nodes { placed(n) } else { machine.ratio(n, state) };
            moment.cpu[n] / (1.0 + bound * (placed(n) - 1.0)) * bound * (there - 1.0)
        };
        (0..nodes).map(at).sum()
    };
    (0..=nodes).map(|state| if total > 0.0 { lost(state) } else { 0.0 }).collect()
}

/// The way from one state to another; the last state is `as placed`.
fn way(machine: &Machine, pages: &[f32], from: usize, to: usize) -> f64 {
    let total: f64 = pages.iter().map(|&on| f64::from(on)).sum();
    let placed = pages.len();
    let off = match (from, to) {
        (from, to) if from == to => 0.0,
        (from, to) if from == placed || to == placed => total - f64::from(pages[from.min(to)]),
        _ => total,
    };
    if off > 0.0 { f64::from(machine.page) * off + machine.call } else { 0.0 }
}

/// All ways of any length: the states are tried as stations one after the other.
fn settle(work: &mut [f64], machine: &Machine, moment: &Moment) {
    let states = work.len();
    let closed = |state: usize| moment.open.get(state) == Some(&false);
    for _ in 0..states {
        for to in (0..states).filter(|&to| !closed(to)) {
            for from in (0..states).filter(|&from| !(moment.moving && from + 1 == states)) {
                work[to] = work[to].min(work[from] + way(machine, &moment.pages, from, to));
            }
        }
    }
}

fn ratio() -> impl Strategy<Value = f32> {
    (0..=30_u8).prop_map(|tenths| 1.0 + f32::from(tenths) / 10.0)
}

fn machine(nodes: usize) -> impl Strategy<Value = Machine> {
    let ratios = prop::collection::vec(prop::collection::vec(ratio(), nodes), nodes);
    (ratios, 0.0..=1.0_f32, 1e-7..2e-5_f32, 0.0..0.1_f64).prop_map(
        |(mut ratios, bound, page, call)| {
            for (at, row) in ratios.iter_mut().enumerate() {
                row[at] = 1.0;
            }
            Machine { ratios, bound, page, call }
        },
    )
}

fn moment(nodes: usize) -> impl Strategy<Value = Moment> {
    // Whole nanoseconds, in twice the time too.
    let ran = (0..2_048_u32).prop_map(|parts| f64::from(parts) / 512.0);
    let cpu = prop::collection::vec(prop_oneof![2 => Just(0.0), 1 => ran], nodes);
    let pages = prop_oneof![2 => Just(0.0), 1 => (0..300_000_u32).prop_map(|on| on as f32)];
    let pages = prop::collection::vec(pages, nodes);
    let open = prop::collection::vec(prop::bool::weighted(0.9), nodes);
    let moved = prop::option::weighted(0.1, 0.0..4.0_f64);
    (cpu, pages, open, prop::bool::weighted(0.1), moved)
        .prop_map(|(cpu, pages, open, moving, moved)| Moment { cpu, pages, open, moving, moved })
}

/// Placements that last for some ticks, since a process does not lie elsewhere each second.
fn story() -> impl Strategy<Value = (Machine, Vec<Moment>)> {
    (2..=8_usize).prop_flat_map(|nodes| {
        let moments = prop::collection::vec((moment(nodes), any::<bool>()), 1..40);
        let story = moments.prop_map(|moments| {
            let mut story: Vec<Moment> = Vec::new();
            for (mut moment, stays) in moments {
                if let (Some(last), true) = (story.last(), stays) {
                    moment.pages.clone_from(&last.pages);
                }
                story.push(moment);
            }
            story
        });
        (machine(nodes), story)
    })
}

proptest! {
    #![proptest_config(Runs { cases: 256, ..Runs::default() })]

    #[test]
    fn losses_prices_and_work_are_those_of_the_formulas((machine, story) in story()) {
        let mut real = Real::of(&machine);
        let mut work: Vec<f64> = Vec::new();
        for moment in &story {
            real.step(moment);
            let placed = moment.pages.len();
            let losses = losses(&machine, moment);
            alike(&real.costs.loss, &losses[..placed]);
            alike(&[real.costs.loss_as_placed], &losses[placed..]);
            let price = |to| way(&machine, &moment.pages, placed, to);
            let prices: Vec<f64> = (0..placed).map(price).collect();
            alike(&real.costs.price, &prices);
            if work.is_empty() {
                work = prices.clone();
                work.push(0.0);
            }
            for (work, loss) in work.iter_mut().zip(&losses) {
                *work += loss;
            }
            for (work, _) in work.iter_mut().zip(&moment.open).filter(|(_, open)| !**open) {
                *work = f64::INFINITY;
            }
            settle(&mut work, &machine, moment);
            let gap = |node: usize| work[node] + 0.95 * prices[node] - work[placed];
            let gaps: Vec<f64> = (0..placed).map(gap).collect();
            let real_gap = |node| real.work.gap(&real.costs, 0.95, node);
            alike(&(0..placed).map(real_gap).collect::<Vec<f64>>(), &gaps);
            alike(&[real.work.optimum()], &[work.iter().copied().fold(f64::INFINITY, f64::min)]);
            if let Some(price) = moment.moved {
                real.work.moved(price);
                work[placed] += price;
            }
        }
    }

    /// Seconds have no meaning of their own: with all CPU times and all prices twice as long, the
    /// same moves are made at the same ticks. This holds for costs and work function, and exactly,
    /// since doubling a float rounds nothing. The forecast and the guards do not scale and need
    /// not: a lone process is foretold to last for as long as real ones do, samples come 99 times
    /// a second, and cool-downs and memory policies are measured by the clock.
    #[test]
    fn twice_the_time_at_twice_the_price_is_the_same((machine, story) in story(), twice in 1..5_u8) {
        let scale = f64::from(1_u32 << twice);
        let mut slow = machine.clone();
        slow.call *= scale;
        slow.page *= f32::from(1_u8 << twice);
        let (mut once, mut scaled) = (Real::of(&machine), Real::of(&slow));
        let (mut at, nodes) = (None, machine.ratios.len());
        for moment in &story {
            let mut moment = moment.clone();
            if let Some(node) = at {
                let total: f32 = moment.pages.iter().sum();
                moment.pages = (0..nodes).map(|n| if n == node { total } else { 0.0 }).collect();
            }
            once.step(&moment);
            let mut long = moment.clone();
            long.cpu.iter_mut().for_each(|cpu| *cpu *= scale);
            scaled.step(&long);
            assert_eq!(once.work.optimum() * scale, scaled.work.optimum());
            let choice = once.work.choice(&once.costs, 0.95);
            assert_eq!(choice, scaled.work.choice(&scaled.costs, 0.95));
            if let Some(node) = choice {
                at = Some(node);
                once.work.moved(once.costs.price[node]);
                scaled.work.moved(scaled.costs.price[node]);
            }
        }
    }
}

fn alike(real: &[f64], wanted: &[f64]) {
    assert_eq!(real.len(), wanted.len());
    let alike = |(a, b): (&f64, &f64)| a == b || (a - b).abs() <= 1e-9 * (1.0 + b.abs());
    assert!(real.iter().zip(wanted).all(alike), "{real:?}, not {wanted:?}");
}
