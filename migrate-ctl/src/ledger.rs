//! Counts what was decided, done and got for it.

use std::collections::BTreeMap;

use crate::model::{Decision, End, Node, Outcome, Pages, Reason, Verdict};

/// Sums since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// Our own moves by (from, to): the `migrate_pages(2)` calls that moved between these two.
    pub pairs: BTreeMap<(Node, Node), PairTotals>,
    /// Moves by how they ended.
    pub ended: BTreeMap<End, u64>,
    /// Decisions by verdict (`true`: move) and reason.
    pub decisions: BTreeMap<(bool, Reason), u64>,
    /// Moves after which the remote share fell as predicted, and those after which it did not.
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
        let moves = matches!(decision.verdict, Verdict::Move(_));
        *self.decisions.entry((moves, decision.reason)).or_default() += 1;
    }

    pub fn record_outcome(&mut self, outcome: &Outcome) {
        *self.ended.entry(outcome.end).or_default() += 1;
        for leg in &outcome.legs {
            let pair = self.pairs.entry((leg.from, outcome.to)).or_default();
            pair.calls += 1;
            pair.moved += leg.moved;
            pair.failed += leg.failed;
            pair.seconds += leg.duration as f64 * 1e-9;
        }
    }

    pub fn record_score(&mut self, helped: bool) {
        if helped {
            self.helped += 1;
        } else {
            self.not_helped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;
    use crate::model::{End, Leg, Node, Outcome, PidRef};

    #[test]
    fn a_move_from_two_nodes_counts_for_both_pairs_and_once_as_a_move() {
        let leg = |from, moved| Leg { from: Node(from), moved, failed: 1, duration: 500_000_000 };
        let outcome = Outcome {
            seq: 1,
            target: PidRef { pid: 1, start: 1 },
            to: Node(1),
            asked: 30,
            legs: vec![leg(0, 10), leg(2, 20)],
            left: Vec::new(),
            end: End::Done,
            duration: 1_000_000_000,
        };
        let mut ledger = Ledger::default();
        ledger.record_outcome(&outcome);
        assert_eq!(ledger.ended[&End::Done], 1);
        let pair = ledger.pairs[&(Node(2), Node(1))];
        assert_eq!((pair.calls, pair.moved, pair.failed, pair.seconds), (1, 20, 1, 0.5));
        assert_eq!(ledger.pairs.len(), 2);
    }
}
