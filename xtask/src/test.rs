//! Does everything hold: the code's shape, its units, and the whole on each kernel?
//!
//! One boot per kernel runs all tests in the guest; the guest prints a line
//! for each. A kernel of the matrix that is missing, and a boot in which no
//! test ran, are failures.

mod tally;
mod guests;
mod far;
mod dashboard;
mod host;

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::paths::{cargo, say, shown};
use crate::setup::{self, Part};
use crate::{kernels, lint};

use guests::{Boot, Guests};
use tally::{Tally, verdict};

/// The test on the machine that we are on.
const HOST: &str = "on_this_machine_run_does_as_doctor_says";
/// The test that needs a Prometheus.
const DASHBOARD: &str = "every_query_of_the_dashboard_answers";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Two nodes on one kernel only.
    #[arg(long)]
    quick: bool,
    /// Kernel series such as 6.1, or "newest"; may be given again; all of the matrix if not given.
    #[arg(long, conflicts_with = "quick")]
    kernel: Vec<String>,
    /// Only what needs no guest.
    #[arg(long)]
    no_vm: bool,
    /// Only the tests that need a guest and whose name contains this.
    #[arg(long, conflicts_with = "no_vm")]
    only: Option<String>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let wanted = |name: &str| args.only.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let boots = if args.no_vm { Vec::new() } else { boots(args.quick, &args.kernel) };
    let with_dashboard = wanted(DASHBOARD) && args.kernel.is_empty();
    let with_host = wanted(HOST);
    let with_far = boots.iter().any(|boot| boot.kernel() == guests::REFERENCE);
    prepare(&boots, with_dashboard)?;
    if args.only.is_none() {
        stage("lint", || lints(&mut tally));
        stage("unit tests", || units(&mut tally));
    }
    if !args.no_vm {
        let mut guests = Guests::new(args.only.clone());
        if with_host {
            stage("this machine", || {
                let result = guests.rig().and_then(|rig| host::check(rig.controller()));
                tally.record(HOST, result);
            });
        }
        for boot in boots {
            stage(&format!("guest {boot}"), || guests.run(&boot, &mut tally));
        }
        if with_far {
            stage("far guests", || far::run(&mut guests, wanted, &mut tally));
        }
        if with_dashboard {
            stage("dashboard", || {
                let mut rebooted = 0;
                let result = guests.rig().and_then(|rig| dashboard::check(rig, &mut rebooted));
                guests.rebooted += rebooted;
                tally.record(DASHBOARD, result);
            });
        }
        say(format!("guests rebooted: {}", guests.rebooted));
    }
    if tally == Tally::default() {
        tally.fail("test run", "no test ran: --only takes a part of a test's name");
    }
    say(format!("all of it took {} s", start.elapsed().as_secs()));
    for failure in &tally.failures {
        say(format!("FAILED  {failure}"));
    }
    say(tally.to_string());
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sets up what the whole run needs, so that it asks at its beginning or never.
fn prepare(boots: &[Boot], with_dashboard: bool) -> Result<()> {
    let mut parts = vec![Part::Lint];
    if !boots.is_empty() {
        parts.extend([Part::Ebpf, Part::Qemu, Part::Busybox]);
        parts.extend(with_dashboard.then_some(Part::Prometheus));
    }
    let mut kernels: Vec<&str> = boots.iter().map(|boot| boot.kernel()).collect();
    kernels.dedup();
    setup::prepare(&parts, &kernels)?;
    let releases: BTreeSet<String> =
        kernels.iter().map(|name| Ok(kernels::find(name)?.release)).collect::<Result<_>>()?;
    ensure!(
        releases.len() == kernels.len(),
        "{kernels:?} are only {releases:?}: fetch them anew with  cargo xtask setup --refresh"
    );
    Ok(())
}

/// Everything to boot, kernel by kernel.
fn boots(quick: bool, wanted: &[String]) -> Vec<Boot> {
    if quick {
        return vec![Boot::two(guests::REFERENCE)];
    }
    let all = kernels::MATRIX.map(str::to_owned);
    let wanted = if wanted.is_empty() { &all } else { wanted };
    wanted.iter().flat_map(|kernel| guests::boots_of(kernel)).collect()
}

fn stage(name: &str, work: impl FnOnce()) {
    say(format!("== {name}"));
    let start = Instant::now();
    work();
    say(format!("== {name} took {} s", start.elapsed().as_secs()));
}

fn lints(tally: &mut Tally) {
    for (name, result) in lint::all() {
        tally.record(&name, result);
    }
}

/// The unit tests of all crates that run on the host.
fn units(tally: &mut Tally) {
    let mut command = cargo();
    command.args(["test", "--locked", "--no-fail-fast"]);
    if let Err(error) = count_units(&mut command, tally) {
        tally.fail("unit tests", &format!("{error:#}"));
    }
}

fn count_units(command: &mut Command, tally: &mut Tally) -> Result<()> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let before = tally.failed;
    let mut sets = 0;
    for (passed, failed) in text.lines().filter_map(tally::summary) {
        sets += 1;
        tally.passed += passed;
        tally.failed += failed;
    }
    tally
        .failures
        .extend(text.lines().filter(|line| verdict(line) == Some(false)).map(str::to_owned));
    say(format!("{sets} sets of unit tests"));
    if !output.status.success() {
        say(text.trim_end());
        say(String::from_utf8_lossy(&output.stderr).trim_end());
        // It did not even build, or a test program was killed.
        if tally.failed == before {
            tally.fail("unit tests", &format!("{} ended with {}", shown(command), output.status));
        }
    } else if sets == 0 {
        tally.fail("unit tests", &format!("{} ran no test", shown(command)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(quick: bool, wanted: &[&str]) -> Vec<String> {
        let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        boots(quick, &wanted).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_kernel_boots_once_and_one_kernel_has_every_machine() {
        assert_eq!(
            names(false, &[]),
            [
                "6.1 two",
                "6.12 two",
                "6.12 one",
                "6.12 four",
                "6.12 cpuless",
                "6.12 memoryless",
                "6.12 two broken",
                "6.12 cpuless broken",
                "newest two"
            ]
        );
        assert_eq!(names(true, &[]), ["6.12 two"]);
        assert_eq!(names(false, &["newest", "6.1"]), ["newest two", "6.1 two"]);
    }
}
