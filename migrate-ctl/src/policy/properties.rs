//! What no input may make the policy do.

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::test_runner::Config as Runs;

use crate::config::Forecasting;
use crate::model::{Decision, Est, Mempolicy, Source, Verdict};
use crate::policy::scene::{Proc, SECOND, Scene, order};

/// Pages that the reserve and the watermark keep free in a scene.
const KEPT: f64 = 17_384.0;

/// Numbers that break careless arithmetic, and usual ones.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        1 => Just(f32::NAN),
        1 => Just(f32::INFINITY),
        1 => Just(f32::MAX),
        1 => Just(-1.0_f32),
        1 => Just(0.0_f32),
        4 => 0.0..300_000.0_f32,
    ]
}

fn a_proc(nodes: usize) -> impl Strategy<Value = Proc> {
    let cpu = prop::collection::vec(prop_oneof![Just(0.0), Just(1e9), 0.0..8.0], nodes);
    let pages = prop::collection::vec(number(), 0..nodes + 2);
    let allowed = prop::collection::vec(prop::bool::weighted(0.9), nodes);
    (cpu, pages, allowed, 0..8_u32).prop_map(|(cpu, pages, allowed, policy)| Proc {
        cpu,
        pages,
        mempolicy: match policy {
            0 => Mempolicy::Unknown,
            1 => Mempolicy::Explicit,
            _ => Mempolicy::Default,
        },
        allowed,
        ..Proc::new(0, 0, 0.0, &[0.0])
    })
}

fn procs(nodes: usize) -> impl Strategy<Value = Vec<Proc>> {
    prop::collection::vec(a_proc(nodes), 1..6).prop_map(|mut procs| {
        for (pid, proc) in (1..).zip(&mut procs) {
            proc.pid = pid;
        }
        procs
    })
}

/// A machine of two to eight nodes, and its processes.
fn machine() -> impl Strategy<Value = (Scene, Vec<Proc>)> {
    (2..=8_usize).prop_flat_map(|nodes| (scene(nodes), procs(nodes)))
}

/// Some nodes lack memory or CPUs, or are nearly full.
fn scene(count: usize) -> impl Strategy<Value = Scene> {
    let node = (prop::bool::weighted(0.8), prop::bool::weighted(0.8), 0..400_000_u64, number());
    let constants = (number(), number(), any::<bool>(), 1..=5_usize);
    (prop::collection::vec(node, count), constants).prop_map(
        move |(nodes, (latency, price, odd, at_once))| {
            let mut scene = Scene::new(count);
            for (obs, (has_cpus, has_memory, free, ratio)) in scene.nodes.values_mut().zip(nodes) {
                (obs.has_cpus, obs.has_memory, obs.free) = (has_cpus, has_memory, free);
                if odd {
                    obs.latency
                        .values_mut()
                        .for_each(|est| *est = Est::exact(ratio, Source::Firmware));
                    obs.latency
                        .values_mut()
                        .take(1)
                        .for_each(|est| *est = Est::exact(latency, Source::Firmware));
                }
            }
            if odd {
                scene.config.policy.price_per_page = Est::exact(price, Source::Prior);
            }
            scene.config.policy.burst = 300_000;
            scene.config.policy.concurrent_moves = at_once;
            scene
        },
    )
}

fn run(scene: &mut Scene, procs: &[Proc]) -> Vec<Vec<Decision>> {
    (0..40).map(|_| scene.tick_of(10 * SECOND, procs)).collect()
}

/// All but what tells who it is about.
fn said(decisions: Vec<Decision>) -> Vec<String> {
    let said = |decision: Decision| {
        let Decision { verdict, reason, forecast, .. } = decision;
        let to =
            if let Verdict::Move(order) = verdict { Some((order.to, order.pages)) } else { None };
        format!("{to:?} {reason:?} {forecast:?}")
    };
    decisions.into_iter().map(said).collect()
}

proptest! {
    #![proptest_config(Runs { cases: 128, ..Runs::default() })]

    #[test]
    fn every_move_goes_where_it_may_and_fits((mut scene, procs) in machine()) {
        for decisions in run(&mut scene, &procs) {
            let (mut spent, mut into, mut orders) = (0.0, [0.0; 8], 0);
            for decision in &decisions {
                let Verdict::Move(order) = &decision.verdict else { continue };
                let node = scene.nodes.get(order.to).expect("the node exists");
                let proc = procs.iter().find(|proc| proc.id() == order.target).expect("it runs");
                assert!(node.has_cpus && node.has_memory);
                assert!(proc.allowed[usize::from(order.to.0)]);
                assert_eq!(proc.mempolicy, Mempolicy::Default);
                assert!(!order.from[order.to]);
                orders += 1;
                spent += order.pages as f64;
                into[usize::from(order.to.0)] += order.pages as f64;
                assert!(into[usize::from(order.to.0)] <= node.free as f64 - KEPT);
            }
            assert!(spent <= 300_000.0);
            assert!(orders <= scene.config.policy.concurrent_moves);
        }
    }

    #[test]
    fn the_order_of_processes_does_not_matter(
        (scene, mut procs) in machine(),
        // Besides, some whose moves are due and compete for the one that is allowed.
        stranded in prop::collection::vec((0.1..8.0_f64, 1_000.0..100_000.0_f32), 2..5),
    ) {
        let (mut one, mut other) = (scene, Scene::new(2));
        one.nodes = Scene::new(one.nodes.len()).nodes;
        one.config.policy.concurrent_moves = 1;
        other.nodes = one.nodes.clone();
        other.config = one.config.clone();
        let stranded = stranded.into_iter().map(|(seconds, pages)| {
            let mut placed = vec![0.0; one.nodes.len()];
            placed[0] = pages;
            Proc::new(0, 1, seconds, &placed)
        });
        procs.extend(stranded);
        // Of two that gain alike, the first is served first.
        for (number, proc) in (1_u32..).zip(&mut procs) {
            proc.pid = number;
            proc.cpu.iter_mut().for_each(|cpu| *cpu *= 1.0 + f64::from(number) / 1e3);
        }
        let mut reversed = procs.clone();
        reversed.reverse();
        for (pid, proc) in (1..).zip(&mut reversed) {
            proc.pid = pid;
        }
        for (ones, mut others) in run(&mut one, &procs).into_iter().zip(run(&mut other, &reversed)) {
            others.reverse();
            // NaN is not equal to itself, so compare what would be written.
            assert_eq!(said(ones), said(others));
        }
    }

    #[test]
    fn every_active_process_gets_one_finite_decision((mut scene, procs) in machine()) {
        let mut seq = None;
        for decisions in run(&mut scene, &procs) {
            assert_eq!(decisions.len(), procs.len());
            for decision in decisions {
                assert!(seq < Some(decision.seq), "numbers only grow");
                seq = Some(decision.seq);
                let forecast = decision.forecast;
                assert!(forecast.loss_rate.low.is_finite() && forecast.lost.is_finite());
                assert!(forecast.move_in.is_none_or(|wait| wait >= 0.0));
                assert!(forecast.remote.is_none_or(|remote| {
                    0.0 <= remote.low && remote.low <= remote.mid
                        && remote.mid <= remote.high && remote.high <= 1.0
                }));
            }
        }
    }

    #[test]
    fn a_process_that_stays_put_moves_at_most_once(
        pages in prop::collection::vec(0.0..200_000.0_f32, 2..=8),
        on in 0..8_usize,
        seconds in 0.01..4.0_f64,
        forecast in prop_oneof![
            Just(Forecasting::Learned),
            Just(Forecasting::Off),
            Just(Forecasting::Always(0.02)),
        ],
    ) {
        let mut scene = Scene::new(pages.len());
        scene.config.policy.forecast = forecast;
        let mut proc = Proc::new(1, on % pages.len(), seconds, &pages);
        let mut moves = 0;
        for _ in 0..600 {
            let decisions = scene.tick(std::slice::from_ref(&proc));
            if let Some(order) = order(&decisions).cloned() {
                scene.carry_out(&order);
                moves += 1;
                proc.pages.fill(0.0);
                proc.pages[usize::from(order.to.0)] = pages.iter().sum();
            }
        }
        assert!(moves <= 1, "{moves} moves");
    }
}
