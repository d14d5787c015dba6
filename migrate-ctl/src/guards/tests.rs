//! Each guard holds a due move back, and only as long as it is on.

use crate::model::{Est, Input, Mempolicy, NodeVec, Order, PidRef, Reason, Source, Verdict};
use crate::policy::scene::{Proc, Scene, order};

const MANY: f32 = 131_072.0;

#[test]
fn the_excluded_stay() {
    check(Reason::Excluded, |scene, _| {
        scene.config.filter.exclude = vec!["pid:7".parse().unwrap()]
    });
}

#[test]
fn a_deliberate_placement_stays() {
    check(Reason::Mempolicy, |_, proc| proc.mempolicy = Mempolicy::Explicit);
}

#[test]
fn nothing_moves_before_its_memory_policy_was_read() {
    check(Reason::MempolicyUnknown, |_, proc| proc.mempolicy = Mempolicy::Unknown);
}

#[test]
fn a_cpuset_is_obeyed() {
    check(Reason::Cpuset, |_, proc| proc.allowed[1] = false);
}

#[test]
fn more_than_one_direct_move_may_hold_up_stays() {
    check(Reason::TooLarge, |scene, _| scene.config.policy.largest_move = 1000);
}

#[test]
fn nothing_moves_into_a_full_node() {
    check(Reason::NoRoom, |scene, _| scene.nodes[crate::model::Node(1)].free = 140_000);
}

#[test]
fn a_spent_budget_holds_back() {
    check(Reason::RateLimit, |scene, _| {
        (scene.config.policy.burst, scene.config.policy.pages_per_second) = (140_000, 0);
        scene.tick(&[]);
        let (from, to) = (NodeVec::filled(2, true), crate::model::Node(1));
        let target = PidRef { pid: 9, start: 1 };
        let (pages, at_most) = (130_000, 130_000);
        scene.absorb(&Input::Ordered(Order {
            seq: 0,
            target,
            from,
            to,
            pages,
            at_most,
            until: 1,
            saves: Est::NOTHING,
            price: Est::NOTHING,
        }));
    });
}

#[test]
fn what_comes_along_counts_for_room_and_budget() {
    let mut scene = Scene::new(2);
    let proc = Proc { alongside: 1 << 20, ..stranded() };
    assert_eq!(said_at_last(&mut scene, &proc), (Reason::TooLarge, None));
}

#[test]
fn more_than_the_budget_ever_holds_never_moves() {
    let mut scene = Scene::new(2);
    scene.config.policy.burst = 1000;
    assert_eq!(said_at_last(&mut scene, &stranded()), (Reason::TooLarge, None));
}

#[test]
fn half_of_the_inactive_page_cache_is_room() {
    let mut scene = Scene::new(2);
    let node = &mut scene.nodes[crate::model::Node(1)];
    (node.free, node.inactive_file) = (20_000, 262_144);
    let proc = stranded();
    let decisions = (0..20).map(|_| scene.tick(std::slice::from_ref(&proc)));
    assert!(decisions.last().is_some_and(|last| order(&last).is_some()));
}

#[test]
fn page_cache_first_makes_up_for_what_the_watermark_lacks() {
    let mut node = Scene::new(1).nodes[crate::model::Node(0)].clone();
    (node.free, node.inactive_file, node.high_watermark) = (100, 2000, 900);
    assert_eq!(node.room(), 200);
    node.inactive_file = 1000;
    assert_eq!(node.room(), 0);
}

#[test]
fn without_a_placement_nothing_moves() {
    let mut scene = Scene::new(2);
    let mut proc = stranded();
    proc.pages = vec![];
    let decision = &scene.tick(&[proc])[0];
    assert_eq!((&decision.verdict, decision.reason), (&Verdict::Stay, Reason::NoPlacement));
}

#[test]
fn what_lasts_is_said_long_before_the_move_is_due() {
    let mut scene = Scene::new(2);
    let mut proc = stranded();
    proc.mempolicy = Mempolicy::Explicit;
    let decision = &scene.tick(&[proc])[0];
    assert_eq!((decision.reason, decision.forecast.move_in), (Reason::Mempolicy, None));
}

#[test]
fn a_settled_process_is_settled_though_it_is_excluded() {
    let mut scene = Scene::new(2);
    scene.config.filter.exclude = vec!["comm:redis-server".parse().unwrap()];
    assert_eq!(scene.tick(&[Proc::new(7, 0, 1.0, &[MANY, 0.0])])[0].reason, Reason::Settled);
}

#[test]
fn moves_of_the_same_tick_share_the_room_and_the_budget() {
    for by_budget in [false, true] {
        let mut scene = Scene::new(2);
        if by_budget {
            scene.config.policy.burst = 200_000;
        } else {
            scene.nodes[crate::model::Node(1)].free = 217_384;
        }
        let procs = [stranded(), Proc { pid: 8, ..stranded() }];
        let last = (0..20).map(|_| scene.tick(&procs)).last().unwrap();
        let other = if by_budget { Reason::RateLimit } else { Reason::NoRoom };
        assert_eq!([last[0].reason, last[1].reason], [Reason::Pays, other]);
    }
}

#[test]
fn an_order_under_way_keeps_its_room_and_is_not_given_twice() {
    let mut scene = Scene::new(2);
    scene.nodes[crate::model::Node(1)].free = 217_384;
    let procs = [stranded(), Proc { pid: 8, ..stranded() }];
    let last = (0..20).map(|_| scene.tick(&procs)).last().unwrap();
    scene.absorb(&Input::Ordered(order(&last).unwrap().clone()));
    let next = scene.tick(&procs);
    assert_eq!([next[0].reason, next[1].reason], [Reason::Moving, Reason::NoRoom]);
}

/// A stranded process stays for this reason once its move is due, and goes without the guard.
fn check(reason: Reason, arrange: impl Fn(&mut Scene, &mut Proc)) {
    for guarded in [true, false] {
        let (mut scene, mut proc) = (Scene::new(2), stranded());
        arrange(&mut scene, &mut proc);
        if !guarded {
            scene.config.guards_off = vec![reason.name().to_owned()];
        }
        let mut last = None;
        for _ in 0..20 {
            last = scene.tick(std::slice::from_ref(&proc)).pop();
        }
        let last = last.unwrap();
        let expected = if guarded { reason } else { Reason::Pays };
        assert_eq!(last.reason, expected, "guarded: {guarded}");
        assert_eq!(matches!(last.verdict, Verdict::Move(_)), !guarded);
    }
}

/// Reason and time to the move when one has long been due.
fn said_at_last(scene: &mut Scene, proc: &Proc) -> (Reason, Option<f32>) {
    let decisions = (0..20).map(|_| scene.tick(std::slice::from_ref(proc)));
    let last = decisions.last().unwrap();
    (last[0].reason, last[0].forecast.move_in)
}

fn stranded() -> Proc {
    Proc::new(7, 1, 1.0, &[MANY, 0.0])
}

#[test]
fn a_number_that_is_none_fits_nowhere() {
    let mut scene = Scene::new(2);
    for node in scene.nodes.values_mut() {
        node.latency = NodeVec::filled(2, Est::exact(f32::NAN, Source::Firmware));
    }
    assert_eq!(scene.tick(&[stranded()])[0].reason, Reason::Settled);
}

#[test]
fn a_move_that_has_hurt_is_not_made_again() {
    let (mut scene, proc) = (Scene::new(2), stranded());
    let hurt = |scene: &mut Scene| {
        scene.tick(std::slice::from_ref(&proc));
        scene.table.rows.values_mut().for_each(|row| row.hurt_by = Some(crate::model::Node(1)));
    };
    hurt(&mut scene);
    let last = (0..100).map(|_| scene.tick(std::slice::from_ref(&proc)).remove(0)).last().unwrap();
    assert_eq!((last.verdict, last.reason), (Verdict::Stay, Reason::Hurt));
    scene.config.guards_off = vec![Reason::Hurt.name().to_owned()];
    let moved = (0..100).any(|_| order(&scene.tick(std::slice::from_ref(&proc))).is_some());
    assert!(moved);
}
