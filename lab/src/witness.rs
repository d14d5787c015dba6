//! What the kernel itself says: never our probes, never our sampler.

use std::fs;
use std::path::Path;
use std::time::Instant;

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

/// One counter of a cgroup's `memory.stat`.
pub(crate) fn cgroup_stat(group: &str, name: &str) -> Result<u64> {
    let file = format!("{group}/memory.stat");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let found = text.lines().filter_map(|line| line.split_once(' ')).find(|(key, _)| *key == name);
    let (_, value) = found.with_context(|| format!("{file} has no {name}"))?;
    Ok(value.parse()?)
}

/// How long the calling thread does not run, by `/proc/thread-self/schedstat`.
pub(crate) struct OffCpu {
    began: Instant,
    ran: u64,
    queued: u64,
}

impl OffCpu {
    pub(crate) fn begin() -> Result<Self> {
        let (ran, queued) = schedstat()?;
        Ok(Self { began: Instant::now(), ran, queued })
    }

    /// In ns: asleep, and off the CPU, which is asleep or in the queue for one.
    pub(crate) fn end(self) -> Result<(u64, u64)> {
        let passed = u64::try_from(self.began.elapsed().as_nanos())?;
        let (ran, queued) = schedstat()?;
        let off = passed.saturating_sub(ran - self.ran);
        Ok((off.saturating_sub(queued - self.queued), off))
    }
}

/// Time on a CPU and in the queue for one, ns.
fn schedstat() -> Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("read schedstat")?;
    let mut words = text.split_whitespace().map(str::parse);
    let mut next = || words.next().context("schedstat is short");
    Ok((next()??, next()??))
}

/// BPF programs that are loaded on this machine, by anyone.
pub(crate) fn programs() -> Result<usize> {
    Ok(sys::loaded_programs().context("list the loaded BPF programs")?.len())
}
