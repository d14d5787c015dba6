//! Swap, without which nothing could be swapped out.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::test::say;

/// Nobody else writes to it.
const SWAP: &str = "/dev/vdb";

/// Swap on the second disk, until it is dropped.
pub(crate) struct Swap;

impl Swap {
    pub(crate) fn on() -> Result<Self> {
        busybox("mkswap")?;
        busybox("swapon")?;
        let swaps = fs::read_to_string("/proc/swaps").context("read /proc/swaps")?;
        ensure!(swaps.contains(SWAP), "{SWAP} is no swap: {swaps}");
        Ok(Self)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        if let Err(error) = busybox("swapoff") {
            say(&format!("{error:#}"));
        }
    }
}

fn busybox(verb: &str) -> Result<()> {
    let output = Command::new("/bin/busybox").args([verb, SWAP]).output().context("busybox")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "busybox {verb} {SWAP}: {}", said.trim());
    Ok(())
}
