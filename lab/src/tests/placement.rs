//! Does the sampled placement agree with `numa_maps`, at a cost that sparse memory does not raise?

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use migrate_ctl::model::{Class, Node, NodeVec, Reason};
use migrate_ctl::placement::{Ask, Placement, place};
use migrate_ctl::procfs::{self, Kind, numa_maps};
use migrate_ctl::topology::Topology;

use crate::nodes;
use crate::test::{Lab, Machine, ONE_AND_MORE, Off, Test, claim, say};
use crate::tests::control::{metric, stranded, until};
use crate::witness::pages_on;
use crate::worker::Worker;

const ESTIMATES: u64 = 200;
/// Of those so many hold the truth: 95 % would be 190.
const HOLD: usize = 180;
const HALF_WIDTH: f64 = 0.02;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const TESTS: &[Test] = &[
    test("placement_intervals_hold_what_numa_maps_says", Off::Nothing, intervals),
    test("placement_is_not_fooled_by_a_sparse_mapping", Off::Probe("touched"), sparse),
    test("placement_counts_no_zero_pages", Off::Nothing, zeros),
    test("placement_keeps_classes_and_page_sizes_apart", Off::Nothing, classes),
    Test {
        machines: &[Machine::Two],
        ..test("placement_of_others_waits_for_no_held_lock", Off::Nothing, held)
    },
];

const fn test(name: &'static str, off: Off, run: fn(&Lab) -> Result<()>) -> Test {
    Test { name, machines: ONE_AND_MORE, off, run }
}

fn intervals(_lab: &Lab) -> Result<()> {
    let worker = Worker::start("split --pages 32768")?;
    for &without_search in ways()? {
        let began = Instant::now();
        let mut entries = 0;
        let mut shares = Vec::new();
        for seed in 0..ESTIMATES {
            let ask = Ask { seed, without_search, ..ask(worker.pid())? };
            let placement = look(&ask)?;
            entries += placement.entries;
            shares.push(share(&placement.private, ask.resident.anonymous)?);
        }
        let micros = u64::try_from(began.elapsed().as_micros())?;
        let truth = truth(worker.pid())?;
        let hold = shares.iter().filter(|(low, high)| *low <= truth && truth <= *high).count();
        let widest = shares.iter().map(|(low, high)| (high - low) / 2.0).fold(0.0, f64::max);
        say(&format!(
            "placement: {hold} of {ESTIMATES} hold {truth:.4}, half-width {widest:.4} at most, {} \
             entries and {} us each (search: {})",
            entries / ESTIMATES,
            micros / ESTIMATES,
            !without_search
        ));
        claim(hold >= HOLD, || format!("{hold} of {ESTIMATES} intervals hold {truth}"))?;
        claim(widest <= HALF_WIDTH, || format!("half of an interval is {widest} wide"))?;
    }
    Ok(())
}

/// The same 64 MiB in a mapping of 1 GiB and in one of 64.
fn sparse(lab: &Lab) -> Result<()> {
    for &without_search in ways()? {
        let mut entries = Vec::new();
        for gib in [1, 64] {
            let probes = lab.probes()?;
            let mut worker =
                Worker::start(&format!("sparse --gib {gib} --islands 64 --pages 256"))?;
            worker.act()?;
            let touched = probes.touched(worker.pid());
            let pages = touched.len();
            let mut holds = 0;
            let mut widest = 0.0_f64;
            for seed in 0..20 {
                let touched = touched.clone();
                let ask = Ask { seed, touched, without_search, ..ask(worker.pid())? };
                let placement = look(&ask)?;
                claim(!placement.private.is_empty(), || format!("nothing found in {gib} GiB"))?;
                let (low, high) = share(&placement.private, ask.resident.anonymous)?;
                let truth = truth(worker.pid())?;
                holds += u32::from(low <= truth && truth <= high);
                widest = widest.max((high - low) / 2.0);
                entries.push(placement.entries);
            }
            say(&format!(
                "placement: {gib} GiB with 64 MiB in it: {holds} of 20 hold, half-width {widest:.4} at \
                 most, {} entries, {pages} touched pages kept (search: {})",
                entries.iter().rev().take(20).sum::<u64>() / 20,
                !without_search
            ));
            claim(holds >= 18, || format!("{holds} of 20 intervals hold in {gib} GiB"))?;
            claim(widest <= 0.05, || format!("half of an interval is {widest} wide in {gib} GiB"))?;
        }
        let (small, large) = entries.split_at(20);
        let (small, large) = (small.iter().sum::<u64>(), large.iter().sum::<u64>());
        claim(large <= 2 * small && small <= 2 * large, || {
            format!("{} entries for 64 GiB, {} for 1 GiB", large / 20, small / 20)
        })?;
    }
    Ok(())
}

fn zeros(_lab: &Lab) -> Result<()> {
    let node = last_node()?;
    let worker = Worker::start(&format!("zeros --node {node} --pages 8192"))?;
    let there = pages_on(worker.pid(), node)?;
    ensure!(there >= 8192, "only {there} pages are on node {node}");
    for &without_search in ways()? {
        let ask = Ask { without_search, ..ask(worker.pid())? };
        let placement = look(&ask)?;
        let (low, high) = share(&placement.private, ask.resident.anonymous)?;
        let truth = truth(worker.pid())?;
        claim(low <= truth && truth <= high, || format!("{low} to {high}, and it is {truth}"))?;
        // Counted for the whole, as shared pages are, they would leave it a fifth.
        let seen = f64::from(placement.private[Node(node)].mid);
        claim(seen >= 0.95 * 8192.0, || format!("{seen} of 8192 pages are seen on node {node}"))?;
    }
    Ok(())
}

fn classes(_lab: &Lab) -> Result<()> {
    const PAGES: u64 = 4096;
    let other = last_node()?;
    let folder = format!("/sys/devices/system/node/node{other}/hugepages/hugepages-2048kB");
    let reserve = |pages| {
        std::fs::write(format!("{folder}/nr_hugepages"), pages)
            .with_context(|| format!("reserve in {folder}"))
    };
    reserve("8")?;
    let result = apart(other, PAGES);
    reserve("0")?;
    result
}

fn apart(other: u16, pages: u64) -> Result<()> {
    let worker = Worker::start(&format!("classes --other {other} --pages {pages}"))?;
    let ask = Ask { all_classes: true, ..ask(worker.pid())? };
    let placement = look(&ask)?;
    let on = |class: Class, huge: bool, node: u16| {
        let mut of = placement.classes.iter().filter(|of| of.class == class);
        let pages = of.next().map(|of| if huge { &of.huge } else { &of.base });
        pages.map_or(0.0, |pages| pages[Node(node)])
    };
    let maps = numa_maps(Path::new("/"), worker.pid()).context("read numa_maps")?;
    let kernel = |wanted: fn(&procfs::Mapping) -> bool, node: u16| {
        let id = migrate_ctl::model::NodeId(node);
        maps.mappings.iter().filter(|map| wanted(map)).map(|map| map.on(id)).sum::<u64>() as f64
    };
    let small = |map: &procfs::Mapping| map.page_kib == 4;
    let huge = anonymous_huge(worker.pid())?;
    ensure!(huge >= 1.8 * pages as f64, "the kernel made {huge} huge pages only");
    let private = kernel(|map| map.kind == Kind::Anonymous && map.page_kib == 4, 0);
    let rows = [
        ("private base", on(Class::PrivateAnonymous, false, 0), private - huge),
        ("private huge", on(Class::PrivateAnonymous, true, 0), huge),
        // Our own binary lies on tmpfs, as all of the guest does.
        ("shared", on(Class::Shared, false, other), {
            let of_memory = |map: &procfs::Mapping| {
                map.page_kib == 4 && map.kind != Kind::Anonymous && !map.name.contains("vda")
            };
            kernel(of_memory, other)
        }),
        ("hugetlb", on(Class::Hugetlb, true, other), kernel(|map| map.page_kib == 2048, other)),
        ("file", on(Class::File, false, other), kernel(|map| map.name.contains("vda"), other)),
    ];
    ensure!(maps.mappings.iter().any(small), "no mapping of 4 KiB pages");
    for (name, seen, truth) in rows {
        say(&format!("placement: {name}: {seen:.0} pages, numa_maps and smaps say {truth:.0}"));
    }
    for (name, seen, truth) in rows {
        ensure!(truth >= pages as f64 * 0.9, "{name}: the kernel has {truth} pages only");
        // A class that is only shown comes from some hundred draws, its page sizes from fewer.
        claim((seen - truth).abs() <= 0.12 * truth, || format!("{name}: {seen} of {truth}"))?;
    }
    let sizes = |wanted: fn(u64) -> bool| {
        placement.sizes.values().filter(|sizes| wanted(sizes.page_size())).count()
    };
    claim(sizes(|size| size == 4096) >= 2 && sizes(|size| size == 2 << 20) >= 2, || {
        format!("page sizes by mapping: {:?}", placement.sizes)
    })
}

/// Pages of 4 KiB in transparent huge pages, by smaps.
fn anonymous_huge(pid: u32) -> Result<f64> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).context("read smaps")?;
    let lines = smaps.lines().filter_map(|line| line.strip_prefix("AnonHugePages:"));
    let kib: Vec<f64> =
        lines.filter_map(|line| line.trim().strip_suffix(" kB")?.parse().ok()).collect();
    Ok(kib.iter().sum::<f64>() / 4.0)
}

fn held(lab: &Lab) -> Result<()> {
    const WATCHED: Duration = Duration::from_secs(20);
    let mut holder = Worker::start("hold")?;
    let worker = stranded("strand --from 0 --to 1 --mib 32")?;
    holder.act()?;
    let waits = waited_for_lock(holder.pid())?;
    ensure!(waits >= Duration::from_millis(500), "its lock was free after {waits:?}");
    let mut controller = lab.observe("--include comm:lab")?;
    let late = until(PATIENCE, || metric("migrate_placement_late_total"), |late| *late >= 1.0)?;
    claim(late >= 1.0, || "nobody was late".to_owned())?;
    let (ticks, began) = (metric("migrate_ticks_total")?, Instant::now());
    let before = controller.decisions(worker.pid())?.len();
    std::thread::sleep(WATCHED);
    let ticks = metric("migrate_ticks_total")? - ticks;
    let seconds = began.elapsed().as_secs_f64();
    let decisions = controller.decisions(worker.pid())?;
    say(&format!("placement: {ticks} ticks in {seconds:.1} s beside a lock held for {waits:?}"));
    claim(ticks >= 0.6 * seconds, || format!("{ticks} ticks in {seconds} s"))?;
    // One that does not change its mind is in the journal once: by then it knows the placement.
    let placed = decisions.iter().any(|one| one.reason == Reason::Pays);
    claim(placed, || format!("{before} decisions before: {:?}", decisions.last()))?;
    let name = format!("pid={}", holder.pid());
    let log = until(PATIENCE, || Ok(controller.log()), |log| log.contains(&name))?;
    claim(log.contains(&name), || format!("process {} is not named: {log}", holder.pid()))?;
    // Not even when it is told to end.
    let status = controller.stop()?;
    claim(status.success(), || format!("it ended with {status}: {}", controller.log()))
}

/// With the kernel's search and without it, where it has one: from 6.7 on.
fn ways() -> Result<&'static [bool]> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("no release")?;
    Ok(if release.starts_with("6.1.") { &[true] } else { &[false, true] })
}

/// How long somebody who only looks has to wait.
fn waited_for_lock(pid: u32) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    for _ in 0..4 {
        let began = Instant::now();
        std::fs::read(format!("/proc/{pid}/numa_maps")).context("read numa_maps")?;
        longest = longest.max(began.elapsed());
    }
    Ok(longest)
}

fn ask(pid: u32) -> Result<Ask> {
    let process = procfs::process(Path::new("/"), pid).context("the process is gone")?;
    Ok(Ask { pid, resident: process.resident, ..Ask::default() })
}

fn look(ask: &Ask) -> Result<Placement> {
    let root = Path::new("/");
    let topology = Topology::read(root).context("read the topology")?;
    place(root, &topology, ask).context("the process cannot be looked into")
}

/// The share of node 0: the ends of its interval.
fn share(private: &NodeVec<migrate_ctl::model::Est>, pages: u64) -> Result<(f64, f64)> {
    let here = private.get(Node(0)).context("no placement")?;
    Ok((f64::from(here.low) / pages as f64, f64::from(here.high) / pages as f64))
}

/// The same by numa_maps.
fn truth(pid: u32) -> Result<f64> {
    let here = pages_on(pid, 0)? as f64;
    let all = nodes::with_memory()?.into_iter().map(|node| pages_on(pid, node));
    Ok(here / all.sum::<Result<u64>>()? as f64)
}

fn last_node() -> Result<u16> {
    nodes::with_memory()?.pop().context("no node has memory")
}
