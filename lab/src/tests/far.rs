//! Does a program feel that memory is far, and that it has come near?

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use migrate_ctl::latency::measure;
use migrate_ctl::model::Node;
use migrate_ctl::topology::Topology;

use crate::far::Reading;
use crate::test::{Lab, Machine, Off, Test, claim, say};
use crate::witness::pages_on;
use crate::{nodes, sys};

/// Laps of each measurement.
const LAPS: usize = 200;
/// As the guest's own clock has it, which the host disturbs.
const TOLERANCE: f64 = 0.1;

pub(crate) const TESTS: &[Test] = &[
    test("far_memory_slows_a_program_by_its_factor_until_it_is_moved_near", slows),
    test("measured_latency_is_what_the_far_node_was_told", measured),
];

const fn test(name: &'static str, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: &[Machine::Far], off: Off::Nothing, run }
}

/// From either node to the other.
fn measured(lab: &Lab) -> Result<()> {
    let topology = Topology::read(Path::new("/")).context("read the topology")?;
    let ratios = measure(&topology).context("measure")?.context("no ratios")?;
    for (cpu, memory) in [(Node(0), Node(1)), (Node(1), Node(0))] {
        let ratio = ratios[cpu][memory].context("a pair without a ratio")?;
        say(&format!("far: measured {:.3} ({:.3} to {:.3})", ratio.mid, ratio.low, ratio.high));
        claim((f64::from(ratio.mid) / lab.factor - 1.0).abs() <= TOLERANCE, || {
            format!("{:.3} times as slow, not {}", ratio.mid, lab.factor)
        })?;
    }
    Ok(())
}

fn slows(lab: &Lab) -> Result<()> {
    let (home, far) = (1, 0);
    nodes::run_on_one(home)?;
    let near = nanos(&Reading::on(home)?);
    let reading = Reading::on(far)?;
    let before = nanos(&reading);
    let moved = reading.pages() as u64;
    sys::migrate_all(std::process::id(), far, home).context("migrate_pages")?;
    let there = pages_on(std::process::id(), home)?;
    claim(there >= moved, || format!("{there} of {moved} pages are on node {home}"))?;
    let after = nanos(&reading);
    say(&format!(
        "far: {near:.0} ns a read near, {before:.0} ns far ({:.3}), {after:.0} ns moved ({:.3})",
        before / near,
        after / near
    ));
    let is = |ratio: f64, told: f64| (ratio / told - 1.0).abs() <= TOLERANCE;
    claim(is(before / near, lab.factor), || {
        format!("{:.3} times as slow, not {}", before / near, lab.factor)
    })?;
    claim(is(after / near, 1.0), || format!("{:.3} times as slow after its move", after / near))
}

/// ns a read: the median of the faster half of the laps, since what else the host does makes
/// them longer only.
fn nanos(reading: &Reading) -> f64 {
    reading.laps(LAPS);
    let lap = |_| {
        let began = Instant::now();
        reading.laps(1);
        began.elapsed().as_nanos() as f64 / far::check::LINES as f64
    };
    let mut laps: Vec<f64> = (0..LAPS).map(lap).collect();
    laps.sort_by(f64::total_cmp);
    laps[LAPS / 4]
}
