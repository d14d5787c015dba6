//! What does the whole do, seen from outside?
//!
//! A guest with two nodes runs an unmodified redis and our controller; the
//! guest's part of the demo judges. Here its lines are shown, and the metrics
//! that it scraped are held against Prometheus' own checker and our document.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::guest::{self, End, Guest, Load, Node, Rig};
use crate::paths::{say, target};
use crate::setup::{self, Part};
use crate::{kernels, packages, prometheus};

const TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// What the guest puts before a line for the user.
const SHOWN: &str = "demo: ";
const FAILED: &str = "FAILED";
/// The guest's frame around everything that it scraped.
const METRICS: (&str, &str) = ("METRICS-BEGIN", "METRICS-END");

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series such as 6.1, or "newest".
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// NUMA balancing of the guest's kernel: 1 shows us beside it.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    balancing: u8,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let parts = [Part::Ebpf, Part::Qemu, Part::Busybox, Part::Redis, Part::Prometheus];
    setup::prepare(&parts, &[&args.kernel])?;
    let promtool = packages::prometheus()?.promtool;
    let kernel = kernels::find(&args.kernel)?;
    let balancing = args.balancing.to_string();
    let command = ["/bin/lab", "demo", "--balancing", &balancing].map(str::to_owned).to_vec();
    let settings = [("balancing", balancing)];
    let programs = Some(packages::redis()?);
    let load = Load { command, settings: &settings, programs, far: None };
    let name = format!("demo-{}", kernel.release);
    let guest = Rig::new()?.guest(&name, &kernel, &load)?;
    let nodes = vec![Node { cpus: 2, memory_mib: 1536 }; 2];
    let (code, metrics) = perform(&Guest { nodes, timeout: TIMEOUT, ..guest })?;
    if code != 0 {
        return Ok(ExitCode::FAILURE);
    }
    let file = target("logs").join(format!("{name}.prom"));
    check(&promtool, &metrics, &file)?;
    // Beside the kernel's balancing there may be nothing left to move.
    if args.balancing == 0 {
        check_families(&metrics, &file)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The demo's exit code and what it scraped. A guest that the emulator lost before anything had
/// failed is booted once more.
fn perform(guest: &Guest) -> Result<(i32, String)> {
    let mut screen = Screen::default();
    let mut end = guest::boot(guest, |line| screen.take(line))?;
    if end == End::Died && !screen.failed {
        let log = guest::keep_log(&guest.name)?;
        say(format!("the guest died, booting it again; log: {}", log.display()));
        screen = Screen::default();
        end = guest::boot(guest, |line| screen.take(line))?;
    }
    let log = guest::log(&guest.name);
    match end {
        End::Exit(code) => {
            if code != 0 {
                say(format!("the demo ended with {code}; log: {}", log.display()));
            }
            Ok((code, screen.metrics))
        }
        End::Died => bail!("the guest died in the middle of the demo; log: {}", log.display()),
        End::TimedOut => {
            bail!("no end of the demo within {} s; log: {}", TIMEOUT.as_secs(), log.display())
        }
    }
}

/// Sorts the console's lines.
#[derive(Default)]
struct Screen {
    failed: bool,
    within_metrics: bool,
    metrics: String,
}

impl Screen {
    fn take(&mut self, line: &str) {
        if line == METRICS.0 {
            self.within_metrics = true;
            // A later scrape replaces an earlier one.
            self.metrics.clear();
        } else if line == METRICS.1 {
            self.within_metrics = false;
        } else if self.within_metrics {
            self.metrics.push_str(line);
            self.metrics.push('\n');
        } else if let Some((_, shown)) = line.split_once(SHOWN) {
            self.failed |= shown.starts_with(FAILED);
            say(shown);
        }
    }
}

/// Keeps the scraped text and shows it to promtool.
fn check(promtool: &Path, metrics: &str, file: &Path) -> Result<()> {
    ensure!(!metrics.is_empty(), "the demo scraped no metrics");
    fs::write(file, metrics).with_context(|| format!("write {}", file.display()))?;
    prometheus::check_exposition(promtool, metrics)?;
    say(format!("metrics, without a warning of promtool: {}", file.display()));
    Ok(())
}

/// Holds the families against the document, and keeps the reasons of those that are 0.
fn check_families(metrics: &str, file: &Path) -> Result<()> {
    let quiet = prometheus::check_families(metrics)?;
    let list = file.with_extension("zero");
    fs::write(&list, quiet.join("\n") + "\n")
        .with_context(|| format!("write {}", list.display()))?;
    say(format!("{} families are 0, each with its reason: {}", quiet.len(), list.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_framed_lines_are_metrics() {
        let mut screen = Screen::default();
        for line in ["a 1", METRICS.0, "b 2", "c 3", METRICS.1, "d 4"] {
            screen.take(line);
        }
        assert_eq!(screen.metrics, "b 2\nc 3\n");
    }
}
