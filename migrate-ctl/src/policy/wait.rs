//! When is the best moment to follow a task, if residences last as they used to?
//!
//! Renewal reasoning. The task comes to another node than its memory's. We wait
//! for w and then move the memory after it, unless it has left by then. Let X
//! be how long the residence lasts, τ the time after which staying has lost
//! what a move costs, H how long the process still lives, and Δ(H) what it
//! costs, at the beginning of a residence, not to have the memory there.
//! Everything is in seconds of staying. A task that leaves goes to each of the
//! other nodes alike, so it comes to its memory's node with odds m = 1/(n − 1):
//!
//! Δ(H) = min over w of E[min(X, w, H)] + τ·P(X > w) − m·E[Δ(H − X); X < min(w, H)]
//!
//! For an endless life Δ is one number, and the best w minimises
//! (E[min(X, w)] + τ·P(X > w)) ÷ (1 + m·P(X ≤ w)).

use std::collections::BTreeMap;

use crate::policy::residences::Ending;

/// Break-even times less than a twentieth apart share a plan.
const BREAK_EVEN_STEP: f64 = 1.05;
/// Lives are looked at a quarter apart, from a second to half a day; beyond, they are endless.
const LIFE_STEP: f64 = 1.25;
const LIVES: usize = 48;

/// What a plan is made from.
pub(crate) struct Plan<'a> {
    /// When residences end; what is missing to 1 never does.
    pub(crate) survival: &'a [Ending],
    /// Whether lives are known to end.
    pub(crate) mortal: bool,
    pub(crate) nodes: usize,
}

/// Plans by break-even time and number of nodes, made when they are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits(BTreeMap<(i32, usize), Wait>);

impl Waits {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn get(&mut self, break_even: f64, plan: &Plan<'_>) -> &Wait {
        let step = steps(break_even, BREAK_EVEN_STEP);
        let make = || Wait::plan(BREAK_EVEN_STEP.powi(step), plan);
        self.0.entry((step, plan.nodes)).or_insert_with(make)
    }
}

/// How long to wait, by how long the process still lives.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    by_life: Vec<f64>,
    endless: f64,
}

impl Wait {
    pub(crate) fn after(&self, life: f64) -> f64 {
        let index = usize::try_from(steps(life, LIFE_STEP)).unwrap_or(0);
        self.by_life.get(index).copied().unwrap_or(self.endless)
    }

    fn plan(break_even: f64, plan: &Plan<'_>) -> Self {
        let by_life = if plan.mortal { by_life(break_even, plan) } else { Vec::new() };
        Self { by_life, endless: endless(break_even, plan) }
    }
}

/// Odds that a task which leaves comes to its memory's node.
fn comes_home(nodes: usize) -> f64 {
    1.0 / (nodes.max(2) - 1) as f64
}

fn endless(break_even: f64, plan: &Plan<'_>) -> f64 {
    let home = comes_home(plan.nodes);
    let mut best = Best::default();
    let (mut stayed, mut left, mut wait) = (0.0, 1.0, 0.0);
    for ending in plan.survival {
        best.offer((stayed + break_even * left) / (1.0 + home * (1.0 - left)), wait);
        stayed += left * (ending.after - wait);
        left -= ending.share;
        wait = ending.after;
    }
    best.offer((stayed + break_even * left) / (1.0 + home * (1.0 - left)), wait);
    // Some residences never end: never to move costs without end.
    if left < 1e-9 {
        best.offer(stayed / (1.0 + home), f64::INFINITY);
    }
    best.wait
}

fn by_life(break_even: f64, plan: &Plan<'_>) -> Vec<f64> {
    let home = comes_home(plan.nodes);
    let (mut waits, mut costs) = (Vec::with_capacity(LIVES), Vec::with_capacity(LIVES));
    let mut life = 1.0;
    for _ in 0..LIVES {
        let mut best = Best::default();
        let (mut stayed, mut left, mut wait, mut later) = (0.0, 1.0, 0.0, 0.0);
        for ending in plan.survival.iter().take_while(|ending| ending.after < life) {
            best.offer(stayed + break_even * left - later, wait);
            stayed += left * (ending.after - wait);
            left -= ending.share;
            wait = ending.after;
            later += home * ending.share * cost_of(life - ending.after, &costs);
        }
        best.offer(stayed + break_even * left - later, wait);
        best.offer(stayed + left * (life - wait) - later, f64::INFINITY);
        waits.push(best.wait);
        costs.push(best.cost);
        life *= LIFE_STEP;
    }
    waits
}

/// Δ between two lives that were looked at; the last of them is the longest that is needed.
fn cost_of(life: f64, costs: &[f64]) -> f64 {
    let at = (life.max(f64::MIN_POSITIVE).ln() / LIFE_STEP.ln()).max(0.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and a cast saturates"
    )]
    let (below, part) = (at as usize, at.fract());
    match (costs.get(below), costs.get(below + 1)) {
        (Some(low), Some(high)) => low + part * (high - low),
        (Some(low), None) => *low,
        (None, _) => costs.last().copied().unwrap_or(0.0),
    }
}

/// The cheapest so far. A tie goes to whoever waits longer: when in doubt, stay.
struct Best {
    cost: f64,
    wait: f64,
}

impl Default for Best {
    fn default() -> Self {
        Self { cost: f64::INFINITY, wait: f64::INFINITY }
    }
}

impl Best {
    fn offer(&mut self, cost: f64, wait: f64) {
        if cost <= self.cost {
            *self = Self { cost, wait };
        }
    }
}

fn steps(seconds: f64, step: f64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "clamped to a small range")]
    let steps = (seconds.clamp(1e-6, 1e12).ln() / step.ln()).round() as i32;
    steps
}
