//! The first words to the user: is NUMA a problem here, for whom, and what would be done.
//!
//! Pure text from the last tick's values.

use std::fmt::Write;

use crate::model::{Decision, DomainObs, Est, NodeObs, NodeVec, Source, Verdict};
use crate::policy::words;

/// Below this loss, in seconds per second of all processes together, NUMA does not matter.
const MATTERS: f32 = 0.01;

/// What the summary is made of.
pub struct Seen<'a> {
    pub nodes: &'a NodeVec<NodeObs>,
    /// The last tick's processes and what the policy says of each.
    pub decided: &'a [(&'a DomainObs, &'a Decision)],
    pub enforce: bool,
    /// Pages moved so far by us.
    pub moved: u64,
    /// Signals that this kernel or these capabilities do not give.
    pub missing: &'a [&'a str],
}

/// A few lines for the terminal.
pub fn summary(seen: &Seen<'_>) -> String {
    let mut text = machine(seen.nodes);
    if !seen.missing.is_empty() {
        push(
            &mut text,
            format_args!(
                "without: {} (not all of their hooks are attached, see `migrate-ctl doctor`)",
                seen.missing.join(", ")
            ),
        );
    }
    if seen.nodes.values().filter(|node| node.has_memory).count() < 2 {
        push(&mut text, format_args!("one node with memory: there is nothing to do here"));
        return text;
    }
    let mut losers: Vec<_> =
        seen.decided.iter().filter(|(_, decision)| decision.forecast.loss_rate.low > 0.0).collect();
    losers.sort_by(|a, b| {
        let (a, b) = (a.1, b.1);
        b.forecast.loss_rate.low.total_cmp(&a.forecast.loss_rate.low).then(a.extent.cmp(&b.extent))
    });
    // The sum of nothing is -0.0, which would be printed so.
    let total =
        losers.iter().map(|(_, decision)| decision.forecast.loss_rate.low).sum::<f32>() + 0.0;
    if total < MATTERS {
        push(
            &mut text,
            format_args!(
                "NUMA does not matter here now: all processes together lose {total:.3} s a second"
            ),
        );
    } else {
        push(
            &mut text,
            format_args!(
                "NUMA matters here: remote memory costs {total:.2} s a second (model, low end)"
            ),
        );
    }
    for (domain, decision) in losers.iter().take(3) {
        push(&mut text, format_args!("  {}", words::explain(domain, decision, seen.nodes)));
    }
    push(&mut text, format_args!("{}", conclusion(seen)));
    text
}

/// How many nodes there are, and how far apart.
pub(crate) fn machine(nodes: &NodeVec<NodeObs>) -> String {
    let mut text = format!("{} node{}", nodes.len(), if nodes.len() == 1 { "" } else { "s" });
    let ratios = nodes.values().flat_map(|node| node.latency.values());
    let farthest = ratios.max_by(|a, b| a.mid.total_cmp(&b.mid));
    if let (Some(farthest), true) = (farthest, nodes.len() > 1) {
        let Est { low, mid, high, source } = farthest;
        // Writing to a String cannot fail.
        let _ = write!(text, "; the farthest memory is {mid:.2} times slower");
        let _ = match source {
            Source::Measured => write!(text, " ({low:.2} to {high:.2}, measured)"),
            Source::Configured => write!(text, " (configured)"),
            Source::Firmware
            | Source::Prior
            | Source::Pagemap
            | Source::MovePages
            | Source::CpuPlacement
            | Source::Pace
            | Source::Moves => write!(text, " (firmware)"),
        };
    }
    text
}

fn conclusion(seen: &Seen<'_>) -> String {
    let would = seen
        .decided
        .iter()
        .filter(|(_, decision)| matches!(decision.verdict, Verdict::Move(_)))
        .count();
    match (seen.enforce, seen.moved) {
        (false, _) if would > 0 => {
            format!("{would} would be moved now; nothing was moved: observe")
        }
        (false, _) => "nothing was moved: observe".to_owned(),
        (true, 0) => "nothing was moved so far: enforce".to_owned(),
        (true, pages) => format!("{pages} pages were moved so far: enforce"),
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = write!(text, "\n{line}");
}
