//! What crosses the border between the probes and the controller.
//!
//! Fixed-width integers only, explicit padding, every size asserted: both
//! sides are built by different compilers for different targets.
#![no_std]

/// Slots of [`Durations::buckets`]: slot `i` counts calls of `[2^i, 2^(i+1))` ns.
pub const BUCKETS: usize = 40;

/// `enum migrate_reason` has 11 values on 7.3; what is beyond lands in the last slot.
pub const REASONS: u32 = 16;

/// CPUs whose node the probes know: as many as the kernel takes on x86-64.
pub const MAX_CPUS: u32 = 8192;

/// Processes that one map holds; further ones are counted in [`Lost`].
pub const MAX_TASKS: u32 = 16384;

/// Processes × nodes they ran on; most stay on one or two.
pub const MAX_CPU_TIMES: u32 = 2 * MAX_TASKS;

/// Processes × nodes they ran on × nodes they met memory on.
pub const MAX_HINTS: u32 = 4 * MAX_TASKS;

/// Slots by number of the thread, for calls that few threads are in at a time.
pub const STAMPS: u32 = 8192;

/// Slots by number of the thread, for those that migrate. A power of two.
pub const MAX_CALLERS: u32 = 4096;

/// Processes whose touched pages are kept; each takes a little more than 4 KiB.
pub const MAX_TOUCHED: u32 = 4096;

/// Pages kept of one process: a power of two.
pub const TOUCHED_SLOTS: usize = 512;

/// Threads of the controller that move at the same time.
pub const MAX_MOVERS: u32 = 64;

/// Period of the CPU sampling clock: 99 samples a second on each busy CPU.
pub const SAMPLE_PERIOD_NS: u64 = 1_000_000_000 / 99;

/// What is counted of each process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Folios that somebody tried to take off their LRU list.
    IsolationTried = 0,
    /// Of those, the ones that were busy or on no list.
    IsolationRefused = 1,
    /// Folios put back on their list without having moved; not by compaction, whose attempts do
    /// not count above either.
    IsolationPutBack = 2,
    /// Minor faults, as `getrusage` has them, of those of its threads that have exited.
    ExitedMinor = 3,
    /// Major faults of those of its threads that have exited.
    ExitedMajor = 4,
    /// Times that a thread with a memory policy of its own was found on a CPU.
    PolicySamples = 5,
    /// Page faults that a write to a protected page made: copy on write above all.
    FaultsWriteProtect = 6,
    /// Page faults on pages that were in swap.
    FaultsSwapIn = 7,
    /// Times that a thread met a page that was being migrated, and waited for it.
    Waits = 8,
    /// How long those waits took together, ns.
    WaitNanos = 9,
    /// Times that a thread had to wait for the lock of its address space, mmap_lock.
    LockWaits = 10,
    /// How long those waits took together, ns; without what a writer spins before it sleeps.
    LockWaitNanos = 11,
    /// Times that the process, or a thread of it, was attached to a cgroup.
    Attached = 12,
    /// Times that the nodes that a thread may use changed, by its cpuset or by another one.
    MemsChanged = 13,
}

/// Number of [`Counter`]s.
pub const COUNTERS: u32 = 14;

/// What one process did and had done to it since its slot was made. Key: tgid.
#[repr(transparent)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct TaskCounters(pub [u64; COUNTERS as usize]);

impl TaskCounters {
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    pub fn add(&mut self, more: &Self) {
        for (sum, more) in self.0.iter_mut().zip(&more.0) {
            *sum += more;
        }
    }

    /// What has come since; saturating, as a slot that was made anew starts at 0.
    pub fn since(&self, before: &Self) -> Self {
        let mut grown = *self;
        for (now, before) in grown.0.iter_mut().zip(&before.0) {
            *now = now.saturating_sub(*before);
        }
        grown
    }
}

/// Who runs on a CPU since when.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Since {
    /// 0: nobody, or not known yet.
    pub tgid: u64,
    /// CLOCK_MONOTONIC, ns.
    pub at: u64,
}

/// Key of CPU time: a process and the node whose CPU it ran on.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuKey {
    pub tgid: u32,
    pub node: u32,
}

/// Key of NUMA-hint faults: who, running on which node, met a page on which node.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HintKey {
    pub tgid: u32,
    pub cpu_node: u16,
    pub memory_node: u16,
}

/// NUMA-hint faults of one [`HintKey`].
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Hints {
    pub faults: u64,
    /// 4 KiB pages that they met; a huge page is one fault and 512 pages.
    pub pages: u64,
}

impl Hints {
    /// What has been added since.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            faults: self.faults.saturating_sub(before.faults),
            pages: self.pages.saturating_sub(before.pages),
        }
    }

    pub fn add(&mut self, more: &Self) {
        self.faults += more.faults;
        self.pages += more.pages;
    }
}

/// Key of threads that went to another node: whose, and from which node's CPUs to which.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CrossKey {
    pub tgid: u32,
    pub from: u16,
    pub to: u16,
}

/// Key of migrations: the process whose pages moved, why, and who did it.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MigrationKey {
    pub tgid: u32,
    /// `enum migrate_reason` of the running kernel, or one of ours.
    pub reason: u32,
    /// The process of the thread that migrated them.
    pub caller: u32,
}

/// Sums over the `migrate_pages()` calls of one [`MigrationKey`].
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct MigrationTotals {
    pub calls: u64,
    /// 4 KiB pages; a huge page counts 512.
    pub moved: u64,
    pub failed: u64,
    pub nanos: u64,
}

impl MigrationTotals {
    /// What has come since; saturating.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(before.calls),
            moved: self.moved.saturating_sub(before.moved),
            failed: self.failed.saturating_sub(before.failed),
            nanos: self.nanos.saturating_sub(before.nanos),
        }
    }
}

/// How often something happened and how long it took.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durations {
    /// Those too whose duration is lost.
    pub calls: u64,
    pub nanos: u64,
    pub buckets: [u64; BUCKETS],
}

impl Durations {
    /// Adds the calls of another source.
    pub fn add(&mut self, more: &Self) {
        self.calls += more.calls;
        self.nanos += more.nanos;
        for (slot, more) in self.buckets.iter_mut().zip(&more.buckets) {
            *slot += more;
        }
    }
}

impl Default for Durations {
    fn default() -> Self {
        Self { calls: 0, nanos: 0, buckets: [0; BUCKETS] }
    }
}

/// Everybody's `migrate_pages()` calls of one reason.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Migrations {
    pub durations: Durations,
    /// 4 KiB pages; a huge page counts 512.
    pub moved: u64,
    pub failed: u64,
    /// Huge pages, each once: moved whole, failed, and split on the way.
    pub huge_moved: u64,
    pub huge_failed: u64,
    pub huge_split: u64,
    /// Calls by `enum migrate_mode`: asynchronous, light, synchronous.
    pub modes: [u64; MODES],
}

impl Migrations {
    /// Adds the calls of another source.
    pub fn add(&mut self, more: &Self) {
        self.durations.add(&more.durations);
        self.moved += more.moved;
        self.failed += more.failed;
        self.huge_moved += more.huge_moved;
        self.huge_failed += more.huge_failed;
        self.huge_split += more.huge_split;
        for (calls, more) in self.modes.iter_mut().zip(&more.modes) {
            *calls += more;
        }
    }
}

/// `enum migrate_mode` has 4 values until 6.1 and 3 from 6.12; none of ours is beyond.
pub const MODES: usize = 4;

/// Why pages are migrated, or taken off their LRU: the kernel's reasons and ours.
pub const ALL_REASONS: u32 = REASONS + 4;
/// A move of ours.
pub const REASON_OWN: u32 = REASONS;
/// A cpuset that changed its nodes: no system call of the process, though the kernel says so.
pub const REASON_CPUSET: u32 = REASONS + 1;
/// The kernel's thread that makes huge pages; it copies and does not migrate.
pub const REASON_KHUGEPAGED: u32 = REASONS + 2;
/// Nothing that we know of, such as `madvise`.
pub const REASON_OTHER: u32 = REASONS + 3;

/// What happened to folios of one node for one reason.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Isolated {
    /// Taken off their LRU list, or refused.
    pub tried: u64,
    pub refused: u64,
    pub put_back: u64,
}

impl Isolated {
    /// What one process counted.
    pub fn of(counters: &TaskCounters) -> Self {
        Self {
            tried: counters.get(Counter::IsolationTried),
            refused: counters.get(Counter::IsolationRefused),
            put_back: counters.get(Counter::IsolationPutBack),
        }
    }

    /// Share of the folios taken that had to be put back; none where none was taken.
    pub fn unmovable(&self) -> Option<f32> {
        let taken = self.tried.saturating_sub(self.refused);
        (taken > 0).then(|| self.put_back as f32 / taken as f32)
    }

    /// Adds what another CPU counted.
    pub fn add(&mut self, more: &Self) {
        self.tried += more.tried;
        self.refused += more.refused;
        self.put_back += more.put_back;
    }
}

/// Pages of one node that were looked at and taken off the LRU lists.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Scanned {
    pub scanned: u64,
    pub taken: u64,
}

impl Scanned {
    /// Adds what another CPU counted.
    pub fn add(&mut self, more: &Self) {
        self.scanned += more.scanned;
        self.taken += more.taken;
    }
}

/// Who takes pages by the batch: the second part of a slot of the `SCANS` array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Scan {
    Reclaim = 0,
    Compaction = 1,
}

/// Number of [`Scan`]s.
pub const SCAN_KINDS: u32 = 2;

/// Ways to drain the per-CPU LRU caches: slots of the `DRAINS` array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Drain {
    /// `lru_cache_disable`, with which a migration begins.
    CacheDisable = 0,
    /// `lru_add_drain_all`.
    DrainAll = 1,
}

/// Number of [`Drain`]s.
pub const DRAIN_KINDS: u32 = 2;

/// Page faults whose duration is sampled: slots of the `FAULT_TIME` array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FaultKind {
    Minor = 0,
    Major = 1,
}

/// Number of [`FaultKind`]s.
pub const FAULT_KINDS: u32 = 2;

/// Some pages that a process touched, by a hash of theirs. Key: tgid.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Page numbers, address ÷ 4096; 0: none.
    pub pages: [u64; TOUCHED_SLOTS],
}

impl Touched {
    /// The slot of a page with this hash, and its rank there. The bits below the uppermost 16 of
    /// a product are as mixed as those, and no two uses share any.
    #[inline(always)]
    #[must_use]
    pub const fn place(hash: u64) -> (usize, u64) {
        ((hash >> 40) as usize & (TOUCHED_SLOTS - 1), (hash >> 8) & 0xffff_ffff)
    }
}

/// A move of ours while it runs. Key: thread id of the mover. The controller
/// makes the slot, the probes on that thread fill it.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct OwnMove {
    pub target: u32,
    /// 1 once the target's last thread has exited while the move was running.
    pub died_inside: u32,
    pub moved: u64,
    pub failed: u64,
    pub tried: u64,
    pub refused: u64,
    pub put_back: u64,
    /// Huge pages among those moved, each once.
    pub huge: u64,
}

/// Slots of the `LOST` array: what could not be counted, mostly by the map that had no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Lost {
    /// Additions to a counter of a process; the sums of all processes have them.
    Tasks = 0,
    /// Samples, or switches.
    CpuTime = 1,
    /// Hint faults, or what a huge page weighs more than a page.
    Hints = 2,
    /// Migrations, for the process; the sums by reason have them.
    Migrations = 3,
    /// Calls that are charged to who makes them.
    Callers = 4,
    Crossings = 5,
    /// Pages.
    Touched = 6,
    /// Of calls whose beginning was not seen, or whose slot another thread took meanwhile; the
    /// call itself is counted.
    Durations = 7,
    /// Batches of compaction whose slot another thread took meanwhile.
    Scans = 8,
}

/// Number of [`Lost`] slots.
pub const LOST_SLOTS: u32 = 9;

const _: () = {
    assert!(size_of::<TaskCounters>() == 8 * COUNTERS as usize);
    assert!(size_of::<Isolated>() == 24);
    assert!(size_of::<Scanned>() == 16);
    assert!(size_of::<CrossKey>() == 8);
    assert!(MAX_CALLERS.is_power_of_two());
    assert!(size_of::<CpuKey>() == 8);
    assert!(size_of::<Since>() == 16);
    assert!(size_of::<HintKey>() == 8);
    assert!(size_of::<Hints>() == 16);
    assert!(size_of::<MigrationKey>() == 12);
    assert!(size_of::<MigrationTotals>() == 32);
    assert!(size_of::<Durations>() == 16 + 8 * BUCKETS);
    assert!(size_of::<Migrations>() == 16 + 8 * BUCKETS + 8 * (5 + MODES));
    assert!(size_of::<OwnMove>() == 56);
    assert!(TOUCHED_SLOTS.is_power_of_two());
    assert!(size_of::<Touched>() == 8 * TOUCHED_SLOTS);
};

#[cfg(feature = "user")]
mod user {
    use super::{
        CpuKey, CrossKey, Durations, HintKey, Hints, Isolated, MigrationKey, MigrationTotals,
        Migrations, OwnMove, Scanned, Since, TaskCounters, Touched,
    };

    macro_rules! plain {
        ($($type:ty),*) => {$(
            // SAFETY: the type is `repr(C)`, made of integers only and has no padding (asserted above).
            unsafe impl aya::Pod for $type {}
        )*};
    }
    plain!(
        TaskCounters,
        Isolated,
        Scanned,
        Since,
        CpuKey,
        CrossKey,
        HintKey,
        Hints,
        MigrationKey,
        MigrationTotals,
        Migrations,
        Durations,
        OwnMove,
        Touched
    );
}
