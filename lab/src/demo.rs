//! Three acts with a real server: nobody, observe, enforce.
//!
//! An unmodified redis has its memory on node 0. The demo plays the operator
//! and moves its threads to node 1's CPUs; then it watches, by numa_maps and
//! the kernel's own counters only, what becomes of the memory.

use std::fs;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use migrate_ctl::model::{Outcome, Verdict};
use migrate_ctl::sys::boottime;

use crate::controller::{self, Controller, Decided};
use crate::witness::{pages_on, vmstat};
use crate::{nodes, test};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What init has set numa_balancing to
    #[arg(long, default_value_t = 0)]
    balancing: u8,
}

/// Values of 4 KiB: 352 MiB.
const KEYS: u32 = 90_000;
/// 256 MiB: with less there is nothing to show.
const SMALLEST: u64 = 65_536;
/// How long each of the first two acts watches the stranded server.
const ACT: Duration = Duration::from_secs(15);
/// The longest that we wait for the order, ns.
const PATIENCE: u64 = 120_000_000_000;
/// The tick of `migrate-ctl run`, its default.
const TICK_SECONDS: f64 = 1.0;
/// Families shown, as Prometheus would scrape them.
const SHOWN: [&str; 4] = [
    "migrate_migration_duration_seconds_count{reason=\"own\"",
    "migrate_move_pages_total{from_node=\"0\",to_node=\"1\"",
    "migrate_move_seconds_total{from_node=\"0\",to_node=\"1\"",
    "migrate_cgroup_remote_ratio{",
];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    tell(&format!(
        "kernel {}, 2 nodes, other memory taken for 2.1 times slower (emulated: it is not), numa_balancing {}",
        kernel.trim(),
        args.balancing
    ));
    let failures = match act(args) {
        Ok(failures) => failures,
        Err(error) => vec![format!("{error:#}")],
    };
    for failure in &failures {
        tell(&format!("FAILED: {failure}"));
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn act(args: &Args) -> Result<Vec<String>> {
    let balancing = fs::read_to_string("/proc/sys/kernel/numa_balancing")?;
    ensure!(balancing.trim() == args.balancing.to_string(), "numa_balancing is {balancing}");
    let redis = Redis::start()?;
    if args.balancing == 0 { three_acts(&redis) } else { beside(&redis) }
}

fn tell(line: &str) {
    test::say(&format!("demo: {line}"));
}

fn three_acts(redis: &Redis) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    redis.come_home()?;
    let before = redis.placement()?;
    tell(&format!("redis-server (pid {}) under load, memory on {before}", redis.pid()));

    tell("act 1, nobody: its threads go to node 1's CPUs, no controller runs");
    redis.strand()?;
    failures.extend(watch(redis, before.0)?.stayed("act 1"));

    tell("act 2, observe: `migrate-ctl run`");
    let mut observer = Controller::start("")?;
    let act = watch(redis, before.0)?;
    for line in observer.log().lines().filter(|line| is_summary(line)) {
        tell(&format!("  says: {}", line.trim()));
    }
    observer.stop()?;
    failures.extend(act.stayed("act 2"));

    tell("act 3, enforce: home on node 0 first, then stranded again under `--mode enforce`");
    redis.come_home()?;
    let mut enforcer = Controller::start("--mode enforce")?;
    sleep(Duration::from_secs(4));
    failures.extend(enforce(redis, &enforcer)?);
    enforcer.stop()?;
    Ok(failures)
}

/// The lines about the server and the verdict, not the log.
fn is_summary(line: &str) -> bool {
    line.starts_with("  redis") || line.starts_with("NUMA") || line.ends_with("observe")
}

fn enforce(redis: &Redis, enforcer: &Controller) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    let before = redis.placement()?;
    let migrated = vmstat("pgmigrate_success")?;
    let stranded = redis.strand()?;
    let (decided, ordered) = first_order(redis, enforcer, stranded)?;
    failures.extend(punctual(redis, enforcer, stranded, ordered)?);
    tell(&format!("  decided: {}", decided.why));
    let outcome = enforcer.first_outcome(redis.pid(), Duration::from_secs(60))?;
    let outcome = outcome.context("the move has no outcome after 60 s")?;
    let home = home_after(redis, before, ordered)?;
    let after = redis.placement()?;
    let came = after.1.saturating_sub(before.1);
    tell(&format!(
        "  moved: {} pages in {:.2} s ({}); memory on {after}; pgmigrate_success +{}",
        outcome.moved(),
        seconds(outcome.duration),
        outcome.end.name(),
        vmstat("pgmigrate_success")? - migrated,
    ));
    match home {
        Some(passed) if passed <= 30.0 => {
            tell(&format!("  home {passed:.1} s after the move began"));
        }
        Some(passed) => failures.push(format!("home only {passed:.1} s after the move began")),
        None => failures.push(format!("less than 95 % of {} pages followed: {after}", before.0)),
    }
    if (outcome.moved() as f64) < 0.9 * came as f64 {
        let moved = outcome.moved();
        failures.push(format!("our ledger explains {moved} of {came} pages that came"));
    }
    show_metrics()?;
    Ok(failures)
}

/// The first decision to move after `stranded`, and when it was ordered.
fn first_order(redis: &Redis, enforcer: &Controller, stranded: u64) -> Result<(Decided, u64)> {
    let end = boottime() + PATIENCE;
    while boottime() < end {
        let due = enforcer.decided(redis.pid())?.into_iter().find(|decided| {
            decided.decision.now > stranded && matches!(decided.decision.verdict, Verdict::Move(_))
        });
        if let Some(decided) = due
            && let Some(ordered) = enforcer.ordered(decided.decision.seq)?
        {
            return Ok((decided, ordered));
        }
        sleep(Duration::from_millis(100));
    }
    bail!("no move was ordered within {} s", seconds(PATIENCE))
}

/// Did the move begin within two ticks of what the first record 5 s after stranding said?
fn punctual(
    redis: &Redis,
    enforcer: &Controller,
    stranded: u64,
    ordered: u64,
) -> Result<Option<String>> {
    let since = |now: u64| seconds(now.saturating_sub(stranded));
    let records = enforcer.decided(redis.pid())?;
    // Staying is said with its end in sight, from the first tick that saw the change.
    let mute = records.iter().find(|record| {
        let decision = &record.decision;
        (2.5..since(ordered)).contains(&since(decision.now))
            && decision.verdict == Verdict::Stay
            && decision.forecast.move_in.is_none()
    });
    if let Some(mute) = mute {
        return Ok(Some(format!("it did not say when it would move: {}", mute.why)));
    }
    let record = records.into_iter().find(|record| since(record.decision.now) >= 5.0);
    let record = record.context("no record 5 s after stranding")?;
    let Some(move_in) = record.decision.forecast.move_in else {
        return Ok(Some(format!("it did not say when it would move: {}", record.why)));
    };
    let heard = since(record.decision.now);
    let (said, began) = (heard + f64::from(move_in), since(ordered));
    tell(&format!("  {heard:.1} s after stranding it said: {}", record.why));
    tell(&format!("  said: moves {said:.1} s after stranding; began {began:.1} s after it"));
    Ok(((said - began).abs() > 2.0 * TICK_SECONDS)
        .then(|| format!("the move began at {began:.1} s, not within two ticks of {said:.1} s")))
}

/// Seconds from the beginning of the move until 95 % of the pages of node 0 have come.
fn home_after(redis: &Redis, before: Placement, began: u64) -> Result<Option<f64>> {
    loop {
        let came = redis.placement()?.1.saturating_sub(before.1);
        let passed = seconds(boottime() - began);
        if came as f64 >= 0.95 * before.0 as f64 {
            return Ok(Some(passed));
        }
        if passed > 60.0 {
            return Ok(None);
        }
        sleep(Duration::from_millis(200));
    }
}

/// NUMA balancing is on: both may move pages, and each move has an owner.
fn beside(redis: &Redis) -> Result<Vec<String>> {
    redis.come_home()?;
    let mut enforcer = Controller::start("--mode enforce")?;
    sleep(Duration::from_secs(4));
    let before = redis.placement()?;
    tell(&format!("redis-server (pid {}) under load, memory on {before}", redis.pid()));
    let kernel = vmstat("numa_pages_migrated")?;
    redis.strand()?;
    sleep(ACT * 2);
    let after = redis.placement()?;
    let kernel = vmstat("numa_pages_migrated")? - kernel;
    let outcomes = enforcer.outcomes(redis.pid())?;
    let ours: u64 = outcomes.iter().map(Outcome::moved).sum();
    let came = after.1.saturating_sub(before.1);
    tell(&format!("{} s after stranding: memory on {after}", 2 * ACT.as_secs()));
    tell(&format!("the kernel's balancing moved {kernel} pages on this machine, we moved {ours}"));
    show_metrics()?;
    enforcer.stop()?;
    let explained = kernel + ours;
    let short = (explained as f64) < 0.9 * came as f64;
    let failure = || format!("{explained} pages moved by either explain less than 90 % of {came}");
    Ok(short.then(failure).into_iter().collect())
}

/// A few of the lines that Prometheus would scrape, then all of them for the checks outside.
fn show_metrics() -> Result<()> {
    // The outcome enters the snapshot at the next tick, and its verdict three ticks later.
    sleep(Duration::from_secs(6));
    let (status, text) = controller::get("/metrics")?;
    ensure!(status == 200, "/metrics answers {status}");
    for wanted in SHOWN {
        if let Some(line) = text.lines().find(|line| line.starts_with(wanted)) {
            tell(&format!("  {line}"));
        }
    }
    test::say(&format!("METRICS-BEGIN\n{text}METRICS-END"));
    Ok(())
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 * 1e-9
}

/// Pages on node 0 and on node 1.
#[derive(Clone, Copy)]
struct Placement(u64, u64);

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node 0: {} pages, node 1: {}", self.0, self.1)
    }
}

struct Act {
    left: f64,
}

impl Act {
    fn stayed(&self, act: &str) -> Option<String> {
        let percent = self.left * 100.0;
        (self.left < 0.95).then(|| format!("{act}: only {percent:.1} % stayed on node 0"))
    }
}

/// Watches the stranded server for an act.
fn watch(redis: &Redis, pages: u64) -> Result<Act> {
    let migrated = vmstat("pgmigrate_success")?;
    sleep(ACT);
    let after = redis.placement()?;
    let migrated = vmstat("pgmigrate_success")? - migrated;
    let passed = ACT.as_secs();
    tell(&format!("  {passed} s later: memory on {after}; pgmigrate_success +{migrated}"));
    Ok(Act { left: after.0 as f64 / pages as f64 })
}

/// The server and its load. Dropping it kills both.
struct Redis {
    server: Child,
    load: Option<Child>,
}

impl Redis {
    fn start() -> Result<Self> {
        nodes::run_on(None, 0)?;
        let server = Command::new("/usr/bin/redis-server")
            .args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"])
            .args(["--enable-debug-command", "yes", "--loglevel", "warning"])
            .stdout(Stdio::null())
            .spawn()
            .context("start redis-server")?;
        let mut redis = Self { server, load: None };
        redis.wait_until_up()?;
        redis.cli(&["debug", "populate", &KEYS.to_string(), "key", "4096"])?;
        let load = Command::new("/usr/bin/redis-benchmark")
            .args(["-t", "get", "-n", "1000000000", "-r", &KEYS.to_string(), "-c", "8", "-P", "16"])
            .args(["-q"])
            .stdout(Stdio::null())
            .spawn()
            .context("start redis-benchmark")?;
        redis.load = Some(load);
        sleep(Duration::from_secs(2));
        Ok(redis)
    }

    fn wait_until_up(&self) -> Result<()> {
        for _ in 0..300 {
            if self.cli(&["ping"]).is_ok_and(|answer| answer.contains("PONG")) {
                return Ok(());
            }
            sleep(Duration::from_millis(200));
        }
        bail!("redis-server does not answer after 60 s")
    }

    fn cli(&self, args: &[&str]) -> Result<String> {
        let output = Command::new("/usr/bin/redis-cli").args(args).output().context("redis-cli")?;
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success() && !answer.contains("ERR"), "redis-cli {args:?}: {answer}");
        Ok(answer)
    }

    fn pid(&self) -> u32 {
        self.server.id()
    }

    /// Its threads go to node 1's CPUs. Returns when.
    fn strand(&self) -> Result<u64> {
        nodes::run_all_on(self.pid(), 1)?;
        Ok(boottime())
    }

    /// Its threads run on node 0, and so does its memory.
    fn come_home(&self) -> Result<()> {
        nodes::run_all_on(self.pid(), 0)?;
        if self.placement()?.1 > 0 {
            controller::say(&format!("migrate {} --from 1 --to 0", self.pid()))?;
        }
        let Placement(home, away) = self.placement()?;
        ensure!(home >= SMALLEST, "only {home} pages are on node 0 to begin with");
        ensure!(away * 20 < home, "{away} pages are on node 1 to begin with, {home} on node 0");
        Ok(())
    }

    fn placement(&self) -> Result<Placement> {
        Ok(Placement(pages_on(self.pid(), 0)?, pages_on(self.pid(), 1)?))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        for child in self.load.iter_mut().chain([&mut self.server]) {
            // It has ended already if this fails.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
