//! What the table remembers, and what it makes of outcomes.

use crate::config::Config;
use crate::contest::world::World;
use crate::model::{Decision, End, Input, Order, Reason, Tick};
use crate::policy::decide;
use crate::policy::scene::{Proc, SECOND, Scene, order, outcome};
use crate::simulation::fleet::Fleet;
use crate::simulation::machines::Machine;
use crate::table::{Checked, Table, absorb};

const MANY: f32 = 131_072.0;

#[test]
fn a_move_that_halves_the_remote_share_helped() {
    let (mut scene, order) = due();
    scene.carry_out(&order);
    for _ in 0..3 {
        scene.tick(&[moved()]);
    }
    let scores = scene.table.take_checked();
    assert_eq!(scores.len(), 1);
    assert!(scores[0].helped && scores[0].seq == order.seq, "{scores:?}");
    assert!(scene.table.take_checked().is_empty());
    assert_eq!(scene.tick(&[moved()])[0].reason, Reason::Settled);
}

#[test]
fn a_move_that_changed_nothing_cools_down_twice_as_long_each_time() {
    let (mut scene, mut order) = due();
    for seconds in [60, 120, 240] {
        scene.carry_out(&order);
        let (mut cooling, mut checked) = (0, Vec::new());
        order = loop {
            let decisions = scene.tick(&[stranded()]);
            checked.extend(scene.table.take_checked());
            cooling += u32::from(decisions[0].reason == Reason::CoolDown);
            if let Some(order) = self::order(&decisions) {
                break order.clone();
            }
            assert!(cooling < 1000);
        };
        assert!((seconds - 2..=seconds + 1).contains(&cooling), "{cooling} of {seconds}");
        assert!(matches!(checked[..], [Checked { helped: false, .. }]));
    }
}

#[test]
fn a_failed_move_cools_down_at_once_and_a_vanished_process_does_not() {
    for (end, reason) in [
        (End::Failed, Reason::CoolDown),
        (End::NotPermitted, Reason::CoolDown),
        (End::Cancelled, Reason::Pays),
        (End::Vanished, Reason::Pays),
    ] {
        let (mut scene, order) = due();
        scene.absorb(&Input::Ordered(order.clone()));
        scene.absorb(&Input::Progress(outcome(&order, end, 0)));
        assert_eq!(scene.tick(&[stranded()])[0].reason, reason, "{end:?}");
    }
}

#[test]
fn a_move_that_left_most_pages_behind_has_failed() {
    let (mut scene, order) = due();
    scene.absorb(&Input::Ordered(order.clone()));
    scene.absorb(&Input::Progress(outcome(&order, End::Done, order.pages / 3)));
    assert_eq!(scene.tick(&[stranded()])[0].reason, Reason::CoolDown);
}

#[test]
fn an_outcome_of_another_order_changes_nothing() {
    let (mut scene, order) = due();
    scene.absorb(&Input::Ordered(order.clone()));
    let other = Order { seq: order.seq + 1, ..order };
    scene.absorb(&Input::Progress(outcome(&other, End::Failed, 0)));
    assert_eq!(scene.tick(&[stranded()])[0].reason, Reason::Moving);
}

#[test]
fn a_process_that_is_gone_is_forgotten_and_an_idle_one_is_not() {
    for gone in [false, true] {
        let mut scene = Scene::new(2);
        for _ in 0..8 {
            scene.tick(&[stranded()]);
        }
        scene.now += SECOND;
        let gone = if gone { vec![stranded().id()] } else { vec![] };
        let forgotten = !gone.is_empty();
        let nodes = scene.nodes.clone();
        let (now, dt) = (scene.now, SECOND);
        scene.absorb(&Input::Tick(Tick { now, dt, busy: 0.0, nodes, domains: vec![], gone }));
        let lost = scene.tick(&[stranded()])[0].forecast.lost;
        assert_eq!(lost < 0.1, forgotten, "{lost}");
    }
}

#[test]
fn ordered_pages_come_out_of_the_budget_and_grow_back() {
    let (mut scene, order) = due();
    scene.config.policy.burst = 200_000;
    scene.tick(&[stranded()]);
    scene.absorb(&Input::Ordered(order.clone()));
    assert_eq!(scene.table.tokens(), 200_000.0 - order.pages as f64);
    scene.tick(&[]);
    assert_eq!(scene.table.tokens(), 200_000.0 - 131_072.0 + 65_536.0);
}

#[test]
fn a_table_that_was_written_down_decides_as_it_would_have() {
    let (mut fleet, mut world) = (Fleet::new(3, 60, &Machine::uniform(4), None), World::default());
    let (mut kept, config) = (Table::default(), Config::default());
    let (mut restored, mut moves) = (Table::default(), 0);
    for round in 0..600 {
        if round % 100 == 50 {
            let written = postcard::to_stdvec(&restored).unwrap();
            restored = postcard::from_bytes(&written).unwrap();
        }
        let mut tick = fleet.tick();
        world.show(&mut tick);
        let decisions = decide(&mut kept, &config, &tick);
        assert_eq!(decide(&mut restored, &config, &tick), decisions, "round {round}");
        for input in world.carry_out(&decisions) {
            moves += 1;
            absorb(&mut kept, &config, &input);
            absorb(&mut restored, &config, &input);
        }
    }
    assert!(moves > 0);
}

/// A scene in which the move of the stranded process is due.
fn due() -> (Scene, Order) {
    let mut scene = Scene::new(2);
    for _ in 0..100 {
        let decisions: Vec<Decision> = scene.tick(&[stranded()]);
        if let Some(order) = order(&decisions) {
            let order = order.clone();
            return (scene, order);
        }
    }
    panic!("never due");
}

fn stranded() -> Proc {
    Proc::new(7, 1, 1.0, &[MANY, 0.0])
}

fn moved() -> Proc {
    Proc::new(7, 1, 1.0, &[0.0, MANY])
}
