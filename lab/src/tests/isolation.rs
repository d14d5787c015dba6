//! Is every folio that is taken off its LRU list counted, on its node and for what it was?

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use migrate_common::{Counter, Isolated};
use migrate_ctl::model::NodeId;
use migrate_ctl::probes::Counts;

use crate::swap::Swap;
use crate::test::{Lab, ONE_AND_MORE, Off, TWO_AND_MORE, Test, claim, counted};
use crate::tests::control::until;
use crate::tests::counts::{NOISE, PAGES, act, near};
use crate::worker::Worker;

const KHUGEPAGED: &str = "/sys/kernel/mm/transparent_hugepage/khugepaged";
/// Base pages of a huge one.
const HUGE: u64 = 512;
/// 8 MiB hold so many whole huge pages, wherever they begin.
const WHOLE: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const TESTS: &[Test] = &[
    test("isolation_counts_each_page_tried", tried),
    test("isolation_counts_refusals_of_merged_pages", refused),
    test("isolation_counts_pinned_pages_put_back", put_back),
    Test { machines: ONE_AND_MORE, ..test("isolation_for_huge_pages_is_khugepaged", khugepaged) },
    Test { machines: ONE_AND_MORE, ..test("isolation_by_madvise_is_other", madvise) },
];

const fn test(name: &'static str, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: TWO_AND_MORE, off: Off::Probe("isolation"), run }
}

fn tried(lab: &Lab) -> Result<()> {
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("shift --node 0 --to 1 --pages {PAGES}"))?;
    let before = probes.read().context("read the probes")?;
    let (did, counters) = act(&mut probes, &mut worker)?;
    near("pages that arrived, by move_pages", did.pages, PAGES, 0)?;
    near("isolation tried", counters.get(Counter::IsolationTried), PAGES, NOISE)?;
    near("isolation refused", counters.get(Counter::IsolationRefused), 0, NOISE)?;
    let after = probes.read().context("read the probes")?;
    let on = |node| since(&after, &before, node, "syscall");
    near("tried on the node that they left", on(0).tried, PAGES, NOISE)?;
    near("tried on the other node", on(1).tried, 0, NOISE)
}

fn refused(lab: &Lab) -> Result<()> {
    const MERGED: u64 = 512;
    let mut worker = Worker::start(&format!("ksm --pages {MERGED} --to 1"))?;
    let mut probes = lab.probes()?;
    let before = probes.read().context("read the probes")?;
    let (_, counters) = act(&mut probes, &mut worker)?;
    near("isolation refused", counters.get(Counter::IsolationRefused), MERGED, NOISE)?;
    let after = probes.read().context("read the probes")?;
    let refused = since(&after, &before, 0, "syscall").refused;
    near("refused on node 0", refused, MERGED, NOISE)
}

fn put_back(lab: &Lab) -> Result<()> {
    let mut worker = Worker::start("pinned --node 0 --to 1")?;
    let mut probes = lab.probes()?;
    let before = probes.read().context("read the probes")?;
    let (did, counters) = act(&mut probes, &mut worker)?;
    near("isolation put back", counters.get(Counter::IsolationPutBack), did.pages, did.pages / 50)?;
    let after = probes.read().context("read the probes")?;
    let put_back = since(&after, &before, 0, "syscall").put_back;
    near("put back on node 0", put_back, did.pages, did.pages / 50)
}

/// It takes each base page off its list before it copies it into a huge one.
fn khugepaged(lab: &Lab) -> Result<()> {
    let mut worker = Worker::start("collapse --node 0 --mib 8")?;
    let mut probes = lab.probes()?;
    let collapsed = || -> Result<u64> {
        let file = format!("{KHUGEPAGED}/pages_collapsed");
        let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        Ok(text.trim().parse()?)
    };
    let witness = collapsed()?;
    let file = format!("{KHUGEPAGED}/scan_sleep_millisecs");
    let slow = fs::read(&file).with_context(|| format!("read {file}"))?;
    let (before, after) = counted(&mut probes, || {
        fs::write(&file, "10").with_context(|| format!("write {file}"))?;
        worker.act()?;
        until(PATIENCE, collapsed, |now| *now >= witness + WHOLE)?;
        fs::write(&file, &slow).with_context(|| format!("write {file}"))
    })?;
    let truth = collapsed()? - witness;
    anyhow::ensure!(truth >= WHOLE, "the kernel made {truth} huge pages");
    let tried = since(&after, &before, 0, "khugepaged").tried;
    // Others may be made of few pages, and attempts that come to nothing take pages as well.
    claim(tried >= WHOLE * HUGE, || format!("{tried} folios for {truth} huge pages"))?;
    let other = since(&after, &before, 0, "other").tried;
    near("isolated for something else", other, 0, NOISE)
}

fn madvise(lab: &Lab) -> Result<()> {
    let _swap = Swap::on()?;
    let mut probes = lab.probes()?;
    let mut worker = Worker::start(&format!("swap --node 0 --pages {PAGES}"))?;
    let (before, after) = counted(&mut probes, || worker.act().map(drop))?;
    near("tried", since(&after, &before, 0, "other").tried, PAGES, NOISE)
}

/// What was isolated on a node for a reason.
pub(super) fn since(after: &Counts, before: &Counts, node: u16, reason: &str) -> Isolated {
    let of = |counts: &Counts| {
        let key = (NodeId(node), reason.to_owned());
        counts.isolated.get(&key).copied().unwrap_or_default()
    };
    let (after, before) = (of(after), of(before));
    Isolated {
        tried: after.tried - before.tried,
        refused: after.refused - before.refused,
        put_back: after.put_back - before.put_back,
    }
}
