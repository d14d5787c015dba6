//! Whose memory is looked into, and when.
//!
//! Decides who is due, hands the reading to the pool, and keeps what came back. Never waits
//! longer than [`PATIENCE`]: who is late keeps its last placement.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Delta, Sampler, TOUCHED_TICKS};
use crate::model::{Class, Est, Mempolicy, Nanos, NodeVec, PidRef};
use crate::placement::{Ask, ClassPages};
use crate::pool::{Done, Job, Late};
use crate::procfs::{self, Process};
use crate::snapshot::LateProcess;

/// A placement is sampled again after so many ticks, or at once for who burns much CPU time.
const PLACEMENT_TICKS: u64 = 5;
/// Share of one CPU from which on a process's placement is sampled in every tick.
const BUSY_SHARE: f64 = 0.05;
/// The classes of memory that do not move are looked at so often.
const CLASSES_TICKS: u64 = 10;
/// Pagemap entries that one tick may take, of all processes: at some 1 us each an eighth of a
/// second, shared by the threads.
const ENTRIES_A_TICK: u64 = 1 << 17;
/// What a look at a process is taken to cost before the first.
const USUAL_ENTRIES: u64 = 4096;
/// Whoever could not be looked into by then is late.
const PATIENCE: Duration = Duration::from_millis(250);
/// Late is normal on a busy machine; a process that lets us wait for so long is named in the log.
const STUCK: Duration = Duration::from_secs(2);

/// A process of this tick.
pub(super) struct Seen {
    pub(super) process: Process,
    /// We must not look into its memory.
    pub(super) excluded: bool,
}

/// What we remember of a process between ticks.
pub(super) struct Known {
    pub(super) id: PidRef,
    comm: String,
    pub(super) pages: NodeVec<Est>,
    sampled_at: u64,
    /// What the last look has cost.
    entries: u64,
    /// Where pages were, and the last tick in which they were met there. A look meets only some
    /// of what is spread thinly.
    found: BTreeMap<u64, u64>,
    classes: Vec<ClassPages>,
    classes_at: Option<u64>,
    /// How often its pages were moved.
    pub(super) moves: u64,
    /// Read and not handed on yet.
    pub(super) mempolicy: Option<Mempolicy>,
    /// The last tick in which a thread ran with a policy of its own.
    pub(super) own_policy_at: Option<u64>,
    lateness: Lateness,
}

/// Whether the job for a process is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lateness {
    InTime,
    Late,
    /// And the log says so.
    Named,
}

impl Known {
    /// A newcomer is due, and has waited no longer than who is due by age.
    pub(super) fn nothing(id: PidRef, comm: &str, now: u64) -> Self {
        Self {
            id,
            comm: comm.to_owned(),
            pages: NodeVec::default(),
            sampled_at: now.saturating_sub(PLACEMENT_TICKS),
            entries: USUAL_ENTRIES,
            found: BTreeMap::new(),
            classes: Vec::new(),
            classes_at: None,
            moves: 0,
            mempolicy: None,
            own_policy_at: None,
            lateness: Lateness::InTime,
        }
    }

    /// Share of its private anonymous pages that are part of huge ones, 0 to 1.
    pub(super) fn huge_share(&self) -> f32 {
        let private = self.classes.iter().find(|of| of.class == Class::PrivateAnonymous);
        let sum = |pages: &NodeVec<f64>| pages.values().sum::<f64>();
        let (huge, base) = private.map_or((0.0, 0.0), |of| (sum(&of.huge), sum(&of.base)));
        #[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
        let share = if huge > 0.0 { (huge / (huge + base)) as f32 } else { 0.0 };
        share
    }

    fn is_due(&self, busy: bool, now: u64) -> bool {
        busy || self.pages.is_empty() || now.saturating_sub(self.sampled_at) >= PLACEMENT_TICKS
    }

    fn meet(&mut self, places: Vec<u64>, now: u64) {
        self.found.retain(|_, met| now.saturating_sub(*met) < TOUCHED_TICKS);
        self.found.extend(places.into_iter().map(|place| (place, now)));
    }

    fn classes_due(&self, now: u64) -> bool {
        self.classes_at.is_none_or(|at| now.saturating_sub(at) >= CLASSES_TICKS)
    }
}

impl Sampler {
    /// Has somebody look into the processes whose placement is old or whose memory policy is
    /// wanted, the busiest first, as far as the budget of this tick goes; takes what is done.
    pub(super) fn look(
        &mut self,
        seen: &[Seen],
        delta: &BTreeMap<u32, Delta>,
        dt: Nanos,
        wants_mempolicy: &[PidRef],
        moving: &[PidRef],
    ) {
        // A memory policy that nobody asked for in the tick of its reading is old by the next.
        self.known.values_mut().for_each(|known| known.mempolicy = None);
        let mut budget = ENTRIES_A_TICK;
        let mut waited_for = BTreeSet::new();
        let mut busiest: Vec<&Seen> = seen.iter().collect();
        // Who waits gets ahead of who is busier and was looked into just now.
        busiest.sort_by_key(|seen| {
            let pid = seen.process.id.pid;
            let waited = self.known.get(&pid).map_or(0, |known| self.ticks - known.sampled_at);
            std::cmp::Reverse(delta[&pid].used().saturating_mul(waited))
        });
        for &Seen { ref process, excluded } in busiest {
            let id = process.id;
            let Some(known) = self.known.get(&id.pid) else { continue };
            if moving.contains(&id) || self.pool.is_open(id) || self.pool.is_full() {
                continue;
            }
            let busy = delta[&id.pid].used() as f64 >= BUSY_SHARE * dt as f64;
            let due = !excluded && known.is_due(busy, self.ticks) && known.entries <= budget;
            let mempolicy = wants_mempolicy.contains(&id);
            if due || mempolicy {
                budget -= if due { known.entries } else { 0 };
                waited_for.insert(id);
                let placement = due.then(|| self.ask(process, known));
                self.pool.submit(Job { id, placement, mempolicy, stamp: known.moves });
            }
        }
        for done in self.pool.take(PATIENCE, waited_for) {
            self.take(done);
        }
        self.name_the_late();
    }

    fn ask(&self, process: &Process, known: &Known) -> Ask {
        let pid = process.id.pid;
        let mut touched: Vec<u64> = known.found.keys().copied().collect();
        if let Some(probes) = &self.probes {
            touched.extend(probes.touched(pid));
        }
        Ask {
            pid,
            resident: process.resident,
            seed: (u64::from(pid) << 32) ^ self.ticks,
            touched,
            all_classes: known.classes_due(self.ticks),
            without_search: false,
        }
    }

    fn take(&mut self, done: Done) {
        self.totals.placement_seconds += done.took.as_secs_f64();
        let Some(known) = self.known.get_mut(&done.id.pid).filter(|known| known.id == done.id)
        else {
            return;
        };
        known.mempolicy = done.mempolicy;
        known.lateness = Lateness::InTime;
        let Some(placement) = done.placement else { return };
        self.totals.placement_entries += placement.entries;
        known.entries = placement.entries.min(ENTRIES_A_TICK);
        known.meet(placement.found, self.ticks);
        if placement.all_classes {
            known.classes_at = Some(self.ticks);
            known.classes.clear();
        }
        known.classes.retain(|old| placement.classes.iter().all(|new| new.class != old.class));
        known.classes.extend(placement.classes);
        // What was read before a move is no longer true.
        if known.moves == done.stamp {
            known.pages = placement.private;
            known.sampled_at = self.ticks;
        }
    }

    /// A process that is late for the first time is counted, and logged once it is stuck.
    fn name_the_late(&mut self) {
        self.late.clear();
        for Late { id, since, being_read } in self.pool.late() {
            let waited = since.elapsed();
            let Some(known) = self.known.get_mut(&id.pid).filter(|known| known.id == id) else {
                // It has exited, and its lock went with it.
                continue;
            };
            if known.lateness == Lateness::InTime {
                known.lateness = Lateness::Late;
                self.totals.placement_late += 1;
            }
            if known.lateness == Lateness::Late && waited >= STUCK {
                known.lateness = Lateness::Named;
                tracing::info!(
                    pid = id.pid,
                    comm = procfs::printable(&known.comm),
                    being_read,
                    "its memory cannot be looked into; its last placement stands"
                );
            }
            let comm = known.comm.clone();
            self.late.push(LateProcess { pid: id.pid, comm, waited, being_read });
        }
    }

    /// Resident pages by node of the processes that were looked into, by class and page size.
    pub fn resident(&self) -> Vec<ClassPages> {
        let nodes = self.topology.len();
        let nothing = NodeVec::filled(nodes, 0.0);
        let mut all: Vec<ClassPages> = Class::ALL
            .iter()
            .map(|&class| ClassPages { class, base: nothing.clone(), huge: nothing.clone() })
            .collect();
        for of in self.known.values().flat_map(|known| &known.classes) {
            for sum in all.iter_mut().filter(|sum| sum.class == of.class) {
                for (node, pages) in of.base.iter() {
                    sum.base[node] += pages;
                    sum.huge[node] += of.huge[node];
                }
            }
        }
        all
    }

    /// The processes that let us wait.
    pub fn late(&self) -> &[LateProcess] {
        &self.late
    }
}
