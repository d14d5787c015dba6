//! Are the pages counted that reclaim and compaction take off the LRU lists?

use std::fs;

use anyhow::{Context, Result};
use migrate_common::{Counter, Scan, Scanned};
use migrate_ctl::model::NodeId;
use migrate_ctl::probes::Counts;

use crate::swap::Swap;
use crate::test::{Lab, ONE_AND_MORE, Off, Test, claim, counted, say};
use crate::tests::counts::{NOISE, near};
use crate::witness::{cgroup_stat, vmstat};
use crate::worker::Worker;

const LRU_GEN: &str = "/sys/kernel/mm/lru_gen/enabled";
const GROUP: &str = "/sys/fs/cgroup/lab-reclaim";

pub(crate) const TESTS: &[Test] = &[
    test("scans_of_reclaim_are_those_of_memory_stat", reclaim),
    test("scans_of_compaction_are_what_it_migrates", compaction),
];

const fn test(name: &'static str, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: ONE_AND_MORE, off: Off::Probe("scans"), run }
}

/// With the classic LRU and with the multi-generational one.
fn reclaim(lab: &Lab) -> Result<()> {
    let before = fs::read(LRU_GEN).with_context(|| format!("read {LRU_GEN}"))?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the release")?;
    let result = ["0", "7"].into_iter().try_for_each(|setting| {
        fs::write(LRU_GEN, setting).with_context(|| format!("write {LRU_GEN}"))?;
        let multi_generational = setting != "0";
        if multi_generational && release.starts_with("6.1.") {
            say("6.1 has no tracepoint in its multi-generational LRU: nothing to count there");
            return Ok(());
        }
        reclaim_with(lab, multi_generational)
    });
    fs::write(LRU_GEN, before).with_context(|| format!("write {LRU_GEN}"))?;
    result
}

fn reclaim_with(lab: &Lab, multi_generational: bool) -> Result<()> {
    const MIB: u64 = 64;
    let _swap = Swap::on()?;
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").context("memory controller")?;
    fs::create_dir_all(GROUP).with_context(|| format!("create {GROUP}"))?;
    let enter = |group: &str| fs::write(format!("{group}/cgroup.procs"), "0").context("attach");
    enter(GROUP)?;
    let worker = Worker::start(&format!("fill --node 0 --mib {MIB}"));
    enter("/sys/fs/cgroup")?;
    let worker = worker?;
    let mut probes = lab.probes()?;
    let stat = |name| cgroup_stat(GROUP, name);
    let (looked, refilled) = (stat("pgscan")?, stat("pgrefill")?);
    let (before, after) = counted(&mut probes, || {
        // That it cannot have all of it is no matter.
        let _ = fs::write(format!("{GROUP}/memory.reclaim"), "32M");
        Ok(())
    })?;
    let (looked, refilled) = (stat("pgscan")? - looked, stat("pgrefill")? - refilled);
    drop(worker);
    fs::remove_dir(GROUP).with_context(|| format!("remove {GROUP}"))?;
    anyhow::ensure!(looked >= MIB / 4 * 256, "the kernel scanned {looked} pages only");
    let found = since(&after, &before, 0, Scan::Reclaim);
    // What the generations call a scan is a page taken; the classic LRU refills one list by
    // scanning the other.
    if multi_generational {
        near("pages taken, multi-generational", found.taken, looked, looked / 50 + NOISE)?;
    } else {
        let scanned = looked + refilled;
        near("pages scanned, classic", found.scanned, scanned, scanned / 50 + NOISE)?;
        claim(found.taken <= found.scanned && found.taken > 0, || format!("{found:?}"))?;
    }
    near("pages taken of the other node", since(&after, &before, 1, Scan::Reclaim).taken, 0, 512)
}

/// Not every page that it takes is tried: where it gives up, it puts the rest back.
fn compaction(lab: &Lab) -> Result<()> {
    // Every other page of what it held is free: there is something to compact.
    let _worker = Worker::start("riddle --node 0 --mib 256")?;
    let mut probes = lab.probes()?;
    let (moved, isolated) = (vmstat("pgmigrate_success")?, vmstat("compact_isolated")?);
    let scanned = vmstat("compact_migrate_scanned")?;
    let (before, after) =
        counted(&mut probes, || fs::write("/proc/sys/vm/compact_memory", "1").context("compact"))?;
    let moved = vmstat("pgmigrate_success")? - moved;
    // Free pages as well.
    let isolated = vmstat("compact_isolated")? - isolated;
    anyhow::ensure!(moved > NOISE, "{moved} pages were migrated");
    let scanned = vmstat("compact_migrate_scanned")? - scanned;
    let nodes = after.scans.iter().map(|(node, _)| node.0);
    let found: Vec<Scanned> =
        nodes.map(|node| since(&after, &before, node, Scan::Compaction)).collect();
    let looked = found.iter().map(|found| found.scanned).sum();
    near("pages scanned by compaction, by vmstat", looked, scanned, scanned / 50)?;
    let taken: u64 = found.iter().map(|found| found.taken).sum();
    claim(taken <= isolated, || format!("{taken} pages taken, and {isolated} by vmstat"))?;
    let put_back = |counts: &Counts| -> u64 {
        counts.isolated.values().map(|isolated| isolated.put_back).sum()
    };
    let stayed = put_back(&after) - put_back(&before);
    near("pages taken by compaction", taken, moved + stayed, taken / 50 + NOISE)?;
    // It is ours, but what it puts back is anybody's.
    let ours = |counts: &Counts| {
        let counters = counts.tasks.get(&std::process::id()).copied().unwrap_or_default();
        counters.get(Counter::IsolationPutBack)
    };
    near("pages put back that are charged to us", ours(&after) - ours(&before), 0, 0)
}

fn since(after: &Counts, before: &Counts, node: u16, kind: Scan) -> Scanned {
    let of = |counts: &Counts| {
        let mut nodes = counts.scans.iter().filter(|(id, _)| *id == NodeId(node));
        nodes.next().map_or_else(Scanned::default, |(_, kinds)| kinds[kind as usize])
    };
    let (after, before) = (of(after), of(before));
    Scanned { scanned: after.scanned - before.scanned, taken: after.taken - before.taken }
}
