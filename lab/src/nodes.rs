//! What nodes does this guest have, and which CPUs are on them? Read by the lab itself.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Nodes with memory.
pub(crate) fn with_memory() -> Result<Vec<u16>> {
    numbers("has_memory")
}

/// Nodes with CPUs.
pub(crate) fn with_cpus() -> Result<Vec<u16>> {
    numbers("has_cpu")
}

fn numbers(file: &str) -> Result<Vec<u16>> {
    let path = format!("/sys/devices/system/node/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(list(&text)?.into_iter().map(u16::try_from).collect::<Result<_, _>>()?)
}

/// CPUs of a node; none for one without CPUs.
pub(crate) fn cpus(node: u16) -> Result<Vec<usize>> {
    let path = format!("/sys/devices/system/node/node{node}/cpulist");
    list(&fs::read_to_string(&path).with_context(|| format!("read {path}"))?)
}

/// Free memory of a node.
pub(crate) fn free_mib(node: u16) -> Result<u64> {
    let path = format!("/sys/devices/system/node/node{node}/meminfo");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find(|line| line.contains("MemFree:")).context("no MemFree")?;
    let kib = line.split_whitespace().nth(3).context("no number after MemFree")?;
    Ok(kib.parse::<u64>()? / 1024)
}

/// Lets a thread run on the CPUs of one node only; none means the calling thread.
pub(crate) fn run_on(thread: Option<Pid>, node: u16) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus(node)? {
        set.set(cpu);
    }
    sched_setaffinity(thread, &set).with_context(|| format!("run on the CPUs of node {node}"))
}

/// Lets the calling thread run on the first CPU of one node only.
pub(crate) fn run_on_one(node: u16) -> Result<()> {
    let cpu = *cpus(node)?.first().with_context(|| format!("node {node} has no CPU"))?;
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("run on CPU {cpu}"))
}

/// Lets every thread of a process run on the CPUs of one node only.
pub(crate) fn run_all_on(pid: u32, node: u16) -> Result<()> {
    let folder = format!("/proc/{pid}/task");
    for entry in fs::read_dir(&folder).with_context(|| format!("read {folder}"))? {
        let thread: i32 = entry?.file_name().to_string_lossy().parse()?;
        run_on(Pid::from_raw(thread), node)?;
    }
    Ok(())
}

/// `0-2,5` as the kernel writes it.
fn list(text: &str) -> Result<Vec<usize>> {
    let mut all = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.parse::<usize>()?..=last.parse::<usize>()?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn reads_the_kernels_lists() {
        assert_eq!(list("0-2,5\n").unwrap(), [0, 1, 2, 5]);
        assert!(list("\n").unwrap().is_empty());
        assert!(list("x").is_err());
    }
}
