//! Is every migration counted, for its reason and to the process whose pages moved?

use std::fs;

use anyhow::{Context, Result};
use migrate_common::{MigrationTotals, Migrations};
use migrate_ctl::probes::{Counts, Probes};

use crate::test::{Lab, Machine, ONE_AND_MORE, Off, TWO_AND_MORE, Test, claim, counted};
use crate::tests::counts::{NOISE, PAGES, near};
use crate::tests::isolation;
use crate::witness::{pages_on, vmstat};
use crate::worker::Worker;
use crate::{balancing, sys};

const GROUP: &str = "/sys/fs/cgroup/lab-migrations";

pub(crate) const TESTS: &[Test] = &[
    test("migrations_are_charged_to_the_process_moved", charged),
    test("migrations_count_pinned_pages_as_failed", failed),
    test("migrations_by_mbind_have_their_reason", by_mbind),
    test("migrations_by_a_cpuset_have_their_reason", by_cpuset),
    test("migrations_by_numa_balancing_have_their_reason", by_balancing),
    Test {
        machines: ONE_AND_MORE,
        ..test("migrations_by_compaction_have_their_reason", by_compaction)
    },
    test("migrations_count_huge_pages_once", huge),
    Test {
        machines: &[Machine::Cpuless],
        ..test("migrations_by_demotion_have_their_reason", by_demotion)
    },
];

const fn test(name: &'static str, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: TWO_AND_MORE, off: Off::Probe("migrations"), run }
}

fn charged(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let worker = Worker::start("fill --node 0 --mib 8")?;
    let witness = vmstat("pgmigrate_success")?;
    let (before, after) = counted(&mut probes, || {
        sys::migrate_all(worker.pid(), 0, 1).context("migrate_pages")?;
        Ok(())
    })?;
    let truth = vmstat("pgmigrate_success")? - witness;
    anyhow::ensure!(truth >= PAGES, "the kernel moved {truth} of {PAGES} pages");
    let moved = moves_of(&after, worker.pid());
    let earlier = moves_of(&before, worker.pid());
    near("pages moved of the target", moved.moved - earlier.moved, truth, NOISE)?;
    claim(moved.calls > earlier.calls && moved.nanos > earlier.nanos, || {
        format!("a call without a duration: {moved:?}")
    })?;
    let caller = moves_of(&after, std::process::id());
    claim(caller.moved == 0, || format!("charged to the caller: {caller:?}"))
}

fn failed(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let mut worker = Worker::start("pinned --node 0 --to 1")?;
    let witness = vmstat("pgmigrate_fail")?;
    let mut pages = 0;
    let (before, after) = counted(&mut probes, || {
        pages = worker.act()?.pages;
        Ok(())
    })?;
    let truth = vmstat("pgmigrate_fail")? - witness;
    near("failed pages, by vmstat", truth, pages, pages / 50)?;
    let failed = |counts| moves_of(counts, worker.pid()).failed;
    near("failed pages", failed(&after) - failed(&before), truth, truth / 50)
}

fn by_mbind(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("rebind --node 0 --to 1 --pages {PAGES}"))?;
    let (counts, moved) = reasons(&mut probes, || worker.act().map(drop))?;
    all_for(&moved, "mempolicy_mbind")?;
    let tried = isolation::since(&counts.1, &counts.0, 0, "mempolicy_mbind").tried;
    near("isolated by mbind", tried, PAGES, NOISE)
}

fn by_cpuset(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset").context("cpuset")?;
    fs::create_dir_all(GROUP).with_context(|| format!("create {GROUP}"))?;
    let nodes = |nodes: &str| fs::write(format!("{GROUP}/cpuset.mems"), nodes);
    nodes("0").context("cpuset.mems")?;
    let worker = Worker::start("fill --node 0 --mib 8")?;
    fs::write(format!("{GROUP}/cgroup.procs"), worker.pid().to_string()).context("attach")?;
    let (counts, moved) = reasons(&mut probes, || nodes("1").context("cpuset.mems"))?;
    let target = moves_of(&counts.1, worker.pid()).moved;
    drop(worker);
    fs::remove_dir(GROUP).with_context(|| format!("remove {GROUP}"))?;
    all_for(&moved, "cpuset")?;
    claim(target >= PAGES, || format!("{target} pages are charged to the process that moved"))?;
    let tried = isolation::since(&counts.1, &counts.0, 0, "cpuset").tried;
    claim(tried >= PAGES, || format!("{tried} folios were isolated by the cpuset"))
}

fn by_balancing(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let mut worker = Worker::start("scan --memory 0 --cpu 1 --pages 4096")?;
    let there = pages_on(worker.pid(), 1)?;
    let (witness, huge) = (vmstat("numa_pages_migrated")?, vmstat("thp_migration_success")?);
    let now = || vmstat("numa_pages_migrated").map(|pages| pages - witness);
    let (counts, moved) = reasons(&mut probes, || {
        balancing::during(|| {
            for _ in 0..60 {
                worker.act()?;
                if now()? >= PAGES {
                    break;
                }
            }
            Ok(())
        })
    })?;
    let truth = now()?;
    anyhow::ensure!(truth >= PAGES, "NUMA balancing moved {truth} pages");
    all_for(&moved, "numa_misplaced")?;
    let taken: u64 = [0, 1]
        .map(|node| isolation::since(&counts.1, &counts.0, node, "numa_misplaced"))
        .iter()
        .map(|isolated| isolated.tried - isolated.refused)
        .sum();
    // The workload's pages are folios of their own. Others may have had larger ones, which count
    // once, and the kernel tells the number of those as large as 2 MiB only.
    let came = pages_on(worker.pid(), 1)? - there;
    let folios = truth - (vmstat("thp_migration_success")? - huge) * 511;
    let slack = folios / 50 + NOISE;
    claim(came <= taken + slack && taken <= folios + slack, || {
        format!("{taken} folios were taken for it, {came} pages came and {folios} folios moved")
    })
}

fn by_compaction(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    // Every other page of what it held is free: there is something to compact.
    let _worker = Worker::start("riddle --node 0 --mib 256")?;
    let (_, moved) =
        reasons(&mut probes, || fs::write("/proc/sys/vm/compact_memory", "1").context("compact"))?;
    all_for(&moved, "compaction")
}

/// Memory without CPUs is slow there, so reclaim takes pages there first.
fn by_demotion(lab: &Lab) -> Result<()> {
    const SWITCH: &str = "/sys/kernel/mm/numa/demotion_enabled";
    let mut probes = lab.probes()?;
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").context("memory controller")?;
    fs::create_dir_all(GROUP).with_context(|| format!("create {GROUP}"))?;
    let enter = |group: &str| fs::write(format!("{group}/cgroup.procs"), "0").context("attach");
    enter(GROUP)?;
    let worker = Worker::start("fill --node 0 --mib 64");
    enter("/sys/fs/cgroup")?;
    let worker = worker?;
    let demoted = || {
        ["kswapd", "direct", "khugepaged", "proactive"]
            .into_iter()
            .map(|by| vmstat(&format!("pgdemote_{by}")))
            .sum::<Result<u64>>()
    };
    let witness = demoted()?;
    fs::write(SWITCH, "1").with_context(|| format!("write {SWITCH}"))?;
    let (_, moved) = reasons(&mut probes, || {
        // That it cannot have all of it is no matter.
        let _ = fs::write(format!("{GROUP}/memory.reclaim"), "32M");
        Ok(())
    })?;
    fs::write(SWITCH, "0").with_context(|| format!("write {SWITCH}"))?;
    let truth = demoted()? - witness;
    let there = pages_on(worker.pid(), 2)?;
    drop(worker);
    fs::remove_dir(GROUP).with_context(|| format!("remove {GROUP}"))?;
    anyhow::ensure!(truth >= PAGES && there >= PAGES, "{truth} pages were demoted, {there} there");
    near("pages demoted", of(&moved.by_reason, "demotion").moved, truth, truth / 50)?;
    all_for(&moved, "demotion")
}

fn huge(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let worker = Worker::start("huge --node 0 --mib 8")?;
    let witness = vmstat("thp_migration_success")?;
    let (_, moved) = reasons(&mut probes, || {
        sys::migrate_all(worker.pid(), 0, 1).context("migrate_pages").map(drop)
    })?;
    let truth = vmstat("thp_migration_success")? - witness;
    anyhow::ensure!(truth >= 3, "{truth} huge pages moved");
    all_for(&moved, "syscall")?;
    let found = of(&moved.by_reason, "syscall").huge_moved;
    near("huge pages", found, truth, 0)
}

/// What moved meanwhile.
struct Moved {
    by_reason: Vec<(String, Migrations)>,
    /// By `pgmigrate_success`.
    truth: u64,
}

fn reasons(
    probes: &mut Probes,
    act: impl FnOnce() -> Result<()>,
) -> Result<((Counts, Counts), Moved)> {
    let witness = vmstat("pgmigrate_success")?;
    let (before, after) = counted(probes, act)?;
    let truth = vmstat("pgmigrate_success")? - witness;
    let mut by_reason = after.reasons.clone();
    for ((_, after), (_, before)) in by_reason.iter_mut().zip(&before.reasons) {
        after.moved -= before.moved;
        after.huge_moved -= before.huge_moved;
    }
    Ok(((before, after), Moved { by_reason, truth }))
}

/// All that moved did so for this reason.
fn all_for(moved: &Moved, reason: &str) -> Result<()> {
    anyhow::ensure!(moved.truth > 0, "nothing moved");
    near(reason, of(&moved.by_reason, reason).moved, moved.truth, moved.truth / 50)?;
    let others = moved.by_reason.iter().filter(|(name, _)| name != reason);
    let others: u64 = others.map(|(_, migrations)| migrations.moved).sum();
    near("pages moved for other reasons", others, 0, moved.truth / 50)
}

fn of(reasons: &[(String, Migrations)], reason: &str) -> Migrations {
    let found = reasons.iter().find(|(name, _)| name == reason);
    found.map(|(_, migrations)| *migrations).unwrap_or_default()
}

fn moves_of(counts: &Counts, tgid: u32) -> MigrationTotals {
    let mut all = MigrationTotals::default();
    for (_, one) in counts.migrations.iter().filter(|(key, _)| key.tgid == tgid) {
        all.calls += one.calls;
        all.moved += one.moved;
        all.failed += one.failed;
        all.nanos += one.nanos;
    }
    all
}
