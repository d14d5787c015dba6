//! What about a move itself, its target or other moves speaks against it.

use std::fs::File;
use std::io::{Read, Seek};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use migrate_ctl::model::Reason;

use super::{decided, fill_with_cache, so_many_stay, stays, unmoved};
use crate::controller::{Controller, Fact};
use crate::test::{Lab, Machine, Off, Test, claim};
use crate::tests::control::{LINGER, PATIENCE, STRAND, STRAND_PAGES, stranded, until};
use crate::witness::{pages_on, vmstat};
use crate::{nodes, sys};

/// A move is looked at for three ticks of a second; a clock may be a little early.
const CHECKED: u64 = 2_500_000_000;

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "a_node_without_cpus_is_no_destination",
        machines: &[Machine::Cpuless],
        off: Off::Guard("slow_node"),
        run: slow_node,
    },
    test("nothing_goes_where_memory_is_reclaimed", Off::Guard("reclaiming"), reclaiming),
    test("what_somebody_else_moves_is_left_to_him", Off::Guard("other_mover"), other_mover),
    test("no_more_moves_at_once_than_allowed", Off::Guard("concurrency"), concurrency),
    test("a_move_that_failed_is_not_repeated_soon", Off::Guard("cool_down"), cool_down),
    test("what_exceeds_the_budget_stays", Off::Guard("too_large"), too_large),
    test("a_move_is_checked_before_the_next", Off::Guard("moving"), moving),
];

const fn test(name: &'static str, off: Off, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: &[Machine::Two], off, run }
}

/// By the firmware's distances node 2 is the nearest to both threads together.
fn slow_node(lab: &Lab) -> Result<()> {
    let worker = stranded("spread --node 0 --mib 128 --percent 60,40")?;
    let before = pages_on(worker.pid(), 0)?;
    let controller = lab.enforce_at("firmware", &format!("--include pid:{}", worker.pid()))?;
    decided(lab, &controller, &worker, before, Reason::SlowNode)?;
    unmoved(&worker, before)
}

fn reclaiming(lab: &Lab) -> Result<()> {
    let mut disk = File::open("/dev/vda").context("open /dev/vda")?;
    fill_with_cache(&mut disk)?;
    let ended = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_on_node_1(&disk, &ended));
        let result = under_reclaim(lab);
        ended.store(true, Ordering::Relaxed);
        let read = reader.join().map_err(|_panic| anyhow::anyhow!("the reader has panicked"))?;
        result.and(read)
    });
    sys::forget_cache(&disk).context("drop the page cache")?;
    result
}

fn under_reclaim(lab: &Lab) -> Result<()> {
    let stolen = || vmstat("pgsteal_kswapd");
    let before = stolen()?;
    let begun = until(PATIENCE, stolen, |stolen| *stolen > before)?;
    ensure!(begun > before, "nothing is reclaimed: node 1 has {} MiB free", nodes::free_mib(1)?);
    stays(lab, STRAND, "", Reason::Reclaiming)
}

/// Over and over, so that its page cache must give way to itself.
fn read_on_node_1(mut disk: &File, ended: &AtomicBool) -> Result<()> {
    nodes::run_on(None, 1)?;
    sys::bind_task(1).context("bind the reader")?;
    let mut buffer = vec![0; 1 << 20];
    while !ended.load(Ordering::Relaxed) {
        if disk.read(&mut buffer).context("read /dev/vda")? == 0 {
            disk.rewind().context("rewind /dev/vda")?;
        }
    }
    Ok(())
}

fn other_mover(lab: &Lab) -> Result<()> {
    let worker = stranded("strand --from 0 --to 1 --mib 32 --shifted 4")?;
    so_many_stay(lab, &worker, STRAND_PAGES, "", Reason::OtherMover)
}

fn concurrency(lab: &Lab) -> Result<()> {
    let workers = [stranded(STRAND)?, stranded(STRAND)?];
    let controller = lab.enforce("--include comm:lab --concurrent-moves 1")?;
    for worker in &workers {
        let moved = controller.first_outcome(worker.pid(), PATIENCE)?.is_some();
        claim(moved, || format!("no move in {PATIENCE:?}: {}", controller.log()))?;
    }
    let most = most_under_way(&controller)?;
    claim(most == 1, || format!("{most} moves were under way at once"))?;
    let says = |pid| -> Result<bool> {
        Ok(controller.decisions(pid)?.iter().any(|one| one.reason == Reason::Concurrency))
    };
    let waited = says(workers[0].pid())? || says(workers[1].pid())?;
    claim(waited, || "no decision says concurrency".to_owned())
}

fn most_under_way(controller: &Controller) -> Result<u32> {
    let (mut now, mut most) = (0_u32, 0);
    for fact in controller.facts()? {
        match fact {
            Fact::Ordered { .. } => now += 1,
            Fact::Outcome(_) => now = now.saturating_sub(1),
            Fact::Decision(_) | Fact::Score(_) => {}
        }
        most = most.max(now);
    }
    Ok(most)
}

fn cool_down(lab: &Lab) -> Result<()> {
    // Three quarters of it cannot move.
    let worker = stranded("strand --from 0 --to 1 --mib 4 --pinned 12")?;
    let include = format!("--include pid:{} --guard-off unmovable", worker.pid());
    let controller = lab.enforce(&include)?;
    let orders = orders_once(&controller, worker.pid(), Reason::CoolDown)?;
    claim(orders.len() == 1, || format!("it was ordered to move {} times", orders.len()))
}

fn too_large(lab: &Lab) -> Result<()> {
    stays(lab, STRAND, "--burst 16 --guard-off rate_limit", Reason::TooLarge)
}

fn moving(lab: &Lab) -> Result<()> {
    // Most of it moves, and the rest would be worth the next move at once.
    let worker = stranded("strand --from 0 --to 1 --mib 20 --pinned 12")?;
    let include = format!("--include pid:{} --guard-off unmovable", worker.pid());
    let controller = lab.enforce(&include)?;
    let orders = orders_once(&controller, worker.pid(), Reason::Moving)?;
    let early = orders.windows(2).find(|two| two[1] - two[0] < CHECKED);
    claim(early.is_none(), || format!("two orders within {CHECKED} ns: {orders:?}"))
}

/// Waits until a decision has this reason after a first order, or there are two orders, and a
/// while longer.
pub(super) fn orders_once(controller: &Controller, pid: u32, reason: Reason) -> Result<Vec<u64>> {
    let look = || Ok((controller.orders(pid)?, controller.decisions(pid)?));
    let (orders, decisions) = until(PATIENCE, look, |(orders, decisions)| {
        orders.len() > 1 || decisions.iter().any(|one| one.reason == reason)
    })?;
    claim(!orders.is_empty(), || format!("no order in {PATIENCE:?}: {:?}", decisions.last()))?;
    std::thread::sleep(LINGER);
    let decisions = controller.decisions(pid)?;
    let orders = controller.orders(pid)?;
    let says = decisions.iter().any(|one| one.reason == reason);
    claim(says || orders.len() > 1, || format!("no decision says {}", reason.name()))?;
    Ok(orders)
}
