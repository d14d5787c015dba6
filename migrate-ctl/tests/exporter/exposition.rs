//! What a scrape says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use migrate_common::LOST_SLOTS;
use migrate_ctl::journal::files;
use migrate_ctl::ledger::{Ledger, PairTotals};
use migrate_ctl::metrics::table;
use migrate_ctl::metrics::{Kind, render};
use migrate_ctl::model::{Node, NodeId, NodeVec};
use migrate_ctl::snapshot::{OwnCost, Snapshot, Totals};
use migrate_ctl::table::learned::Learned;

use crate::sample;

#[test]
fn a_full_snapshot_shows_every_metric_of_the_table_and_no_other() {
    let text = render(&sample::snapshot(3));
    let shown: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let table: Vec<_> = table::all().map(|m| format!("{} {}", m.name, m.kind.name())).collect();
    assert_eq!(shown, table);
}

#[test]
fn every_series_has_the_labels_of_the_table() {
    for series in parse(&render(&sample::snapshot(3))) {
        let metric = table::all()
            .find(|m| m.name == series.family())
            .unwrap_or_else(|| panic!("{} is not in the table", series.name));
        let labels: Vec<_> = series.labels.keys().filter(|label| *label != "le").collect();
        let mut expected: Vec<_> = metric.labels.iter().collect();
        expected.sort();
        assert_eq!(labels, expected, "{}", series.name);
    }
}

#[test]
fn every_metric_of_a_busy_machine_is_above_zero() {
    let series = parse(&render(&sample::snapshot(10)));
    for metric in table::all() {
        let sum: f64 = series.iter().filter(|s| s.family() == metric.name).map(|s| s.value).sum();
        assert!(sum > 0.0, "{} is {sum}", metric.name);
    }
}

#[test]
fn names_and_labels_follow_the_rules() {
    for metric in table::all() {
        let name = metric.name;
        assert!(name.starts_with("migrate_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        assert!(metric.help.ends_with('.'), "{name}");
        for label in metric.labels {
            let reserved = ["pid", "type", "zone", "region", "service", "env", "instance", "job"];
            assert!(!reserved.contains(label), "{name} has the label {label}");
            assert!(!name.ends_with(&format!("_by_{label}")), "{name}");
        }
    }
    let names: BTreeSet<_> = table::all().map(|metric| metric.name).collect();
    assert_eq!(names.len(), table::all().count(), "a name stands in the table twice");
}

#[test]
fn a_quiet_machine_starts_every_known_series_at_zero() {
    let text = render(&quiet(2));
    for line in [
        r#"migrate_decisions_total{reason="pays",verdict="move"} 0"#,
        r#"migrate_decisions_total{reason="no_room",verdict="stay"} 0"#,
        r#"migrate_moves_failed_total{reason="died_during"} 0"#,
        r#"migrate_move_pages_total{from_node="0",to_node="1"} 0"#,
        r#"migrate_hint_faults_total{cpu_node="1",memory_node="0"} 0"#,
        r#"migrate_hint_fault_pages_total{cpu_node="1",memory_node="0"} 0"#,
        r#"migrate_events_lost_total{event="hints"} 0"#,
        r#"migrate_cpu_seconds_total{node="1"} 0"#,
        "migrate_moves_total 0",
    ] {
        let wanted = parse(line).remove(0);
        assert!(parse(&text).contains(&wanted), "{line} is missing in\n{text}");
    }
    let never = parse(r#"migrate_decisions_total{verdict="stay",reason="pays"} 0"#).remove(0);
    assert!(!parse(&text).contains(&never), "a reason to move is no reason to stay");
}

#[test]
fn nodes_carry_the_numbers_of_the_kernel() {
    let series = parse(&render(&sample::snapshot(1)));
    let nodes: Vec<_> = series
        .iter()
        .filter(|s| s.name == "migrate_cpu_seconds_total")
        .map(|s| (s.labels["node"].as_str(), s.value))
        .collect();
    assert_eq!(nodes, [("0", 0.3), ("2", 0.6)]);
    let pairs = series.iter().filter(|s| s.name == "migrate_move_pages_total");
    assert_eq!(pairs.map(|s| s.labels["to_node"].as_str()).collect::<Vec<_>>(), ["2", "0"]);
}

#[test]
fn a_machine_with_many_nodes_shows_only_the_pairs_that_were_crossed() {
    let mut snapshot = quiet(64);
    let pair = PairTotals { calls: 1, moved: 9, failed: 0, seconds: 0.1 };
    snapshot.ledger.pairs.insert((Node(63), Node(7)), pair);
    let series = parse(&render(&snapshot));
    let pairs: Vec<_> = series.iter().filter(|s| s.labels.contains_key("from_node")).collect();
    assert!(pairs.iter().all(|s| s.labels["from_node"] == "63" && s.labels["to_node"] == "7"));
    assert_eq!(pairs.len(), 4);
    assert!(!series.iter().any(|s| s.name == "migrate_hint_faults_total"));
}

#[test]
fn a_slot_of_the_kernel_falls_into_the_first_bucket_that_ends_where_it_does_or_later() {
    for slot in 0..36 {
        let slot_ends = (1_u64 << (slot + 1)) as f64 / 1e9;
        let buckets = buckets(5, slot);
        assert_eq!(buckets.len(), 14);
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0));
        for (bound, count) in buckets {
            assert_eq!(count, if bound >= slot_ends { 5.0 } else { 0.0 }, "slot {slot} le {bound}");
        }
    }
}

#[test]
fn the_sum_and_the_count_of_a_duration_are_those_of_the_probes() {
    let mut snapshot = quiet(2);
    snapshot.migrations = vec![("syscall".to_owned(), sample::migrations(5, 21))];
    let series = parse(&render(&snapshot));
    let value = |name: &str| series.iter().find(|s| s.name == name).map(|s| s.value);
    assert_eq!(value("migrate_migration_duration_seconds_count"), Some(5.0));
    assert_eq!(value("migrate_migration_duration_seconds_sum"), Some(0.010_485_760));
}

#[test]
fn calls_beyond_the_last_bound_are_counted_all_the_same() {
    let buckets = buckets(2, 39);
    assert_eq!(buckets[12].1, 0.0);
    assert_eq!(buckets[13], (f64::INFINITY, 2.0));
}

#[test]
fn hostile_names_stay_inside_their_label() {
    let hostile = [
        "/a\"} 1\nmigrate_moves_total 99",
        "/back\\slash\\",
        "/nul\0bell\u{7}escape\u{1b}[31m",
        "/turned\u{202e}around",
        "",
    ];
    let mut snapshot = quiet(2);
    snapshot.cgroups = hostile.iter().map(|name| sample::load(name, 0.5, 0.1)).collect();
    snapshot.migrations = vec![(hostile[0].to_owned(), sample::migrations(1, 10))];
    let text = render(&snapshot);
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    let series = parse(&text);
    let cgroups: BTreeSet<_> = series
        .iter()
        .filter(|s| s.name == "migrate_cgroup_remote_ratio")
        .map(|s| s.labels["cgroup"].as_str())
        .collect();
    let expected = [
        "/a\"} 1\\u{a}migrate_moves_total 99",
        "/back\\slash\\",
        "/nul\\u{0}bell\\u{7}escape\\u{1b}[31m",
        "/turned\\u{202e}around",
        "none",
    ];
    assert_eq!(cgroups, BTreeSet::from(expected));
    assert!(series.contains(&parse("migrate_moves_total 0").remove(0)));
}

#[test]
fn two_cgroups_under_one_label_are_one_series() {
    let mut snapshot = quiet(2);
    let cut = |end| format!("/{}{end}", "a".repeat(100));
    snapshot.cgroups =
        vec![sample::load(&cut("1"), 0.75, 0.5), sample::load(&cut("2"), 0.25, 0.25)];
    snapshot.probes = [sample::snapshot(1).probes, sample::snapshot(1).probes].concat();
    let syscall = ("syscall".to_owned(), sample::migrations(3, 12));
    snapshot.migrations = vec![syscall.clone(), syscall];
    let series = parse(&render(&snapshot));
    let value = |name: &str| series.iter().find(|s| s.name == name).map(|s| s.value);
    assert_eq!(value("migrate_cgroup_remote_ratio"), Some(0.75));
    assert_eq!(value("migrate_cgroup_modelled_loss_ratio"), Some(0.75));
    assert_eq!(value("migrate_probe_attached"), Some(0.0), "refused stays refused");
    assert_eq!(value("migrate_migration_duration_seconds_count"), Some(6.0));
    let keys: BTreeSet<_> = series.iter().map(|s| (&s.name, &s.labels)).collect();
    assert_eq!(keys.len(), series.len(), "a series appears twice");
}

/// The buckets, as bound and count, of so many calls in one slot of the kernel.
fn buckets(calls: u64, slot: usize) -> Vec<(f64, f64)> {
    let mut snapshot = quiet(2);
    snapshot.migrations = vec![("syscall".to_owned(), sample::migrations(calls, slot))];
    let series = parse(&render(&snapshot));
    let buckets = series.iter().filter(|s| s.name == "migrate_migration_duration_seconds_bucket");
    buckets.map(|s| (s.labels["le"].parse().unwrap(), s.value)).collect()
}

/// Just started, nothing seen.
fn quiet(nodes: u16) -> Snapshot {
    Snapshot {
        mode: "observe",
        nodes: NodeVec::from_fn(usize::from(nodes), |node| NodeId(node.0)),
        totals: Totals { lost: [0; LOST_SLOTS as usize], ..Totals::default() },
        isolated: BTreeMap::new(),
        scans: Vec::new(),
        migrations: Vec::new(),
        probes: Vec::new(),
        ledger: Ledger::default(),
        learned: Learned::default(),
        cgroups: Vec::new(),
        resident: Vec::new(),
        late: Vec::new(),
        journal: files::Totals::default(),
        cost: OwnCost::default(),
        good_until: Instant::now() + Duration::from_secs(60),
    }
}

#[derive(PartialEq, Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Series {
    fn family(&self) -> &str {
        let parts = ["_bucket", "_sum", "_count"];
        let family = parts.iter().find_map(|part| self.name.strip_suffix(part));
        let of_histogram = family.filter(|name| name.ends_with("_duration_seconds"));
        of_histogram.unwrap_or(&self.name)
    }
}

/// Reads the text format, its escapes included; panics on what is not of it.
fn parse(text: &str) -> Vec<Series> {
    text.lines().filter(|line| !line.starts_with('#')).map(parse_line).collect()
}

fn parse_line(line: &str) -> Series {
    let mut labels = BTreeMap::new();
    let name_ends = line.find(['{', ' ']).unwrap_or_else(|| panic!("no series: {line:?}"));
    let (name, mut rest) = line.split_at(name_ends);
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.trim_start_matches(',').split_once("=\"").unwrap();
            let (value, after) = unquote(after);
            labels.insert(label.to_owned(), value);
            rest = after;
        }
        rest = &rest[1..];
    }
    let value = rest.trim().parse().unwrap_or_else(|_| panic!("no value: {line:?}"));
    Series { name: name.to_owned(), labels, value }
}

/// Up to the closing quote, and what follows it.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next().unwrap().1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    panic!("an open quote: {text:?}")
}
