//! How far is the remote share that the controller exports from the share of true accesses?
//!
//! A program in a far guest reads memory of two nodes, each line as likely as
//! any other. In windows of ten seconds the mean of the exported share stands
//! beside the misses that the emulator counted on the program's CPU.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use far::counts::Counts;

use crate::guest::{self, End, Guest, Load, Rig};
use crate::kernels;
use crate::paths::say;
use crate::prometheus::server::{free_address, http_get};

const WINDOW: Duration = Duration::from_secs(10);
/// Between two looks at the exported share.
const PAUSE: Duration = Duration::from_secs(1);
const FACTOR: f64 = 1.7;
const PORT: u16 = 9816;
const READY: &str = "SHARE-READY";
/// The exported share, and the ends of its interval.
const SERIES: [&str; 3] = [
    "migrate_cgroup_remote_low_ratio",
    "migrate_cgroup_remote_ratio",
    "migrate_cgroup_remote_high_ratio",
];
const CGROUP: &str = "{cgroup=\"/share\"";
/// Where the program runs: the first CPU of node 1.
const CPU: usize = 2;
/// Beyond the windows: to boot, to settle and to stop.
const SLACK: Duration = Duration::from_secs(240);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series such as 6.1, or "newest".
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// NUMA balancing of the guest's kernel.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    balancing: u8,
    /// Windows of ten seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=360))]
    windows: u32,
    /// Share of the memory that is remote, in percent; bound there, so that balancing leaves it.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=100))]
    remote: u32,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let kernel = kernels::find(&args.kernel)?;
    let rig = Rig::new()?;
    // A window ends with the look that its time ran out in; one more for the last.
    let seconds = u64::from(args.windows + 1) * (WINDOW + 2 * PAUSE).as_secs();
    let remote = args.remote * 16_384 / 100;
    let words = format!("/bin/lab share --seconds {seconds} --remote {remote}");
    let command = words.split(' ').map(str::to_owned).collect();
    let settings = [("balancing", args.balancing.to_string())];
    let load = Load { command, settings: &settings, programs: None, far: Some(rig.far(FACTOR)?) };
    let address = free_address()?;
    let guest = rig.guest("bench-share", &kernel, &load)?;
    let timeout = Duration::from_secs(seconds) + SLACK;
    let guest = Guest { forward: Some((address.port(), PORT)), timeout, ..guest };
    let counts = guest::counts(&guest.name);
    let (ready, is_ready) = mpsc::channel();
    let (end, windows) = thread::scope(|scope| {
        let booted = scope.spawn(move || {
            guest::boot(&guest, |line| {
                if line == READY {
                    // Nobody listens any more once the first has been heard.
                    let _ = ready.send(());
                }
            })
        });
        let windows = is_ready
            .recv()
            .context("the guest ended before it was ready")
            .and_then(|()| watch(args.windows, &counts, address));
        let end = booted.join().map_err(|_panic| anyhow::anyhow!("the guest's thread panicked"))?;
        Ok::<_, anyhow::Error>((end?, windows))
    })?;
    let windows = windows?;
    ensure!(end == End::Exit(0), "the guest ended with {end:?}");
    let hold = windows.iter().filter(|window| window.holds()).count();
    say(summary(&windows, hold));
    let enough = hold * 100 >= windows.len() * 95;
    Ok(if enough { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was exported and what was true, between 0 and 1.
struct Window {
    /// Low end, middle and high end: means over the window.
    exported: [f64; 3],
    counted: f64,
}

impl Window {
    fn holds(&self) -> bool {
        let [low, _, high] = self.exported;
        low <= self.counted && self.counted <= high
    }
}

fn watch(windows: u32, counts: &Path, address: SocketAddr) -> Result<Vec<Window>> {
    let mut before = misses(counts)?;
    let mut seen = Vec::new();
    for number in 0..windows {
        let began = Instant::now();
        let mut exported = Vec::new();
        while began.elapsed() < WINDOW {
            let metrics = http_get(address, "/metrics")?.1;
            let [low, mid, high] = SERIES.map(|name| share(&metrics, name));
            exported.push([low?, mid?, high?]);
            sleep(PAUSE);
        }
        let after = misses(counts)?;
        let (there, all) = (after.0 - before.0, after.1 - before.1);
        ensure!(all > 0, "the program has missed nothing in ten seconds");
        let window = Window {
            exported: [0, 1, 2].map(|end| {
                exported.iter().map(|seen| seen[end]).sum::<f64>() / exported.len() as f64
            }),
            counted: there as f64 / all as f64,
        };
        let [low, mid, high] = window.exported;
        say(format!(
            "window {:2}: exported {mid:.4} ({low:.4} to {high:.4}), counted {:.4} of {all} misses{}",
            number + 1,
            window.counted,
            if window.holds() { "" } else { ": outside" }
        ));
        seen.push(window);
        before = after;
    }
    Ok(seen)
}

/// Misses of the program's CPU: to node 0, and all.
fn misses(file: &Path) -> Result<(u64, u64)> {
    let counts = Counts::read(file).with_context(|| format!("read {}", file.display()))?;
    let user = &counts.cpus.get(CPU).context("no such CPU")?.user;
    Ok((user.first().copied().unwrap_or(0), user.iter().sum()))
}

fn share(metrics: &str, name: &str) -> Result<f64> {
    let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(CGROUP));
    let line = metrics.lines().find(of);
    let value = line.and_then(|line| line.rsplit_once(' ')).context("no share is exported")?.1;
    value.parse().with_context(|| format!("no share: {value:?}"))
}

fn summary(windows: &[Window], hold: usize) -> String {
    let mut off: Vec<f64> =
        windows.iter().map(|window| (window.exported[1] - window.counted).abs()).collect();
    off.sort_by(f64::total_cmp);
    // The smallest number of windows that are 95 % of them, and at least one.
    let rank = (off.len() * 95).div_ceil(100).max(1);
    let at = |rank: usize| off.get(rank - 1).copied().unwrap_or(0.0) * 100.0;
    format!(
        "{} windows: {hold} of the exported intervals hold the counted share; the two are within \
         {:.2} points in 95 % of them, within {:.2} in all",
        off.len(),
        at(rank),
        at(off.len())
    )
}
