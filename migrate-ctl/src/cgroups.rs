//! Remote share and modelled loss of the busiest cgroups, bounded.
//!
//! Pure: folds one tick's processes into their cgroups.

use std::collections::BTreeMap;

use crate::model::{Decision, ExtentId, Forecast, Source, Tick};
use crate::procfs::printable;
use crate::snapshot::CgroupLoad;

/// Cgroups shown; the rest is left to `explain` and the journal.
pub const SHOWN: usize = 16;

#[derive(Default)]
struct Sum {
    cpu: f64,
    remote: f64,
    loss: f32,
}

/// The cgroups that remote memory costs most, then those that use most CPU time.
pub fn busiest(tick: &Tick, decisions: &[Decision]) -> Vec<CgroupLoad> {
    let forecasts: BTreeMap<ExtentId, &Forecast> =
        decisions.iter().map(|decision| (decision.extent, &decision.forecast)).collect();
    // Keyed by what is shown: two paths may look the same once they are printable.
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for domain in &tick.domains {
        let cpu = domain.cpu.values().sum::<u64>() as f64;
        for forecast in domain.extents.iter().filter_map(|extent| forecasts.get(&extent.id)) {
            let sum = sums.entry(printable(&domain.cgroup)).or_default();
            sum.cpu += cpu;
            sum.remote += cpu * f64::from(forecast.remote_share);
            sum.loss += forecast.loss_rate;
        }
    }
    let mut sums: Vec<(String, Sum)> = sums.into_iter().filter(|(_, sum)| sum.cpu > 0.0).collect();
    sums.sort_by(|(_, a), (_, b)| b.loss.total_cmp(&a.loss).then(b.cpu.total_cmp(&a.cpu)));
    sums.into_iter()
        .take(SHOWN)
        .map(|(cgroup, sum)| CgroupLoad {
            cgroup,
            #[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
            remote_share: (sum.remote / sum.cpu) as f32,
            source: Source::CpuPlacement,
            loss_rate: sum.loss,
        })
        .collect()
}
