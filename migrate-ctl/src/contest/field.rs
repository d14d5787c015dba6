//! Who plays: a plain policy, or ours with these settings. Each extent is a game of its own, and
//! all are charged by what `past` says that each place costs.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::contest::past::{Past, Seen};
use crate::contest::world::World;
use crate::guards;
use crate::model::{Decision, ExtentId, Input, Reason, Verdict};
use crate::plain::{Plain, Player, Spent};
use crate::policy::decide;
use crate::table::{Table, absorb};

/// One policy's games, by extent.
pub(crate) struct Games {
    policy: Plain,
    going: BTreeMap<ExtentId, Player>,
    /// Of processes that have exited.
    over: Spent,
}

impl Games {
    pub(crate) fn new(policy: Plain) -> Self {
        Self { policy, going: BTreeMap::new(), over: Spent::default() }
    }

    /// A tick of a plain policy: it pays for where its memory is, and then moves it or not.
    pub(crate) fn play(&mut self, seen: &Seen, gamma: f64) {
        self.see(seen);
        for (extent, ..) in &seen.costs {
            if let Some(player) = self.going.get_mut(extent) {
                player.go(gamma);
            }
        }
    }

    pub(crate) fn spent(&self) -> Spent {
        let mut sum = self.over;
        self.going.values().for_each(|player| sum += player.spent());
        sum
    }

    fn see(&mut self, seen: &Seen) {
        for id in &seen.tick.gone {
            let over = self.going.extract_if(.., |extent, _| extent.domain == *id);
            over.for_each(|(_, player)| self.over += player.spent());
        }
        for (extent, costs, walls) in &seen.costs {
            let policy = self.policy;
            let player = self.going.entry(*extent).or_insert_with(|| Player::new(policy));
            let lost = player.loss(costs);
            player.see(costs, walls, seen.seconds, lost);
        }
    }

    fn move_as(&mut self, decisions: &[Decision]) {
        for decision in decisions {
            let Verdict::Move(order) = &decision.verdict else { continue };
            if let Some(player) = self.going.get_mut(&decision.extent) {
                player.move_to(usize::from(order.to.0));
            }
        }
    }
}

/// Our policy in a world of its own, where its moves were made and no others.
pub(crate) struct Ours {
    table: Table,
    world: World,
    games: Games,
    /// How often each guard turned a move down.
    pub(crate) spoke: BTreeMap<Reason, u64>,
}

impl Ours {
    pub(crate) fn new(table: Table) -> Self {
        Self {
            table,
            world: World::default(),
            games: Games::new(Plain::Never),
            spoke: BTreeMap::new(),
        }
    }

    /// What happened then and is no tick: only the end of a move that was under way when the
    /// record began is of this world too.
    pub(crate) fn hear(&mut self, input: &Input, config: &Config) {
        if matches!(input, Input::Progress(_)) {
            absorb(&mut self.table, config, input);
        }
    }

    pub(crate) fn play(&mut self, seen: &Seen, past: &Past, config: &Config) {
        self.games.see(seen);
        // Its own moves are not measured; those of that time were.
        self.table.prices.clone_from(&past.table.prices);
        let mut tick = seen.tick.clone();
        self.world.show(&mut tick);
        let decisions = decide(&mut self.table, config, &tick);
        let reasons = decisions.iter().map(|decision| decision.reason);
        for reason in reasons.filter(|&reason| guards::is_guard(reason)) {
            *self.spoke.entry(reason).or_default() += 1;
        }
        self.games.move_as(&decisions);
        for told in self.world.carry_out(&decisions) {
            absorb(&mut self.table, config, &told);
        }
    }

    pub(crate) fn spent(&self) -> Spent {
        self.games.spent()
    }
}
