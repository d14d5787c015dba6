//! The probes' maps, by what they mean.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use aya::{Ebpf, Pod};
use migrate_common::{
    ALL_REASONS, CpuKey, CrossKey, DRAIN_KINDS, Durations, FAULT_KINDS, HintKey, Hints, Isolated,
    LOST_SLOTS, MAX_CALLERS, MAX_CPU_TIMES, MAX_CPUS, MAX_HINTS, MAX_TASKS, MAX_TOUCHED,
    MigrationKey, MigrationTotals, Migrations, OwnMove, SCAN_KINDS, Scanned, Since, TaskCounters,
    Touched,
};

use super::ProbesError;
use crate::model::{NodeId, each_node};
use crate::mover::MoveCounter;
use crate::sys;
use crate::topology::Topology;

/// Everything counted since the probes were attached, but for processes forgotten since.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub tasks: BTreeMap<u32, TaskCounters>,
    /// Of all processes for which `tasks` has no room.
    pub unplaced: TaskCounters,
    /// CPU time in ns.
    pub cpu: BTreeMap<CpuKey, u64>,
    pub hints: BTreeMap<HintKey, Hints>,
    pub migrations: BTreeMap<MigrationKey, MigrationTotals>,
    /// By reason: every reason that this kernel has, as it names it, and ours.
    pub reasons: Vec<(String, Migrations)>,
    /// By `migrate_common::FaultKind`: those that were timed.
    pub fault_time: [Durations; FAULT_KINDS as usize],
    /// By `migrate_common::Drain`.
    pub drains: [Durations; DRAIN_KINDS as usize],
    /// Times that a thread went to another node.
    pub crossings: BTreeMap<CrossKey, u64>,
    /// By node, to the highest that there is, and `migrate_common::Scan`.
    pub scans: Vec<(NodeId, [Scanned; SCAN_KINDS as usize])>,
    /// By node and reason, where there is anything: what was taken off the LRU lists.
    pub isolated: BTreeMap<(NodeId, String), Isolated>,
    /// By slot of `migrate_common::Lost`.
    pub lost: [u64; LOST_SLOTS as usize],
}

impl Counts {
    /// Every process that has a slot somewhere.
    pub fn processes(&self) -> BTreeSet<u32> {
        (self.tasks.keys().copied())
            .chain(self.cpu.keys().map(|key| key.tgid))
            .chain(self.hints.keys().map(|key| key.tgid))
            .chain(self.migrations.keys().map(|key| key.tgid))
            .chain(self.crossings.keys().map(|key| key.tgid))
            .collect()
    }

    /// Leaves these processes out.
    pub fn forget(&mut self, whose: &BTreeSet<u32>) {
        self.tasks.retain(|tgid, _| !whose.contains(tgid));
        self.cpu.retain(|key, _| !whose.contains(&key.tgid));
        self.hints.retain(|key, _| !whose.contains(&key.tgid));
        self.migrations.retain(|key, _| !whose.contains(&key.tgid));
        self.crossings.retain(|key, _| !whose.contains(&key.tgid));
    }
}

pub(super) struct Maps {
    tasks: HashMap<MapData, u32, TaskCounters>,
    unplaced: Array<MapData, u64>,
    cpu: HashMap<MapData, CpuKey, u64>,
    since: PerCpuArray<MapData, Since>,
    /// By number of the CPU.
    nodes: Vec<Option<u32>>,
    hints: HashMap<MapData, HintKey, Hints>,
    migrations: HashMap<MapData, MigrationKey, MigrationTotals>,
    by_reason: PerCpuArray<MapData, Migrations>,
    fault_time: PerCpuArray<MapData, Durations>,
    drains: PerCpuArray<MapData, Durations>,
    isolated: PerCpuArray<MapData, Isolated>,
    scans: PerCpuArray<MapData, Scanned>,
    crossings: HashMap<MapData, CrossKey, u64>,
    touched: HashMap<MapData, u32, Touched>,
    lost: Array<MapData, u64>,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf, topology: &Topology) -> Result<Self, ProbesError> {
        Ok(Self {
            tasks: take(ebpf, "TASKS")?,
            unplaced: take(ebpf, "UNPLACED")?,
            cpu: take(ebpf, "CPU_TIME")?,
            since: take(ebpf, "SINCE")?,
            nodes: nodes_of_cpus(topology),
            hints: take(ebpf, "HINTS")?,
            migrations: take(ebpf, "MIGRATIONS")?,
            by_reason: take(ebpf, "BY_REASON")?,
            fault_time: take(ebpf, "FAULT_TIME")?,
            drains: take(ebpf, "DRAINS")?,
            isolated: take(ebpf, "ISOLATED")?,
            scans: take(ebpf, "SCANS")?,
            crossings: take(ebpf, "CROSSINGS")?,
            touched: take(ebpf, "TOUCHED")?,
            lost: take(ebpf, "LOST")?,
        })
    }

    pub(super) fn read(&self, reasons: &[(String, u32)]) -> Result<Counts, ProbesError> {
        let mut counts = Counts {
            tasks: entries(&self.tasks).map_err(at("TASKS"))?,
            cpu: entries(&self.cpu).map_err(at("CPU_TIME"))?,
            hints: entries(&self.hints).map_err(at("HINTS"))?,
            migrations: entries(&self.migrations).map_err(at("MIGRATIONS"))?,
            crossings: entries(&self.crossings).map_err(at("CROSSINGS"))?,
            ..Counts::default()
        };
        // Who runs now has not been switched from yet.
        let now = sys::monotonic();
        let running = self.since.get(&0, 0).map_err(at("SINCE"))?;
        for (since, node) in running.iter().zip(&self.nodes) {
            if let (Some(node), Ok(tgid @ 1..)) = (*node, u32::try_from(since.tgid)) {
                let ran = now.saturating_sub(since.at);
                *counts.cpu.entry(CpuKey { tgid, node }).or_default() += ran;
            }
        }
        for (slot, count) in (0..).zip(&mut counts.unplaced.0) {
            *count = self.unplaced.get(&slot, 0).map_err(at("UNPLACED"))?;
        }
        for (name, reason) in reasons {
            let all = sum(&self.by_reason, *reason, Migrations::add).map_err(at("BY_REASON"))?;
            counts.reasons.push((name.clone(), all));
        }
        for (slot, time) in (0..).zip(&mut counts.fault_time) {
            *time = sum(&self.fault_time, slot, Durations::add).map_err(at("FAULT_TIME"))?;
        }
        for (slot, drains) in (0..).zip(&mut counts.drains) {
            *drains = sum(&self.drains, slot, Durations::add).map_err(at("DRAINS"))?;
        }
        for node in 0..self.isolated.len() / ALL_REASONS {
            let id = NodeId(u16::try_from(node).unwrap_or(u16::MAX));
            for (name, reason) in reasons {
                let slot = node * ALL_REASONS + reason;
                let all = sum(&self.isolated, slot, Isolated::add).map_err(at("ISOLATED"))?;
                if all != Isolated::default() {
                    counts.isolated.insert((id, name.clone()), all);
                }
            }
        }
        for node in 0..self.scans.len() / SCAN_KINDS {
            let mut kinds = [Scanned::default(); SCAN_KINDS as usize];
            for (slot, all) in (node * SCAN_KINDS..).zip(&mut kinds) {
                *all = sum(&self.scans, slot, Scanned::add).map_err(at("SCANS"))?;
            }
            counts.scans.push((NodeId(u16::try_from(node).unwrap_or(u16::MAX)), kinds));
        }
        for (slot, count) in (0..).zip(&mut counts.lost) {
            *count = self.lost.get(&slot, 0).map_err(at("LOST"))?;
        }
        Ok(counts)
    }

    pub(super) fn touched(&self, tgid: u32) -> Vec<u64> {
        // One that has touched nothing that is kept has no entry.
        let Ok(kept) = self.touched.get(&tgid, 0) else { return Vec::new() };
        kept.pages.into_iter().filter(|&page| page != 0).collect()
    }

    pub(super) fn forget_touched(&mut self, whose: impl Fn(u32) -> bool) {
        let all: Vec<u32> = self.touched.keys().filter_map(Result::ok).collect();
        for tgid in all.into_iter().filter(|&tgid| whose(tgid)) {
            // Gone already is just what we want.
            let _ = self.touched.remove(&tgid);
        }
    }

    /// Frees the slots of processes that `seen` knows.
    pub(super) fn forget(&mut self, whose: &BTreeSet<u32>, seen: &Counts) {
        remove(&mut self.tasks, seen.tasks.keys(), |tgid| whose.contains(tgid));
        remove(&mut self.cpu, seen.cpu.keys(), |key| whose.contains(&key.tgid));
        remove(&mut self.hints, seen.hints.keys(), |key| whose.contains(&key.tgid));
        remove(&mut self.migrations, seen.migrations.keys(), |key| whose.contains(&key.tgid));
        remove(&mut self.crossings, seen.crossings.keys(), |key| whose.contains(&key.tgid));
    }
}

fn remove<'a, K: Pod + 'a, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    keys: impl Iterator<Item = &'a K>,
    which: impl Fn(&K) -> bool,
) {
    for key in keys.filter(|key| which(key)) {
        // An entry that is gone already is just what we want.
        let _ = map.remove(key);
    }
}

/// Counters of the moves that the mover's thread carries out.
pub struct OwnMoves {
    moves: HashMap<MapData, u32, OwnMove>,
    moving: HashMap<MapData, u32, u32>,
}

impl OwnMoves {
    pub(super) fn take(ebpf: &mut Ebpf) -> Option<Self> {
        let moves = take(ebpf, "OWN_MOVES").ok()?;
        Some(Self { moves, moving: take(ebpf, "MOVING").ok()? })
    }
}

impl MoveCounter for OwnMoves {
    fn begin(&mut self, tid: u32, target: u32) {
        let fresh = OwnMove { target, ..OwnMove::default() };
        // Where the slot cannot be made nothing is counted: the move then shows as 0 pages.
        let made =
            self.moves.insert(tid, fresh, 0).and_then(|()| self.moving.insert(target, tid, 0));
        if let Err(error) = made {
            tracing::warn!(%error, target, "this move will not be counted");
        }
    }

    fn end(&mut self, tid: u32) -> OwnMove {
        // The counts of a slot that could not be made are those of no move at all.
        let begun = self.moves.get(&tid, 0).unwrap_or_default();
        // Taken first, so that the probes are done with the slot when it is read.
        let _ = self.moving.remove(&begun.target);
        let counted = self.moves.get(&tid, 0).unwrap_or(begun);
        let _ = self.moves.remove(&tid);
        counted
    }
}

/// How large the maps are made.
pub(super) struct Sizes {
    /// Entries at most in each map that can be full.
    most: u32,
    pub(super) callers: u32,
    /// The highest node's number and one.
    nodes: u32,
}

/// `most` is a power of two.
pub(super) fn sizes(topology: &Topology, most: u32) -> Sizes {
    let nodes = each_node(topology.len()).map(|node| u32::from(topology.id(node).0) + 1).max();
    Sizes { most, callers: MAX_CALLERS.min(most), nodes: nodes.unwrap_or(1) }
}

impl Sizes {
    pub(super) fn of_maps(&self) -> [(&'static str, u32); 11] {
        [
            ("TASKS", MAX_TASKS.min(self.most)),
            ("CPU_TIME", MAX_CPU_TIMES.min(self.most)),
            ("HINTS", MAX_HINTS.min(self.most)),
            ("MIGRATIONS", MAX_TASKS.min(self.most)),
            ("CALLERS", self.callers),
            ("RECENT", self.callers),
            ("MET", self.callers),
            ("CROSSINGS", MAX_CPU_TIMES.min(self.most)),
            ("TOUCHED", MAX_TOUCHED.min(self.most)),
            ("ISOLATED", self.nodes * ALL_REASONS),
            ("SCANS", self.nodes * SCAN_KINDS),
        ]
    }
}

fn nodes_of_cpus(topology: &Topology) -> Vec<Option<u32>> {
    let mut nodes = Vec::new();
    for (cpu, node) in topology.cpus() {
        let cpu = cpu as usize;
        if nodes.len() <= cpu {
            nodes.resize(cpu + 1, None);
        }
        nodes[cpu] = Some(u32::from(topology.id(node).0));
    }
    nodes
}

/// Tells the probes the node of each CPU.
pub(super) fn tell_nodes(ebpf: &mut Ebpf, topology: &Topology) -> Result<(), ProbesError> {
    let name = "NODE_OF_CPU";
    // Borrowed: a map that is closed before the programs are loaded is lost to them.
    let map = ebpf.map_mut(name).ok_or(ProbesError::NoMap(name))?;
    let mut nodes: Array<&mut MapData, u32> = Array::try_from(map).map_err(at(name))?;
    for (cpu, node) in topology.cpus().filter(|(cpu, _)| *cpu < MAX_CPUS) {
        // 0 is for CPUs that nobody told of.
        nodes.set(cpu, u32::from(topology.id(node).0) + 1, 0).map_err(at(name))?;
    }
    Ok(())
}

fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, ProbesError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(ProbesError::NoMap(name))?;
    M::try_from(map).map_err(at(name))
}

/// What is removed while we walk is left out; nobody but us removes.
fn entries<K: Pod + Ord, V: Pod>(map: &HashMap<MapData, K, V>) -> Result<BTreeMap<K, V>, MapError> {
    map.iter().collect()
}

/// Of all CPUs.
fn sum<V: Pod + Default>(
    map: &PerCpuArray<MapData, V>,
    slot: u32,
    add: fn(&mut V, &V),
) -> Result<V, MapError> {
    let mut all = V::default();
    map.get(&slot, 0)?.iter().for_each(|cpu| add(&mut all, cpu));
    Ok(all)
}

fn at(name: &'static str) -> impl Fn(MapError) -> ProbesError {
    move |error| ProbesError::Map { name, why: super::attach::in_full(&error) }
}
