//! The journal for people: an entry for each decision that says something, and for each move.

use std::fmt;

use serde::Serialize;

use crate::journal::{Fact, Settings};
use crate::model::{
    Decision, DomainObs, Input, Nanos, NodeObs, NodeVec, Order, Outcome, PidRef, Tick,
};
use crate::policy::words;
use crate::table::trial::Score;

/// Something that happened, and when: nanoseconds since the machine started.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    pub at: Nanos,
    /// In plain words.
    pub why: String,
    #[serde(flatten)]
    pub what: What,
}

#[expect(clippy::large_enum_variant, reason = "nearly all of them are decisions")]
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Settings(Settings),
    Decision {
        decision: Box<Decision>,
        /// What it was decided on: the process and the nodes in this tick.
        domain: Box<DomainObs>,
        nodes: NodeVec<NodeObs>,
    },
    /// The mover has been given this order.
    Ordered(Order),
    /// This order was kept from the mover.
    HeldBack(Order),
    Outcome(Outcome),
    Score(Score),
}

impl Entry {
    /// The process that it is about.
    pub fn pid(&self) -> Option<u32> {
        match &self.what {
            What::Settings(_) => None,
            What::Decision { decision, .. } => Some(decision.extent.domain.pid),
            What::Ordered(order) | What::HeldBack(order) => Some(order.target.pid),
            What::Outcome(outcome) => Some(outcome.target.pid),
            What::Score(score) => Some(score.target.pid),
        }
    }
}

/// What the entries after a tick speak of.
#[derive(Clone, Debug, Default)]
pub struct View {
    last: Option<Tick>,
}

impl View {
    /// The entries that a fact makes.
    pub fn entries(&mut self, fact: Fact<'_>) -> Vec<Entry> {
        match fact {
            Fact::Settings(settings) => vec![began(self.now(), settings.into_owned())],
            Fact::Checkpoint(_) => Vec::new(),
            Fact::Input { at, input } => self.input(at, input.into_owned()).into_iter().collect(),
            Fact::Decided(decided) => {
                decided.told.into_iter().filter_map(|decision| self.decision(decision)).collect()
            }
            Fact::Scored(score) => {
                let (at, why) = (self.now(), self.verdict(&score));
                vec![Entry { at, why, what: What::Score(score) }]
            }
        }
    }

    fn now(&self) -> Nanos {
        self.last.as_ref().map_or(0, |tick| tick.now)
    }

    fn input(&mut self, at: Nanos, input: Input) -> Option<Entry> {
        let (why, what) = match input {
            Input::Tick(tick) => {
                self.last = Some(tick);
                return None;
            }
            Input::Ordered(order) => (self.sentence(&order, "is ordered"), What::Ordered(order)),
            Input::HeldBack(order) => {
                (self.sentence(&order, "is held back for comparison"), What::HeldBack(order))
            }
            Input::Progress(outcome) => (self.ended(&outcome), What::Outcome(outcome)),
        };
        Some(Entry { at, why, what })
    }

    fn decision(&self, decision: Decision) -> Option<Entry> {
        let tick = self.last.as_ref()?;
        let domain = tick.domain(decision.extent.domain)?;
        Some(Entry {
            at: decision.now,
            why: words::explain(domain, &decision, &tick.nodes),
            what: What::Decision {
                decision: Box::new(decision),
                domain: Box::new(domain.clone()),
                nodes: tick.nodes.clone(),
            },
        })
    }

    fn sentence(&self, order: &Order, fate: &str) -> String {
        let (who, to) = (self.name(order.target), self.node(order.to));
        format!(
            "{who}: the move of {} pages to node {to} {fate} (order {}).",
            order.pages, order.seq
        )
    }

    fn ended(&self, outcome: &Outcome) -> String {
        let (who, to) = (self.name(outcome.target), self.node(outcome.to));
        format!(
            "{who}: the move to node {to} has ended ({}, order {}). {} of {} pages arrived in {:.3} s.",
            outcome.end.name(),
            outcome.seq,
            outcome.moved(),
            outcome.asked,
            outcome.duration as f64 / 1e9
        )
    }

    fn verdict(&self, score: &Score) -> String {
        let Score { predicted, realised, .. } = score;
        let (who, percent) = (self.name(score.target), |share: f32| share * 100.0);
        format!(
            "{who}: {} (order {}). It was predicted to save {:.1} to {:.1} % of the CPU time, and \
             saved {:.1} % ({:.1} to {:.1}, {}){}.",
            if score.held_back { "was held back for a while" } else { "the move was watched" },
            score.seq,
            percent(predicted.low),
            percent(predicted.high),
            percent(realised.mid),
            percent(realised.low),
            percent(realised.high),
            realised.source.name(),
            match (score.held_back, score.hit()) {
                (true, _) => "",
                (false, true) => ": a hit",
                (false, false) => ": missed",
            }
        )
    }

    fn name(&self, id: PidRef) -> String {
        let domain = self.last.as_ref().and_then(|tick| tick.domain(id));
        let comm = domain
            .map_or_else(|| "process".to_owned(), |domain| crate::procfs::printable(&domain.comm));
        format!("{comm} ({})", id.pid)
    }

    fn node(&self, node: crate::model::Node) -> String {
        let known = self.last.as_ref().and_then(|tick| tick.nodes.get(node));
        known.map_or_else(|| format!("position {}", node.0), |obs| obs.id.to_string())
    }
}

fn began(at: Nanos, settings: Settings) -> Entry {
    let why = format!("migrate-ctl {} wrote this in mode {}.", settings.version, settings.mode);
    Entry { at, why, what: What::Settings(settings) }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:12.3}] {}", self.at as f64 / 1e9, self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::View;
    use crate::journal::Fact;
    use crate::model::{Est, PidRef, Source};
    use crate::table::trial::Score;

    #[test]
    fn a_score_says_what_was_predicted_and_what_came() {
        let hit = score(false, [0.15, 0.25, 0.375]);
        assert_eq!(
            sentence(hit),
            "process (7): the move was watched (order 3). It was predicted to save 10.0 to 30.0 % \
             of the CPU time, and saved 25.0 % (15.0 to 37.5, pace): a hit."
        );
        let missed = sentence(score(false, [-0.75, -0.5, -0.25]));
        assert!(missed.ends_with("saved -50.0 % (-75.0 to -25.0, pace): missed."), "{missed}");
    }

    /// Nothing was tried, so that nothing can be hit or missed.
    #[test]
    fn what_was_held_back_is_neither_a_hit_nor_missed() {
        assert_eq!(
            sentence(score(true, [-0.05, 0.0, 0.05])),
            "process (7): was held back for a while (order 3). It was predicted to save 10.0 to \
             30.0 % of the CPU time, and saved 0.0 % (-5.0 to 5.0, pace)."
        );
    }

    fn sentence(score: Score) -> String {
        let entries = View::default().entries(Fact::Scored(score));
        entries.into_iter().map(|entry| entry.why).collect()
    }

    fn score(held_back: bool, [low, mid, high]: [f32; 3]) -> Score {
        Score {
            seq: 3,
            target: PidRef { pid: 7, start: 1 },
            held_back,
            predicted: Est { low: 0.1, mid: 0.2, high: 0.3, source: Source::Prior },
            realised: Est { low, mid, high, source: Source::Pace },
            price: Est::exact(0.1, Source::Prior),
            paid: None,
        }
    }
}
