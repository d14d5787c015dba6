//! Counts what was decided, done and got for it.

use std::collections::BTreeMap;

use crate::model::{Decision, End, Node, Outcome, Pages, Reason};
use crate::table::trial::Score;

/// Sums since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// Our own moves by (from, to): the `migrate_pages(2)` calls that moved between these two.
    pub pairs: BTreeMap<(Node, Node), PairTotals>,
    /// Moves by how they ended.
    pub ended: BTreeMap<End, u64>,
    /// Decisions by the verdict's word and the reason.
    pub decisions: BTreeMap<(&'static str, Reason), u64>,
    /// Of the trials that have ended: moves that were watched, those of them that brought what
    /// was predicted, and moves that were held back.
    pub predicted: u64,
    pub hits: u64,
    pub held_back: u64,
    /// Moves after which at most half of the remote share was left, and the others.
    pub helped: u64,
    pub not_helped: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairTotals {
    pub calls: u64,
    pub moved: Pages,
    pub failed: Pages,
    pub seconds: f64,
}

impl Ledger {
    pub fn record_decision(&mut self, decision: &Decision) {
        let key = (decision.verdict.name(), decision.reason);
        add(self.decisions.entry(key).or_default(), 1);
    }

    pub fn record_outcome(&mut self, outcome: &Outcome) {
        add(self.ended.entry(outcome.end).or_default(), 1);
        for leg in &outcome.legs {
            let pair = self.pairs.entry((leg.from, outcome.to)).or_default();
            add(&mut pair.calls, 1);
            add(&mut pair.moved, leg.moved);
            add(&mut pair.failed, leg.failed);
            pair.seconds += leg.duration as f64 / 1e9;
        }
    }

    /// What the check after a move found.
    pub fn record_checked(&mut self, helped: bool) {
        add(if helped { &mut self.helped } else { &mut self.not_helped }, 1);
    }

    /// What was predicted of a move, and what came.
    pub fn record_score(&mut self, score: &Score) {
        if score.held_back {
            add(&mut self.held_back, 1);
        } else {
            add(&mut self.predicted, 1);
            add(&mut self.hits, u64::from(score.hit()));
        }
    }
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use super::{Ledger, PairTotals};
    use crate::model::{
        Class, Decision, End, Est, ExtentId, Forecast, Leg, Node, NodeVec, Order, Outcome, PidRef,
        Reason, Verdict,
    };

    const WHO: PidRef = PidRef { pid: 7, start: 1 };

    #[test]
    fn a_move_from_two_nodes_counts_once_and_for_each_pair() {
        let mut ledger = Ledger::default();
        let leg = |from, moved, failed| Leg {
            from: Node(from),
            moved,
            huge: 0,
            failed,
            duration: 500_000_000,
        };
        let legs = vec![leg(0, 10, 1), leg(1, 20, 0)];
        let outcome = Outcome { legs, ..Outcome::of(&order(Node(2)), End::Done) };
        ledger.record_outcome(&outcome);
        ledger.record_outcome(&Outcome { legs: vec![leg(0, 5, 0)], ..outcome });
        let pair = |calls, moved, failed, seconds| PairTotals { calls, moved, failed, seconds };
        assert_eq!(ledger.ended[&End::Done], 2);
        assert_eq!(ledger.pairs[&(Node(0), Node(2))], pair(2, 15, 1, 1.0));
        assert_eq!(ledger.pairs[&(Node(1), Node(2))], pair(1, 20, 0, 0.5));
    }

    #[test]
    fn an_end_without_calls_counts_no_pair() {
        let mut ledger = Ledger::default();
        ledger.record_outcome(&Outcome::of(&order(Node(1)), End::Vanished));
        assert_eq!((ledger.ended[&End::Vanished], ledger.pairs.len()), (1, 0));
    }

    #[test]
    fn decisions_count_by_verdict_and_reason() {
        let mut ledger = Ledger::default();
        ledger.record_decision(&decision(Verdict::Move(Box::new(order(Node(1)))), Reason::Pays));
        ledger.record_decision(&decision(Verdict::Stay, Reason::NoRoom));
        ledger.record_decision(&decision(Verdict::Stay, Reason::NoRoom));
        assert_eq!(ledger.decisions[&("move", Reason::Pays)], 1);
        assert_eq!(ledger.decisions[&("stay", Reason::NoRoom)], 2);
    }

    #[test]
    fn what_helped_and_what_did_not_count_apart() {
        let mut ledger = Ledger::default();
        ledger.record_checked(true);
        ledger.record_checked(false);
        ledger.record_checked(false);
        assert_eq!((ledger.helped, ledger.not_helped), (1, 2));
    }

    fn order(to: Node) -> Order {
        let from = NodeVec::default();
        Order {
            seq: 1,
            target: WHO,
            from,
            to,
            pages: 9,
            at_most: 9,
            until: 1,
            saves: Est::NOTHING,
            price: Est::NOTHING,
        }
    }

    fn decision(verdict: Verdict, reason: Reason) -> Decision {
        let extent = ExtentId { domain: WHO, class: Class::PrivateAnonymous };
        Decision { seq: 1, now: 0, extent, verdict, reason, forecast: Forecast::NOTHING }
    }
}
