//! The rules of form of `dashboards/migrate.json`, and that it shows every
//! metric of the table and none besides. Whether its queries find anything is
//! asked of a real Prometheus by `cargo xtask`.

use std::collections::BTreeSet;

use migrate_ctl::metrics::Kind;
use migrate_ctl::metrics::table;
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../../dashboards/migrate.json");

/// Metrics that no panel shows, each with its reason.
const NOT_SHOWN: [(&str, &str); 0] = [];

#[test]
fn the_file_is_in_canonical_form() {
    let pretty = serde_json::to_string_pretty(&dashboard()).unwrap() + "\n";
    assert!(pretty == DASHBOARD, "keys sorted, two spaces, a line end at the end:\n{pretty}");
    for volatile in ["id", "version", "iteration"] {
        assert!(dashboard().get(volatile).is_none(), "Grafana owns {volatile:?}");
    }
}

#[test]
fn the_model_is_the_classic_one_and_read_only() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|v| (36..=42).contains(&v)));
    assert_eq!(dashboard["editable"], false);
    for named in ["uid", "title", "description"] {
        assert!(!string(&dashboard[named]).is_empty(), "{named}");
    }
}

#[test]
fn it_has_the_three_rows() {
    let rows: Vec<_> = all_panels().into_iter().filter(|p| p["type"] == "row").collect();
    let titles: Vec<_> = rows.iter().map(|row| string(&row["title"])).collect();
    assert_eq!(titles, ["Is NUMA a problem here?", "What did we do?", "What did it cost?"]);
}

#[test]
fn the_variables_choose_source_job_and_instance() {
    let dashboard = dashboard();
    let list = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = list.iter().map(|variable| string(&variable["name"])).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    assert_eq!(list[0]["type"], "datasource");
    assert_eq!(list[0]["query"], "prometheus");
    assert_eq!(list[0]["label"], "Data Source");
    for variable in &list[1..] {
        let name = &variable["name"];
        assert_eq!(variable["type"], "query", "{name}");
        assert_eq!(variable["multi"], true, "{name}");
        assert_eq!(variable["includeAll"], true, "{name}");
        assert_eq!(variable["allValue"], ".+", "{name}");
        assert_eq!(variable["refresh"], 2, "{name} is not reloaded when the time changes");
        assert_eq!(variable["datasource"]["uid"], "${datasource}", "{name}");
        let query = string(&variable["query"]["query"]);
        assert!(query.starts_with("label_values(migrate_"), "{query}");
    }
    assert!(string(&list[2]["query"]["query"]).contains(r#"job=~"$job""#));
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    let mut titles = BTreeSet::new();
    for panel in panels() {
        let title = string(&panel["title"]).to_owned();
        assert!(!title.is_empty() && titles.insert(title.clone()), "{title:?}");
        assert!(string(&panel["description"]).ends_with('.'), "{title}");
        assert!(["timeseries", "stat"].contains(&string(&panel["type"])), "{title}");
        // The identifiers that Grafana knows, of those that we need.
        let units = ["short", "none", "percentunit", "ops", "s", "bytes", "dateTimeAsIso"];
        let unit = string(&panel["fieldConfig"]["defaults"]["unit"]);
        assert!(units.contains(&unit), "{title}: {unit:?}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().unwrap();
        let letters: BTreeSet<_> = targets.iter().map(|t| string(&t["refId"])).collect();
        assert!(!targets.is_empty() && letters.len() == targets.len(), "{title}: {letters:?}");
        assert!(targets.iter().all(|t| t["datasource"]["uid"] == "${datasource}"), "{title}");
    }
}

#[test]
fn every_query_selects_job_and_instance_and_rates_what_counts() {
    for query in queries() {
        let used = used(&query);
        assert!(!used.is_empty(), "no metric of the table in {query}");
        let selectors = query.matches('{').count();
        for matcher in [r#"job=~"$job""#, r#"instance=~"$instance""#] {
            assert_eq!(query.matches(matcher).count(), selectors, "{matcher} in {query}");
        }
        let counts = |m: &str| table::all().any(|t| t.name == m && t.kind != Kind::Gauge);
        let rated = query.matches("rate(").count();
        assert_eq!(used.iter().filter(|m| counts(m)).count(), rated, "{query}");
        assert_eq!(query.matches("[$__rate_interval]").count(), rated, "{query}");
        assert_eq!(query.matches('[').count(), rated, "a fixed range in {query}");
    }
}

#[test]
fn it_shows_exactly_the_metrics_of_the_table() {
    let shown: BTreeSet<_> = queries().iter().flat_map(|query| used(query)).collect();
    let not_shown = NOT_SHOWN.map(|(name, _)| name);
    for metric in table::all() {
        let listed = not_shown.contains(&metric.name);
        assert!(shown.contains(metric.name) != listed, "{}", metric.name);
    }
    for query in queries() {
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|w| w.starts_with("migrate_") || w.starts_with("process_")) {
            assert!(table::all().any(|m| is(m.name, word)), "{word} is not in the table");
        }
    }
}

#[test]
fn panels_do_not_overlap() {
    let mut taken = BTreeSet::new();
    for panel in all_panels() {
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for cell in (at("x")..at("x") + at("w")).flat_map(|x| (0..at("h")).map(move |y| (x, y))) {
            assert!(taken.insert((cell.0, at("y") + cell.1)), "{} lies on another", panel["title"]);
        }
    }
    let ids: BTreeSet<_> = all_panels().iter().map(|p| p["id"].as_u64()).collect();
    assert_eq!(ids.len(), all_panels().len());
}

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).unwrap()
}

fn all_panels() -> Vec<Value> {
    dashboard()["panels"].as_array().unwrap().clone()
}

fn panels() -> Vec<Value> {
    all_panels().into_iter().filter(|panel| panel["type"] != "row").collect()
}

fn queries() -> Vec<String> {
    let panels = panels();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| string(&target["expr"]).to_owned()).collect()
}

/// The table's metrics in a query, one entry for each time it names one.
fn used(query: &str) -> Vec<&'static str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter_map(|word| table::all().map(|m| m.name).find(|name| is(name, word))).collect()
}

/// Whether the word is the metric, or a part of it where it is a histogram.
fn is(name: &str, word: &str) -> bool {
    let part = ["_bucket", "_count"].iter().find_map(|part| word.strip_suffix(part));
    word == name || part == Some(name)
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
