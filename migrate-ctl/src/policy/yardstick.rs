//! The work function against a clairvoyant, on costs that are given directly.

use crate::policy::cost::Costs;
use crate::policy::scene::Dice;
use crate::policy::work::Work;

const GAMMA: f64 = 0.95;
/// Lost in a bad tick of 0.1 s.
const BAD: f64 = 0.03;

#[test]
fn a_stranded_process_costs_two_and_a_bit_of_the_optimum() {
    for price in [0.3, 1.0, 3.0] {
        let ratio = play(2, price, 4_000, |_, _| vec![0.03, 0.0]);
        assert!((2.0..2.0 + GAMMA + 2.0 * BAD / price).contains(&ratio), "D = {price}: {ratio}");
    }
}

#[test]
fn no_adversary_on_two_nodes_gets_more_than_three_and_a_bit() {
    for price in [0.3, 1.0, 3.0] {
        let elsewhere = play(2, price, 4_000, |at, _| away_from_one(2, 1 - at));
        let here = play(2, price, 4_000, |at, _| only(2, at));
        println!("D = {price}: elsewhere {elsewhere:.3}, here-only {here:.3}");
        assert!(elsewhere.max(here) <= 3.1, "D = {price}: elsewhere {elsewhere}, here-only {here}");
    }
}

#[test]
fn no_adversary_on_four_nodes_gets_more_than_seven_and_a_bit() {
    for price in [0.3, 1.0, 3.0] {
        let elsewhere = play(4, price, 4_000, |at, dice| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2")]
            let step = (dice.roll() * 3.0) as usize + 1;
            away_from_one(4, (at + step) % 4)
        });
        let here = play(4, price, 4_000, |at, _| only(4, at));
        println!("D = {price}: elsewhere {elsewhere:.3}, here-only {here:.3}");
        assert!(elsewhere.max(here) <= 7.3, "D = {price}: elsewhere {elsewhere}, here-only {here}");
    }
}

/// Our cost ÷ the clairvoyant's. The penalties of a tick may depend on where the memory is.
fn play(n: usize, price: f64, ticks: usize, penalty: impl Fn(usize, &mut Dice) -> Vec<f64>) -> f64 {
    let (mut work, mut dice, mut at, mut ours) = (Work::default(), Dice(7), 0, 0.0);
    let mut best: Vec<f64> = (0..n).map(|s| if s == 0 { 0.0 } else { price }).collect();
    for tick in 0..ticks {
        if tick > 0
            && let Some(to) = work.choice(&costs(n, price, at, &vec![0.0; n]), GAMMA)
        {
            (at, ours) = (to, ours + price);
        }
        let lost = penalty(at, &mut dice);
        ours += lost[at];
        work.step(&costs(n, price, at, &lost), &vec![true; n]);
        let reached = best.iter().copied().fold(f64::INFINITY, f64::min) + price;
        best = best.iter().zip(&lost).map(|(sum, lost)| sum.min(reached) + lost).collect();
    }
    ours / best.iter().copied().fold(f64::INFINITY, f64::min)
}

fn costs(n: usize, price: f64, at: usize, lost: &[f64]) -> Costs {
    let mut loss = lost.to_vec();
    loss.push(lost[at]);
    Costs {
        loss,
        price: (0..n).map(|s| if s == at { 0.0 } else { price }).collect(),
        whole_price: price,
        ..Costs::default()
    }
}

fn only(n: usize, at: usize) -> Vec<f64> {
    (0..n).map(|s| if s == at { BAD } else { 0.0 }).collect()
}

fn away_from_one(n: usize, runs_on: usize) -> Vec<f64> {
    (0..n).map(|s| if s == runs_on { 0.0 } else { BAD }).collect()
}
