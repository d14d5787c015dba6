//! How does a guest get nodes that are really far, and is it what it was told to be?
//!
//! The plugin of `lab/far` delays misses to another node and counts them into a
//! file; the guest's init reads each node's memory first of all, and what came
//! of it is judged from that file. A guest that is not as told is void.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use far::check::{self, Told};
use far::counts::Counts;
use far::options::{Options, Range};

use super::{Guest, Node};
use crate::build;
use crate::paths::{quiet, say, target};

/// A miss to the CPU's own node: more than the emulator itself needs for an access to a page that
/// it does not know yet, so that its slowness hides in it.
const LOCAL: Duration = Duration::from_nanos(1000);
/// Small, as are the guests.
const CACHE_KIB: usize = 256;
/// Memory below this stays below 4 GiB in a machine of QEMU's default kind.
const LOW: u64 = 0xe000_0000;
/// Where the low memory ends in a machine that has more.
const SPLIT: u64 = 0xc000_0000;
const HIGH: u64 = 1 << 32;

/// What makes a guest's other nodes far.
#[derive(Clone)]
pub(crate) struct Far {
    /// Remote latency ÷ local latency.
    factor: f64,
    plugin: PathBuf,
    addresses: Addresses,
    flaw: Option<Flaw>,
}

/// A mistake that the check has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// All memory is as fast as local memory.
    Near,
    /// The memory of the first two nodes is taken for each other's.
    Swapped,
}

/// What an emulator tells plugins as an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addresses {
    /// The place among all blocks of memory plus the place in the machine's memory: before 8.2.
    Blocks,
    /// The guest's physical address.
    Physical,
}

impl Far {
    /// Builds the plugin for this emulator.
    pub(crate) fn new(qemu: &Path, factor: f64) -> Result<Self> {
        let version = quiet(Command::new(qemu).arg("--version"))?;
        let version = version_of(&version).with_context(|| format!("no version in {version:?}"))?;
        // From 9.0 on version 1 of the interface is refused.
        let interface = if version >= (9, 0) { 2 } else { 1 };
        let plugin = build::plugin(interface)?;
        let addresses = if version >= (8, 2) { Addresses::Physical } else { Addresses::Blocks };
        Ok(Self { factor, plugin, addresses, flaw: None })
    }

    /// The same with a mistake in it.
    pub(crate) fn flawed(&self, flaw: Flaw) -> Self {
        Self { flaw: Some(flaw), ..self.clone() }
    }

    /// What QEMU's `-plugin` takes.
    pub(super) fn argument(&self, guest: &Guest) -> String {
        let mut memory = memory(&guest.nodes, self.addresses);
        if self.flaw == Some(Flaw::Swapped) {
            for range in memory.iter_mut().filter(|range| range.node < 2) {
                range.node = 1 - range.node;
            }
        }
        let options = Options {
            counts: counts(&guest.name),
            factor: if self.flaw == Some(Flaw::Near) { 1.0 } else { self.factor },
            local: LOCAL,
            cache_kib: CACHE_KIB,
            cpus: cpus(&guest.nodes),
            memory,
        };
        // Commas end a value in QEMU's lists, two of them are one in the path.
        let plugin = self.plugin.display().to_string().replace(',', ",,");
        format!("{plugin},{options}")
    }
}

/// Where a guest's counts are, for as long as it runs and afterwards.
pub(crate) fn counts(name: &str) -> PathBuf {
    target("guests").join(format!("{name}.counts"))
}

/// Waits for the end of the check at boot.
pub(super) struct Check {
    counts: PathBuf,
    told: Told,
    passed: bool,
}

impl Check {
    /// None for a guest whose nodes are as near as each other.
    pub(super) fn of(guest: &Guest) -> Result<Option<Self>> {
        let Some(far) = &guest.far else { return Ok(None) };
        let counts = counts(&guest.name);
        if counts.exists() {
            // Those of the guest before would be judged until the plugin makes them anew.
            std::fs::remove_file(&counts)
                .with_context(|| format!("remove {}", counts.display()))?;
        }
        let with_memory = |(_, node): &(usize, &Node)| node.memory_mib > 0;
        let memory = guest.nodes.iter().enumerate().filter(with_memory).map(|(id, _)| id).collect();
        let told = Told { factor: far.factor, cpus: cpus(&guest.nodes), memory };
        Ok(Some(Self { counts, told, passed: false }))
    }

    /// Looks whether the check is over; says once what it found.
    ///
    /// Fails if the guest is not what it was told to be: then it must not go on.
    pub(super) fn look(&mut self) -> Result<()> {
        // Without the file the plugin has not been loaded yet.
        if self.passed || !self.counts.exists() {
            return Ok(());
        }
        let counts = Counts::read(&self.counts)
            .with_context(|| format!("read {}", self.counts.display()))?;
        if let Some(stretches) = check::judge(&counts, &self.told)? {
            self.passed = true;
            say(shown(&stretches));
        }
        Ok(())
    }

    /// Fails if the guest ended before the check was over.
    pub(super) fn end(&mut self) -> Result<()> {
        self.look()?;
        if !self.passed {
            bail!("void: the guest ended before its nodes were checked");
        }
        Ok(())
    }
}

fn shown(stretches: &[check::Stretch]) -> String {
    let mut text = "far: ns a miss, and ÷ local, by the CPU's and the memory's node:".to_owned();
    for one in stretches {
        let (cpu, memory) = (one.cpu_node, one.memory_node);
        // Writing to a String cannot fail.
        let _ = write!(text, " {cpu}-{memory} {:.0}", one.nanos);
        if let Some(ratio) = one.ratio.filter(|_| cpu != memory) {
            let _ = write!(text, " ({ratio:.3})");
        }
    }
    let least = stretches.iter().map(|one| one.there).fold(1.0, f64::min);
    let _ = write!(text, "; at least {:.3} % of the misses where they belong", least * 100.0);
    text
}

/// The node of each CPU.
fn cpus(nodes: &[Node]) -> Vec<usize> {
    let cpus = |(id, node): (usize, &Node)| (0..node.cpus).map(move |_| id);
    nodes.iter().enumerate().flat_map(cpus).collect()
}

/// The addresses of each node's memory, which lies in the machine in the nodes' order.
fn memory(nodes: &[Node], addresses: Addresses) -> Vec<Range> {
    let total: u64 = nodes.iter().map(|node| u64::from(node.memory_mib) << 20).sum();
    let low = if total >= LOW { SPLIT } else { total };
    let (mut ranges, mut start) = (Vec::new(), 0);
    for (node, size) in nodes.iter().map(|node| u64::from(node.memory_mib) << 20).enumerate() {
        let end = start + size;
        let mut add = |start, end| {
            if start < end {
                ranges.push(Range { start, end, node });
            }
        };
        match addresses {
            // A block's place among all blocks is its place in the machine's memory again.
            Addresses::Blocks => add(start * 2, start * 2 + size),
            Addresses::Physical => {
                add(start.min(low), end.min(low));
                add(start.max(low) - low + HIGH, end.max(low) - low + HIGH);
            }
        }
        start = end;
    }
    ranges
}

/// Major and minor number from what `qemu-system-x86_64 --version` says.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let number = text.split("version ").nth(1)?.split_whitespace().next()?;
    let mut parts = number.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_over_the_hole_begins_at_four_gib() {
        let nodes = [Node { cpus: 1, memory_mib: 2048 }; 2];
        let gib = |number: u64| number << 30;
        let range = |start, end, node| Range { start, end, node };
        assert_eq!(
            memory(&nodes, Addresses::Physical),
            [range(0, gib(2), 0), range(gib(2), gib(3), 1), range(gib(4), gib(5), 1)]
        );
        assert_eq!(
            memory(&nodes, Addresses::Blocks),
            [range(0, gib(2), 0), range(gib(4), gib(6), 1)]
        );
        assert_eq!(
            memory(&[Node { cpus: 1, memory_mib: 512 }; 2], Addresses::Physical),
            [range(0, 512 << 20, 0), range(512 << 20, gib(1), 1)]
        );
    }

    #[test]
    fn the_emulators_version_is_found() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright";
        assert_eq!(version_of(text), Some((7, 2)));
        assert_eq!(version_of("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert_eq!(version_of("none"), None);
    }
}
