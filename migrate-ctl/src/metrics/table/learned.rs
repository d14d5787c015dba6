//! What has the policy learned, and was it right?

use crate::metrics::{Kind, Metric, Rows};
use crate::model::Est;
use crate::snapshot::Snapshot;

const PRICE: &[&str] = &["from_node", "to_node", "page_size", "mover", "source"];
const NO_MOVE: Option<&str> = Some("a move is priced in the tick after it ended");
const NO_SCORE: Option<&str> = Some("a move is watched for one horizon, 30 s, before it is scored");
const NO_GROUP: Option<&str> =
    Some("two moves must have been scored by the calls of their processes");
const NOT_HELD_BACK: Option<&str> = Some("few moves are held back, and none with --hold-back 0");

/// The only one so far: `migrate_pages(2)`.
const MOVER: &str = "direct";

pub(super) static METRICS: &[Metric] = &[
    Metric {
        name: "migrate_page_price_seconds",
        kind: Kind::Gauge,
        unit: "seconds",
        help: "Seconds that an application loses for each page of 4 KiB that we move, as learned from our moves and a prior.",
        labels: PRICE,
        empty_when: NO_MOVE,
        read: |s, rows| prices(s, rows, |price| price.mid),
    },
    Metric {
        name: "migrate_page_price_low_seconds",
        kind: Kind::Gauge,
        unit: "seconds",
        help: "The low end of that price's 95 % interval.",
        labels: PRICE,
        empty_when: NO_MOVE,
        read: |s, rows| prices(s, rows, |price| price.low),
    },
    Metric {
        name: "migrate_page_price_high_seconds",
        kind: Kind::Gauge,
        unit: "seconds",
        help: "The high end of that price's 95 % interval.",
        labels: PRICE,
        empty_when: NO_MOVE,
        read: |s, rows| prices(s, rows, |price| price.high),
    },
    Metric {
        name: "migrate_predictions_total",
        kind: Kind::Counter,
        unit: "moves",
        help: "Moves of which it was seen, after a horizon, whether they brought what was predicted.",
        labels: &[],
        empty_when: NO_SCORE,
        read: |s, rows| rows.add([], s.ledger.predicted as f64),
    },
    Metric {
        name: "migrate_predictions_missed_total",
        kind: Kind::Counter,
        unit: "moves",
        help: "Of those, the ones that brought less than the low end of what was predicted.",
        labels: &[],
        empty_when: Some("every prediction came true"),
        read: |s, rows| rows.add([], s.ledger.predicted.saturating_sub(s.ledger.hits) as f64),
    },
    Metric {
        name: "migrate_prediction_hit_ratio",
        kind: Kind::Gauge,
        unit: "ratio",
        help: "Share of the last 64 predictions that came true, 0 to 1; below 0.7 the policy holds back more.",
        labels: &[],
        empty_when: NO_SCORE,
        read: |s, rows| {
            if let Some(rate) = s.learned.hit_rate {
                rows.add([], rate);
            }
        },
    },
    Metric {
        name: "migrate_moves_held_back_total",
        kind: Kind::Counter,
        unit: "moves",
        help: "Moves that were held back for one horizon, to see what comes without them, and that were scored.",
        labels: &[],
        empty_when: NOT_HELD_BACK,
        read: |s, rows| rows.add([], s.ledger.held_back as f64),
    },
    Metric {
        name: "migrate_hold_back_ratio",
        kind: Kind::Gauge,
        unit: "ratio",
        help: "Share of the moves that is held back now, 0 to 1; 0 while we only observe.",
        labels: &[],
        empty_when: NOT_HELD_BACK,
        read: |s, rows| rows.add([], s.learned.hold_back),
    },
    Metric {
        name: "migrate_benefit_ratio",
        kind: Kind::Gauge,
        unit: "ratio",
        help: "Share of their CPU time for each call that processes saved after a move, after one that was held back, and the difference, which is the benefit.",
        labels: &["group"],
        empty_when: NO_GROUP,
        read: |s, rows| benefit(s, rows, |share| share.mid),
    },
    Metric {
        name: "migrate_benefit_low_ratio",
        kind: Kind::Gauge,
        unit: "ratio",
        help: "The low end of that share's 95 % interval.",
        labels: &["group"],
        empty_when: NO_GROUP,
        read: |s, rows| benefit(s, rows, |share| share.low),
    },
    Metric {
        name: "migrate_benefit_high_ratio",
        kind: Kind::Gauge,
        unit: "ratio",
        help: "The high end of that share's 95 % interval.",
        labels: &["group"],
        empty_when: NO_GROUP,
        read: |s, rows| benefit(s, rows, |share| share.high),
    },
    Metric {
        name: "migrate_modelled_paid_seconds",
        kind: Kind::Gauge,
        unit: "seconds",
        help: "What all processes have lost so far by staying and by our moves, as modelled.",
        labels: &[],
        empty_when: None,
        read: |s, rows| rows.add([], s.learned.modelled.paid),
    },
    Metric {
        name: "migrate_modelled_optimum_seconds",
        kind: Kind::Gauge,
        unit: "seconds",
        help: "What a clairvoyant would have lost at least so far, as modelled.",
        labels: &[],
        empty_when: None,
        read: |s, rows| rows.add([], s.learned.modelled.optimum),
    },
];

fn prices(s: &Snapshot, rows: &mut Rows, end: fn(Est) -> f32) {
    for of in &s.learned.prices {
        let (Some(from), Some(to)) = (s.nodes.get(of.from), s.nodes.get(of.to)) else { continue };
        let (from, to) = (from.to_string(), to.to_string());
        let labels = [&*from, &*to, of.size.name(), MOVER, of.price.source.name()];
        rows.add(labels, end(of.price).into());
    }
}

fn benefit(s: &Snapshot, rows: &mut Rows, end: fn(Est) -> f32) {
    let benefit = &s.learned.benefit;
    let groups = [
        ("moved", benefit.moved),
        ("held_back", benefit.held_back),
        ("difference", benefit.difference),
    ];
    for (group, share) in groups {
        if let Some(share) = share {
            rows.add([group], end(share).into());
        }
    }
}
