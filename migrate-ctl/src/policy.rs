//! When memory should follow its CPU: one decision for each extent that ran in this tick.
//!
//! Owns the choice of the place; `words` explains it. The bounds on what we pay
//! are the work function's (`work`); `guards` may only say no. Pure: the same
//! table and settings give the same decisions.

pub(crate) mod cost;
pub(crate) mod work;
pub(crate) mod rates;
pub(crate) mod wait;
pub(crate) mod residences;
pub(crate) mod home;
pub(crate) mod lanes;
pub(crate) mod moments;
pub(crate) mod pace;
pub mod prices;
pub mod words;

use crate::config::Config;
use crate::guards::how_much::Budget;
use crate::guards::{self, Wish};
use crate::model::{
    Decision, Est, ExtentId, Forecast, Node, NodeObs, NodeVec, Order, Reason, Rule, Source,
    Verdict, each_node,
};
use crate::table::{Row, Table, secs};

/// A gain below this, in seconds a second, is none: it would pay for 100 pages in a quarter
/// of a minute at best, and no estimate of ours is that good.
pub(crate) const WORTHWHILE: f64 = 1e-4;

/// An order that has waited for so many ticks is decided anew.
const ORDER_TICKS: u64 = 2;

/// Decides about everything that ran in the last tick, by extent. Moves that are due in the same
/// tick share room and budget: who gains most in a second is served first.
pub fn decide(table: &Table, config: &Config) -> Vec<Decision> {
    let mut budget = Budget::of(table, config);
    let mut due: Vec<Due<'_>> = Vec::new();
    let mut decisions = Vec::with_capacity(usize::try_from(table.ran).unwrap_or(0));
    for (seq, (&id, row)) in (table.seq..).zip(table.active()) {
        let ahead = ahead(table, row, config);
        let wish = wish(id, row, ahead.best.or_else(|| forbidden(table, row, config)));
        if let (Some(to), true) = (ahead.best, ahead.due()) {
            due.push(Due { index: decisions.len(), wish, to, gain: gain(row, to) });
        }
        decisions.push(stay(seq, &wish, &ahead, table, config, &budget));
    }
    due.sort_by(|a, b| b.gain.total_cmp(&a.gain).then(a.index.cmp(&b.index)));
    for due in due {
        due.serve(&mut decisions[due.index], table, config, &mut budget);
    }
    decisions
}

/// A move whose time has come.
struct Due<'a> {
    /// Of its decision.
    index: usize,
    wish: Wish<'a>,
    to: Node,
    /// Seconds a second.
    gain: f64,
}

impl Due<'_> {
    fn serve(&self, decision: &mut Decision, table: &Table, config: &Config, budget: &mut Budget) {
        let Self { wish, to, .. } = self;
        if let Some(reason) = guards::against(wish, table, config, budget) {
            decision.reason = reason;
            decision.forecast.move_in =
                short(guards::move_in(reason, wish, table, config, Some(0.0)));
            return;
        }
        let order = order(decision, table, wish, *to);
        let share = table.feedback.hold_back(config.policy.hold_back);
        (decision.verdict, decision.reason) = if wish.row.draws(wish.id.domain, share) {
            (Verdict::HoldBack(order), Reason::HeldBack)
        } else {
            budget.spend(*to, wish.at_most);
            (Verdict::Move(order), Reason::Pays)
        };
    }
}

/// A move that is not due, or not yet looked at.
fn stay(
    seq: u64,
    wish: &Wish<'_>,
    ahead: &Ahead,
    table: &Table,
    config: &Config,
    budget: &Budget,
) -> Decision {
    let placed = wish.row.placed;
    let reason = if placed && wish.to.is_none() {
        guards::without_target(wish, table, config, budget).unwrap_or(Reason::Settled)
    } else {
        let otherwise = if placed { Reason::NotYet } else { Reason::NoPlacement };
        guards::for_good(wish, table, config, budget).unwrap_or(otherwise)
    };
    let mut forecast = forecast(wish.row, wish.to, ahead, table, config);
    forecast.move_in = short(guards::move_in(reason, wish, table, config, ahead.wait));
    Decision { seq, now: table.now, extent: wish.id, verdict: Verdict::Stay, reason, forecast }
}

/// A move to this node, with the most that it may bring.
fn wish(id: ExtentId, row: &Row, to: Option<Node>) -> Wish<'_> {
    let pages = to.map_or(0, |node| row.costs.off_node(usize::from(node.0)));
    Wish { id, row, to, pages, at_most: pages.saturating_add(row.alongside) }
}

/// Whether all that is missing for a move, now or soon, is to know of no memory policy.
pub(crate) fn lacks_mempolicy(
    id: ExtentId,
    row: &Row,
    table: &Table,
    config: &Config,
    budget: &Budget,
) -> bool {
    let to = ahead(table, row, config).best;
    let wish = wish(id, row, to);
    let speaks = guards::against(&wish, table, config, budget);
    to.is_some() && speaks.is_none_or(|reason| reason == Reason::MempolicyUnknown)
}

/// Where the memory would go next, if nothing changes and no guard speaks.
struct Ahead {
    best: Option<Node>,
    /// Seconds until then; 0: now, none: never.
    wait: Option<f64>,
    rule: Rule,
}

impl Ahead {
    fn due(&self) -> bool {
        self.wait == Some(0.0)
    }
}

fn ahead(table: &Table, row: &Row, config: &Config) -> Ahead {
    if !row.placed {
        Ahead { best: None, wait: None, rule: Rule::WorkFunction }
    } else if row.on_credit(config) {
        foretold(table, row)
    } else {
        by_work(table, row, config)
    }
}

/// As the forecast has it: to the home of the task, once it has been there for long enough.
fn foretold(table: &Table, row: &Row) -> Ahead {
    let home = row.home.node().filter(|&node| gain(row, node) > WORTHWHILE);
    let left = row.wait - row.home.age(table.now);
    let wait = match home {
        Some(_) if left < 0.0 => Some(0.0),
        Some(_) if left.is_finite() => Some(in_ticks(left, table)),
        Some(_) | None => None,
    };
    Ahead { best: home, wait, rule: Rule::Forecast }
}

/// As the work function has it.
fn by_work(table: &Table, row: &Row, config: &Config) -> Ahead {
    let now = row.work.choice(&row.costs, gamma(config)).and_then(|node| u16::try_from(node).ok());
    let next = match now {
        Some(node) => Some((Node(node), 0.0)),
        None => soonest(table, row, config),
    };
    let (best, wait) = next.unzip();
    Ahead { best, wait, rule: Rule::WorkFunction }
}

/// Seconds until the memory moves, if things stay as they are.
pub(crate) fn move_in(table: &Table, row: &Row, config: &Config) -> Option<f64> {
    ahead(table, row, config).wait
}

/// The node that the memory would go to first, and when. Work grows by what each state loses,
/// so the gap to a node closes at the difference of the two rates.
fn soonest(table: &Table, row: &Row, config: &Config) -> Option<(Node, f64)> {
    let mut first: Option<(Node, f64)> = None;
    for (node, obs) in table.nodes.iter() {
        let gain = gain(row, node);
        if gain <= WORTHWHILE || !is_open(row, node, obs, config) {
            continue;
        }
        let gap = row.work.gap(&row.costs, gamma(config), usize::from(node.0));
        let wait = in_ticks(gap / gain, table);
        if first.is_none_or(|(_, soonest)| wait < soonest) {
            first = Some((node, wait));
        }
    }
    first
}

/// The end of the tick in which so many seconds have passed: only then is anything decided.
fn in_ticks(wait: f64, table: &Table) -> f64 {
    let tick = secs(table.dt());
    if tick > 0.0 { ((wait.max(0.0) / tick).floor() + 1.0) * tick } else { wait.max(0.0) }
}

/// The node that would gain most, were it not for the cpuset or its lack of CPUs.
fn forbidden(table: &Table, row: &Row, config: &Config) -> Option<Node> {
    let better = each_node(table.nodes.len()).filter(|&node| gain(row, node) > WORTHWHILE);
    better
        .filter(|&node| {
            let obs = &table.nodes[node];
            obs.has_memory && !is_open(row, node, obs, config)
        })
        .max_by(|&a, &b| gain(row, a).total_cmp(&gain(row, b)))
}

/// Whether memory of this extent may go there at all.
pub(crate) fn is_open(row: &Row, node: Node, obs: &NodeObs, config: &Config) -> bool {
    let allowed = row.allowed.get(node) == Some(&true) || !guards::on(config, Reason::Cpuset);
    let fast = obs.has_cpus || !guards::on(config, Reason::SlowNode);
    obs.has_memory && allowed && fast
}

/// Seconds that the application would lose less per second with its memory there.
pub(crate) fn gain(row: &Row, node: Node) -> f64 {
    match row.rates.rate(usize::from(node.0)) {
        Some(there) if row.placed => row.rates.rate_as_placed() - there,
        _ => 0.0,
    }
}

fn gamma(config: &Config) -> f64 {
    let gamma = config.policy.gamma;
    if gamma.is_nan() { 1.0 } else { gamma.clamp(0.0, 1.0) }
}

fn order(decision: &Decision, table: &Table, wish: &Wish<'_>, to: Node) -> Order {
    let there = &wish.row.costs.pages;
    let from = NodeVec::from_fn(there.len(), |n| n != to && there[usize::from(n.0)] > 0.0);
    let until = table.now.saturating_add(table.dt().saturating_mul(ORDER_TICKS));
    let Wish { id, pages, at_most, .. } = *wish;
    let Forecast { saves, price, .. } = decision.forecast;
    Order { seq: decision.seq, target: id.domain, from, to, pages, at_most, until, saves, price }
}

#[expect(clippy::cast_possible_truncation, reason = "an estimate has no more digits than f32")]
fn forecast(
    row: &Row,
    best: Option<Node>,
    ahead: &Ahead,
    table: &Table,
    config: &Config,
) -> Forecast {
    let pricing = (&table.prices, &config.policy);
    let price = best.map_or(0.0, |node| row.costs.price[usize::from(node.0)]);
    let gain = best.map_or(0.0, |node| gain(row, node));
    let (rate, load) = (row.rates.rate_as_placed(), row.rates.steady_load());
    let share = |rate: f64| if load > 0.0 { (rate / load).clamp(0.0, 1.0) } else { 0.0 };
    // The part of what is lost that the move would bring back, alike at every end.
    let part = if rate > 0.0 { (gain / rate).clamp(0.0, 1.0) } else { 1.0 };
    let (lost, source) = (row.costs.lost_share, row.boundness.unwrap_or(Source::Prior));
    Forecast {
        best,
        remote: row.costs.remote,
        loss_rate: interval(rate, [lost.mid * load, lost.high * load], source),
        lost: row.rates.lost,
        price: best.map_or(Est::NOTHING, |to| row.costs.price_to(to, pricing)),
        saves: interval(share(gain), [lost.mid * part, lost.high * part], source),
        break_even: (gain > WORTHWHILE).then_some((price / gain) as f32),
        move_in: short(ahead.wait),
        rule: ahead.rule,
        paid: row.paid,
        optimum: row.work.optimum(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a wait has no more digits than f32")]
fn short(wait: Option<f64>) -> Option<f32> {
    wait.map(|wait| wait as f32)
}

/// From the low end, which decides, to the others, which are never below it.
#[expect(clippy::cast_possible_truncation, reason = "an estimate has no more digits than f32")]
fn interval(low: f64, [mid, high]: [f64; 2], source: Source) -> Est {
    let mid = mid.max(low);
    Est { low: low as f32, mid: mid as f32, high: high.max(mid) as f32, source }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod reference;
#[cfg(test)]
pub(crate) mod scene;
#[cfg(test)]
mod tests;
