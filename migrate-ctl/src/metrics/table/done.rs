//! What did we do?

use super::{NO_FAILURE, PRESET_NODES};
use crate::ledger::PairTotals;
use crate::metrics::{Kind, Metric, Rows};
use crate::model::{End, Node, NodeId, Reason};
use crate::snapshot::Snapshot;

const PAIR: &[&str] = &["from_node", "to_node"];

pub(super) static METRICS: &[Metric] = &[
    Metric {
        name: "migrate_decisions_total",
        kind: Kind::Counter,
        unit: "decisions",
        help: "Decisions of the policy, one for each process and tick, by what it said and why.",
        labels: &["verdict", "reason"],
        empty_when: None,
        read: decisions,
    },
    Metric {
        name: "migrate_moves_total",
        kind: Kind::Counter,
        unit: "moves",
        help: "Moves that we ordered and that ended, however they did.",
        labels: &[],
        empty_when: None,
        read: |s, rows| rows.add([], s.ledger.ended.values().sum::<u64>() as f64),
    },
    Metric {
        name: "migrate_moves_failed_total",
        kind: Kind::Counter,
        unit: "moves",
        help: "Moves that we ordered and that did not go through every page, by how they ended.",
        labels: &["reason"],
        empty_when: NO_FAILURE,
        read: |s, rows| {
            for end in End::ALL.into_iter().filter(|end| *end != End::Done) {
                rows.add([end.name()], s.ledger.ended.get(&end).copied().unwrap_or(0) as f64);
            }
        },
    },
    Metric {
        name: "migrate_move_calls_total",
        kind: Kind::Counter,
        unit: "calls",
        help: "Our migrate_pages calls by source and target node.",
        labels: PAIR,
        empty_when: None,
        read: |s, rows| pairs(s, rows, |pair| pair.calls as f64),
    },
    Metric {
        name: "migrate_move_seconds_total",
        kind: Kind::Counter,
        unit: "seconds",
        help: "Time inside our migrate_pages calls by source and target node.",
        labels: PAIR,
        empty_when: None,
        read: |s, rows| pairs(s, rows, |pair| pair.seconds),
    },
    Metric {
        name: "migrate_move_pages_total",
        kind: Kind::Counter,
        unit: "pages",
        help: "Pages of 4 KiB that our moves brought over, by source and target node.",
        labels: PAIR,
        empty_when: None,
        read: |s, rows| pairs(s, rows, |pair| pair.moved as f64),
    },
    Metric {
        name: "migrate_move_failed_pages_total",
        kind: Kind::Counter,
        unit: "pages",
        help: "Pages of 4 KiB that our moves tried and could not bring over, by source and target node.",
        labels: PAIR,
        empty_when: NO_FAILURE,
        read: |s, rows| pairs(s, rows, |pair| pair.failed as f64),
    },
    Metric {
        name: "migrate_moves_scored_total",
        kind: Kind::Counter,
        unit: "moves",
        help: "Moves after which the remote share was compared with that before.",
        labels: &[],
        empty_when: Some("a move is scored some ticks after it ended"),
        read: |s, rows| rows.add([], (s.ledger.helped + s.ledger.not_helped) as f64),
    },
    Metric {
        name: "migrate_moves_unhelpful_total",
        kind: Kind::Counter,
        unit: "moves",
        help: "Of the scored moves, those after which more than half of the remote share was left.",
        labels: &[],
        empty_when: Some("every scored move helped"),
        read: |s, rows| rows.add([], s.ledger.not_helped as f64),
    },
];

fn decisions(s: &Snapshot, rows: &mut Rows) {
    // One reason moves, one begins a comparison; every other one says stay.
    for reason in Reason::ALL {
        let verdict = if reason == Reason::Pays { "move" } else { "stay" };
        rows.add([verdict, reason.name()], 0.0);
    }
    rows.add(["hold_back", Reason::HeldBack.name()], 0.0);
    for ((verdict, reason), n) in &s.ledger.decisions {
        rows.add([verdict, reason.name()], *n as f64);
    }
}

fn pairs(s: &Snapshot, rows: &mut Rows, value: fn(&PairTotals) -> f64) {
    let mut add = |from: &NodeId, to: &NodeId, value| {
        rows.add([&from.to_string(), &to.to_string()], value);
    };
    if s.nodes.len() <= PRESET_NODES {
        for (from, from_id) in s.nodes.iter() {
            for (_, to_id) in s.nodes.iter().filter(|(to, _)| *to != from) {
                add(from_id, to_id, 0.0);
            }
        }
    }
    for ((from, to), pair) in &s.ledger.pairs {
        if let (Some(from), Some(to)) = (id(s, *from), id(s, *to)) {
            add(from, to, value(pair));
        }
    }
}

fn id(s: &Snapshot, node: Node) -> Option<&NodeId> {
    s.nodes.get(node)
}
