//! What the kernel itself says: never our probes, never our sampler.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use migrate_ctl::model::NodeId;
use migrate_ctl::procfs::{Kind, numa_maps};

use crate::sys;

/// Private anonymous pages of a process on a node, by `/proc/PID/numa_maps`.
pub(crate) fn pages_on(pid: u32, node: u16) -> Result<u64> {
    let maps = numa_maps(Path::new("/"), pid)
        .with_context(|| format!("read the numa_maps of process {pid}"))?;
    let private = maps.mappings.iter().filter(|mapping| mapping.kind == Kind::Anonymous);
    Ok(private.map(|mapping| mapping.on(NodeId(node))).sum())
}

/// One counter of `/proc/vmstat`; 0 where this kernel does not have it.
pub(crate) fn vmstat(name: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/vmstat").context("read /proc/vmstat")?;
    let found = text.lines().filter_map(|line| line.split_once(' ')).find(|(key, _)| *key == name);
    Ok(found.map_or(Ok(0), |(_, value)| value.parse())?)
}

/// BPF programs that are loaded on this machine, by anyone.
pub(crate) fn programs() -> Result<usize> {
    Ok(sys::loaded_programs().context("list the loaded BPF programs")?.len())
}
