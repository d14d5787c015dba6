//! Each guard holds a due move back, and only as long as it is on.

use crate::model::{
    DomainObs, End, Est, Input, Mempolicy, MigratedObs, Node, NodeVec, Order, Pages, PidRef,
    Reason, Source, Verdict,
};
use crate::policy::scene::{Proc, SECOND, Scene, order, outcome};

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
fn memory_that_others_map_too_stays() {
    check(Reason::Shared, |_, proc| proc.also = |seen| seen.extents[0].resident *= 3);
}

#[test]
fn a_cpuset_is_obeyed() {
    check(Reason::Cpuset, |_, proc| proc.allowed[1] = false);
}

/// Node 1 has CPUs and no memory; the memory nearest to it belongs to node 2, without CPUs.
#[test]
fn a_node_without_cpus_is_no_destination() {
    check_from(&memory_only, Reason::SlowNode, |_, _| {});
}

#[test]
fn threads_of_which_no_node_has_two_thirds_stay() {
    for (there, reason) in [(0.6, Reason::Spread), (0.75, Reason::Pays)] {
        let proc = Proc { cpu: vec![1.0 - there, there], ..stranded_with(8_192.0) };
        assert_eq!(said_at_last(&mut Scene::new(2), &proc).0, reason);
    }
    check(Reason::Spread, |_, proc| {
        *proc = Proc { cpu: vec![0.4, 0.6], ..stranded_with(8_192.0) };
    });
}

/// Not `settled`: it does lose by being spread, and the user should know.
#[test]
fn threads_of_which_no_node_gains_are_spread() {
    let mut scene = Scene::new(2);
    let proc = Proc { cpu: vec![0.5, 0.5], ..stranded() };
    assert_eq!(said_at_last(&mut scene, &proc), (Reason::Spread, None));
    scene.config.guards_off = vec!["spread".to_owned()];
    assert_eq!(scene.tick(&[proc])[0].reason, Reason::Settled);
}

/// Half of them are better than none.
#[test]
fn threads_on_two_nodes_draw_their_memory_from_a_third() {
    let mut scene = Scene::new(3);
    let proc = Proc { cpu: vec![0.0, 0.5, 0.5], ..Proc::new(7, 1, 1.0, &[8_192.0, 0.0, 0.0]) };
    assert_eq!(said_at_last(&mut scene, &proc).0, Reason::Pays);
}

#[test]
fn a_second_move_waits_for_the_end_of_the_first() {
    check(Reason::Moving, |scene, proc| {
        let order = given(proc);
        scene.tick(std::slice::from_ref(proc));
        scene.absorb(&Input::Ordered(order));
    });
}

#[test]
fn a_failed_move_is_not_tried_again_at_once() {
    check(Reason::CoolDown, |scene, proc| {
        let order = given(proc);
        scene.tick(std::slice::from_ref(proc));
        scene.absorb(&Input::Ordered(order.clone()));
        scene.absorb(&Input::Progress(outcome(&order, End::Failed, 0)));
    });
}

#[test]
fn what_could_not_be_moved_is_left_alone() {
    check(Reason::Unmovable, |_, proc| proc.also = |seen| seen.unmovable = Some(0.5));
}

#[test]
fn what_could_not_be_moved_is_tried_again_ten_minutes_later() {
    let mut scene = Scene::new(2);
    let pinned = Proc { also: |seen| seen.unmovable = Some(1.0), ..stranded() };
    let (reason, wait) = said_at_last(&mut scene, &pinned);
    assert_eq!(reason, Reason::Unmovable);
    let wait = wait.unwrap();
    assert!((570.0..600.0).contains(&wait), "{wait}");
    let waited = (1..).find(|_| order(&scene.tick(std::slice::from_ref(&pinned))).is_some());
    assert_eq!(waited.map(f64::from), Some(f64::from(wait)));
}

#[test]
fn another_mover_is_left_to_it() {
    check(Reason::OtherMover, |_, proc| proc.also = by_others);
}

#[test]
fn ten_seconds_after_another_mover_has_ended_it_moves() {
    let mut scene = Scene::new(2);
    let moved_by_others = Proc { also: by_others, ..stranded() };
    said_at_last(&mut scene, &moved_by_others);
    let reasons: Vec<Reason> = (0..10).map(|_| scene.tick(&[stranded()])[0].reason).collect();
    assert_eq!((reasons[8], reasons[9]), (Reason::OtherMover, Reason::Pays));
}

#[test]
fn a_process_that_has_just_begun_waits() {
    check(Reason::Young, |scene, proc| {
        (proc.start, scene.config.policy.young_seconds) = (scene.now / 10_000_000, 60.0);
    });
}

#[test]
fn a_process_younger_than_a_second_waits_for_the_rest_of_it() {
    let mut scene = Scene::new(2);
    let proc = Proc { start: scene.now / 10_000_000, ..Proc::new(7, 1, 0.1, &[2_048.0, 0.0]) };
    let mut young = 0;
    for tick in 1..=9 {
        let decision = &scene.tick_of(SECOND / 10, std::slice::from_ref(&proc))[0];
        if decision.reason == Reason::Young {
            young += 1;
            let left = decision.forecast.move_in.unwrap();
            assert!((left - 0.1 * (10 - tick) as f32).abs() < 0.01, "{left}");
        }
        assert_eq!(decision.verdict, Verdict::Stay);
    }
    assert!(young >= 3, "{young}");
    assert!(order(&scene.tick_of(SECOND / 10, &[proc])).is_some());
}

#[test]
fn pages_that_come_back_from_swap_are_not_moved() {
    check(Reason::Swapping, |_, proc| proc.also = |seen| seen.swapped_in = 101);
}

#[test]
fn memory_that_grows_by_half_in_ten_seconds_waits() {
    let growing = |scene: &mut Scene, proc: &mut Proc| {
        for _ in 0..20 {
            proc.pages[0] *= 1.08;
            scene.tick(std::slice::from_ref(proc));
        }
        proc.pages[0] *= 1.08;
    };
    for (guards_off, reason) in [(vec![], Reason::Growing), (vec!["growing".into()], Reason::Pays)]
    {
        let (mut scene, mut proc) = (Scene::new(2), stranded_with(32_768.0));
        scene.config.guards_off = guards_off;
        growing(&mut scene, &mut proc);
        assert_eq!(scene.tick(&[proc])[0].reason, reason);
    }
}

#[test]
fn a_node_whose_memory_is_being_reclaimed_is_no_destination() {
    check(Reason::Reclaiming, |scene, _| {
        let node = &mut scene.nodes[Node(1)];
        (node.free, node.inactive_file, node.reclaimed) = (18_000, 400_000, 1);
    });
}

#[test]
fn reclaim_five_seconds_ago_or_with_plenty_free_stands_against_nothing() {
    let mut scene = Scene::new(2);
    let node = &mut scene.nodes[Node(1)];
    (node.free, node.inactive_file, node.reclaimed) = (18_000, 400_000, 1);
    said_at_last(&mut scene, &stranded());
    scene.nodes[Node(1)].reclaimed = 0;
    let reasons: Vec<Reason> = (0..5).map(|_| scene.tick(&[stranded()])[0].reason).collect();
    assert_eq!((reasons[3], reasons[4]), (Reason::Reclaiming, Reason::Pays));
    let node = &mut scene.nodes[Node(1)];
    (node.free, node.reclaimed) = (1 << 20, 1);
    assert_eq!(scene.tick(&[stranded()])[0].reason, Reason::Pays);
}

#[test]
fn what_the_caches_hold_stays() {
    check(Reason::TooSmall, |_, proc| *proc = stranded_with(511.0));
}

#[test]
fn more_than_one_direct_move_may_hold_up_stays() {
    check(Reason::TooLarge, |scene, _| scene.config.policy.largest_move = 1000);
}

#[test]
fn nothing_moves_into_a_full_node() {
    check(Reason::NoRoom, |scene, _| scene.nodes[Node(1)].free = 140_000);
}

#[test]
fn a_spent_budget_holds_back() {
    check(Reason::RateLimit, |scene, _| {
        (scene.config.policy.burst, scene.config.policy.pages_per_second) = (140_000, 0);
        scene.tick(&[]);
        scene.absorb(&Input::Ordered(given(&Proc { pid: 9, ..stranded() })));
    });
}

#[test]
fn no_more_orders_are_under_way_than_may_be() {
    check(Reason::Concurrency, |scene, _| {
        scene.config.policy.concurrent_moves = 1;
        let other = Proc { pid: 9, ..stranded() };
        scene.tick(std::slice::from_ref(&other));
        scene.absorb(&Input::Ordered(given(&other)));
    });
}

/// An in-memory database of 2 TiB with threads on every CPU.
#[test]
fn a_huge_process_with_many_threads_stays_and_says_why() {
    let huge = Proc { also: |seen| seen.threads = 512, ..stranded_with(536_870_912.0) };
    let everywhere = Proc { cpu: vec![32.0, 32.0], ..huge.clone() };
    let on_one_node = Proc { cpu: vec![0.0, 64.0], ..huge };
    for (proc, reason) in [(everywhere, Reason::Spread), (on_one_node, Reason::TooLarge)] {
        assert_eq!(said_at_last(&mut Scene::new(2), &proc), (reason, None));
    }
}

/// Workers of a forking server: 512 MiB, of which each has written to a few pages of its own.
#[test]
fn a_forking_server_stays_and_says_why() {
    let also = |seen: &mut DomainObs| seen.extents[0].resident = 131_072;
    let workers: Vec<Proc> =
        (1..9).map(|pid| Proc { pid, also, ..stranded_with(1_000.0) }).collect();
    let nothing_own = Proc { pages: vec![0.0, 0.0], ..workers[0].clone() };
    let mut scene = Scene::new(2);
    let decisions = (0..20).map(|_| scene.tick(&workers)).last().unwrap();
    assert!(decisions.iter().all(|decision| decision.reason == Reason::Shared));
    assert_eq!(said_at_last(&mut Scene::new(2), &nothing_own), (Reason::Shared, None));
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
    let node = &mut scene.nodes[Node(1)];
    (node.free, node.inactive_file) = (20_000, 262_144);
    let proc = stranded();
    let decisions = (0..20).map(|_| scene.tick(std::slice::from_ref(&proc)));
    assert!(decisions.last().is_some_and(|last| order(&last).is_some()));
}

#[test]
fn page_cache_first_makes_up_for_what_the_watermark_lacks() {
    let mut node = Scene::new(1).nodes[Node(0)].clone();
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
            scene.nodes[Node(1)].free = 217_384;
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
    scene.nodes[Node(1)].free = 217_384;
    let procs = [stranded(), Proc { pid: 8, ..stranded() }];
    let last = (0..20).map(|_| scene.tick(&procs)).last().unwrap();
    scene.absorb(&Input::Ordered(order(&last).unwrap().clone()));
    let next = scene.tick(&procs);
    assert_eq!([next[0].reason, next[1].reason], [Reason::Moving, Reason::NoRoom]);
}

#[test]
fn a_number_that_is_none_fits_nowhere() {
    let mut scene = Scene::new(2);
    for node in scene.nodes.values_mut() {
        node.latency = NodeVec::filled(2, Est::exact(f32::NAN, Source::Firmware));
    }
    assert_eq!(scene.tick(&[stranded()])[0].reason, Reason::Settled);
}

/// A stranded process stays for this reason once its move is due, and goes without the guard.
fn check(reason: Reason, arrange: impl Fn(&mut Scene, &mut Proc)) {
    check_from(&|| (Scene::new(2), stranded()), reason, arrange);
}

fn check_from(
    start: &dyn Fn() -> (Scene, Proc),
    reason: Reason,
    arrange: impl Fn(&mut Scene, &mut Proc),
) {
    for guarded in [true, false] {
        let (mut scene, mut proc) = start();
        if !guarded {
            scene.config.guards_off = vec![reason.name().to_owned()];
        }
        arrange(&mut scene, &mut proc);
        let last = (0..20).filter_map(|_| scene.tick(std::slice::from_ref(&proc)).pop()).last();
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
    stranded_with(MANY)
}

fn stranded_with(pages: f32) -> Proc {
    Proc::new(7, 1, 1.0, &[pages, 0.0])
}

fn memory_only() -> (Scene, Proc) {
    let mut scene = Scene::new(3);
    scene.nodes[Node(1)].has_memory = false;
    scene.nodes[Node(2)].has_cpus = false;
    scene.nodes[Node(1)].latency[Node(2)] = Est::exact(1.2, Source::Firmware);
    (scene, Proc::new(7, 1, 1.0, &[MANY, 0.0, 0.0]))
}

/// An order that the mover has, to bring all of it to node 1.
fn given(proc: &Proc) -> Order {
    let (from, to, pages): (_, _, Pages) = (NodeVec::filled(2, true), Node(1), 131_072);
    let target = PidRef { pid: proc.pid, start: proc.start };
    let (at_most, saves, price) = (pages, Est::NOTHING, Est::NOTHING);
    Order { seq: 1, target, from, to, pages, at_most, until: 1, saves, price }
}

fn by_others(seen: &mut DomainObs) {
    let reason = "numa_misplaced".to_owned();
    seen.migrated = vec![MigratedObs { reason, caller: 9, pages: 1_311, failed: 0 }];
}

#[test]
fn a_move_that_has_hurt_is_not_made_again() {
    let (mut scene, proc) = (Scene::new(2), stranded());
    let hurt = |scene: &mut Scene| {
        scene.tick(std::slice::from_ref(&proc));
        scene.table.rows.values_mut().for_each(|row| row.hurt_by = Some(Node(1)));
    };
    hurt(&mut scene);
    let last = (0..100).map(|_| scene.tick(std::slice::from_ref(&proc)).remove(0)).last().unwrap();
    assert_eq!((last.verdict, last.reason), (Verdict::Stay, Reason::Hurt));
    scene.config.guards_off = vec![Reason::Hurt.name().to_owned()];
    let moved = (0..100).any(|_| order(&scene.tick(std::slice::from_ref(&proc))).is_some());
    assert!(moved);
}
