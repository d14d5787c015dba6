//! What would a plain policy have paid?
//!
//! Each is what some tool or administrator does, or an end of the scale. They
//! see the same modelled costs as our policy, know no guards, and their moves
//! always succeed. For comparison only: nothing here decides anything.

mod ways;

use serde::Serialize;

use crate::model::Pages;
use crate::policy::cost::Costs;
use crate::policy::lanes::Lanes;
use crate::policy::work::Work;
use ways::Ways;

/// A policy in one sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Plain {
    /// Memory stays where it is.
    Never,
    /// It goes to the best node of the last tick.
    AtOnce,
    /// It goes there after five seconds in a row of which each tick lost something.
    FixedThreshold,
    /// The work function alone, without a forecast.
    WorkFunction,
    /// The cheapest of all ways, by one who knows the future.
    Clairvoyant,
}

impl Plain {
    pub const ALL: [Self; 5] =
        [Self::Never, Self::AtOnce, Self::FixedThreshold, Self::WorkFunction, Self::Clairvoyant];

    /// The word used in tables and JSON alike.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::AtOnce => "at_once",
            Self::FixedThreshold => "fixed_threshold",
            Self::WorkFunction => "work_function",
            Self::Clairvoyant => "clairvoyant",
        }
    }
}

/// Seconds that the fixed threshold waits.
const THRESHOLD: f64 = 5.0;

/// One extent under a plain policy. Seconds are seconds lost by the application.
#[derive(Clone, Debug)]
pub struct Player {
    policy: Plain,
    /// Where its memory is: a node, or none for where it was at first.
    at: Option<usize>,
    work: Work,
    /// Of the clairvoyant alone: the cheapest ways so far.
    ways: Ways,
    /// Seconds in a row that lost something, and the best node of the last tick.
    bad: f64,
    better: Option<usize>,
    /// What its state costs, kept to save an allocation.
    here: Costs,
    spent: Spent,
}

/// What a policy has paid, in seconds lost by the application, and what it moved for that.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    pub seconds: f64,
    pub moves: u64,
    pub pages: Pages,
}

impl std::ops::AddAssign for Spent {
    fn add_assign(&mut self, more: Self) {
        self.seconds += more.seconds;
        self.moves += more.moves;
        self.pages = self.pages.saturating_add(more.pages);
    }
}

impl Player {
    pub fn new(policy: Plain) -> Self {
        Self {
            policy,
            at: None,
            work: Work::default(),
            ways: Ways::default(),
            bad: 0.0,
            better: None,
            here: Costs::default(),
            spent: Spent::default(),
        }
    }

    /// By staying and moving, so far.
    pub fn spent(&self) -> Spent {
        if self.policy == Plain::Clairvoyant { self.ways.cheapest() } else { self.spent }
    }

    /// The node it is on; none: where it was at first.
    pub fn at(&self) -> Option<usize> {
        self.at
    }

    /// Moves before the tick, knowing only the ticks before it; says what that cost.
    pub(crate) fn go(&mut self, gamma: f64) -> f64 {
        let to = match self.policy {
            Plain::Never | Plain::Clairvoyant => None,
            Plain::AtOnce => self.better,
            Plain::FixedThreshold => self.better.filter(|_| self.bad >= THRESHOLD - 1e-6),
            Plain::WorkFunction => self.work.choice(&self.here, gamma),
        };
        to.map_or(0.0, |to| self.move_to(to))
    }

    /// Moves as somebody else decides.
    pub(crate) fn move_to(&mut self, to: usize) -> f64 {
        let price = self.here.price.get(to).copied().unwrap_or(0.0);
        self.spent += Spent { seconds: price, moves: 1, pages: self.here.off_node(to) };
        (self.at, self.bad, self.better) = (Some(to), 0.0, None);
        self.here = at(&self.here, Some(to));
        self.work.moved(price);
        price
    }

    /// Takes in what the tick has cost in each state, as it looks with the memory where it was at
    /// first. What it really lost is told apart, since what is seen may be wrong.
    pub(crate) fn see(&mut self, costs: &Costs, walls: &Lanes, seconds: f64, lost: f64) {
        self.here = at(costs, self.at);
        match self.policy {
            Plain::WorkFunction => self.work.step(&self.here, walls, false),
            Plain::Clairvoyant => self.ways.step(&self.here, walls),
            Plain::Never | Plain::AtOnce | Plain::FixedThreshold => {}
        }
        self.spent.seconds += lost;
        let least = |best: (Option<usize>, f64), (node, loss): (usize, f64)| {
            if loss < best.1 { (Some(node), loss) } else { best }
        };
        let nodes = self.here.loss.iter().zip(walls.iter()).map(|(loss, wall)| loss + wall);
        self.better = nodes.enumerate().fold((None, self.here.loss_as_placed), least).0;
        self.bad = if self.better.is_some() { self.bad + seconds } else { 0.0 };
    }

    /// What this state loses in a tick of such costs.
    pub(crate) fn loss(&self, costs: &Costs) -> f64 {
        let on = self.at.and_then(|node| costs.loss.get(node).copied());
        on.unwrap_or(costs.loss_as_placed)
    }
}

/// The same costs with the memory on this node.
fn at(costs: &Costs, node: Option<usize>) -> Costs {
    let mut costs = costs.clone();
    if let Some(node) = node.filter(|&node| node < costs.loss.len()) {
        costs.loss_as_placed = costs.loss[node];
        costs.price.fill(costs.whole_price);
        costs.price[node] = 0.0;
        costs.pages.fill(0.0);
        if let Some(on) = costs.pages.get_mut(node) {
            *on = costs.total;
        }
    }
    costs
}
