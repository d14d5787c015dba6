//! Does every query of a dashboard find something?

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::server::{JOB, Server};

/// What stands for Grafana's variables: some scrapes of two seconds, and the range around them.
const RATE_INTERVAL: &str = "15s";
const RANGE: &str = "5m";

/// Runs every query of a dashboard, those of its variables too.
///
/// Returns their number. Fails, naming them all, for queries that are wrong or find nothing;
/// nothing is what one may find that asks for a metric in `absent`.
pub(crate) fn check_dashboard(server: &Server, dashboard: &str, absent: &[&str]) -> Result<usize> {
    let dashboard: Value = serde_json::from_str(dashboard).context("read the dashboard")?;
    let queries = queries(&dashboard);
    ensure!(!queries.is_empty(), "the dashboard has no query");
    let mut failures = Vec::new();
    for Asked { title, query } in &queries {
        match server.run(&substitute(query)) {
            Ok(0) if absent.iter().any(|name| query.contains(name)) => {}
            Ok(0) => failures.push(format!("{title}: no rows for {query}")),
            Ok(_) => {}
            Err(error) => failures.push(format!("{title}: {error:#}")),
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(queries.len())
}

struct Asked {
    title: String,
    query: String,
}

fn queries(dashboard: &Value) -> Vec<Asked> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut queries = Vec::new();
    for variable in list(&dashboard["templating"]["list"]) {
        if variable["type"] == "query" {
            let query = text(&variable["query"]["query"]);
            queries.push(Asked { title: format!("variable {}", text(&variable["name"])), query });
        }
    }
    let panels = list(&dashboard["panels"]);
    // A collapsed row holds its panels itself.
    let inside: Vec<_> = panels.iter().flat_map(|panel| list(&panel["panels"])).collect();
    for panel in panels.iter().chain(&inside) {
        for target in list(&panel["targets"]) {
            queries.push(Asked { title: text(&panel["title"]), query: text(&target["expr"]) });
        }
    }
    queries
}

fn substitute(query: &str) -> String {
    query
        .replace("$__rate_interval", RATE_INTERVAL)
        .replace("$__range", RANGE)
        .replace("$job", JOB)
        .replace("$instance", ".+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_panels_in_collapsed_rows_are_asked_too() {
        let dashboard = serde_json::json!({
            "templating": {"list": [
                {"type": "datasource", "name": "datasource", "query": "prometheus"},
                {"type": "query", "name": "job", "query": {"query": "label_values(m, job)"}},
            ]},
            "panels": [
                {"type": "row", "panels": [{"title": "Inner", "targets": [{"expr": "i"}]}]},
                {"title": "Outer", "targets": [{"expr": "o"}, {"expr": "p"}]},
            ],
        });
        let asked: Vec<_> = queries(&dashboard).into_iter().map(|a| (a.title, a.query)).collect();
        let expected = [
            ("variable job", "label_values(m, job)"),
            ("Outer", "o"),
            ("Outer", "p"),
            ("Inner", "i"),
        ];
        assert_eq!(asked, expected.map(|(title, query)| (title.to_owned(), query.to_owned())));
    }

    #[test]
    fn the_variables_of_grafana_are_filled_in() {
        let query = "rate(m{job=~\"$job\", instance=~\"$instance\"}[$__rate_interval])";
        assert_eq!(substitute(query), "rate(m{job=~\"migrate\", instance=~\".+\"}[15s])");
        assert!(!substitute("increase(m[$__range])").contains('$'));
    }
}
