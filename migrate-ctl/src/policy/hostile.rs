//! Inputs that no sampler should make: whatever comes, nothing panics, nothing that is shown is
//! other than a number, and nothing moves to a node that is not there.

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::test_runner::Config as Runs;

use crate::config::{Config, Forecasting};
use crate::contest::world::arrived;
use crate::model::{
    Decision, DomainObs, End, Est, ExtentObs, Input, Mempolicy, Nanos, Node, NodeId, NodeObs,
    NodeVec, Order, Outcome, PidRef, Source, Tick, Verdict,
};
use crate::policy::decide;
use crate::policy::scene::SECOND;
use crate::table::{Table, absorb};
use smallvec::smallvec;

/// What is done after a tick with an order that was given, or with one that never was.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Nothing,
    Ordered,
    HeldBack,
    Over,
    /// Of an order that nobody gave, or that has long been over.
    Stale,
}

fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        Just(f32::NAN),
        Just(f32::INFINITY),
        Just(f32::NEG_INFINITY),
        Just(f32::MAX),
        Just(-1.0_f32),
        Just(0.0_f32),
        0.0..3.0_f32,
        0.0..300_000.0_f32,
    ]
}

fn est() -> impl Strategy<Value = Est> {
    (number(), number(), number()).prop_map(|(low, mid, high)| Est {
        low,
        mid,
        high,
        source: Source::Prior,
    })
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), 0..1_000_000_u64, 0..4 * SECOND]
}

fn vector<T: Clone + std::fmt::Debug>(
    of: impl Strategy<Value = T>,
) -> impl Strategy<Value = NodeVec<T>> {
    prop::collection::vec(of, 0..9).prop_map(|values| {
        NodeVec::from_fn(values.len(), |node| values[usize::from(node.0)].clone())
    })
}

fn node() -> impl Strategy<Value = NodeObs> {
    (any::<[bool; 2]>(), count(), count(), count(), count(), vector(est())).prop_map(
        |([has_cpus, has_memory], free, high_watermark, inactive_file, reclaimed, latency)| {
            NodeObs {
                id: NodeId(0),
                has_cpus,
                has_memory,
                free,
                high_watermark,
                inactive_file,
                reclaimed,
                latency,
            }
        },
    )
}

fn domain() -> impl Strategy<Value = DomainObs> {
    let id = (1..5_u32, prop_oneof![Just(1), Just(u64::MAX)])
        .prop_map(|(pid, start)| PidRef { pid, start });
    let seen = (vector(count()), est(), count(), count(), count(), count(), any::<i64>());
    let extent = (vector(est()), count(), number(), count(), vector(any::<bool>()));
    (id, seen, extent, prop::option::of(number())).prop_map(|(id, seen, extent, unmovable)| {
        let (cpu, boundness, calls, calls_cpu, waited, swapped_in, grown) = seen;
        let (pages, resident, huge, alongside, allowed) = extent;
        let extent = ExtentObs {
            pages,
            resident,
            huge,
            alongside,
            allowed,
            mempolicy: Mempolicy::Default,
            ..ExtentObs::unknown(id, 0)
        };
        DomainObs {
            cpu,
            boundness,
            calls,
            calls_cpu,
            waited,
            swapped_in,
            grown,
            unmovable,
            extents: smallvec![extent],
            ..DomainObs::idle(id, 0)
        }
    })
}

fn tick() -> impl Strategy<Value = Tick> {
    let now = prop_oneof![Just(0), Just(u64::MAX), 0..1_000 * SECOND];
    let dt = prop_oneof![Just(0), Just(u64::MAX), 0..10 * SECOND];
    let nodes = (0..9_usize, prop::collection::vec(node(), 8));
    let gone = prop::collection::vec(1..5_u32, 0..2);
    let domains = prop::collection::vec(domain(), 0..5).prop_map(|mut domains| {
        domains.sort_by_key(|domain| domain.id);
        domains.dedup_by_key(|domain| domain.id);
        domains
    });
    (now, dt, number(), nodes, domains, gone).prop_map(
        |(now, dt, busy, (count, nodes), domains, gone)| Tick {
            now,
            dt,
            busy,
            nodes: NodeVec::from_fn(count.min(8), |n| nodes[usize::from(n.0)].clone()),
            domains,
            gone: gone.into_iter().map(|pid| PidRef { pid, start: 1 }).collect(),
        },
    )
}

/// Ticks that follow each other as they should but for their content, so that moves come due.
fn stream() -> impl Strategy<Value = Vec<(Tick, Answer)>> {
    let answer = prop_oneof![
        Just(Answer::Nothing),
        Just(Answer::Ordered),
        Just(Answer::HeldBack),
        Just(Answer::Over),
        Just(Answer::Stale),
    ];
    let tick = (tick(), prop::bool::weighted(0.3), answer);
    prop::collection::vec(tick, 1..30).prop_map(|ticks| {
        let (mut stream, mut now): (Vec<(Tick, Answer)>, Nanos) = (Vec::new(), 100 * SECOND);
        for (mut tick, wild, answer) in ticks {
            if let (Some((last, _)), false) = (stream.last(), wild) {
                now += 10 * SECOND;
                (tick.now, tick.dt) = (now, 10 * SECOND);
                tick.nodes.clone_from(&last.nodes);
                tick.domains.clone_from(&last.domains);
            }
            stream.push((tick, answer));
        }
        stream
    })
}

fn forecasting() -> impl Strategy<Value = Forecasting> {
    prop_oneof![
        Just(Forecasting::Learned),
        Just(Forecasting::Off),
        Just(Forecasting::Always(0.02)),
        Just(Forecasting::Always(f64::NAN)),
    ]
}

proptest! {
    #![proptest_config(Runs { cases: 64, ..Runs::default() })]

    #[test]
    fn nothing_that_comes_breaks_it(
        stream in stream(),
        forecasting in forecasting(),
        off in prop::bool::ANY,
    ) {
        let mut config = Config::default();
        config.policy.forecast = forecasting;
        if off {
            // More comes through where the guards that wait are off.
            config.guards_off = ["young", "growing", "swapping", "unmovable", "other_mover"]
                .map(str::to_owned)
                .to_vec();
        }
        let mut table = Table::default();
        let mut last: Option<Order> = None;
        for (tick, answer) in stream {
            let mut twin = table.clone();
            let decisions = decide(&mut table, &config, &tick);
            assert_eq!(decide(&mut twin, &config, &tick), decisions);
            table.wants_mempolicy(&config);
            for decision in &decisions {
                check(decision, &tick.nodes);
                let (Verdict::Move(order) | Verdict::HoldBack(order)) = &decision.verdict else {
                    continue;
                };
                for input in inputs(answer, order, last.as_ref()) {
                    absorb(&mut table, &config, &input);
                }
                last = Some(Order::clone(order));
            }
        }
    }
}

fn inputs(answer: Answer, order: &Order, last: Option<&Order>) -> Vec<Input> {
    let stale = last.map(|last| Order { to: Node(u16::MAX), ..last.clone() });
    match answer {
        Answer::Nothing => vec![],
        Answer::Ordered => vec![Input::Ordered(order.clone())],
        Answer::HeldBack => vec![Input::HeldBack(order.clone())],
        Answer::Over => {
            let caller = u64::MAX;
            let outcome = Outcome { caller, ..arrived(order) };
            vec![Input::Ordered(order.clone()), Input::Progress(outcome)]
        }
        Answer::Stale => stale.map_or_else(Vec::new, |stale| {
            let failed = Outcome::of(&stale, End::Failed);
            let done = Input::Progress(arrived(&stale));
            vec![
                Input::Progress(failed),
                Input::HeldBack(stale.clone()),
                Input::Ordered(stale),
                done,
            ]
        }),
    }
}

fn check(decision: &Decision, nodes: &NodeVec<NodeObs>) {
    let forecast = &decision.forecast;
    for est in [forecast.loss_rate, forecast.price, forecast.saves] {
        assert!(est.low <= est.mid && est.mid <= est.high && est.low.is_finite(), "{decision:?}");
    }
    let sums = [forecast.lost, forecast.paid, forecast.optimum];
    assert!(sums.iter().all(|sum| sum.is_finite()), "{decision:?}");
    let spans = [forecast.move_in, forecast.break_even];
    assert!(spans.iter().flatten().all(|span| *span >= 0.0), "{decision:?}");
    if let Verdict::Move(order) | Verdict::HoldBack(order) = &decision.verdict {
        let node = nodes.get(order.to).expect("the node is there");
        assert!(node.has_cpus && node.has_memory);
    }
}
