//! The machine's nodes: which there are, their CPUs, distances and memory.
//!
//! Reads sysfs and zoneinfo below a root folder, so that a fixture is a
//! machine. Sparse numbers, nodes without memory and nodes without CPUs are
//! normal. What changes while we run (free memory) comes from [`Topology::observe`];
//! the rest is read once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::model::{Est, Node, NodeId, NodeObs, NodeVec, Pages, Source, each_node};
use crate::procfs::{parse_list, read_text};
use crate::sys::PAGE_SIZE;

mod frames;

use frames::Frames;

const NODES: &str = "sys/devices/system/node";
const CPUS: &str = "sys/devices/system/cpu/online";
const SYSTEM_CPUS: &str = "sys/devices/system/cpu";

/// Why the topology could not be read. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    #[error("read {}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{} says {value:?}, which is not {wanted}", file.display())]
    Format { file: PathBuf, value: String, wanted: &'static str },
}

/// The nodes that are online, by ascending number.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    nodes: Vec<NodeInfo>,
    cpus: BTreeMap<u32, Node>,
    /// CPUs that the scheduler or its clock leaves alone.
    isolated: BTreeSet<u32>,
    frames: Frames,
    /// Whether sysfs knows nodes; a kernel without CONFIG_NUMA does not.
    numa: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct NodeInfo {
    id: NodeId,
    has_memory: bool,
    has_cpus: bool,
    /// To each node, 10 is local.
    distances: Vec<u16>,
}

impl Topology {
    /// # Errors
    /// A file is missing or does not look like the kernel's.
    pub fn read(root: &Path) -> Result<Self, TopologyError> {
        let folder = root.join(NODES);
        if !folder.is_dir() {
            return Self::without_numa(root);
        }
        let ids = node_list(&folder.join("online"))?;
        let with_memory = node_list(&folder.join("has_memory"))?;
        let with_cpus = node_list(&folder.join("has_cpu"))?;
        if ids.is_empty() {
            return Err(format_error(&folder.join("online"), "", "a list of nodes"));
        }
        let isolated = isolated(root);
        let mut cpus = BTreeMap::new();
        let mut nodes = Vec::with_capacity(ids.len());
        for (node, &id) in each_node(ids.len()).zip(&ids) {
            let own = folder.join(format!("node{id}"));
            cpus.extend(number_list(&own.join("cpulist"))?.into_iter().map(|cpu| (cpu, node)));
            nodes.push(NodeInfo {
                id,
                has_memory: with_memory.contains(&id),
                has_cpus: with_cpus.contains(&id),
                distances: distances(&own.join("distance"), ids.len())?,
            });
        }
        let frames = Frames::read(root, &folder, &ids)?;
        Ok(Self { nodes, cpus, isolated, frames, numa: true })
    }

    /// CONFIG_NUMA is off: everything is on node 0.
    fn without_numa(root: &Path) -> Result<Self, TopologyError> {
        let cpus = Self::online_cpus(root)?.into_iter().map(|cpu| (cpu, Node(0)));
        let only =
            NodeInfo { id: NodeId(0), has_memory: true, has_cpus: true, distances: vec![10] };
        let frames = Frames::all_on(Node(0));
        let isolated = isolated(root);
        Ok(Self { nodes: vec![only], cpus: cpus.collect(), isolated, frames, numa: false })
    }

    /// The CPUs that are online now.
    ///
    /// # Errors
    /// As [`Topology::read`].
    pub fn online_cpus(root: &Path) -> Result<Vec<u32>, TopologyError> {
        number_list(&root.join(CPUS))
    }

    /// Number of nodes.
    #[expect(clippy::len_without_is_empty, reason = "a machine has at least one node")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The kernel's number of a node of this topology.
    pub fn id(&self, node: Node) -> NodeId {
        self.nodes[usize::from(node.0)].id
    }

    pub fn node(&self, id: NodeId) -> Option<Node> {
        let position = self.nodes.binary_search_by_key(&id, |node| node.id).ok()?;
        u16::try_from(position).ok().map(Node)
    }

    pub fn node_of_cpu(&self, cpu: u32) -> Option<Node> {
        self.cpus.get(&cpu).copied()
    }

    /// The CPUs that are online, by number.
    pub fn cpus(&self) -> impl Iterator<Item = (u32, Node)> {
        self.cpus.iter().map(|(&cpu, &node)| (cpu, node))
    }

    /// The CPUs of a node that their owner has not kept for somebody (`isolcpus`, `nohz_full`).
    pub fn common_cpus(&self, node: Node) -> impl Iterator<Item = u32> {
        let common =
            self.cpus().filter(move |(cpu, at)| *at == node && !self.isolated.contains(cpu));
        common.map(|(cpu, _)| cpu)
    }

    /// The node of a page frame; none where sysfs does not tell, as without memory hotplug or
    /// in a block that two nodes share.
    pub fn node_of_frame(&self, frame: u64) -> Option<Node> {
        self.frames.node_of(frame)
    }

    pub fn has_memory(&self, node: Node) -> bool {
        self.nodes[usize::from(node.0)].has_memory
    }

    /// Whether a page can be anywhere but near its CPU.
    pub fn matters(&self) -> bool {
        self.nodes.iter().filter(|node| node.has_memory).count() > 1
            && self.nodes.iter().any(|node| node.has_cpus)
    }

    /// What the nodes have now.
    ///
    /// # Errors
    /// A node went offline since [`Topology::read`], or a file does not look like the kernel's.
    pub fn observe(&self, root: &Path) -> Result<NodeVec<NodeObs>, TopologyError> {
        let zones = root.join("proc/zoneinfo");
        let watermarks = high_watermarks(&read(&zones)?);
        let mut seen = Vec::with_capacity(self.len());
        for node in each_node(self.len()) {
            let info = &self.nodes[usize::from(node.0)];
            let file = self.meminfo(root, info.id);
            let text = read(&file)?;
            seen.push(NodeObs {
                id: info.id,
                has_cpus: info.has_cpus,
                has_memory: info.has_memory,
                free: meminfo_pages(&file, &text, "MemFree:")?,
                high_watermark: watermarks.get(&info.id).copied().unwrap_or(0),
                inactive_file: meminfo_pages(&file, &text, "Inactive(file):")?,
                reclaimed: 0,
                latency: NodeVec::from_fn(self.len(), |to| {
                    let distance = f32::from(info.distances[usize::from(to.0)]);
                    Est::exact(distance / 10.0, Source::Firmware)
                }),
            });
        }
        Ok(NodeVec::from_fn(seen.len(), |node| seen[usize::from(node.0)].clone()))
    }

    fn meminfo(&self, root: &Path, id: NodeId) -> PathBuf {
        if self.numa {
            root.join(NODES).join(format!("node{id}/meminfo"))
        } else {
            root.join("proc/meminfo")
        }
    }
}

fn distances(file: &Path, nodes: usize) -> Result<Vec<u16>, TopologyError> {
    let text = read(file)?;
    let values: Option<Vec<u16>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    values
        .filter(|values| values.len() == nodes)
        .ok_or_else(|| format_error(file, &text, "one distance for each node that is online"))
}

/// Sum of `high` over the zones of each node. The lists of the per-CPU caches in the same file
/// say `high:`.
fn high_watermarks(zoneinfo: &str) -> BTreeMap<NodeId, Pages> {
    let mut sums = BTreeMap::new();
    let mut node = None;
    for line in zoneinfo.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Node"), Some(number)) => {
                node = number.trim_end_matches(',').parse().ok().map(NodeId);
            }
            (Some("high"), Some(pages)) => {
                if let (Some(node), Ok(pages)) = (node, pages.parse::<Pages>()) {
                    *sums.entry(node).or_insert(0) += pages;
                }
            }
            _ => {}
        }
    }
    sums
}

fn meminfo_pages(file: &Path, text: &str, key: &str) -> Result<Pages, TopologyError> {
    let kib = text.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != key);
        words.nth(1)?.parse::<u64>().ok()
    });
    kib.map(|kib| kib * 1024 / PAGE_SIZE)
        .ok_or_else(|| format_error(file, key, "a key with a number in it"))
}

/// Lists of `isolcpus` and `nohz_full`. A kernel without them has no such file, or says `(null)`.
fn isolated(root: &Path) -> BTreeSet<u32> {
    let lists = ["isolated", "nohz_full"].map(|list| root.join(SYSTEM_CPUS).join(list));
    lists.iter().flat_map(|list| number_list(list).unwrap_or_default()).collect()
}

fn node_list(file: &Path) -> Result<Vec<NodeId>, TopologyError> {
    let numbers = number_list(file)?;
    let ids = numbers.iter().map(|&number| u16::try_from(number).ok().map(NodeId));
    ids.collect::<Option<_>>()
        .ok_or_else(|| format_error(file, &format!("{numbers:?}"), "a list of nodes"))
}

fn number_list(file: &Path) -> Result<Vec<u32>, TopologyError> {
    let text = read(file)?;
    parse_list(&text).ok_or_else(|| format_error(file, &text, "a list like 0-3,8"))
}

fn read(file: &Path) -> Result<String, TopologyError> {
    read_text(file).map_err(|source| TopologyError::Read { file: file.into(), source })
}

fn format_error(file: &Path, value: &str, wanted: &'static str) -> TopologyError {
    let value = value.trim().chars().take(64).collect();
    TopologyError::Format { file: file.into(), value, wanted }
}

#[cfg(test)]
mod tests;
