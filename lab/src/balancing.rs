//! Lets the kernel balance NUMA nodes, at its own pace or faster.

use std::fs;

use anyhow::{Context, Result};

const SWITCH: &str = "/proc/sys/kernel/numa_balancing";
const SCAN: &str = "/sys/kernel/debug/sched/numa_balancing";

/// Acts while the kernel balances NUMA nodes.
pub(crate) fn during<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = fs::read(SWITCH).with_context(|| format!("read {SWITCH}"))?;
    set(SWITCH, b"1")?;
    let result = act();
    set(SWITCH, &before)?;
    result
}

/// From here on the kernel hints a process's pages many times a second, for as long as the guest
/// runs. It divides the period by how often `scan_size_mb` fits into the process, and into 2560
/// at least.
pub(crate) fn hasten() -> Result<()> {
    for (name, value) in [
        ("scan_size_mb", "64"),
        ("scan_delay_ms", "1"),
        ("scan_period_min_ms", "50"),
        ("scan_period_max_ms", "50"),
    ] {
        set(&format!("{SCAN}/{name}"), value.as_bytes())?;
    }
    Ok(())
}

fn set(path: &str, value: &[u8]) -> Result<()> {
    fs::write(path, value).with_context(|| format!("write to {path}"))
}
