//! Which node a page frame is on.
//!
//! Owns the physical ranges, taken from the hotplug blocks that sysfs links
//! to their nodes. Without hotplug there are none, and placement asks the
//! kernel page by page instead.

use std::collections::BTreeMap;
use std::path::Path;

use super::{TopologyError, format_error, read};
use crate::model::{Node, NodeId, each_node};
use crate::sys::PAGE_SIZE;

const BLOCK_SIZE: &str = "sys/devices/system/memory/block_size_bytes";

/// Ranges of frames, ascending, disjoint; neighbours of one node are merged.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frames(Vec<Range>);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    first: u64,
    /// One past the last.
    end: u64,
    node: Node,
}

impl Frames {
    pub(super) fn all_on(node: Node) -> Self {
        Self(vec![Range { first: 0, end: u64::MAX, node }])
    }

    pub(super) fn read(root: &Path, folder: &Path, ids: &[NodeId]) -> Result<Self, TopologyError> {
        if ids.len() == 1 {
            return Ok(Self::all_on(Node(0)));
        }
        let file = root.join(BLOCK_SIZE);
        if !file.exists() {
            return Ok(Self(Vec::new()));
        }
        let text = read(&file)?;
        let bytes = u64::from_str_radix(text.trim(), 16).ok().filter(|&size| size >= PAGE_SIZE);
        let bytes = bytes.ok_or_else(|| format_error(&file, &text, "a size in hexadecimal"))?;
        let mut owners: BTreeMap<u64, Option<Node>> = BTreeMap::new();
        for (node, id) in each_node(ids.len()).zip(ids) {
            for block in blocks(&folder.join(format!("node{id}")))? {
                // A block with two nodes says nothing about any of its frames.
                owners.entry(block).and_modify(|owner| *owner = None).or_insert(Some(node));
            }
        }
        Ok(Self::merge(&owners, bytes / PAGE_SIZE))
    }

    pub(super) fn node_of(&self, frame: u64) -> Option<Node> {
        let after = self.0.partition_point(|range| range.first <= frame);
        let range = self.0.get(after.checked_sub(1)?)?;
        (frame < range.end).then_some(range.node)
    }

    #[cfg(test)]
    pub(super) fn ranges(&self) -> usize {
        self.0.len()
    }

    fn merge(owners: &BTreeMap<u64, Option<Node>>, block_frames: u64) -> Self {
        let mut ranges: Vec<Range> = Vec::new();
        for (&block, &owner) in owners {
            let Some(node) = owner else { continue };
            let first = block.saturating_mul(block_frames);
            let end = first.saturating_add(block_frames);
            match ranges.last_mut() {
                Some(last) if last.node == node && last.end == first => last.end = end,
                _ => ranges.push(Range { first, end, node }),
            }
        }
        Self(ranges)
    }
}

/// Numbers of the `memoryM` links in a node's folder.
fn blocks(folder: &Path) -> Result<Vec<u64>, TopologyError> {
    let failed = |source| TopologyError::Read { file: folder.into(), source };
    let mut blocks = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("memory"));
        blocks.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(blocks)
}
