//! How does one boot of the tests go, and what is a failure of it?

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};

use super::tally::{Tally, verdict};
use crate::guest::{self, End, Far, Guest, Load, Rig, Topology};
use crate::kernels::{self, Kernel};
use crate::paths::say;

/// The kernel on which every machine is booted and everything is tested; the others get two nodes,
/// and the tests of what kernels differ in.
pub(super) const REFERENCE: &str = "6.12";
/// All tests of a boot together, emulated on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// More than twice what the longest test takes.
const SILENCE: Duration = Duration::from_secs(5 * 60);
/// MiB of /dev/vda, which fills the page cache, and of /dev/vdb, which is for swap.
const DISKS: [u64; 2] = [2048, 512];

/// One guest of the test run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boot {
    kernel: String,
    topology: Topology,
    /// Each probe and guard in turn switched off: its test must see it.
    broken: bool,
}

impl Boot {
    pub(super) fn two(kernel: &str) -> Self {
        Self { kernel: kernel.to_owned(), topology: Topology::Two, broken: false }
    }

    pub(super) fn kernel(&self) -> &str {
        &self.kernel
    }

    /// As the guest's tests are told.
    fn machine(&self) -> Vec<&'static str> {
        let mut words = vec![self.topology.name()];
        words.extend(self.broken.then_some("--broken"));
        // What depends on no kernel is tested on one.
        words.extend((self.kernel == REFERENCE).then_some("--reference"));
        words
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let broken = if self.broken { " broken" } else { "" };
        write!(formatter, "{} {}{broken}", self.kernel, self.topology.name())
    }
}

/// The boots of one kernel.
pub(super) fn boots_of(kernel: &str) -> Vec<Boot> {
    let two = Boot::two(kernel);
    if kernel != REFERENCE {
        return vec![two];
    }
    let others = [Topology::One, Topology::Four, Topology::Cpuless, Topology::Memoryless];
    let others = others.map(|topology| Boot { topology, ..two.clone() });
    let broken = [Topology::Two, Topology::Cpuless];
    let broken = broken.map(|topology| Boot { topology, broken: true, ..two.clone() });
    [two].into_iter().chain(others).chain(broken).collect()
}

/// Boots guests and counts their verdicts.
pub(super) struct Guests {
    /// Made at the first boot.
    rig: Option<Rig>,
    only: Option<String>,
    /// Guests that died without a verdict and were booted again.
    pub(super) rebooted: u32,
}

/// What a guest's console said.
#[derive(Default)]
struct Seen {
    passed: u32,
    /// A line of each.
    failed: Vec<String>,
}

impl Guests {
    pub(super) fn new(only: Option<String>) -> Self {
        Self { rig: None, only, rebooted: 0 }
    }

    /// Boots one guest and counts what its tests said.
    pub(super) fn run(&mut self, boot: &Boot, tally: &mut Tally) {
        if let Err(error) = self.try_run(boot, tally) {
            tally.fail(&format!("guest {boot}"), &format!("{error:#}"));
        }
    }

    /// The same for a guest whose other node is so many times as slow.
    pub(super) fn run_far(&mut self, factor: f64, far: &Far, tally: &mut Tally) {
        if let Err(error) = self.try_run_far(factor, far, tally) {
            tally.fail("guest far", &format!("{error:#}"));
        }
    }

    fn try_run(&mut self, boot: &Boot, tally: &mut Tally) -> Result<()> {
        let kernel = kernels::find(&boot.kernel).context("a kernel of the matrix is missing")?;
        let label = Boot { kernel: kernel.release.clone(), ..boot.clone() }.to_string();
        self.judge(&label, tally, |guests, done| guests.guest(boot, &kernel, done))
    }

    fn try_run_far(&mut self, factor: f64, far: &Far, tally: &mut Tally) -> Result<()> {
        let kernel = kernels::find(REFERENCE)?;
        let factor = factor.to_string();
        self.judge(&format!("{} far", kernel.release), tally, |guests, done| {
            let command = guests.command(&["far", "--factor", &factor], done);
            let settings: &[_] = &[("balancing", "0".to_owned())];
            let load = Load { command, settings, programs: None, far: Some(far.clone()) };
            let guest = guests.rig()?.guest("test-far", &kernel, &load)?;
            Ok(Guest { timeout: TIMEOUT, silence: Some(SILENCE), ..guest })
        })
    }

    /// `make` is given how many tests were done before.
    fn judge(
        &mut self,
        label: &str,
        tally: &mut Tally,
        make: impl Fn(&mut Self, u32) -> Result<Guest>,
    ) -> Result<()> {
        let mut guest = make(self, 0)?;
        let mut seen = Seen::default();
        let mut end = watch(&guest, label, &mut seen)?;
        let mut lost_at = None;
        // The emulator loses a guest now and then while the kernel patches itself. What failed
        // before that stays failed: it is not asked again, nor is a test that is lost twice.
        while end == End::Died && seen.failed.is_empty() && lost_at != Some(seen.passed) {
            lost_at = Some(seen.passed);
            self.rebooted += 1;
            let log = guest::keep_log(&guest.name)?;
            let log = log.display();
            say(format!("{label}: the guest died within a test, which runs again; log: {log}"));
            guest = make(self, seen.passed)?;
            end = watch(&guest, label, &mut seen)?;
        }
        tally.passed += seen.passed;
        tally.failed += seen.failed.len();
        let complaint = self.complaint(end, &seen);
        tally.failures.extend(seen.failed);
        if let Some(why) = complaint {
            let log = guest::log(&guest.name);
            tally.fail(&format!("guest {label}"), &format!("{why}; log: {}", log.display()));
        }
        Ok(())
    }

    /// Made at the first call.
    pub(super) fn rig(&mut self) -> Result<&Rig> {
        if self.rig.is_none() {
            self.rig = Some(Rig::new()?);
        }
        self.rig.as_ref().context("nothing to boot")
    }

    /// Runs the tests of a machine, but for those that are done.
    fn command(&self, machine: &[&str], done: u32) -> Vec<String> {
        let done = done.to_string();
        let only = self.only.iter().flat_map(|only| ["--only", only]);
        let words = ["/bin/lab", "test", "--skip", &done, "--topology"].into_iter();
        words.chain(machine.iter().copied()).chain(only).map(str::to_owned).collect()
    }

    fn guest(&mut self, boot: &Boot, kernel: &Kernel, done: u32) -> Result<Guest> {
        let command = self.command(&boot.machine(), done);
        // Off: what comes to a node must have come by us.
        let settings: &[_] = &[("balancing", "0".to_owned())];
        let load = Load { command, settings, programs: None, far: None };
        let name = format!("test-{boot}").replace(' ', "-");
        let guest = self.rig()?.guest(&name, kernel, &load)?;
        let nodes = boot.topology.nodes();
        let distance = boot.topology.distance();
        let tiers = boot.topology.tiers();
        let (disks, silence) = (DISKS.to_vec(), Some(SILENCE));
        Ok(Guest { nodes, distance, tiers, disks, timeout: TIMEOUT, silence, ..guest })
    }

    /// What is wrong with a boot beside the tests that failed in it.
    fn complaint(&self, end: End, seen: &Seen) -> Option<String> {
        match end {
            End::Died => Some("the guest died without a verdict".to_owned()),
            End::TimedOut => Some(format!("no verdict within {} s", TIMEOUT.as_secs())),
            // With --only, a boot may have nothing to say.
            End::Exit(0) if seen.passed == 0 && seen.failed.is_empty() && self.only.is_none() => {
                Some("no test ran".to_owned())
            }
            End::Exit(code) if code != 0 && seen.failed.is_empty() => {
                Some(format!("its command ended with {code}, and no test said why"))
            }
            End::Exit(_) => None,
        }
    }
}

/// Boots the guest and prints each verdict.
fn watch(guest: &Guest, label: &str, seen: &mut Seen) -> Result<End> {
    guest::boot(guest, |line| match verdict(line) {
        Some(true) => {
            seen.passed += 1;
            say(format!("{label}: {line}"));
        }
        Some(false) => {
            let line = format!("{label}: {line}");
            say(&line);
            seen.failed.push(line);
        }
        None => {}
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reference_kernel_runs_what_depends_on_no_kernel() {
        let words = |kernel: &str| Boot::two(kernel).machine();
        assert_eq!(words(REFERENCE), ["two", "--reference"]);
        assert_eq!(words("6.1"), ["two"]);
        assert!(boots_of(REFERENCE).iter().all(|boot| boot.machine().contains(&"--reference")));
    }

    #[test]
    fn a_broken_boot_says_so() {
        let broken = boots_of(REFERENCE).into_iter().filter(|boot| boot.broken);
        assert!(broken.clone().count() > 0);
        assert!(broken.into_iter().all(|boot| boot.machine().contains(&"--broken")));
    }
}
