//! What is asked of the mover, and what became of it.

use serde::{Deserialize, Serialize};

use super::{Est, Nanos, Node, NodeMask, Pages, PidRef};

/// Policy to mover.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Order {
    pub seq: u64,
    pub target: PidRef,
    /// Every node that holds pages, but `to`.
    pub from: NodeMask,
    pub to: Node,
    /// Estimated pages that are not on `to`.
    pub pages: Pages,
    /// The same and what may come along: the most that the move brings.
    pub at_most: Pages,
    /// Past this it is no longer true, and is not carried out.
    pub until: Nanos,
    /// Share of the target's CPU time that it should save, and what it should cost in seconds.
    pub saves: Est,
    pub price: Est,
}

/// Mover to table, and to the ledger.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub seq: u64,
    pub target: PidRef,
    pub to: Node,
    /// As in the order.
    pub asked: Pages,
    /// One for each source node, in the order of the calls.
    pub legs: Vec<Leg>,
    pub left: Vec<(Why, Pages)>,
    /// Share of the folios that were taken off their LRU list which had to be put back; none where
    /// nobody counted, or none was taken.
    pub unmovable: Option<f32>,
    pub end: End,
    /// The whole move, wall time.
    pub duration: Nanos,
    /// CPU time of the mover's thread.
    pub caller: Nanos,
}

impl Outcome {
    /// Of an order of which nothing was carried out.
    pub fn of(order: &Order, end: End) -> Self {
        Self {
            seq: order.seq,
            target: order.target,
            to: order.to,
            asked: order.pages,
            legs: Vec::new(),
            left: Vec::new(),
            unmovable: None,
            end,
            duration: 0,
            caller: 0,
        }
    }

    pub fn moved(&self) -> Pages {
        self.legs.iter().map(|leg| leg.moved).sum()
    }
}

/// One `migrate_pages(2)` call: from one node to the target.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Leg {
    pub from: Node,
    /// Pages that arrived, as `mm_migrate_pages` counted them on the mover's thread.
    pub moved: Pages,
    /// Of those, pages that are part of huge ones.
    pub huge: Pages,
    pub failed: Pages,
    pub duration: Nanos,
}

/// Why pages stayed behind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Busy with somebody else or on no LRU list: isolation was refused.
    Refused,
    /// Isolated, could not be migrated, put back.
    PutBack,
    /// Neither of the above.
    Other,
}

/// How a move ended. All of these are normal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The kernel went through every page.
    Done,
    /// The process had exited before the move.
    Vanished,
    /// Its number belongs to another process now.
    Replaced,
    /// It exited while its pages were being moved.
    DiedDuring,
    /// The kernel forbids us this process (EPERM): permission or its cpuset.
    NotPermitted,
    /// Any other refusal of the kernel.
    Failed,
    /// It waited so long behind other moves that what it was decided on is no longer true.
    Expired,
    /// We are stopping.
    Cancelled,
}

impl End {
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Vanished,
        Self::Replaced,
        Self::DiedDuring,
        Self::NotPermitted,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The word used in logs, metrics and JSON alike.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Vanished => "vanished",
            Self::Replaced => "replaced",
            Self::DiedDuring => "died_during",
            Self::NotPermitted => "not_permitted",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}
