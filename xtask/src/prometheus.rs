//! Does Prometheus read what we export, and does every query of the dashboard find something?
//!
//! Asks the installed `promtool` and a real server on the host. Nothing is
//! mocked: a wrong metric name answers with success and no rows, so no rows is
//! a failure here.

pub(crate) mod dashboard;
pub(crate) mod server;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::paths::root;

/// Fails on everything that `promtool check metrics` has to say.
pub(crate) fn check_exposition(promtool: &Path, text: &str) -> Result<()> {
    let mut promtool = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", promtool.display()))?;
    // It reads all before it says anything, so writing cannot block on its output.
    promtool.stdin.take().context("promtool has no input")?.write_all(text.as_bytes())?;
    let output = promtool.wait_with_output().context("wait for promtool")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(
        output.status.success() && said.trim().is_empty(),
        "promtool check metrics ({}): {}",
        output.status,
        said.trim()
    );
    Ok(())
}

/// Fails for a documented metric that is missing or 0 and for which the
/// document gives no reason; returns a line for each that has one.
///
/// Rows of `docs/metrics.md` start with the name and end with the reason.
pub(crate) fn check_families(text: &str) -> Result<Vec<String>> {
    check_against(text, &document()?)
}

/// The document of the metrics.
pub(crate) fn document() -> Result<String> {
    let file = root().join("docs/metrics.md");
    fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
}

/// The metrics in `document` that may be 0, and of which the scrape has no series at all.
pub(crate) fn absent<'a>(text: &str, document: &'a str) -> Result<Vec<&'a str>> {
    let sums = sums(text)?;
    let rows = document.lines().filter_map(documented_row);
    let quiet = rows.filter(|(_, reason)| !reason.is_empty()).map(|(name, _)| name);
    Ok(quiet.filter(|name| !sums.contains_key(name)).collect())
}

fn check_against(text: &str, document: &str) -> Result<Vec<String>> {
    let sums = sums(text)?;
    let mut quiet = Vec::new();
    let mut failures = Vec::new();
    let mut documented = 0;
    for (name, reason) in document.lines().filter_map(documented_row) {
        documented += 1;
        if sums.get(name).is_some_and(|sum| *sum != 0.0) {
            continue;
        }
        if reason.is_empty() {
            failures.push(format!("{name} is zero or missing, and docs/metrics.md says no reason"));
        } else {
            quiet.push(format!("{name} is zero: {reason}"));
        }
    }
    ensure!(documented > 0, "docs/metrics.md lists no metric");
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(quiet)
}

/// The name and the reason in a row of the document's table of metrics.
fn documented_row(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("| `")?.split_once('`')?;
    // The other tables of the document list paths.
    let is_metric = name.starts_with("migrate_") || name.starts_with("process_");
    let reason = rest.trim_end().strip_suffix('|')?.rsplit_once('|')?.1;
    is_metric.then_some((name, reason.trim()))
}

/// The sum of all series of each family; of a histogram, its calls.
fn sums(text: &str) -> Result<BTreeMap<&str, f64>> {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or(line);
        if name.ends_with("_bucket") || name.ends_with("_sum") {
            continue;
        }
        let value = line.rsplit_once(' ').map(|(_, value)| value.parse::<f64>());
        let Some(Ok(value)) = value else {
            bail!("no value in {line:?}");
        };
        *sums.entry(name.strip_suffix("_count").unwrap_or(name)).or_insert(0.0) += value;
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
| `migrate_moves_total` | counter | moves |  | Moves. |  |
| `migrate_hint_faults_total` | counter | faults | `a`, `b` | Faults. | balancing is off |
| `/metrics` | the metrics |
";

    #[test]
    fn a_zero_without_a_reason_fails_and_one_with_a_reason_is_named() {
        let good =
            "# HELP x\nmigrate_moves_total 3\nmigrate_hint_faults_total{a=\"0\",b=\"} 1\"} 0\n";
        let quiet = check_against(good, DOCUMENT).unwrap();
        assert_eq!(quiet, ["migrate_hint_faults_total is zero: balancing is off"]);
        for bad in ["migrate_moves_total 0\n", "migrate_hint_faults_total 1\n"] {
            let error = check_against(bad, DOCUMENT).unwrap_err().to_string();
            assert!(error.contains("migrate_moves_total is zero or missing"), "{error}");
        }
        assert!(check_against(good, "").is_err(), "a document without a table proves nothing");
    }

    #[test]
    fn only_a_metric_with_a_reason_may_be_absent() {
        assert_eq!(absent("other 1\n", DOCUMENT).unwrap(), ["migrate_hint_faults_total"]);
        assert!(absent("migrate_hint_faults_total 0\n", DOCUMENT).unwrap().is_empty());
    }

    #[test]
    fn a_histogram_counts_by_its_calls() {
        let text = "h_bucket{le=\"+Inf\"} 4\nh_sum 9.5\nh_count 4\n";
        assert_eq!(sums(text).unwrap(), BTreeMap::from([("h", 4.0)]));
    }
}
