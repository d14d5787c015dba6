//! Why does this process stay or move?
//!
//! The answer for one process, when somebody asks: the sentence, and everything that the last
//! decision about it saw. Until then the values of a tick are only kept, not looked at. Pure but
//! for `alone`, which watches where no controller runs.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::config::{Config, Mode};
use crate::model::{
    Decision, DomainObs, Est, Forecast, Nanos, NodeObs, NodeVec, PidRef, Rule, Tick, Verdict,
};
use crate::policy::words;
use crate::procfs::{Process, printable};

mod alone;

pub use alone::{AloneError, WATCHED, watch_alone};

/// What is known of one process, for people and for programs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// One or two sentences.
    pub why: String,
    pub id: PidRef,
    pub state: State,
    pub mode: Mode,
    /// No controller ran, so that it was watched for so many seconds.
    pub watched_seconds: Option<u64>,
    /// None: it has never run while somebody looked.
    pub last: Option<Sighting>,
    /// As in the last tick.
    pub nodes: NodeVec<NodeObs>,
    pub config: Config,
}

/// How a process stands with the controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It ran in the last tick.
    Running,
    /// It has run, but not in the last tick.
    Idle,
    /// It has not run since the controller started.
    Unseen,
    /// The user's filter does not include it.
    NotIncluded,
    KernelThread,
    /// Nobody looks at himself.
    Controller,
}

/// A process in the last tick in which it ran.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sighting {
    /// End of that tick.
    pub now: Nanos,
    pub domain: DomainObs,
    pub decision: Decision,
}

/// The processes of earlier ticks, each as it was in the last tick in which it ran.
#[derive(Default)]
pub struct Earlier(BTreeMap<PidRef, Sighting>);

impl Earlier {
    /// Takes in a tick that a newer one has followed; the first has followed none.
    pub fn keep(&mut self, before: Option<(Tick, Vec<Decision>)>) {
        let Some((tick, decisions)) = before else { return };
        let mut decisions = decisions.into_iter().peekable();
        for domain in tick.domains {
            // Both are in the order of the processes; a domain has one extent that is decided on.
            while decisions.next_if(|next| next.extent.domain < domain.id).is_some() {}
            if let Some(decision) = decisions.next_if(|next| next.extent.domain == domain.id) {
                self.0.insert(domain.id, Sighting { now: tick.now, domain, decision });
            }
        }
        for id in tick.gone {
            self.0.remove(&id);
        }
    }
}

/// What a controller knows, whether it runs or has just watched.
pub struct Known<'a> {
    pub last: Option<&'a (Tick, Vec<Decision>)>,
    pub earlier: &'a Earlier,
    pub mode: Mode,
    pub config: &'a Config,
    pub watched_seconds: Option<u64>,
    /// The controller's own number.
    pub controller: u32,
}

/// Says it of a process that lives.
pub fn explain(known: &Known<'_>, process: &Process) -> Explanation {
    let running = known.last.and_then(|last| sighting(last, process.id));
    let (state, last) = match (running, known.earlier.0.get(&process.id)) {
        (Some(running), _) => (State::Running, Some(running)),
        (None, Some(earlier)) => (State::Idle, Some(earlier.clone())),
        (None, None) if process.id.pid == known.controller => (State::Controller, None),
        (None, None) if process.kernel_thread => (State::KernelThread, None),
        (None, None) if !includes(known.config, process) => (State::NotIncluded, None),
        (None, None) => (State::Unseen, None),
    };
    let nodes = known.last.map_or_else(NodeVec::default, |(tick, _)| tick.nodes.clone());
    let now = known.last.map_or(0, |(tick, _)| tick.now);
    let why = match &last {
        Some(last) => sentence(last, state, now, &nodes),
        None => unknown(state, process, known.watched_seconds.is_some()),
    };
    Explanation {
        why,
        id: process.id,
        state,
        mode: known.mode,
        watched_seconds: known.watched_seconds,
        last,
        nodes,
        config: known.config.clone(),
    }
}

fn sighting((tick, decisions): &(Tick, Vec<Decision>), id: PidRef) -> Option<Sighting> {
    let domain = tick.domain(id)?;
    let decision = decisions.iter().find(|decision| decision.extent.domain == id)?;
    Some(Sighting { now: tick.now, domain: domain.clone(), decision: decision.clone() })
}

fn includes(config: &Config, process: &Process) -> bool {
    config.filter.includes(process.id.pid, &process.comm, &process.cgroup)
}

fn sentence(last: &Sighting, state: State, now: Nanos, nodes: &NodeVec<NodeObs>) -> String {
    let decided = words::explain(&last.domain, &last.decision, nodes);
    if state == State::Running {
        return decided;
    }
    let seconds = now.saturating_sub(last.now) / 1_000_000_000;
    format!(
        "{} ({}) has used no CPU time for {seconds} s, so that staying costs it nothing. The last \
         decision was: {decided}",
        printable(&last.domain.comm),
        last.domain.id.pid
    )
}

fn unknown(state: State, process: &Process, alone: bool) -> String {
    let who = format!("{} ({})", printable(&process.comm), process.id.pid);
    match state {
        State::Controller => format!("{who} is the controller, which does not look at itself."),
        State::KernelThread => {
            format!("{who} is a kernel thread: it has no memory of its own that could move.")
        }
        State::NotIncluded => {
            format!(
                "{who} is not looked at: the controller was started with --include, and not for it."
            )
        }
        State::Running | State::Idle | State::Unseen => {
            let since = if alone { "while it was watched" } else { "since the controller started" };
            format!("{who} has used no CPU time {since}, so that staying costs it nothing.")
        }
    }
}

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.why)?;
        if let Some(seconds) = self.watched_seconds {
            writeln!(f, "No controller is running: watched for {seconds} s.")?;
        }
        let Some(last) = &self.last else { return write!(f, "mode        {}", self.mode.name()) };
        let would = matches!(last.decision.verdict, Verdict::Move(_)) && self.mode == Mode::Observe;
        let note = if would { ": nothing is moved" } else { "" };
        writeln!(f, "mode        {}{note}", self.mode.name())?;
        writeln!(
            f,
            "verdict     {} ({})",
            last.decision.verdict.name(),
            last.decision.reason.name()
        )?;
        figures(f, &last.decision.forecast)
    }
}

/// One line for each number of the decision.
fn figures(f: &mut Formatter<'_>, forecast: &Forecast) -> fmt::Result {
    match forecast.remote {
        Some(remote) => writeln!(f, "remote      {}", estimate(remote.times(100.0), 0, "%"))?,
        None => writeln!(f, "remote      unknown")?,
    }
    writeln!(f, "loses       {}", estimate(forecast.loss_rate, 3, "s a second"))?;
    writeln!(f, "lost        {:.2} s so far", forecast.lost)?;
    if forecast.best.is_some() {
        writeln!(f, "price       {}", estimate(forecast.price, 2, "s"))?;
    }
    if let Some(seconds) = forecast.break_even {
        writeln!(f, "break-even  {seconds:.1} s of staying lose as much")?;
    }
    let rule = match forecast.rule {
        Rule::Forecast => "forecast: how long tasks of its cgroup stay",
        Rule::WorkFunction => "work function: what staying has lost against the price",
    };
    writeln!(f, "rule        {rule}")?;
    let Forecast { paid, optimum, .. } = forecast;
    write!(f, "model       paid {paid:.2} s so far; a clairvoyant would have paid {optimum:.2} s")
}

/// A number with its interval, if it has one, and its source.
fn estimate(value: Est, digits: usize, unit: &str) -> String {
    let Est { low, mid, high, source } = value;
    let source = source.name();
    if low < high {
        format!("{mid:.digits$} {unit} ({low:.digits$} to {high:.digits$}, {source})")
    } else {
        format!("{mid:.digits$} {unit} ({source})")
    }
}

#[cfg(test)]
mod tests;
