//! When memory should follow its CPU: one decision for each extent that ran in this tick.
//!
//! Owns the choice of the place; `words` explains it. The bounds on what we pay
//! are the work function's (`work`); `guards` may only say no. Pure: the same
//! table, settings and tick give the same decisions.

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
    Decision, Est, ExtentId, Forecast, Node, NodeVec, Order, Pages, Reason, Rule, Source, Tick,
    Verdict, each_node,
};
use crate::table::case::Case;
use crate::table::{Table, secs};

/// A gain below this, in seconds a second, is none: it would pay for 100 pages in a quarter
/// of a minute at best, and no estimate of ours is that good.
pub(crate) const WORTHWHILE: f64 = 1e-4;

/// An order that has waited for so many ticks is decided anew.
const ORDER_TICKS: u64 = 2;

/// A move this near, in seconds, is worth walking the page table for the memory policy.
const MEMPOLICY_NEAR: f64 = 5.0;

/// Takes a tick in and decides about everything that ran in it, by extent. Each is looked at while
/// its row is at hand: a machine has more rows than fit into the cache. Moves that are due in the
/// same tick share room and budget: who gains most in a second is served first.
pub fn decide(table: &mut Table, config: &Config, tick: &Tick) -> Vec<Decision> {
    let mut decisions = Vec::with_capacity(tick.domains.len());
    let mut asks = std::mem::take(&mut table.asks);
    asks.clear();
    table.tick(config, tick, |table, case| {
        let (decision, ask) = consider(case, table, config, decisions.len());
        decisions.push(decision);
        asks.extend(ask);
    });
    let mut turns: Vec<(f64, usize)> = Vec::with_capacity(asks.len());
    let due = asks.iter().enumerate().filter(|(_, ask)| ask.due);
    turns.extend(due.map(|(turn, ask)| (ask.gain, turn)));
    turns.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut budget = Budget::of(table, config);
    for (_, turn) in turns {
        let ask = &asks[turn];
        ask.serve(&mut decisions[ask.index], (table, tick), config, &mut budget);
    }
    table.asks = asks;
    decisions
}

/// A move that is due or near, and that no guard is against but those that look at all moves
/// together.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// Of its decision.
    index: usize,
    pub(crate) id: ExtentId,
    pub(crate) to: Node,
    /// Pages that are not there yet, and the most that the move may bring.
    pages: Pages,
    pub(crate) at_most: Pages,
    /// Seconds a second.
    gain: f64,
    due: bool,
    lacks_mempolicy: bool,
    /// Whether its memory policy is worth looking up.
    pub(crate) wants_mempolicy: bool,
}

impl Ask {
    fn serve(
        &self,
        decision: &mut Decision,
        (table, tick): (&Table, &Tick),
        config: &Config,
        budget: &mut Budget,
    ) {
        let unknown = || self.lacks_mempolicy.then_some(Reason::MempolicyUnknown);
        if let Some(reason) = budget.against(self, config).or_else(unknown) {
            decision.reason = reason;
            decision.forecast.move_in = guards::passes(reason).then_some(0.0);
            return;
        }
        let order = Box::new(self.order(decision, table, tick));
        let share = table.feedback.hold_back(config.policy.hold_back);
        let draws = table.rows.get(&self.id).is_some_and(|row| row.draws(self.id.domain, share));
        (decision.verdict, decision.reason) = if draws {
            (Verdict::HoldBack(order), Reason::HeldBack)
        } else {
            budget.spend(self);
            (Verdict::Move(order), Reason::Pays)
        };
    }

    fn order(&self, decision: &Decision, table: &Table, tick: &Tick) -> Order {
        let Self { id, to, pages, at_most, .. } = *self;
        let domain = tick.domain(id.domain);
        let extent = domain.and_then(|seen| seen.extents.iter().find(|extent| extent.id == id));
        let holds =
            |node| extent.and_then(|seen| seen.pages.get(node)).is_some_and(|est| est.mid > 0.0);
        let from = NodeVec::from_fn(table.nodes.len(), |node| node != to && holds(node));
        let until = table.now.saturating_add(table.dt().saturating_mul(ORDER_TICKS));
        let Forecast { saves, price, .. } = decision.forecast;
        Order {
            seq: decision.seq,
            target: id.domain,
            from,
            to,
            pages,
            at_most,
            until,
            saves,
            price,
        }
    }
}

/// What is said of one extent alone, and the move that it asks for.
fn consider(
    case: &Case<'_>,
    table: &Table,
    config: &Config,
    index: usize,
) -> (Decision, Option<Ask>) {
    let ahead = ahead(case, table, config);
    let wish = wish(case, ahead.best.or_else(|| forbidden(case, table)));
    let due = ahead.wait == Some(0.0);
    let near = 2.0 * secs(table.dt());
    let stale = ahead.wait.is_some_and(|wait| wait <= MEMPOLICY_NEAR + near)
        && case
            .row
            .mempolicy_age(table.now)
            .is_none_or(|age| age + near > config.policy.mempolicy_fresh_seconds);
    let asks = ahead.best.filter(|_| due || stale);
    let speaks = asks.and_then(|_| guards::alone(&wish, table, config));
    let ask = asks.filter(|_| speaks.is_none()).map(|to| Ask {
        index,
        id: case.extent.id,
        to,
        pages: wish.pages,
        at_most: wish.at_most,
        gain: case.gain(to),
        due,
        lacks_mempolicy: guards::lacks_mempolicy(&wish, table, config),
        wants_mempolicy: stale,
    });
    let reason = speaks.filter(|_| due).unwrap_or_else(|| otherwise(&wish, table, config));
    let mut forecast = forecast(case, wish.to, &ahead, table, config);
    forecast.move_in = short(guards::move_in(reason, &wish, table, config, ahead.wait));
    let decision = Decision {
        seq: table.seq.saturating_add(index as u64),
        now: table.now,
        extent: case.extent.id,
        verdict: Verdict::Stay,
        reason,
        forecast,
    };
    (decision, ask)
}

/// Why it stays while no move is due.
fn otherwise(wish: &Wish<'_>, table: &Table, config: &Config) -> Reason {
    let known = wish.case.costs.known;
    if known && wish.to.is_none() {
        return guards::without_target(wish, table, config).unwrap_or(Reason::Settled);
    }
    let otherwise = if known { Reason::NotYet } else { Reason::NoPlacement };
    guards::for_good(wish, table, config).unwrap_or(otherwise)
}

/// A move to this node, with the most that it may bring.
fn wish<'a>(case: &Case<'a>, to: Option<Node>) -> Wish<'a> {
    let pages = to.map_or(0, |node| case.costs.off_node(usize::from(node.0)));
    Wish { case: *case, to, pages, at_most: pages.saturating_add(case.extent.alongside) }
}

/// Where the memory would go next, if nothing changes and no guard speaks.
struct Ahead {
    best: Option<Node>,
    /// Seconds until then; 0: now, none: never.
    wait: Option<f64>,
    rule: Rule,
}

fn ahead(case: &Case<'_>, table: &Table, config: &Config) -> Ahead {
    if !case.costs.known {
        Ahead { best: None, wait: None, rule: Rule::WorkFunction }
    } else if case.row.on_credit(case.costs.whole_price, config) {
        foretold(case, table)
    } else {
        by_work(case, table, config)
    }
}

/// As the forecast has it: to the home of the task, once it has been there for long enough.
fn foretold(case: &Case<'_>, table: &Table) -> Ahead {
    let home = case.row.home;
    let best = home.node().filter(|&node| case.gain(node) > WORTHWHILE);
    let left = case.row.wait - home.age(table.now);
    let wait = match best {
        Some(_) if left < 0.0 => Some(0.0),
        Some(_) if left.is_finite() => Some(in_ticks(left, table)),
        Some(_) | None => None,
    };
    Ahead { best, wait, rule: Rule::Forecast }
}

/// As the work function has it.
fn by_work(case: &Case<'_>, table: &Table, config: &Config) -> Ahead {
    let now = case.row.work.choice(case.costs, gamma(config));
    let next = match now.and_then(|node| u16::try_from(node).ok()) {
        Some(node) => Some((Node(node), 0.0)),
        None => soonest(case, table, config),
    };
    let (best, wait) = next.unzip();
    Ahead { best, wait, rule: Rule::WorkFunction }
}

/// The node that the memory would go to first, and when. Work grows by what each state loses,
/// so the gap to a node closes at the difference of the two rates.
fn soonest(case: &Case<'_>, table: &Table, config: &Config) -> Option<(Node, f64)> {
    let mut first: Option<(Node, f64)> = None;
    for node in each_node(table.nodes.len()) {
        let gain = case.gain(node);
        if gain <= WORTHWHILE || !case.is_open(node) {
            continue;
        }
        let gap = case.row.work.gap(case.costs, gamma(config), usize::from(node.0));
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
fn forbidden(case: &Case<'_>, table: &Table) -> Option<Node> {
    let better = each_node(table.nodes.len()).filter(|&node| case.gain(node) > WORTHWHILE);
    better
        .filter(|&node| table.nodes[node].has_memory && !case.is_open(node))
        .max_by(|&a, &b| case.gain(a).total_cmp(&case.gain(b)))
}

fn gamma(config: &Config) -> f64 {
    let gamma = config.policy.gamma;
    if gamma.is_nan() { 1.0 } else { gamma.clamp(0.0, 1.0) }
}

#[expect(clippy::cast_possible_truncation, reason = "an estimate has no more digits than f32")]
fn forecast(
    case: &Case<'_>,
    best: Option<Node>,
    ahead: &Ahead,
    table: &Table,
    config: &Config,
) -> Forecast {
    let Case { costs, row, .. } = case;
    let pricing = (&table.prices, &config.policy);
    let price = best.map_or(0.0, |node| costs.price[usize::from(node.0)]);
    let gain = best.map_or(0.0, |node| case.gain(node));
    let (rate, load) = (row.rates.rate_as_placed(), row.rates.steady_load());
    let share = |rate: f64| if load > 0.0 { (rate / load).clamp(0.0, 1.0) } else { 0.0 };
    // The part of what is lost that the move would bring back, alike at every end.
    let part = if rate > 0.0 { (gain / rate).clamp(0.0, 1.0) } else { 1.0 };
    let (lost, source) = (costs.lost_share, costs.source);
    Forecast {
        best,
        remote: costs.remote,
        loss_rate: interval(rate, [lost.mid * load, lost.high * load], source),
        lost: row.rates.lost,
        price: best.map_or(Est::NOTHING, |to| costs.price_to(to, pricing)),
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
