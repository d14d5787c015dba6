//! `docs/metrics.md` against the table.

use migrate_ctl::metrics::Metric;
use migrate_ctl::metrics::table;

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

#[test]
fn the_document_holds_exactly_the_table() {
    let names = ["| `migrate_", "| `process_"];
    let of_a_metric = |line: &&str| names.iter().any(|name| line.starts_with(name));
    let documented: Vec<_> = DOCUMENT.lines().filter(of_a_metric).collect();
    let expected: Vec<_> = table::all().map(line).collect();
    assert!(documented == expected, "docs/metrics.md should say\n{}\n", expected.join("\n"));
}

fn line(metric: &Metric) -> String {
    let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let cells = [
        format!("`{}`", metric.name),
        metric.kind.name().to_owned(),
        metric.unit.to_owned(),
        labels.join(", "),
        metric.help.to_owned(),
        metric.empty_when.unwrap_or_default().to_owned(),
    ];
    format!("| {} |", cells.join(" | "))
}
