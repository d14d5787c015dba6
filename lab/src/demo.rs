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
use migrate_ctl::sys::boottime;
use serde_json::Value;

use crate::controller::{self, Controller};
use crate::witness::{anon_on, vmstat};
use crate::{sys, witness, work};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What init has set numa_balancing to
    #[arg(long, default_value_t = 0)]
    balancing: u8,
}

/// Values of 4 KiB: 352 MiB.
const KEYS: u32 = 90_000;
/// How long each of the first two acts watches the stranded server.
const ACT: Duration = Duration::from_secs(15);
/// The tick of `migrate-ctl run`, its default.
const TICK_SECONDS: f64 = 1.0;
/// Families shown, as Prometheus would scrape them.
const SHOWN: [&str; 4] = [
    "migrate_migration_duration_seconds_count{reason=\"syscall\"",
    "migrate_own_move_pages_total{from_node=\"0\",to_node=\"1\"",
    "migrate_own_move_seconds_total{from_node=\"0\",to_node=\"1\"",
    "migrate_remote_share{",
];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    tell(&format!(
        "kernel {}, 2 nodes, distance 21 (emulated: all memory is equally fast), numa_balancing {}",
        kernel.trim(),
        args.balancing
    ));
    let redis = Redis::start()?;
    let failures = if args.balancing == 0 { three_acts(&redis)? } else { beside(&redis)? };
    for failure in &failures {
        tell(&format!("FAILED: {failure}"));
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(line: &str) {
    println!("demo: {line}");
}

fn three_acts(redis: &Redis) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    redis.come_home()?;
    let before = redis.placement()?;
    tell(&format!("redis-server (pid {}) under load, memory on {before}", redis.pid()));

    tell("act 1, nobody: its threads go to node 1's CPUs, no controller runs");
    redis.strand()?;
    let act = watch(redis, before.0)?;
    tell(&act.text);
    failures.extend(act.stayed("act 1"));

    tell("act 2, observe: `migrate-ctl run`");
    let observer = Controller::start(&[])?;
    let act = watch(redis, before.0)?;
    let said = observer.said("out");
    for line in said
        .lines()
        .filter(|line| line.contains("redis") || line.contains("NUMA") || line.contains("observe"))
    {
        tell(&format!("  says: {}", line.trim()));
    }
    observer.stop()?;
    tell(&act.text);
    failures.extend(act.stayed("act 2"));

    tell("act 3, enforce: home on node 0 first, then stranded again under `--mode enforce`");
    redis.come_home()?;
    let enforcer = Controller::start(&["--mode", "enforce"])?;
    sleep(Duration::from_secs(4));
    failures.extend(enforce(redis, &enforcer)?);
    enforcer.stop()?;
    Ok(failures)
}

fn enforce(redis: &Redis, enforcer: &Controller) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    let before = redis.placement()?;
    let migrated = vmstat("pgmigrate_success");
    let stranded = redis.strand()?;
    let ordered = enforcer.wait_for(120, "the move", |c| {
        let move_of = |it: &Value| it["extent"]["domain"]["pid"] == redis.pid();
        let decided = c.of_kind("decision").into_iter().find(|it| {
            move_of(it) && it["verdict"] != "stay" && it["now"].as_u64() > Some(stranded)
        })?;
        let orders = c.of_kind("ordered");
        let order = orders.iter().find(|it| it["seq"] == decided["seq"])?.clone();
        Some((decided, order))
    })?;
    let began = seconds(&ordered.1["now"]);
    failures.extend(punctual(redis, enforcer, stranded as f64 * 1e-9, began));
    tell(&format!("  decided: {}", ordered.0["why"].as_str().unwrap_or_default()));
    let outcome = enforcer.wait_for(60, "the outcome", |c| c.outcomes(redis.pid()).pop())?;
    let home = home_after(redis, before.0, began)?;
    let after = redis.placement()?;
    let came = after.1.saturating_sub(before.1);
    let moved: u64 = outcome["legs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|leg| leg["moved"].as_u64())
        .sum();
    tell(&format!(
        "  moved: {moved} pages in {:.2} s ({}); memory on {after}; pgmigrate_success +{}",
        seconds(&outcome["duration"]),
        outcome["end"].as_str().unwrap_or_default(),
        vmstat("pgmigrate_success") - migrated,
    ));
    match home {
        Some(seconds) if seconds <= 30.0 => {
            tell(&format!("  home {seconds:.1} s after the move began"))
        }
        Some(seconds) => failures.push(format!("home only {seconds:.1} s after the move began")),
        None => failures.push(format!("less than 95 % of {} pages followed: {after}", before.0)),
    }
    if (moved as f64) < 0.9 * came as f64 {
        failures.push(format!("our ledger explains {moved} of {came} pages that came"));
    }
    show_metrics(enforcer)?;
    Ok(failures)
}

/// Did the move begin within two ticks of what the first record 5 s after stranding said?
fn punctual(redis: &Redis, enforcer: &Controller, stranded: f64, began: f64) -> Option<String> {
    let decisions = enforcer.decisions(redis.pid());
    let record = decisions.iter().find(|it| seconds(&it["now"]) >= stranded + 5.0)?;
    let Some(move_in) = record["forecast"]["move_in"].as_f64() else {
        return Some(format!("the record said nothing of when: {record}"));
    };
    let said = seconds(&record["now"]) + move_in - stranded;
    tell(&format!(
        "  {:.1} s after stranding it said: {}",
        seconds(&record["now"]) - stranded,
        record["why"].as_str().unwrap_or_default()
    ));
    let real = began - stranded;
    tell(&format!("  said: moves {said:.1} s after stranding; began {real:.1} s after it"));
    ((said - real).abs() > 2.0 * TICK_SECONDS)
        .then(|| format!("the move began at {real:.1} s, not within two ticks of {said:.1} s"))
}

/// Seconds from the beginning of the move until 95 % of the pages have come.
fn home_after(redis: &Redis, pages: u64, began: f64) -> Result<Option<f64>> {
    loop {
        let (_, there) = redis.counts()?;
        let passed = boottime() as f64 * 1e-9 - began;
        if there as f64 >= 0.95 * pages as f64 {
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
    let enforcer = Controller::start(&["--mode", "enforce"])?;
    sleep(Duration::from_secs(4));
    // Who moved pages home before this does not count.
    let before = redis.placement()?;
    tell(&format!("redis-server (pid {}) under load, memory on {before}", redis.pid()));
    let kernel = vmstat("numa_pages_migrated");
    redis.strand()?;
    sleep(ACT * 2);
    let after = redis.placement()?;
    let kernel = vmstat("numa_pages_migrated") - kernel;
    let text = controller::metrics()?;
    let ours = controller::metric(&text, "migrate_own_move_pages_total", &["to_node=\"1\""]);
    let came = after.1.saturating_sub(before.1);
    tell(&format!("30 s after stranding: memory on {after}"));
    tell(&format!("the kernel's balancing moved {kernel} pages on this machine, we moved {ours}"));
    show_metrics(&enforcer)?;
    enforcer.stop()?;
    let explained = kernel as f64 + ours;
    Ok((explained < 0.9 * came as f64)
        .then(|| format!("{explained} pages moved by either explain less than 90 % of {came}"))
        .into_iter()
        .collect())
}

fn show_metrics(enforcer: &Controller) -> Result<()> {
    // The outcome enters the snapshot at the next tick, and its verdict three ticks later.
    sleep(Duration::from_secs(6));
    let text = controller::metrics()?;
    for wanted in SHOWN {
        if let Some(line) = text.lines().find(|line| line.starts_with(wanted)) {
            tell(&format!("  {line}"));
        }
    }
    println!("METRICS-BEGIN\n{}METRICS-END", text);
    ensure!(enforcer.pid() > 0, "the controller has gone");
    Ok(())
}

fn seconds(nanos: &Value) -> f64 {
    nanos.as_f64().unwrap_or(0.0) * 1e-9
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
    text: String,
    left: f64,
}

impl Act {
    fn stayed(&self, act: &str) -> Option<String> {
        (self.left < 0.95)
            .then(|| format!("{act}: only {:.1} % stayed on node 0", self.left * 100.0))
    }
}

/// Watches the stranded server for an act.
fn watch(redis: &Redis, pages: u64) -> Result<Act> {
    let migrated = vmstat("pgmigrate_success");
    sleep(ACT);
    let after = redis.placement()?;
    let migrated = vmstat("pgmigrate_success") - migrated;
    let text =
        format!("  {} s later: memory on {after}; pgmigrate_success +{migrated}", ACT.as_secs());
    Ok(Act { text, left: after.0 as f64 / pages as f64 })
}

/// The server and its load. Dropping it kills both.
struct Redis {
    server: Child,
    load: Option<Child>,
}

impl Redis {
    fn start() -> Result<Self> {
        sys::pin(0, &witness::cpus_of(0))?;
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
        work::run_on(self.pid(), 1)?;
        Ok(boottime())
    }

    /// Its threads run on node 0, and so does its memory.
    fn come_home(&self) -> Result<()> {
        work::run_on(self.pid(), 0)?;
        let pid = self.pid().to_string();
        if self.counts()?.1 > 0 {
            controller::command(&["migrate", &pid, "--from", "1", "--to", "0"])?;
        }
        Ok(())
    }

    fn counts(&self) -> Result<(u64, u64)> {
        Ok((anon_on(self.pid(), 0)?, anon_on(self.pid(), 1)?))
    }

    fn placement(&self) -> Result<Placement> {
        let (here, there) = self.counts()?;
        Ok(Placement(here, there))
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
