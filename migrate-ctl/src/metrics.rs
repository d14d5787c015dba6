//! What does a scrape say?
//!
//! Renders one snapshot as Prometheus text. What is exported stands in
//! [`table`], one row a metric; here is only how a row becomes text. Nothing
//! outlives a render: series that vanished from the snapshot vanish from the
//! scrape, and scrapes cannot race. Serving the text is `http`'s.

pub mod table;

mod histogram;

use std::collections::BTreeMap;

use migrate_common::Durations;
use prometheus::TextEncoder;
use prometheus::proto;

use crate::procfs::printable;
use crate::snapshot::Snapshot;

/// The media type of [`render`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// One metric: all that is said of it anywhere comes from here.
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// Base unit in the plural, or what is counted.
    pub unit: &'static str,
    pub help: &'static str,
    pub labels: &'static [&'static str],
    /// Why every series of it may be 0, or none be there, after a healthy demo.
    pub empty_when: Option<&'static str>,
    read: fn(&Snapshot, &mut Rows),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// The word of the exposition's TYPE line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Renders every metric of the table that has a series in this snapshot.
pub fn render(snapshot: &Snapshot) -> String {
    let families: Vec<_> = table::all()
        .map(|metric| family(metric, snapshot))
        // Without a series a family has no text, and the encoder takes it for a mistake.
        .filter(|family| !family.get_metric().is_empty())
        .collect();
    TextEncoder::new()
        .encode_to_string(&families)
        .expect("every family has a name and a series, and a String takes all text")
}

/// The series of one metric by the values of its labels.
///
/// Two things that end up under one label value become one series, since
/// Prometheus drops a whole scrape that holds a series twice.
#[derive(Default)]
struct Rows(BTreeMap<Vec<String>, Value>);

enum Value {
    Number(f64),
    Calls(Box<Durations>),
}

impl Rows {
    /// Adds to a sum: of counts, or of things that happen at the same time.
    fn add<const N: usize>(&mut self, labels: [&str; N], value: f64) {
        self.join(labels, value, |old, new| old + new);
    }

    /// Keeps the highest: for shares and states, which do not add up.
    fn highest<const N: usize>(&mut self, labels: [&str; N], value: f64) {
        self.join(labels, value, f64::max);
    }

    fn calls(&mut self, labels: [&str; 1], calls: &Durations) {
        let key = labels.map(label).into();
        match self.0.get_mut(&key) {
            Some(Value::Calls(sum)) => sum.add(calls),
            Some(Value::Number(_)) | None => {
                self.0.insert(key, Value::Calls(Box::new(*calls)));
            }
        }
    }

    fn join<const N: usize>(&mut self, labels: [&str; N], new: f64, join: fn(f64, f64) -> f64) {
        let key = labels.map(label).into();
        match self.0.get_mut(&key) {
            Some(Value::Number(old)) => *old = join(*old, new),
            Some(Value::Calls(_)) | None => {
                self.0.insert(key, Value::Number(new));
            }
        }
    }
}

/// A name that a stranger chose, as a label: Prometheus takes an empty one for a missing one.
fn label(name: &str) -> String {
    if name.is_empty() { "none".to_owned() } else { printable(name) }
}

fn family(metric: &Metric, snapshot: &Snapshot) -> proto::MetricFamily {
    let mut rows = Rows::default();
    (metric.read)(snapshot, &mut rows);
    let mut family = proto::MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(match metric.kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
        Kind::Histogram => proto::MetricType::HISTOGRAM,
    });
    family.set_metric(rows.0.into_iter().map(|(values, v)| series(metric, values, &v)).collect());
    family
}

fn series(metric: &Metric, values: Vec<String>, value: &Value) -> proto::Metric {
    let pairs = metric.labels.iter().zip(values).map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value);
        pair
    });
    let mut series = proto::Metric::from_label(pairs.collect());
    match value {
        Value::Calls(calls) => series.set_histogram(histogram::classic(calls)),
        Value::Number(number) if metric.kind == Kind::Counter => {
            let mut counter = proto::Counter::default();
            counter.set_value(*number);
            series.set_counter(counter);
        }
        Value::Number(number) => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(*number);
            series.set_gauge(gauge);
        }
    }
    series
}
