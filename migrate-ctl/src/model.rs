//! What flows: the values that each stage hands to the next.
//!
//! Owns the types only; no stage's logic lives here. A [`Node`] is a position
//! in the topology, dense from 0; a [`NodeId`] is the kernel's number, which may
//! be sparse. Only `topology` converts between the two.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

mod moves;
mod decision;

pub use decision::{Decision, Forecast, Reason, Rule, Verdict};
pub use moves::{End, Leg, Order, Outcome, Why};

/// Nanoseconds of CLOCK_BOOTTIME, or a span of it.
pub type Nanos = u64;
/// 4 KiB pages.
pub type Pages = u64;

/// Position of a node in the topology, 0 ≤ node < number of nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Node(pub u16);

/// The kernel's number of a node, as in `/sys/devices/system/node/nodeN`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NodeId(pub u16);

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Values that lie in place: hardly a machine has more nodes, and a tick walks through tens of
/// thousands of such vectors, where each further step to memory elsewhere would be waited for.
const INLINE: usize = 8;

/// One value per node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeVec<T>(SmallVec<[T; INLINE]>);

impl<T> Default for NodeVec<T> {
    /// Empty: nothing is known of any node.
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<T> NodeVec<T> {
    pub fn filled(nodes: usize, value: T) -> Self
    where
        T: Clone,
    {
        Self(SmallVec::from_elem(value, nodes))
    }

    pub fn from_fn(nodes: usize, f: impl FnMut(Node) -> T) -> Self {
        Self(each_node(nodes).map(f).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Node, &T)> {
        each_node(self.0.len()).zip(&self.0)
    }

    pub fn values(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    pub fn values_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.0.iter_mut()
    }

    pub fn get(&self, node: Node) -> Option<&T> {
        self.0.get(usize::from(node.0))
    }

    pub fn get_mut(&mut self, node: Node) -> Option<&mut T> {
        self.0.get_mut(usize::from(node.0))
    }
}

/// All positions of a machine with so many nodes.
pub fn each_node(nodes: usize) -> impl Iterator<Item = Node> {
    // Linux has at most 1,024 nodes (NODES_SHIFT 10), so the count fits.
    (0..u16::try_from(nodes).unwrap_or(u16::MAX)).map(Node)
}

impl<T> Index<Node> for NodeVec<T> {
    type Output = T;
    fn index(&self, node: Node) -> &T {
        &self.0[usize::from(node.0)]
    }
}

impl<T> IndexMut<Node> for NodeVec<T> {
    fn index_mut(&mut self, node: Node) -> &mut T {
        &mut self.0[usize::from(node.0)]
    }
}

/// A set of nodes: `true` for its members.
pub type NodeMask = NodeVec<bool>;

/// Where an uncertain number comes from.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Distances of the firmware (SLIT) ÷ 10.
    Firmware,
    /// Pointers followed through flushed memory of each node.
    Measured,
    /// Set by the user.
    Configured,
    /// A stated assumption.
    #[default]
    Prior,
    /// Sampled frame numbers of `/proc/PID/pagemap`.
    Pagemap,
    /// `move_pages(2)` without nodes over sampled addresses.
    MovePages,
    /// CPU time by node × placement by node.
    CpuPlacement,
    /// CPU time for each call of the process, near its memory and far from it.
    Pace,
    /// What our own moves have cost.
    Moves,
}

impl Source {
    /// The word used in logs, metrics and JSON alike.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Measured => "measured",
            Self::Configured => "configured",
            Self::Prior => "prior",
            Self::Pagemap => "pagemap",
            Self::MovePages => "move_pages",
            Self::CpuPlacement => "cpu_placement",
            Self::Pace => "pace",
            Self::Moves => "moves",
        }
    }
}

/// A number that is not known exactly: `low ≤ mid ≤ high`, and its source.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Est {
    pub low: f32,
    pub mid: f32,
    pub high: f32,
    pub source: Source,
}

impl Est {
    /// Half-width of a 95 % interval in standard errors, where those follow the normal law.
    pub(crate) const WIDTH: f64 = 1.96;

    /// Nothing is lost and nothing saved.
    pub const NOTHING: Self = Self::exact(0.0, Source::Prior);

    /// The same, so many times as large.
    #[must_use]
    pub fn times(self, factor: f32) -> Self {
        let Self { low, mid, high, source } = self;
        Self { low: low * factor, mid: mid * factor, high: high * factor, source }
    }

    pub const fn exact(value: f32, source: Source) -> Self {
        Self { low: value, mid: value, high: value, source }
    }
}

/// A process, told apart from a later one with the same number by its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PidRef {
    pub pid: u32,
    /// Clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub start: u64,
}

/// What the sampler saw since its last round.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Tick {
    pub now: Nanos,
    /// Since the previous tick.
    pub dt: Nanos,
    /// Share of the CPU time of all online CPUs that was used, by anyone, 0 to 1.
    pub busy: f32,
    pub nodes: NodeVec<NodeObs>,
    /// Processes that used CPU time in this tick, by pid.
    pub domains: Vec<DomainObs>,
    /// Processes that have exited since the previous tick.
    pub gone: Vec<PidRef>,
}

impl Tick {
    /// Whether each extent is in it once, and by process: the policy walks through its table in
    /// step with it.
    pub fn is_in_order(&self) -> bool {
        let alone = |domain: &DomainObs| domain.extents.is_sorted_by(|a, b| a.id < b.id);
        self.domains.is_sorted_by(|a, b| a.id < b.id) && self.domains.iter().all(alone)
    }

    pub fn domain(&self, id: PidRef) -> Option<&DomainObs> {
        let found = self.domains.binary_search_by(|domain| domain.id.cmp(&id)).ok()?;
        self.domains.get(found)
    }
}

/// One node as sysfs and /proc/zoneinfo show it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NodeObs {
    pub id: NodeId,
    pub has_cpus: bool,
    pub has_memory: bool,
    pub free: Pages,
    /// Sum over the node's zones.
    pub high_watermark: Pages,
    pub inactive_file: Pages,
    /// Taken off its LRU lists by reclaim in this tick, for whomever.
    pub reclaimed: Pages,
    /// Latency from this node's CPUs to each node's memory ÷ local latency.
    pub latency: NodeVec<Est>,
}

impl NodeObs {
    /// Pages that may come here before memory has to be reclaimed from somebody: what is free
    /// above the high watermark, and half of the inactive page cache, since not all of it is clean.
    pub fn room(&self) -> Pages {
        self.free.saturating_add(self.inactive_file / 2).saturating_sub(self.high_watermark)
    }
}

/// What shares memory: for now one process.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DomainObs {
    pub id: PidRef,
    pub comm: String,
    /// Path in the unified hierarchy, or empty. Processes of one cgroup share it, so that who knows
    /// it need not read it.
    pub cgroup: Arc<str>,
    /// CPU time in this tick by the node it ran on.
    pub cpu: NodeVec<Nanos>,
    pub threads: u32,
    /// `read(2)`, `write(2)` and their kin since it was looked at last, 0 the first time: the work
    /// that the kernel sees of it without a probe.
    pub calls: u64,
    /// CPU time since then, read beside the calls: `cpu` is of another moment of the tick, which would
    /// blur what a call takes.
    pub calls_cpu: Nanos,
    /// Page faults since it was looked at last; 0 the first time.
    pub faults: Faults,
    /// Faults of this tick on pages that were in swap.
    pub swapped_in: u64,
    /// How long its threads waited in this tick for pages under migration and for the lock of
    /// their address space, added up; waits that ended in it.
    pub waited: Nanos,
    /// Pages by which its resident set has grown since then.
    pub grown: i64,
    /// Samples of its loads in this tick; all 0 where no PMU takes them.
    pub accesses: Accesses,
    /// NUMA-hint faults of this tick.
    pub hints: Vec<HintObs>,
    /// What was migrated of it in this tick, by anyone.
    pub migrated: Vec<MigratedObs>,
    /// Share of its folios that had to be put back where they were, of those that anyone took off
    /// their LRU list to migrate them; none while nobody did.
    pub unmovable: Option<f32>,
    /// Share of the time that the same work takes on local memory which waits for memory.
    pub boundness: Est,
    pub extents: SmallVec<[ExtentObs; 1]>,
}

impl DomainObs {
    /// A process of which nothing was seen, on a machine with so many nodes.
    pub fn idle(id: PidRef, nodes: usize) -> Self {
        Self {
            id,
            comm: String::new(),
            cgroup: Arc::default(),
            cpu: NodeVec::filled(nodes, 0),
            threads: 1,
            calls: 0,
            calls_cpu: 0,
            faults: Faults::default(),
            swapped_in: 0,
            waited: 0,
            grown: 0,
            accesses: Accesses::default(),
            hints: Vec::new(),
            migrated: Vec::new(),
            unmovable: None,
            boundness: Est::NOTHING,
            extents: SmallVec::new(),
        }
    }
}

/// Page faults as the kernel counts them for `getrusage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    pub minor: u64,
    /// Those that waited for a device.
    pub major: u64,
}

impl Faults {
    /// What has come since; saturating.
    pub fn since(self, before: Self) -> Self {
        Self {
            minor: self.minor.saturating_sub(before.minor),
            major: self.major.saturating_sub(before.major),
        }
    }
}

/// NUMA-hint faults: who touched which page, never how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintObs {
    /// Where the thread ran, and where the page was.
    pub cpu: Node,
    pub memory: Node,
    pub faults: u64,
    pub pages: Pages,
}

/// Pages that were migrated for one reason by one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigratedObs {
    /// As the running kernel names it, or one of ours.
    pub reason: String,
    /// The process of the thread that did it.
    pub caller: u32,
    pub pages: Pages,
    pub failed: Pages,
}

/// Samples of loads, by what answered them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accesses {
    /// Memory of the CPU's own node.
    pub local: u64,
    /// Memory of another node.
    pub remote: u64,
    /// A cache, a device, or the processor does not say.
    pub other: u64,
}

impl Accesses {
    pub fn add(&mut self, more: Self) {
        self.local += more.local;
        self.remote += more.remote;
        self.other += more.other;
    }
}

/// A class of a domain's memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Of no file and nobody else's. The only one that moves.
    PrivateAnonymous,
    /// System V, memfd, `/dev/shm`, `/dev/zero`.
    Shared,
    /// Page cache, mapped privately or shared.
    File,
    /// Of hugetlbfs; transparent huge pages belong to the classes above.
    Hugetlb,
}

impl Class {
    pub const ALL: [Self; 4] = [Self::PrivateAnonymous, Self::Shared, Self::File, Self::Hugetlb];

    /// The word used in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PrivateAnonymous => "private_anonymous",
            Self::Shared => "shared",
            Self::File => "file",
            Self::Hugetlb => "hugetlb",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ExtentId {
    pub domain: PidRef,
    pub class: Class,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ExtentObs {
    pub id: ExtentId,
    /// Resident pages by node; empty while nothing is known.
    pub pages: NodeVec<Est>,
    /// All resident pages of the class, those too that others map or that were not found.
    pub resident: Pages,
    /// Share of `pages` in huge pages, 0 to 1.
    pub huge: f32,
    /// The most that a direct move takes along besides: pages of other classes, which follow
    /// where nobody else maps them.
    pub alongside: Pages,
    pub mempolicy: Mempolicy,
    /// `Mems_allowed` of the process: its cpuset's nodes.
    pub allowed: NodeMask,
}

impl ExtentObs {
    /// Private anonymous memory of which nothing is known, allowed on all of so many nodes.
    pub fn unknown(domain: PidRef, nodes: usize) -> Self {
        Self {
            id: ExtentId { domain, class: Class::PrivateAnonymous },
            pages: NodeVec::default(),
            resident: 0,
            huge: 0.0,
            alongside: 0,
            mempolicy: Mempolicy::Unknown,
            allowed: NodeVec::filled(nodes, true),
        }
    }
}

/// What the process's owner asked the kernel for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mempolicy {
    /// Not looked at yet, or could not be read.
    Unknown,
    /// Neither the task nor any mapping has one.
    Default,
    /// A task or a mapping has one: the placement is deliberate.
    Explicit,
}

/// Everything that changes the task table.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are ticks")]
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    Tick(Tick),
    /// The mover has been given this order.
    Ordered(Order),
    /// This order was kept from the mover, to see what becomes of the process without it.
    HeldBack(Order),
    Progress(Outcome),
}
