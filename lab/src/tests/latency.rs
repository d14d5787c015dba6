//! Is memory latency measured rather than believed?

use std::path::Path;

use anyhow::{Context, Result};
use migrate_ctl::latency::measure;
use migrate_ctl::model::{NodeVec, each_node};
use migrate_ctl::topology::Topology;

use crate::test::{Lab, Off, TWO_AND_MORE, Test, claim, say};

/// Measurements of all pairs.
const TIMES: usize = 20;

/// The firmware claims a distance of 21 between two nodes, and of 31 between four.
pub(crate) const TESTS: &[Test] = &[Test {
    name: "measured_latency_is_not_the_firmwares",
    machines: TWO_AND_MORE,
    off: Off::Nothing,
    run: equal,
}];

/// All memory of an emulated machine is equally fast, whatever its firmware says: the 95 %
/// intervals hold 1, but for one in twenty.
fn equal(_lab: &Lab) -> Result<()> {
    let topology = Topology::read(Path::new("/")).context("read the topology")?;
    let firmware = topology.observe(Path::new("/")).context("look at the nodes")?;
    let pairs = || {
        let nodes = topology.len();
        let all = each_node(nodes).flat_map(move |a| each_node(nodes).map(move |b| (a, b)));
        all.filter(|(a, b)| a != b)
    };
    let claims = |(a, b)| firmware[a].latency[b].mid;
    claim(pairs().all(|pair| claims(pair) > 2.0), || format!("the firmware says {firmware:?}"))?;
    let (mut intervals, mut hold) = (0, 0);
    let mut widths: Vec<f32> = Vec::new();
    for _ in 0..TIMES {
        let ratios = measure(&topology).context("measure")?.context("no ratios")?;
        for (a, b) in pairs() {
            let at = |all: &NodeVec<NodeVec<_>>| all[a][b];
            let ratio = at(&ratios).context("a pair without a ratio")?;
            intervals += 1;
            hold += u32::from(ratio.low <= 1.0 && 1.0 <= ratio.high);
            widths.push(ratio.high - ratio.low);
        }
    }
    widths.sort_by(f32::total_cmp);
    let (usual, widest) = (widths[widths.len() / 2], widths[widths.len() - 1]);
    say(&format!(
        "latency: {hold} of {intervals} intervals hold 1; {usual:.2} wide, the widest {widest:.2}"
    ));
    // Interrupts make some of them wide; all of them so would say nothing.
    claim(usual < 0.5, || format!("every second interval is {usual:.2} wide or more"))?;
    claim(hold * 10 >= intervals * 9, || format!("{hold} of {intervals} intervals hold 1"))
}
