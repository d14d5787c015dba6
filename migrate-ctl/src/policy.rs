//! When should memory follow its CPU? The work function and the verdict.
//!
//! Pure: values in, values out. The model, the algorithm and its bound are in
//! `docs/policy.md`. State lives in `table`, what forbids a move in `guards`.

use crate::config::{Config, PolicyConfig};
use crate::guards::{self, Case, Left};
use crate::model::{
    Decision, Est, Forecast, Mempolicy, Nanos, Node, NodeObs, NodeVec, Order, Pages, Reason,
    Verdict, each_node,
};
use crate::table::{Row, Table};

mod work;
mod words;

pub use words::explain;
pub(crate) use work::Work;

/// A gain below this, in seconds per second, is noise of the samples.
const NOISE: f64 = 1e-4;

/// One decision for each extent that was active in the last tick, in the order of the rows.
pub fn decide(table: &Table, config: &Config) -> Vec<Decision> {
    let mut left = Left::of(table, config);
    table
        .active()
        .zip(table.next_seq()..)
        .map(|(row, seq)| {
            let forecast = forecast(row, table.nodes(), &config.policy);
            let (verdict, reason) = verdict(seq, row, &forecast, table, config, &mut left);
            let forecast = if waits_for_time(reason) {
                forecast
            } else {
                Forecast { move_in: None, ..forecast }
            };
            Decision { seq, now: table.now(), extent: row.obs.id, verdict, reason, forecast }
        })
        .collect()
}

/// Whether it would move by and by if things stay as they are.
fn waits_for_time(reason: Reason) -> bool {
    let forever = [Reason::Excluded, Reason::Mempolicy, Reason::Cpuset, Reason::TooLarge];
    !forever.contains(&reason)
}

fn verdict(
    seq: u64,
    row: &Row,
    forecast: &Forecast,
    table: &Table,
    config: &Config,
    left: &mut Left,
) -> (Verdict, Reason) {
    if row.shares.is_empty() {
        let unsure = guards::excluded(row, config).unwrap_or(Reason::NoPlacement);
        return (Verdict::Stay, unsure);
    }
    let due = destination(row, table.nodes(), &config.policy);
    let Some(to) = due.or(forecast.best) else { return (Verdict::Stay, Reason::Settled) };
    let order = order(seq, row, to);
    let case = Case { row, order: &order, now: table.now() };
    if due.is_none() {
        // Nothing is due, but who waits in vain should read why.
        let forbidden = guards::forbidden(&case, config);
        return (Verdict::Stay, forbidden.unwrap_or(Reason::NotYet));
    }
    if let Some(reason) = guards::first(&case, left, config) {
        return (Verdict::Stay, reason);
    }
    left.take(&order);
    (Verdict::Move(order), Reason::Pays)
}

/// Where the work function says to go now; none: stay.
fn destination(row: &Row, nodes: &NodeVec<NodeObs>, config: &PolicyConfig) -> Option<Node> {
    let mut best = (row.work.placed, None);
    for to in destinations(nodes) {
        let cost = row.work.at(to) + config.gamma * row.price[to];
        // A tie is Stay, and NaN is never less.
        if cost < best.0 {
            best = (cost, Some(to));
        }
    }
    best.1
}

/// Memory goes only where memory and CPUs are.
pub(crate) fn destinations(nodes: &NodeVec<NodeObs>) -> impl Iterator<Item = Node> {
    nodes.iter().filter(|(_, node)| node.has_memory && node.has_cpus).map(|(node, _)| node)
}

fn order(seq: u64, row: &Row, to: Node) -> Order {
    let from = NodeVec::from_fn(row.shares.len(), |node| {
        node != to && row.obs.pages.get(node).is_some_and(|pages| pages.mid >= 0.5)
    });
    Order { seq, target: row.obs.id.domain, from, to, pages: pages_elsewhere(&row.obs.pages, to) }
}

/// The numbers that go with every verdict.
fn forecast(row: &Row, nodes: &NodeVec<NodeObs>, config: &PolicyConfig) -> Forecast {
    let gain = |node: Node| row.rate_placed - row.rates[node];
    let best = (!row.shares.is_empty())
        .then(|| destinations(nodes).max_by(|&a, &b| gain(a).total_cmp(&gain(b)).then(b.cmp(&a))))
        .flatten()
        .filter(|&node| gain(node) > NOISE);
    let move_in = destinations(nodes)
        .filter(|&node| !row.shares.is_empty() && gain(node) > NOISE)
        .map(|node| {
            let gap = row.work.at(node) + config.gamma * row.price[node] - row.work.placed;
            gap.max(0.0) / gain(node)
        })
        .min_by(f64::total_cmp);
    Forecast {
        best,
        remote_share: narrow(row.remote_share),
        loss_rate: narrow(best.map_or(0.0, gain)),
        lost: row.lost,
        price: narrow(best.map_or(0.0, |node| row.price[node])),
        move_in: move_in.map(narrow),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounds; what people read needs no more")]
fn narrow(value: f64) -> f32 {
    value as f32
}

/// Seconds that one tick costs with all memory on each node, and as it is placed.
///
/// Σ over CPU nodes n of c(n) ÷ (1 + b(ρ(n,m) − 1)) × b × (ρ(n,s) − 1): the CPU time seen is
/// already stretched by the remote memory m, so it is shrunk to local work first. b and ρ are
/// taken at their low ends.
pub(crate) fn penalties(
    cpu: &NodeVec<Nanos>,
    shares: &NodeVec<f64>,
    nodes: &NodeVec<NodeObs>,
    boundness: Est,
    into: &mut NodeVec<f64>,
) -> f64 {
    let b = known(boundness.low).clamp(0.0, 1.0);
    let mut placed = 0.0;
    into.values_mut().for_each(|penalty| *penalty = 0.0);
    for (n, &nanos) in cpu.iter() {
        let Some(node) = nodes.get(n).filter(|_| nanos > 0) else { continue };
        let rho = |to: Node| node.latency.get(to).map_or(1.0, |ratio| known(ratio.low).max(1.0));
        let mixed: f64 = shares.iter().map(|(m, share)| share * rho(m)).sum();
        let mixed = mixed.max(1.0);
        let local_work = nanos as f64 * 1e-9 / (1.0 + b * (mixed - 1.0));
        placed += local_work * b * (mixed - 1.0);
        for s in each_node(into.len()) {
            into[s] += local_work * b * (rho(s) - 1.0);
        }
    }
    placed
}

/// Seconds that the application loses when all its pages that are not on `to` go there.
pub(crate) fn price(pages: &NodeVec<Est>, to: Node, config: &PolicyConfig) -> f64 {
    match pages_elsewhere(pages, to) {
        0 => 0.0,
        pages => pages as f64 * known(config.price_per_page.mid) + config.price_per_move,
    }
}

/// Seconds for all pages: from one node to another.
pub(crate) fn full_price(pages: &NodeVec<Est>, config: &PolicyConfig) -> f64 {
    let all: f64 = pages.values().map(|pages| known(pages.mid)).sum();
    all * known(config.price_per_page.mid) + config.price_per_move
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "never negative; a float too large for u64 saturates"
)]
fn pages_elsewhere(pages: &NodeVec<Est>, to: Node) -> Pages {
    let elsewhere = pages.iter().filter(|&(node, _)| node != to);
    elsewhere.map(|(_, pages)| known(pages.mid)).sum::<f64>().round() as Pages
}

/// What is not a number, or negative, counts as nothing.
pub(crate) fn known(value: f32) -> f64 {
    if value.is_finite() { f64::from(value.max(0.0)) } else { 0.0 }
}

/// Processes whose mempolicy must be known by the next tick: those close to a move. Reading it
/// walks the whole page table, so it is read for nobody else.
pub(crate) fn wants_mempolicy(row: &Row, table: &Table, config: &Config) -> bool {
    let soon = table.dt_seconds() * 2.5;
    row.obs.mempolicy != Mempolicy::Explicit
        && guards::excluded(row, config).is_none()
        && forecast(row, table.nodes(), &config.policy)
            .move_in
            .is_some_and(|seconds| f64::from(seconds) <= soon)
}

#[cfg(test)]
mod tests;
