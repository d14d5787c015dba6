//! What the policy says of an extent: verdict, reason and the numbers behind them.

use serde::{Deserialize, Serialize};

use super::{Est, ExtentId, Nanos, Node, Order};

/// What the policy says of one extent at one tick.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Decision {
    pub seq: u64,
    pub now: Nanos,
    pub extent: ExtentId,
    pub verdict: Verdict,
    pub reason: Reason,
    pub forecast: Forecast,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Stay,
    Move(Box<Order>),
    /// It would move, but is of the share that stays for comparison.
    HoldBack(Box<Order>),
}

impl Verdict {
    /// The word used in logs, metrics and JSON alike.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stay => "stay",
            Self::Move(_) => "move",
            Self::HoldBack(_) => "hold_back",
        }
    }
}

/// Why a verdict is what it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Staying has cost as much as a clairvoyant would have paid by moving.
    Pays,
    /// No node is better than where the pages are.
    Settled,
    /// Another node is better, but staying has not cost enough yet.
    NotYet,
    /// The placement could not be sampled.
    NoPlacement,
    /// The owner set a memory policy.
    Mempolicy,
    /// The memory policy could not be read.
    MempolicyUnknown,
    /// The cpuset forbids the better node.
    Cpuset,
    /// The target's free memory above its high watermark does not suffice.
    NoRoom,
    /// The byte budget is spent for now.
    RateLimit,
    /// More pages than one direct move may hold up, or than the budget ever allows at once.
    TooLarge,
    /// The last move of it failed or did not help.
    CoolDown,
    /// The user said so.
    Excluded,
    /// A move of it is under way.
    Moving,
    /// Its threads run on several nodes, and none of them wins.
    Spread,
    /// Most of its memory is mapped by others, too.
    Shared,
    /// It has just begun, and most processes end soon.
    Young,
    /// Its memory is still growing: first touch places it near its CPU anyway.
    Growing,
    /// Its pages are on their way out to swap and back.
    Swapping,
    /// Most of its folios could not be moved when somebody tried.
    Unmovable,
    /// So few pages that the caches hold them.
    TooSmall,
    /// The better node has no CPUs: its memory is a slower tier, or nobody's own.
    SlowNode,
    /// The target's memory is being reclaimed.
    Reclaiming,
    /// Somebody else is moving its pages.
    OtherMover,
    /// As many moves are under way as may be.
    Concurrency,
    /// It ran slower after the same move before.
    Hurt,
    /// It is of the share that stays for a while, for comparison.
    HeldBack,
}

impl Reason {
    pub const ALL: [Self; 26] = [
        Self::Pays,
        Self::Settled,
        Self::NotYet,
        Self::NoPlacement,
        Self::Mempolicy,
        Self::MempolicyUnknown,
        Self::Cpuset,
        Self::NoRoom,
        Self::RateLimit,
        Self::TooLarge,
        Self::CoolDown,
        Self::Excluded,
        Self::Moving,
        Self::Spread,
        Self::Shared,
        Self::Young,
        Self::Growing,
        Self::Swapping,
        Self::Unmovable,
        Self::TooSmall,
        Self::SlowNode,
        Self::Reclaiming,
        Self::OtherMover,
        Self::Concurrency,
        Self::Hurt,
        Self::HeldBack,
    ];

    /// The word used in logs, metrics and JSON alike.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pays => "pays",
            Self::Settled => "settled",
            Self::NotYet => "not_yet",
            Self::NoPlacement => "no_placement",
            Self::Mempolicy => "mempolicy",
            Self::MempolicyUnknown => "mempolicy_unknown",
            Self::Cpuset => "cpuset",
            Self::NoRoom => "no_room",
            Self::RateLimit => "rate_limit",
            Self::TooLarge => "too_large",
            Self::CoolDown => "cool_down",
            Self::Excluded => "excluded",
            Self::Moving => "moving",
            Self::Spread => "spread",
            Self::Shared => "shared",
            Self::Young => "young",
            Self::Growing => "growing",
            Self::Swapping => "swapping",
            Self::Unmovable => "unmovable",
            Self::TooSmall => "too_small",
            Self::SlowNode => "slow_node",
            Self::Reclaiming => "reclaiming",
            Self::OtherMover => "other_mover",
            Self::Concurrency => "concurrency",
            Self::Hurt => "hurt",
            Self::HeldBack => "held_back",
        }
    }
}

/// What says when memory moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// How long tasks of its cgroup stay, as long as that has not cost too much.
    Forecast,
    /// The work function, which bounds what we pay.
    WorkFunction,
}

/// The numbers behind a decision. Seconds are seconds lost by the application.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Forecast {
    /// The node that would be best, if any is better.
    pub best: Option<Node>,
    /// Share of this tick's CPU time × placement that crossed nodes, 0 to 1; none while the
    /// placement is unknown.
    pub remote: Option<Est>,
    /// Lost in each second by staying, in seconds, smoothed over the last ticks. Decisions go by
    /// its low end.
    pub loss_rate: Est,
    /// Lost so far by staying where the best place would have lost nothing.
    pub lost: f64,
    /// What the move to `best` would cost. Decisions go by its middle.
    pub price: Est,
    /// Share of its CPU time that the move to `best` would save.
    pub saves: Est,
    /// Seconds of staying that lose as much as the move would cost; none where no node is better.
    pub break_even: Option<f32>,
    /// Seconds until the move if things stay as they are; none: never.
    pub move_in: Option<f32>,
    /// What says when to move.
    pub rule: Rule,
    /// What it has lost so far by staying and moving, in seconds, as modelled.
    pub paid: f64,
    /// What a clairvoyant would have lost at least, in seconds, as modelled.
    pub optimum: f64,
}

#[cfg(test)]
impl Forecast {
    /// Of a process of which nothing is known.
    pub(crate) const NOTHING: Self = Self {
        best: None,
        remote: None,
        loss_rate: Est::NOTHING,
        lost: 0.0,
        price: Est::NOTHING,
        saves: Est::NOTHING,
        break_even: None,
        move_in: None,
        rule: Rule::WorkFunction,
        paid: 0.0,
        optimum: 0.0,
    };
}
