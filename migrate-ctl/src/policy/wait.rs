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

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

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
    /// The longest life that is known.
    pub(crate) longest_life: Option<f64>,
}

/// Plans by break-even time and number of nodes. They are made when they are asked for, and made
/// anew in turn: in a busy cgroup every tick outdates all of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Waits {
    plans: BTreeMap<Key, Wait>,
    /// All plans, those first that were made first.
    turns: VecDeque<Key>,
    /// So many of the first were made from what is outdated now.
    outdated: usize,
}

type Key = (i32, usize);

impl Waits {
    pub(crate) fn get(&mut self, break_even: f64, nodes: usize, plan: &Plan<'_>) -> &Wait {
        let key = (steps(break_even, BREAK_EVEN_STEP), nodes);
        let turns = &mut self.turns;
        let wait = self.plans.entry(key).or_insert_with(|| {
            turns.push_back(key);
            Wait::plan(key, plan)
        });
        wait.asked = true;
        wait
    }

    /// What the plans were made from has changed.
    pub(crate) fn outdate(&mut self) {
        self.outdated = self.turns.len();
    }

    /// Makes up to `left` plans anew, and drops those that nobody has asked for since they were
    /// made. Says how many more could be made.
    pub(crate) fn renew(&mut self, plan: &Plan<'_>, mut left: usize) -> usize {
        while self.outdated > 0 && left > 0 {
            self.outdated -= 1;
            let Some(key) = self.turns.pop_front() else { break };
            if self.plans.get(&key).is_some_and(|wait| wait.asked) {
                self.plans.insert(key, Wait::plan(key, plan));
                self.turns.push_back(key);
                left -= 1;
            } else {
                self.plans.remove(&key);
            }
        }
        left
    }
}

/// How long to wait, by how long the process still lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Wait {
    by_life: Vec<f64>,
    endless: f64,
    asked: bool,
}

impl Wait {
    pub(crate) fn after(&self, life: f64) -> f64 {
        self.by_life.get(life_index(life)).copied().unwrap_or(self.endless)
    }

    fn plan((step, nodes): Key, plan: &Plan<'_>) -> Self {
        let (break_even, home) = (BREAK_EVEN_STEP.powi(step), comes_home(nodes));
        let by_life = by_life(break_even, home, plan);
        Self { by_life, endless: endless(break_even, home, plan.survival), asked: false }
    }
}

/// Odds that a task which leaves comes to its memory's node.
fn comes_home(nodes: usize) -> f64 {
    1.0 / (nodes.max(2) - 1) as f64
}

fn endless(break_even: f64, home: f64, survival: &[Ending]) -> f64 {
    let mut best = Best::default();
    let (mut stayed, mut left, mut wait) = (0.0, 1.0, 0.0);
    for ending in survival {
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

fn by_life(break_even: f64, home: f64, plan: &Plan<'_>) -> Vec<f64> {
    let lives = plan.longest_life.map_or(0, |life| life_index(life).saturating_add(1).min(LIVES));
    let (mut waits, mut costs) = (Vec::with_capacity(lives), Vec::with_capacity(lives));
    let mut life = 1.0;
    for _ in 0..lives {
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

fn life_index(life: f64) -> usize {
    usize::try_from(steps(life, LIFE_STEP)).unwrap_or(0)
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

/// Between these, break-even times surely share the plan of this one.
pub(crate) fn share_a_plan(break_even: f64) -> (f64, f64) {
    let step = f64::from(steps(break_even, BREAK_EVEN_STEP));
    let edge = |half: f64| BREAK_EVEN_STEP.powf(step + half);
    // The logarithm rounds, so not quite up to the edges.
    (edge(-0.5) * (1.0 + 1e-9), edge(0.5) * (1.0 - 1e-9))
}

fn steps(seconds: f64, step: f64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "clamped to a small range")]
    let steps = (seconds.clamp(1e-6, 1e12).ln() / step.ln()).round() as i32;
    steps
}
