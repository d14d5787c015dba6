//! Remote share and modelled loss of the busiest cgroups, bounded.
//!
//! Pure: folds one tick's processes into their cgroups.

use std::collections::BTreeMap;

use crate::model::{Decision, Est, ExtentId, Forecast, Source, Tick};
use crate::procfs::printable;
use crate::snapshot::CgroupLoad;

/// Cgroups shown; a label's values must be few.
pub const SHOWN: usize = 16;

#[derive(Default)]
struct Sum {
    cpu: f64,
    /// Lost per second at the low end, in the middle and at the high end.
    loss: [f32; 3],
    /// CPU time of those whose placement is known, and the part of it that was remote.
    known: f64,
    low: f64,
    mid: f64,
    high: f64,
}

impl Sum {
    fn loss(&self) -> Est {
        let [low, mid, high] = self.loss;
        Est { low, mid, high, source: Source::CpuPlacement }
    }

    /// Of processes that are wrong in the same direction, at the worst.
    fn remote(&self) -> Option<Est> {
        #[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
        let share = |part: f64| (part / self.known) as f32;
        (self.known > 0.0).then(|| Est {
            low: share(self.low),
            mid: share(self.mid),
            high: share(self.high),
            source: Source::CpuPlacement,
        })
    }
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
            let sum = sums.entry(printable(&*domain.cgroup)).or_default();
            sum.cpu += cpu;
            let Est { low, mid, high, .. } = forecast.loss_rate;
            for (sum, end) in sum.loss.iter_mut().zip([low, mid, high]) {
                *sum += end;
            }
            if let Some(remote) = forecast.remote {
                sum.known += cpu;
                sum.low += cpu * f64::from(remote.low);
                sum.mid += cpu * f64::from(remote.mid);
                sum.high += cpu * f64::from(remote.high);
            }
        }
    }
    let mut sums: Vec<(String, Sum)> = sums.into_iter().filter(|(_, sum)| sum.cpu > 0.0).collect();
    sums.sort_by(|(_, a), (_, b)| b.loss[1].total_cmp(&a.loss[1]).then(b.cpu.total_cmp(&a.cpu)));
    sums.into_iter()
        .take(SHOWN)
        .map(|(cgroup, sum)| CgroupLoad { cgroup, remote: sum.remote(), loss_rate: sum.loss() })
        .collect()
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::{SHOWN, busiest};
    use crate::model::{
        Class, Decision, DomainObs, Est, ExtentId, ExtentObs, Forecast, NodeVec, PidRef, Reason,
        Source, Tick, Verdict,
    };

    #[test]
    fn a_cgroups_share_weighs_its_processes_by_cpu_time() {
        let (tick, decisions) = scene(&[("/a", 300, Some(1.0), 0.1), ("/a", 100, Some(0.0), 0.0)]);
        let shown = busiest(&tick, &decisions);
        assert_eq!(shown.len(), 1);
        let remote = shown[0].remote.unwrap();
        assert_eq!((remote.low, remote.mid, remote.high), (0.375, 0.75, 0.75));
        assert_eq!(shown[0].loss_rate.mid, 0.1);
    }

    #[test]
    fn whose_placement_is_unknown_does_not_count_as_local() {
        let (tick, decisions) = scene(&[("/a", 100, Some(1.0), 0.1), ("/a", 300, None, 0.0)]);
        assert_eq!(busiest(&tick, &decisions)[0].remote.unwrap().mid, 1.0);
        let (tick, decisions) = scene(&[("/a", 300, None, 0.0)]);
        assert_eq!(busiest(&tick, &decisions)[0].remote, None);
    }

    #[test]
    fn the_dearest_cgroups_come_first_and_the_list_is_bounded() {
        let names: Vec<String> = (0..40).map(|number| format!("/{number}")).collect();
        let scene_of: Vec<_> = names
            .iter()
            .zip(0u16..)
            .map(|(name, i)| (&**name, 1, Some(1.0), f32::from(i)))
            .collect();
        let (tick, decisions) = scene(&scene_of);
        let shown = busiest(&tick, &decisions);
        assert_eq!(shown.len(), SHOWN);
        assert_eq!(shown[0].cgroup, "/39");
    }

    #[test]
    fn two_paths_that_print_alike_are_one_series() {
        let long = "x".repeat(200);
        let (one, other) = (format!("/{long}1"), format!("/{long}2"));
        let (tick, decisions) = scene(&[(&one, 1, Some(1.0), 0.1), (&other, 1, Some(1.0), 0.1)]);
        assert_eq!(busiest(&tick, &decisions).len(), 1);
    }

    /// (cgroup, CPU time, remote share, loss rate) of each process.
    fn scene(processes: &[(&str, u64, Option<f32>, f32)]) -> (Tick, Vec<Decision>) {
        let mut domains = Vec::new();
        let mut decisions = Vec::new();
        for (&(cgroup, cpu, remote, loss_rate), pid) in processes.iter().zip(1u32..) {
            let id = PidRef { pid, start: 0 };
            let extent = ExtentId { domain: id, class: Class::PrivateAnonymous };
            domains.push(DomainObs {
                cgroup: cgroup.into(),
                cpu: NodeVec::filled(2, cpu),
                extents: smallvec![ExtentObs::unknown(id, 2)],
                ..DomainObs::idle(id, 2)
            });
            let forecast = Forecast {
                remote: remote.map(|share| Est {
                    low: 0.5 * share,
                    ..Est::exact(share, Source::CpuPlacement)
                }),
                loss_rate: Est::exact(loss_rate, Source::Prior),
                ..Forecast::NOTHING
            };
            let (verdict, reason) = (Verdict::Stay, Reason::NotYet);
            decisions.push(Decision { seq: 0, now: 0, extent, verdict, reason, forecast });
        }
        let nodes = NodeVec::default();
        (Tick { now: 0, dt: 1, busy: 0.0, nodes, domains, gone: Vec::new() }, decisions)
    }
}
