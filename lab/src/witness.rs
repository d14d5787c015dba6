//! Truth that does not come from our own probes: numa_maps, vmstat, the clock.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use migrate_ctl::model::NodeId;
use migrate_ctl::procfs::{Kind, numa_maps};

/// Private anonymous pages of a process on one node, by numa_maps.
pub(crate) fn anon_on(pid: u32, node: u16) -> Result<u64> {
    let maps = numa_maps(Path::new("/"), pid).with_context(|| format!("numa_maps of {pid}"))?;
    let private = maps.mappings.iter().filter(|map| map.kind == Kind::Anonymous && map.mapmax <= 1);
    Ok(private.map(|map| map.on(NodeId(node))).sum())
}

/// A counter of /proc/vmstat; 0 where this kernel has none of that name.
pub(crate) fn vmstat(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// CPUs of a node.
pub(crate) fn cpus_of(node: u16) -> Vec<usize> {
    let list = fs::read_to_string(format!("/sys/devices/system/node/node{node}/cpulist"));
    let list = list.unwrap_or_default();
    let ranges = list.trim().split(',').filter(|range| !range.is_empty());
    ranges
        .flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse().unwrap_or(0)..=last.parse().unwrap_or(0)
        })
        .collect()
}

/// Threads of a process.
pub(crate) fn threads_of(pid: u32) -> Vec<u32> {
    let folder = fs::read_dir(format!("/proc/{pid}/task"));
    let names = folder.into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_string_lossy().parse().ok()).collect()
}
