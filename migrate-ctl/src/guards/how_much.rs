//! How much may move: at all, now, and together with what else is moving.

use super::{Wish, is_on, on};
use crate::config::Config;
use crate::model::{NodeVec, Pages, Reason};
use crate::policy::Ask;
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

    /// The first guard against one more move, of those that look at all moves together.
    pub(crate) fn against(&self, ask: &Ask, config: &Config) -> Option<Reason> {
        let pages = ask.at_most as f64;
        let speaks = [
            (Reason::NoRoom, self.room.get(ask.to).is_none_or(|&room| room < pages)),
            (Reason::RateLimit, self.tokens < pages),
            (Reason::Concurrency, self.orders >= config.policy.concurrent_moves),
        ];
        let first = speaks.into_iter().find(|&(reason, speaks)| speaks && on(config, reason));
        first.map(|(reason, _)| reason)
    }

    pub(crate) fn spend(&mut self, ask: &Ask) {
        self.tokens -= ask.at_most as f64;
        self.room[ask.to] -= ask.at_most as f64;
        self.orders += 1;
    }
}

pub(super) fn too_small(wish: &Wish<'_>, _: &Table, _: &Config) -> bool {
    wish.to.is_some() && wish.pages < SMALL
}

/// The budget never holds more than its burst.
pub(super) fn too_large(wish: &Wish<'_>, _: &Table, config: &Config) -> bool {
    wish.at_most > config.policy.largest_move.min(config.policy.burst)
}
