//! One move that a person asked for: `migrate-ctl migrate`.
//!
//! The direct move of the parent module, for one source node, but proven page
//! by page with numa_maps before and after, which a daemon could not afford.
//! Nobody's policy is asked: an explicit memory policy is only pointed out.

use std::collections::BTreeMap;
use std::path::Path;
use std::{io, thread};

use serde::Serialize;

use super::{is_gone, pin};
use crate::model::{Nanos, NodeId, NodeObs, Pages, PidRef, each_node};
use crate::procfs::{Kind, Mapping, NumaMaps, Process, Vmstat, numa_maps, printable, process};
use crate::sys::{self, CapabilitySet, Errno};
use crate::topology::Topology;

mod error;
mod report;

pub use error::{HandError, HandErrorKind};

/// What a move by hand did. `Display` says it in a few lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HandReport {
    pub pid: u32,
    pub comm: String,
    pub from: NodeId,
    pub to: NodeId,
    /// Whether shared pages were to come along.
    pub shared: bool,
    /// With `shared`: what was taken away from other processes, the largest first.
    pub dragged: Vec<SharedMapping>,
    /// Left `from` and arrived on `to`.
    pub moved: Pages,
    pub stayed: Stayed,
    pub nodes: Vec<NodePages>,
    /// What the whole machine migrated meanwhile, by /proc/vmstat; none where it could not be read.
    pub kernel: Option<KernelCount>,
    /// Policies other than `default`, and the mappings that have them.
    pub policies: BTreeMap<String, usize>,
    /// The system call, wall time.
    pub duration: Nanos,
}

/// Pages that are on the source node afterwards, by the reason that their mapping suggests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stayed {
    /// In mappings of which other processes map pages too.
    pub shared: Pages,
    /// In files that only this process maps.
    pub file: Pages,
    /// Could have moved: busy, pinned, or faulted in again meanwhile.
    pub refused_or_pinned: Pages,
    /// Were not there before.
    pub arrived_since: Pages,
}

/// A mapping with pages on the source node that other processes map too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SharedMapping {
    pub name: String,
    pub pages: Pages,
    /// The most processes that map one of its pages.
    pub processes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NodePages {
    pub node: NodeId,
    pub before: Pages,
    pub after: Pages,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KernelCount {
    pub migrated: Pages,
    pub failed: Pages,
}

/// Moves what a process has on one node to another; pages of several processes only if `shared`.
///
/// # Errors
/// See [`HandError`]; nothing was moved then, unless the process died during the move.
pub fn by_hand(
    root: &Path,
    topology: &Topology,
    pid: u32,
    from: NodeId,
    to: NodeId,
    shared: bool,
) -> Result<HandReport, HandError> {
    check_nodes(topology, from, to)?;
    let target = target(root, pid, to)?;
    let before = maps(root, pid)?;
    check_room(root, topology, &before, from, to, shared)?;
    let counted = kernel_count(root);
    let duration = call(root, target.id, from, to, shared)?;
    let kernel = counted.and_then(|earlier| kernel_count(root)?.since(earlier));
    let after = maps(root, pid)?;
    // The maps could be those of the number's next owner.
    if process(root, pid).is_none_or(|now| now.id != target.id) {
        return Err(HandError::Gone { pid });
    }
    let stayed = stayed(&before, &after, from, shared);
    let left = on(&before, from).saturating_sub(on(&after, from) - stayed.arrived_since);
    Ok(HandReport {
        pid,
        comm: printable(&target.comm),
        from,
        to,
        shared,
        dragged: if shared { dragged(&before, from) } else { Vec::new() },
        moved: left.min(on(&after, to).saturating_sub(on(&before, to))),
        stayed,
        nodes: each_node(topology.len())
            .map(|node| topology.id(node))
            .map(|node| NodePages { node, before: on(&before, node), after: on(&after, node) })
            .collect(),
        kernel,
        policies: policies(&after),
        duration,
    })
}

/// What a move with `shared` would take away from other processes, the largest first.
///
/// # Errors
/// The process is gone or not ours to look at.
pub fn shared_mappings(
    root: &Path,
    pid: u32,
    from: NodeId,
) -> Result<Vec<SharedMapping>, HandError> {
    Ok(dragged(&maps(root, pid)?, from))
}

fn check_nodes(topology: &Topology, from: NodeId, to: NodeId) -> Result<(), HandError> {
    let list = |with_memory: bool| {
        let nodes = each_node(topology.len());
        let nodes = nodes.filter(|&node| !with_memory || topology.has_memory(node));
        join(nodes.map(|node| topology.id(node)))
    };
    for id in [from, to] {
        let Some(node) = topology.node(id) else {
            return Err(HandError::UnknownNode { node: id, known: list(false) });
        };
        if !topology.has_memory(node) {
            return Err(HandError::NoMemory { node: id, known: list(true) });
        }
    }
    if from == to { Err(HandError::SameNode { node: to }) } else { Ok(()) }
}

/// The kernel would say no more than EPERM or EINVAL to what is refused here.
fn target(root: &Path, pid: u32, to: NodeId) -> Result<Process, HandError> {
    let target = process(root, pid).ok_or(HandError::Gone { pid })?;
    if target.kernel_thread {
        return Err(HandError::KernelThread { pid, comm: printable(&target.comm) });
    }
    // Empty where the kernel has no cpusets.
    if !target.mems_allowed.is_empty() && !target.mems_allowed.contains(&to) {
        let allowed = join(target.mems_allowed.iter().copied());
        return Err(HandError::Cpuset { pid, node: to, allowed });
    }
    Ok(target)
}

/// Beyond the high watermark and half of the inactive page cache, memory would have to be
/// reclaimed from somebody, or the pages would be swapped out.
fn check_room(
    root: &Path,
    topology: &Topology,
    before: &NumaMaps,
    from: NodeId,
    to: NodeId,
    shared: bool,
) -> Result<(), HandError> {
    let movable = before.mappings.iter().filter(|mapping| shared || mapping.mapmax <= 1);
    let needed = movable.map(|mapping| mapping.on(from)).sum();
    let nodes = topology.observe(root)?;
    let room = nodes.values().find(|node| node.id == to).map_or(0, NodeObs::room);
    if needed > room { Err(HandError::NoRoom { node: to, room, needed }) } else { Ok(()) }
}

/// The call itself, on a thread that has CAP_SYS_NICE exactly if shared pages are to move.
fn call(
    root: &Path,
    target: PidRef,
    from: NodeId,
    to: NodeId,
    shared: bool,
) -> Result<Nanos, HandError> {
    let pid = target.pid;
    if shared && !sys::has_cap(CapabilitySet::SYS_NICE) {
        return Err(HandError::NotPermitted { pid, needed: "CAP_SYS_NICE, which --shared takes" });
    }
    let internal = |source| HandError::Kernel { pid, source };
    let pinned = pin(root, target).map_err(|_end| HandError::Gone { pid })?;
    let thread = thread::Builder::new().name("by-hand".into());
    let call = thread.spawn(move || {
        if !shared {
            sys::drop_sys_nice()?;
        }
        let began = sys::boottime();
        let result = sys::migrate_pages(pid, &[from], to);
        Ok((result, sys::boottime().saturating_sub(began)))
    });
    let (result, duration) = call
        .map_err(internal)?
        .join()
        .unwrap_or_else(|_panic| Err(io::Error::other("the moving thread has panicked")))
        .map_err(internal)?;
    let died = is_gone(root, target, &pinned);
    match result {
        Err(Errno::SRCH) => Err(HandError::Gone { pid }),
        Ok(_) | Err(_) if died => Err(HandError::Gone { pid }),
        Ok(_) => Ok(duration),
        Err(Errno::PERM) => Err(not_permitted(pid)),
        Err(errno) => Err(internal(errno.into())),
    }
}

fn maps(root: &Path, pid: u32) -> Result<NumaMaps, HandError> {
    numa_maps(root, pid).map_err(|source| match Errno::from_io_error(&source) {
        Some(Errno::NOENT | Errno::SRCH) => HandError::Gone { pid },
        Some(Errno::PERM | Errno::ACCESS) => not_permitted(pid),
        _ => HandError::Kernel { pid, source },
    })
}

fn not_permitted(pid: u32) -> HandError {
    HandError::NotPermitted { pid, needed: "CAP_SYS_PTRACE" }
}

fn on(maps: &NumaMaps, node: NodeId) -> Pages {
    maps.mappings.iter().map(|mapping| mapping.on(node)).sum()
}

fn stayed(before: &NumaMaps, after: &NumaMaps, from: NodeId, shared: bool) -> Stayed {
    let earlier: BTreeMap<u64, Pages> =
        before.mappings.iter().map(|mapping| (mapping.start, mapping.on(from))).collect();
    let mut stayed = Stayed::default();
    for mapping in &after.mappings {
        let now = mapping.on(from);
        let was = earlier.get(&mapping.start).copied().unwrap_or(0);
        stayed.arrived_since += now.saturating_sub(was);
        let kept = now.min(was);
        match (mapping.mapmax > 1, mapping.kind) {
            (true, _) if !shared => stayed.shared += kept,
            (false, Kind::File) => stayed.file += kept,
            (_, Kind::Anonymous | Kind::File | Kind::Shared) => stayed.refused_or_pinned += kept,
        }
    }
    stayed
}

fn dragged(maps: &NumaMaps, from: NodeId) -> Vec<SharedMapping> {
    let mut names: BTreeMap<String, (Pages, u64)> = BTreeMap::new();
    for mapping in maps.mappings.iter().filter(|m| m.mapmax > 1 && m.on(from) > 0) {
        let (pages, processes) = names.entry(name(mapping)).or_default();
        *pages += mapping.on(from);
        *processes = mapping.mapmax.max(*processes);
    }
    let mut mappings: Vec<SharedMapping> = names
        .into_iter()
        .map(|(name, (pages, processes))| SharedMapping { name, pages, processes })
        .collect();
    mappings.sort_by_key(|mapping| std::cmp::Reverse(mapping.pages));
    mappings
}

fn name(mapping: &Mapping) -> String {
    if mapping.name.is_empty() { "anonymous memory".into() } else { printable(&mapping.name) }
}

fn policies(maps: &NumaMaps) -> BTreeMap<String, usize> {
    let mut policies = BTreeMap::new();
    for mapping in maps.mappings.iter().filter(|mapping| mapping.policy != "default") {
        *policies.entry(mapping.policy.clone()).or_insert(0) += 1;
    }
    policies
}

fn kernel_count(root: &Path) -> Option<KernelCount> {
    let vmstat = Vmstat::read(root)?;
    Some(KernelCount {
        migrated: vmstat.get("pgmigrate_success")?,
        failed: vmstat.get("pgmigrate_fail")?,
    })
}

impl KernelCount {
    fn since(self, earlier: Self) -> Option<Self> {
        let migrated = self.migrated.checked_sub(earlier.migrated)?;
        Some(Self { migrated, failed: self.failed.checked_sub(earlier.failed)? })
    }
}

fn join(nodes: impl Iterator<Item = NodeId>) -> String {
    nodes.map(|node| node.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
