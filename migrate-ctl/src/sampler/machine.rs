//! What is seen of the machine rather than of a process.

use std::collections::BTreeMap;

use migrate_common::{SCAN_KINDS, Scan, Scanned};

use super::{Delta, Sampler, TIMED_TICKS};
use crate::model::{Nanos, NodeId, NodeObs, NodeVec};
use crate::probes::Counts;
use crate::topology::Topology;

impl Sampler {
    /// What reclaim has taken off each node's lists since the last tick.
    pub(super) fn fill_reclaimed(&self, nodes: &mut NodeVec<NodeObs>, counts: &Counts) {
        let taken = |scans: &[(NodeId, [Scanned; SCAN_KINDS as usize])], id| {
            let of = scans.iter().find(|(node, _)| *node == id);
            of.map_or(0, |(_, kinds)| kinds[Scan::Reclaim as usize].taken)
        };
        for node in nodes.values_mut() {
            let before = taken(&self.last.scans, node.id);
            node.reclaimed = taken(&counts.scans, node.id).saturating_sub(before);
        }
    }

    /// Share of the CPU time of all CPUs that somebody used.
    pub(super) fn busy(&self, delta: &BTreeMap<u32, Delta>, dt: Nanos) -> f32 {
        let used: Nanos = delta.values().map(Delta::used).sum();
        let all = dt.saturating_mul(self.sampled.len() as u64).max(1);
        #[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
        let busy = (used as f64 / all as f64).min(1.0) as f32;
        busy
    }

    /// Faults are timed for one tick in so many; those that last are waited for.
    pub(super) fn time_faults(&mut self) {
        let Some(probes) = &mut self.probes else { return };
        match self.ticks % TIMED_TICKS {
            2 => probes.time_faults(),
            3 => probes.stop_timing_faults(),
            5 => probes.end_timed_faults(),
            _ => {}
        }
    }

    /// A CPU that comes online has no clock of ours, and the probes do not know its node.
    pub(super) fn watch_cpus(&mut self) {
        // A machine that does not say keeps what it had.
        let Ok(online) = Topology::online_cpus(&self.root) else { return };
        self.sampled.retain(|cpu| online.contains(cpu));
        let missed = online.len() - self.sampled.len();
        if missed > self.totals.cpus_missed {
            tracing::warn!(missed, "CPUs came online: start anew to count what runs there");
        }
        self.totals.cpus_missed = missed;
    }
}
