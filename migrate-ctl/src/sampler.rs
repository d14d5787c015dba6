//! What happened since the last round: one [`Tick`] from the probes, sysfs and /proc.
//!
//! Owns the last cumulative counts and turns them into differences. Decides
//! nothing. Everything here blocks, so the daemon runs it off its async worker.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use migrate_common::{Counter, Hints, Isolated, MigrationKey, Migrations, SCAN_KINDS, Scanned};

use crate::config::Filter;
use crate::hardware::Hardware;
use crate::latency::Latency;
use crate::model::{
    Accesses, Class, DomainObs, Est, ExtentId, ExtentObs, Faults, HintObs, Mempolicy, MigratedObs,
    Nanos, Node, NodeId, NodeMask, NodeVec, Pages, PidRef, Tick,
};
use crate::pool::Pool;
use crate::probes::{Counts, Probes};
use crate::procfs::Process;
use crate::snapshot::{LateProcess, Totals};
use crate::topology::Topology;
use crate::{procfs, sys};
use smallvec::smallvec;

mod look;
mod machine;

use look::{Known, Seen};

/// A thread that ran with a memory policy of its own protects its process for so many ticks: it
/// may well run again.
const OWN_POLICY_TICKS: u64 = 60;
/// What a process touched long ago may be gone: it is forgotten after so many ticks.
const TOUCHED_TICKS: u64 = 600;
/// The beginnings of faults are seen in one tick of so many.
const TIMED_TICKS: u64 = 60;
/// USER_HZ, the unit of times in /proc, is 100 on every architecture but Alpha and ia64.
const NANOS_PER_CLOCK_TICK: Nanos = 10_000_000;

/// All state of the sampler.
pub struct Sampler {
    root: PathBuf,
    topology: Arc<Topology>,
    probes: Option<Probes>,
    boundness: Est,
    /// Whose memory we may look at.
    filter: Filter,
    latency: Latency,
    hardware: Option<Hardware>,
    last: Counts,
    /// Processes that have counts and that /proc no longer listed at the last tick.
    absent: BTreeSet<u32>,
    /// CPUs that have been online since the probes were loaded: those that are sampled.
    sampled: BTreeSet<u32>,
    /// Cumulative CPU time by thread, where sampling is refused.
    threads: BTreeMap<(PidRef, u32), Nanos>,
    known: BTreeMap<u32, Known>,
    /// Of each process looked at: its faults, its resident set, its calls and its CPU time then.
    seen: BTreeMap<PidRef, (Faults, Pages, u64, u64)>,
    pool: Pool,
    late: Vec<LateProcess>,
    cgroups: BTreeSet<Arc<str>>,
    totals: Totals,
    ticks: u64,
    then: Nanos,
}

impl Sampler {
    pub fn new(
        root: &Path,
        topology: Arc<Topology>,
        probes: Option<Probes>,
        boundness: Est,
        filter: Filter,
        latency: Latency,
        hardware: Option<Hardware>,
    ) -> anyhow::Result<Self> {
        let nodes = topology.len();
        let totals = Totals {
            hints: NodeVec::filled(nodes, NodeVec::filled(nodes, Hints::default())),
            crossings: NodeVec::filled(nodes, NodeVec::filled(nodes, 0)),
            cpu: NodeVec::filled(nodes, 0),
            accesses: hardware.as_ref().map(|_| NodeVec::filled(nodes, Accesses::default())),
            ..Totals::default()
        };
        let pool = Pool::start(root, &topology).context("start the threads that look")?;
        let mut sampler = Self {
            root: root.to_path_buf(),
            probes,
            boundness,
            filter,
            latency,
            hardware,
            last: Counts::default(),
            absent: BTreeSet::new(),
            sampled: topology.cpus().map(|(cpu, _)| cpu).collect(),
            topology,
            threads: BTreeMap::new(),
            known: BTreeMap::new(),
            seen: BTreeMap::new(),
            pool,
            late: Vec::new(),
            cgroups: BTreeSet::new(),
            totals,
            ticks: 0,
            then: sys::boottime(),
        };
        if !sampler.counts_cpu() {
            // What threads used before we came is no business of the first tick.
            let pids = procfs::processes(&sampler.root).context("list the processes")?;
            sampler.cpu_from_proc(&pids, Nanos::MAX);
        }
        Ok(sampler)
    }

    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// What was taken off the LRU lists so far, by node and reason.
    pub fn isolated(&self) -> &BTreeMap<(NodeId, String), Isolated> {
        &self.last.isolated
    }

    /// What reclaim and compaction took off them, by node.
    pub fn scans(&self) -> &[(NodeId, [Scanned; SCAN_KINDS as usize])] {
        &self.last.scans
    }

    /// Everybody's migrations so far, by reason.
    pub fn migrations(&self) -> &[(String, Migrations)] {
        &self.last.reasons
    }

    /// Its pages have moved: what we remember of them is no longer true.
    pub fn forget_placement(&mut self, id: PidRef) {
        if let Some(known) = self.known.get_mut(&id.pid).filter(|known| known.id == id) {
            known.pages = NodeVec::default();
            known.moves += 1;
        }
    }

    /// Looks once. `wants_mempolicy` names the processes close to a move: only
    /// theirs is read, since that walks their whole page table. Those of `moving` are not looked
    /// into: on 6.1 we would wait behind the target, and the target behind the move.
    pub fn tick(&mut self, wants_mempolicy: &[PidRef], moving: &[PidRef]) -> anyhow::Result<Tick> {
        // All that may fail comes before the first change.
        let mut nodes = self.topology.observe(&self.root)?;
        self.latency.fill(&mut nodes);
        let counts = match &mut self.probes {
            Some(probes) => probes.read()?,
            None => Counts::default(),
        };
        // After the counts: who is counted and not listed has exited.
        let pids = procfs::processes(&self.root).context("list the processes")?;
        let now = sys::boottime();
        let then = std::mem::replace(&mut self.then, now);
        let dt = now.saturating_sub(then);
        self.ticks += 1;
        self.time_faults();
        self.watch_cpus();
        self.fill_reclaimed(&mut nodes, &counts);
        let delta = self.difference(counts, &pids, dt);
        let busy = self.busy(&delta, dt);
        let mut gone = self.forget_exited(&pids);
        let seen = self.active(&delta, then, &mut gone);
        self.look(&seen, &delta, dt, wants_mempolicy, moving);
        let domains = self.domains(seen, &delta);
        Ok(Tick { now, dt, busy, nodes, domains, gone })
    }

    fn counts_cpu(&self) -> bool {
        self.probes.as_ref().is_some_and(|probes| probes.count_cpu_time())
    }

    /// What each process did since the last tick; adds it to the totals.
    fn difference(&mut self, counts: Counts, pids: &[u32], dt: Nanos) -> BTreeMap<u32, Delta> {
        let mut delta: BTreeMap<u32, Delta> = BTreeMap::new();
        let nodes = self.topology.len();
        let blank = || Delta { cpu: NodeVec::filled(nodes, 0), ..Delta::default() };
        self.totals.counters.add(&counts.unplaced.since(&self.last.unplaced));
        for (&tgid, now) in &counts.tasks {
            let before = self.last.tasks.get(&tgid).copied().unwrap_or_default();
            let grown = now.since(&before);
            self.totals.counters.add(&grown);
            let delta = delta.entry(tgid).or_insert_with(blank);
            delta.own_policy = grown.get(Counter::PolicySamples) > 0;
            delta.swapped_in = grown.get(Counter::FaultsSwapIn);
            delta.waited = grown.get(Counter::WaitNanos) + grown.get(Counter::LockWaitNanos);
            delta.unmovable = Isolated::of(now).unmovable();
        }
        for (&key, now) in &counts.migrations {
            let grown = now.since(&self.last.migrations.get(&key).copied().unwrap_or_default());
            if grown.calls > 0 {
                let MigrationKey { tgid, reason, caller } = key;
                let reason = self.probes.as_ref().map_or("unknown", |probes| probes.reason(reason));
                let (pages, failed) = (grown.moved, grown.failed);
                let migrated = MigratedObs { reason: reason.to_owned(), caller, pages, failed };
                delta.entry(tgid).or_insert_with(blank).migrated.push(migrated);
            }
        }
        for (&key, &now) in &counts.hints {
            let grown = now.since(&self.last.hints.get(&key).copied().unwrap_or_default());
            let pair = (
                self.topology.node(NodeId(key.cpu_node)),
                self.topology.node(NodeId(key.memory_node)),
            );
            if let (Some(cpu), Some(memory)) = pair {
                self.totals.hints[cpu][memory].add(&grown);
                if grown.faults > 0 {
                    let Hints { faults, pages } = grown;
                    let hints = HintObs { cpu, memory, faults, pages };
                    delta.entry(key.tgid).or_insert_with(blank).hints.push(hints);
                }
            }
        }
        for (&key, &now) in &counts.crossings {
            let grown = now.saturating_sub(self.last.crossings.get(&key).copied().unwrap_or(0));
            let pair = (self.topology.node(NodeId(key.from)), self.topology.node(NodeId(key.to)));
            if let (Some(from), Some(to)) = pair {
                self.totals.crossings[from][to] += grown;
            }
        }
        let cpu = if self.counts_cpu() {
            self.cpu_from_probes(&counts)
        } else {
            self.cpu_from_proc(pids, dt)
        };
        for ((tgid, node), nanos) in cpu {
            self.totals.cpu[node] += nanos;
            delta.entry(tgid).or_insert_with(blank).cpu[node] += nanos;
        }
        if let (Some(hardware), Some(totals)) = (&mut self.hardware, &mut self.totals.accesses) {
            let samples = hardware.take();
            self.totals.lost_accesses += samples.lost;
            for ((tgid, node), accesses) in samples.accesses {
                totals[node].add(accesses);
                delta.entry(tgid).or_insert_with(blank).accesses.add(accesses);
            }
        }
        // A machine without /proc/vmstat keeps what it had.
        self.totals.faults = procfs::all_faults(&self.root).unwrap_or(self.totals.faults);
        self.totals.lost = counts.lost;
        self.totals.fault_time = counts.fault_time;
        self.totals.drains = counts.drains;
        for tgid in self.last.processes() {
            if let Some(delta) = delta.get_mut(&tgid) {
                delta.had_slot = true;
            }
        }
        let before = std::mem::replace(&mut self.last, counts);
        // The time of who runs is added as the maps are read: a switch meanwhile hides it once.
        for (key, then) in before.cpu {
            if let Some(now) = self.last.cpu.get_mut(&key) {
                *now = then.max(*now);
            }
        }
        delta
    }

    fn cpu_from_probes(&self, counts: &Counts) -> Vec<((u32, Node), Nanos)> {
        let mut cpu = Vec::with_capacity(counts.cpu.len());
        for (key, &now) in &counts.cpu {
            let before = self.last.cpu.get(key).copied().unwrap_or(0);
            let node = u16::try_from(key.node).ok().and_then(|id| self.topology.node(NodeId(id)));
            if let Some(node) = node {
                let grown = now.saturating_sub(before);
                cpu.push(((key.tgid, node), grown));
            }
        }
        cpu
    }

    /// A thread's time is charged to the node where it is found at the end of the tick. No thread
    /// has used more than the tick: one that we did not see before may be an old one.
    fn cpu_from_proc(&mut self, pids: &[u32], dt: Nanos) -> Vec<((u32, Node), Nanos)> {
        let mut cpu = Vec::new();
        let mut threads = BTreeMap::new();
        for &pid in pids {
            let Some(start) = procfs::start_of(&self.root, pid) else { continue };
            let id = PidRef { pid, start };
            for thread in procfs::threads(&self.root, pid).unwrap_or_default() {
                let used = thread.ticks.saturating_mul(NANOS_PER_CLOCK_TICK);
                let before = self.threads.get(&(id, thread.tid)).copied();
                threads.insert((id, thread.tid), used);
                let grown = used.saturating_sub(before.unwrap_or(0)).min(dt);
                if let (Some(node), true) = (self.topology.node_of_cpu(thread.cpu), grown > 0) {
                    cpu.push(((pid, node), grown));
                }
            }
        }
        self.threads = threads;
        cpu
    }

    /// Drops what belongs to processes that /proc no longer lists.
    fn forget_exited(&mut self, pids: &[u32]) -> Vec<PidRef> {
        let alive: BTreeSet<u32> = pids.iter().copied().collect();
        let exited = |tgid: &u32| !alive.contains(tgid);
        if let Some(probes) = &mut self.probes {
            probes.forget_touched(|tgid| exited(&tgid) || self.ticks.is_multiple_of(TOUCHED_TICKS));
            let absent = self.last.processes().into_iter().filter(exited).collect();
            let settled = settled(&mut self.absent, absent);
            probes.forget(&settled, &self.last);
            self.last.forget(&settled);
        }
        self.seen.retain(|id, _| alive.contains(&id.pid));
        let gone: Vec<u32> = self.known.keys().copied().filter(exited).collect();
        gone.iter().filter_map(|pid| self.known.remove(pid)).map(|known| known.id).collect()
    }

    fn domains(&mut self, seen: Vec<Seen>, delta: &BTreeMap<u32, Delta>) -> Vec<DomainObs> {
        let mut domains = Vec::with_capacity(seen.len());
        // Nobody else knows it any more.
        self.cgroups.retain(|cgroup| Arc::strong_count(cgroup) > 1);
        for Seen { process, excluded } in seen {
            let id = process.id;
            let delta = &delta[&id.pid];
            let pages = match self.known.get(&id.pid) {
                Some(known) if !excluded => known.pages.clone(),
                Some(_) | None => NodeVec::default(),
            };
            let mempolicy = self.mempolicy(&process, delta.own_policy);
            let allowed = self.allowed(&process.mems_allowed);
            let extent = ExtentObs {
                id: ExtentId { domain: id, class: Class::PrivateAnonymous },
                pages,
                resident: process.resident.anonymous,
                huge: self.known.get(&id.pid).map_or(0.0, Known::huge_share),
                alongside: process.resident.other(),
                mempolicy,
                allowed,
            };
            let resident = process.resident.anonymous + process.resident.other();
            let now = (process.faults, resident, process.calls, process.ticks);
            let (faults, before, calls, ticks) = self.seen.insert(id, now).unwrap_or(now);
            domains.push(DomainObs {
                id,
                threads: process.threads,
                calls: process.calls.saturating_sub(calls),
                calls_cpu: process.ticks.saturating_sub(ticks) * NANOS_PER_CLOCK_TICK,
                faults: process.faults.since(faults),
                swapped_in: delta.swapped_in,
                waited: delta.waited,
                grown: resident.cast_signed().saturating_sub(before.cast_signed()),
                comm: process.comm,
                cgroup: self.cgroup(&process.cgroup),
                cpu: delta.cpu.clone(),
                accesses: delta.accesses,
                hints: delta.hints.clone(),
                migrated: delta.migrated.clone(),
                unmovable: delta.unmovable,
                boundness: self.boundness,
                extents: smallvec![extent],
            });
        }
        domains
    }

    /// The one string of this cgroup.
    fn cgroup(&mut self, path: &str) -> Arc<str> {
        if let Some(known) = self.cgroups.get(path) {
            return Arc::clone(known);
        }
        let cgroup: Arc<str> = path.into();
        self.cgroups.insert(Arc::clone(&cgroup));
        cgroup
    }

    /// The processes that used CPU time, by pid.
    fn active(
        &mut self,
        delta: &BTreeMap<u32, Delta>,
        then: Nanos,
        gone: &mut Vec<PidRef>,
    ) -> Vec<Seen> {
        let ourselves = std::process::id();
        let mut active = Vec::new();
        for (&pid, seen) in delta {
            if seen.used() == 0 || pid == ourselves {
                continue;
            }
            let Some(process) = procfs::process(&self.root, pid) else { continue };
            let Process { id, comm, cgroup, .. } = &process;
            if process.kernel_thread || !self.filter.includes(pid, comm, cgroup) {
                continue;
            }
            if let Some(known) = self.known.get(&pid)
                && known.id != *id
            {
                gone.push(known.id);
                self.known.remove(&pid);
            }
            // A part of what was counted is that of a dead process with the same number.
            let started = id.start.saturating_mul(NANOS_PER_CLOCK_TICK);
            if seen.had_slot && started + NANOS_PER_CLOCK_TICK >= then {
                if let Some(probes) = &mut self.probes {
                    probes.forget_touched(|tgid| tgid == pid);
                }
                continue;
            }
            let excluded = self.filter.excludes(pid, comm, cgroup);
            let nothing = || Known::nothing(*id, comm, self.ticks);
            self.known.entry(pid).or_insert_with(nothing);
            active.push(Seen { process, excluded });
        }
        active
    }

    /// A thread that ran with a policy of its own settles the question for a while: numa_maps
    /// shows the main thread's only. Where nobody samples the threads, theirs stay unknown.
    fn mempolicy(&mut self, process: &Process, own_policy: bool) -> Mempolicy {
        let counts_cpu = self.counts_cpu();
        let Some(known) = self.known.get_mut(&process.id.pid) else { return Mempolicy::Unknown };
        if own_policy {
            known.own_policy_at = Some(self.ticks);
        }
        let read = known.mempolicy.take();
        if known.own_policy_at.is_some_and(|at| self.ticks - at < OWN_POLICY_TICKS) {
            return Mempolicy::Explicit;
        }
        match read.unwrap_or(Mempolicy::Unknown) {
            Mempolicy::Default if process.threads > 1 && !counts_cpu => Mempolicy::Unknown,
            known @ (Mempolicy::Unknown | Mempolicy::Default | Mempolicy::Explicit) => known,
        }
    }

    fn allowed(&self, mems: &[NodeId]) -> NodeMask {
        NodeVec::from_fn(self.topology.len(), |node| mems.contains(&self.topology.id(node)))
    }
}

/// Whose slots may be freed: who was absent at the tick before already. What a process counted
/// between the reading of the maps and its end is read once more.
fn settled(before: &mut BTreeSet<u32>, absent: BTreeSet<u32>) -> BTreeSet<u32> {
    let settled = before.intersection(&absent).copied().collect();
    *before = absent;
    settled
}

#[derive(Default)]
struct Delta {
    cpu: NodeVec<Nanos>,
    accesses: Accesses,
    hints: Vec<HintObs>,
    migrated: Vec<MigratedObs>,
    /// Since the process has been counted, not in this tick only.
    unmovable: Option<f32>,
    own_policy: bool,
    swapped_in: u64,
    waited: Nanos,
    /// Its number was counted before this tick.
    had_slot: bool,
}

impl Delta {
    fn used(&self) -> Nanos {
        self.cpu.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_counted_last_is_read_before_its_slots_are_freed() {
        let mut before = BTreeSet::new();
        // 7 has exited after the maps were read, 8 lives.
        assert!(settled(&mut before, BTreeSet::from([7])).is_empty());
        // By now they were read again. 9 has just exited.
        assert_eq!(settled(&mut before, BTreeSet::from([7, 9])), BTreeSet::from([7]));
        // The number was given to somebody else.
        assert!(settled(&mut before, BTreeSet::new()).is_empty());
        assert!(settled(&mut before, BTreeSet::from([9])).is_empty());
    }
}
