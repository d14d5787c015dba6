//! What a replay has found, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use crate::journal::Settings;
use crate::model::{Pages, Reason};
use crate::plain::Spent;

/// All of it. The same inputs and settings give the same, byte for byte.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What wrote the inputs, and how it was set when they began.
    pub recorded: Settings,
    pub ticks: u64,
    pub seconds: f64,
    pub processes: usize,
    /// The last record was cut short.
    pub torn: bool,
    /// None where nothing was decided then.
    pub reproduced: Option<Reproduced>,
    pub policies: Vec<Row>,
    /// Those that spoke.
    pub guards: Vec<GuardCost>,
    /// Seconds that all guards together cost; none where ours is not among the policies.
    pub all_guards: Option<f64>,
}

/// Whether the same inputs give the same decisions as then, under the settings of that time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reproduced {
    pub decisions: u64,
    /// With the same verdict, order and reason.
    pub same: u64,
    /// With all their numbers, to the last bit.
    pub exact: bool,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub policy: &'static str,
    /// Lost by the processes by remote memory and by moves.
    pub seconds: f64,
    pub moves: u64,
    pub bytes: u64,
    /// Seconds ÷ the clairvoyant's; none where that is 0.
    pub ratio: Option<f64>,
}

/// What our policy would have paid less, in seconds, without a guard.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GuardCost {
    pub guard: Reason,
    /// Decisions of which it was the reason.
    pub spoke: u64,
    pub seconds: f64,
}

const PAGE_BYTES: Pages = 4096;

impl Row {
    pub(super) fn new(policy: &'static str, spent: Spent, optimum: f64) -> Self {
        Self {
            policy,
            seconds: spent.seconds,
            moves: spent.moves,
            bytes: spent.pages.saturating_mul(PAGE_BYTES),
            ratio: (optimum > 0.0).then_some(spent.seconds / optimum),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recorded, ticks, seconds, processes, .. } = self;
        let (version, mode) = (&recorded.version, &recorded.mode);
        writeln!(
            f,
            "{ticks} ticks, {seconds:.1} s, {processes} processes; {mode}, migrate-ctl {version}"
        )?;
        if self.torn {
            writeln!(f, "the last record was cut short and is left out")?;
        }
        match &self.reproduced {
            Some(reproduced) => writeln!(f, "{reproduced}")?,
            None => writeln!(f, "nothing was decided then")?,
        }
        writeln!(f)?;
        writeln!(
            f,
            "{:16} {:>14} {:>9} {:>18} {:>8}",
            "policy", "seconds lost", "moves", "bytes", "ratio"
        )?;
        for Row { policy, seconds, moves, bytes, ratio } in &self.policies {
            let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
            writeln!(f, "{policy:16} {seconds:>14.3} {moves:>9} {bytes:>18} {ratio:>8}")?;
        }
        if let Some(all) = self.all_guards {
            writeln!(f)?;
            writeln!(f, "{:16} {:>14} {:>9}", "guard", "seconds cost", "spoke")?;
            for GuardCost { guard, spoke, seconds } in &self.guards {
                writeln!(f, "{:16} {seconds:>14.3} {spoke:>9}", guard.name())?;
            }
            write!(f, "{:16} {all:>14.3}", "all guards")?;
        }
        Ok(())
    }
}

impl fmt::Display for Reproduced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decisions, same, exact } = self;
        write!(f, "{same} of {decisions} decisions are the same")?;
        f.write_str(if *exact { ", to the last bit" } else { "; some of their numbers differ" })
    }
}
