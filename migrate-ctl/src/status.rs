//! What is the controller doing, in a few lines?

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::model::{NodeId, NodeVec, Pages};
use crate::snapshot::{HookState, Snapshot};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// `observe` or `enforce`.
    pub mode: String,
    pub uptime_seconds: u64,
    pub ticks: u64,
    /// Ticks in which something could not be read.
    pub tick_errors: u64,
    pub nodes: NodeVec<NodeId>,
    /// Orders that have ended, however they did.
    pub moves: u64,
    pub moved_pages: Pages,
    /// Signals that lack a probe.
    pub missing: BTreeSet<String>,
}

impl Status {
    pub fn of(snapshot: &Snapshot) -> Self {
        let Snapshot { mode, nodes, probes, ledger, cost, .. } = snapshot;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let lost = probes.iter().filter(|hook| hook.state != HookState::Attached);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: (*mode).to_owned(),
            uptime_seconds: whole(now.as_secs_f64() - cost.start_time_seconds),
            ticks: cost.ticks,
            tick_errors: cost.tick_errors,
            nodes: nodes.clone(),
            moves: ledger.ended.values().sum(),
            moved_pages: ledger.pairs.values().map(|pair| pair.moved).sum(),
            missing: lost.map(|hook| hook.signal.to_owned()).collect(),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, and a clock that was set back gives 0"
)]
fn whole(seconds: f64) -> u64 {
    seconds as u64
}

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { version, mode, uptime_seconds, ticks, tick_errors, .. } = self;
        writeln!(f, "mode     {mode}")?;
        writeln!(f, "up       {uptime_seconds} s, version {version}")?;
        writeln!(f, "ticks    {ticks}, {tick_errors} of them with an error")?;
        let nodes: Vec<String> = self.nodes.values().map(NodeId::to_string).collect();
        writeln!(f, "nodes    {}", nodes.join(", "))?;
        writeln!(f, "moves    {}, {} pages", self.moves, self.moved_pages)?;
        let missing: Vec<&str> = self.missing.iter().map(String::as_str).collect();
        write!(
            f,
            "without  {}",
            if missing.is_empty() { "nothing".into() } else { missing.join(", ") }
        )
    }
}
