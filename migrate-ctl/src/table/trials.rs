//! Are moves held back as asked, scored as they turned out, and learned from?

use crate::model::{Decision, End, Est, Input, Node, Outcome, Reason, Source, Verdict};
use crate::policy::prices::PageSize;
use crate::policy::scene::{Dice, Proc, SECOND, Scene, order, outcome};
use crate::table::trial::Score;

const MANY: f32 = 131_072.0;
/// Ticks of a second, some more than the horizon.
const HORIZON: usize = 31;

/// A process that calls 100 times a second, once it has been stranded for long enough to move.
#[derive(Clone)]
struct Caller {
    proc: Proc,
    dice: u64,
    /// What its pace scatters by.
    noise: f64,
}

impl Caller {
    fn new(pid: u32) -> Self {
        Self {
            proc: Proc { calls: 100, ..Proc::new(pid, 1, 1.0, &[MANY, 0.0]) },
            dice: 5,
            noise: 0.1,
        }
    }

    /// A tick in which about so much CPU time goes into its calls.
    fn tick(&mut self, scene: &mut Scene, cpu: f64) -> Vec<Decision> {
        let mut dice = Dice(self.dice);
        self.proc.cpu = vec![0.0, cpu * (1.0 + self.noise * (dice.roll() - 0.5))];
        self.dice += 1;
        scene.tick(std::slice::from_ref(&self.proc))
    }

    /// Up to the order; it is carried out, and the process then uses so much CPU time.
    fn moved(&mut self, scene: &mut Scene, before: f64, after: f64) -> Score {
        let order = (0..100).find_map(|_| order(&self.tick(scene, before)).cloned());
        let order = order.expect("a move is due");
        scene.carry_out(&order);
        self.proc.pages = vec![0.0, MANY];
        for _ in 0..HORIZON {
            self.tick(scene, after);
        }
        scene.table.take_scores().pop().expect("the horizon is over")
    }
}

#[test]
fn a_memory_bound_loop_scores_what_it_saved_and_a_compute_bound_one_nothing() {
    for (after, truth) in [(0.7, 0.3_f32), (1.0, 0.0)] {
        let score = Caller::new(7).moved(&mut Scene::new(2), 1.0, after);
        assert_eq!(score.realised.source, Source::Pace);
        let Est { low, high, .. } = score.realised;
        assert!(low <= truth && truth <= high && high - low < 0.15, "{truth}: {score:?}");
        assert_eq!(score.hit(), truth > 0.0);
    }
}

#[test]
fn without_calls_the_remote_share_stands_for_the_pace_and_says_so() {
    let mut caller = Caller::new(7);
    caller.proc.calls = 0;
    let score = caller.moved(&mut Scene::new(2), 1.0, 1.0);
    assert_eq!(score.realised.source, Source::CpuPlacement);
    assert_eq!(score.realised.mid, score.predicted.mid);
}

#[test]
fn a_move_that_hurt_is_not_repeated() {
    let mut scene = Scene::new(2);
    let mut caller = Caller::new(7);
    let score = caller.moved(&mut scene, 1.0, 1.5);
    assert!(score.hurt() && !score.hit(), "{score:?}");
    // Somebody has taken its memory back.
    caller.proc.pages = vec![MANY, 0.0];
    let reasons: Vec<Reason> = (0..200).map(|_| caller.tick(&mut scene, 1.0)[0].reason).collect();
    assert!(!reasons.contains(&Reason::Pays), "{reasons:?}");
    let row = scene.table.rows.values().next().unwrap();
    assert_eq!(row.hurt_by, Some(Node(1)));
}

#[test]
fn what_is_held_back_stays_for_one_horizon_and_is_moved_then() {
    let mut scene = Scene::new(2);
    scene.config.policy.hold_back = 0.5;
    let (mut held, mut pid) = (None, 0);
    while held.is_none() {
        pid += 1;
        let mut caller = Caller::new(pid);
        let due = (0..100).find_map(|_| due(&caller.tick(&mut scene, 1.0)));
        match due.expect("a move is due") {
            Verdict::HoldBack(order) => held = Some((caller, order)),
            Verdict::Move(_) | Verdict::Stay => {}
        }
    }
    let (mut caller, order) = held.unwrap();
    scene.absorb(&Input::HeldBack(*order));
    for _ in 0..HORIZON - 2 {
        assert_eq!(caller.tick(&mut scene, 1.0)[0].reason, Reason::HeldBack);
    }
    let moved =
        (0..3).any(|_| matches!(due(&caller.tick(&mut scene, 1.0)), Some(Verdict::Move(_))));
    let score = scene.table.take_scores().pop().expect("the horizon is over");
    assert!(moved && score.held_back && score.realised.low < 0.0 && 0.0 < score.realised.high);
}

#[test]
fn nothing_is_held_back_unless_asked_for() {
    for pid in 1..60 {
        let mut scene = Scene::new(2);
        let mut caller = Caller::new(pid);
        let due = (0..100).find_map(|_| due(&caller.tick(&mut scene, 1.0)));
        assert!(matches!(due, Some(Verdict::Move(_))), "{pid}");
    }
}

#[test]
fn who_has_shown_that_far_memory_does_not_slow_it_stays() {
    let mut scene = Scene::new(2);
    let mut caller = Caller { noise: 0.0, ..Caller::new(7) };
    let [near, far] = [vec![0.0, MANY], vec![MANY, 0.0]];
    // When its memory is far for the first time, the first ticks are judged by the prior.
    for (pages, ticks) in [(&near, 30), (&far, 10), (&near, 30)] {
        caller.proc.pages.clone_from(pages);
        for _ in 0..ticks {
            caller.tick(&mut scene, 0.5);
        }
    }
    caller.proc.pages = far;
    let moves = (0..200).filter(|_| due(&caller.tick(&mut scene, 0.5)).is_some()).count();
    assert_eq!(moves, 0);
}

#[test]
fn the_price_of_a_page_is_learned_from_what_the_move_cost() {
    let mut scene = Scene::new(2);
    let mut caller = Caller::new(7);
    let order = (0..100).find_map(|_| order(&caller.tick(&mut scene, 1.0)).cloned()).unwrap();
    scene.absorb(&Input::Ordered(order.clone()));
    let all_of_it = Outcome { caller: 3 * SECOND, ..outcome(&order, End::Done, order.pages) };
    scene.absorb(&Input::Progress(all_of_it));
    caller.tick(&mut scene, 1.0);
    let price = scene.table.prices.page(PageSize::Base, Node(0), Node(1), &scene.config.policy);
    // Half of the CPUs were idle, and 512 MiB weigh twice as much as the prior.
    let seen = 3.0 * (0.5 + 0.5 * scene.config.policy.idle_cpu_price) / f64::from(MANY);
    let expected = (2.0 * seen + f64::from(scene.config.policy.price_per_page.mid)) / 3.0;
    assert!((f64::from(price.mid) / expected - 1.0).abs() < 1e-3, "{price:?}, not {expected}");
}

fn due(decisions: &[Decision]) -> Option<Verdict> {
    let verdict = &decisions[0].verdict;
    (*verdict != Verdict::Stay).then(|| verdict.clone())
}
