//! How much may move: at all, now, and together with what else is moving.

use super::{Wish, is_on};
use crate::config::Config;
use crate::model::{Node, NodeVec, Pages};
use crate::table::Table;

/// 2 MiB, what a core's own cache holds, in which remote memory is not felt.
const SMALL: Pages = 512;

/// Not a guard, but what one of them counts on; it can be switched off like one.
const PAGE_CACHE: &str = "page_cache";

/// What moves decided in the same tick share.
pub(crate) struct Budget {
    tokens: f64,
    /// Pages that still fit on each node.
    room: NodeVec<f64>,
    /// Orders under way.
    orders: usize,
}

impl Budget {
    pub(crate) fn of(table: &Table, config: &Config) -> Self {
        let kept = config.policy.reserve as f64;
        let mut room = NodeVec::from_fn(table.nodes.len(), |n| {
            let node = &table.nodes[n];
            let without = if is_on(config, PAGE_CACHE) { 0 } else { node.inactive_file / 2 };
            node.room().saturating_sub(without) as f64 - kept
        });
        let mut orders = 0;
        for order in table.orders() {
            orders += 1;
            if usize::from(order.to.0) < room.len() {
                room[order.to] -= order.at_most as f64;
            }
        }
        Self { tokens: table.tokens(), room, orders }
    }

    pub(crate) fn spend(&mut self, to: Node, pages: Pages) {
        self.tokens -= pages as f64;
        self.room[to] -= pages as f64;
        self.orders += 1;
    }
}

pub(super) fn too_small(wish: &Wish<'_>, _: &Table, _: &Config, _: &Budget) -> bool {
    wish.to.is_some() && wish.pages < SMALL
}

/// The budget never holds more than its burst.
pub(super) fn too_large(wish: &Wish<'_>, _: &Table, config: &Config, _: &Budget) -> bool {
    wish.at_most > config.policy.largest_move.min(config.policy.burst)
}

pub(super) fn no_room(wish: &Wish<'_>, _: &Table, _: &Config, budget: &Budget) -> bool {
    wish.to.and_then(|to| budget.room.get(to)).is_none_or(|&room| room < wish.at_most as f64)
}

pub(super) fn rate_limit(wish: &Wish<'_>, _: &Table, _: &Config, budget: &Budget) -> bool {
    budget.tokens < wish.at_most as f64
}

pub(super) fn concurrency(_: &Wish<'_>, _: &Table, config: &Config, budget: &Budget) -> bool {
    budget.orders >= config.policy.concurrent_moves
}
