//! Does the controller say on this very machine what it loses, and run on the rest?
//!
//! Guests have every hook. Here there may be none: a container, a kernel that
//! refuses fentry, a plain user.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::paths::dies_with_us;
use crate::prometheus::server::{free_address, http_get};

const PATIENCE: Duration = Duration::from_secs(60);
/// Ticks that it has to survive.
const UP: Duration = Duration::from_secs(5);
/// Of `migrate-ctl --help`.
const CANNOT_RUN: i32 = 3;

/// What `doctor` says holds, and `run` does as it says.
pub(super) fn check(controller: &Path) -> Result<()> {
    let can_run = doctor(controller)?;
    let address = free_address()?;
    let mut command = dies_with_us(controller);
    command.args(["run", "--listen", &address.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().context("start the controller")?);
    let began = Instant::now();
    loop {
        if let Some(status) = running.0.try_wait().context("wait for the controller")? {
            let said = std::io::read_to_string(running.0.stderr.take().context("no stderr")?)?;
            ensure!(!can_run, "doctor says that it can run, and it ended with {status}: {said}");
            ensure!(status.code() == Some(CANNOT_RUN), "it ended with {status}: {said}");
            return Ok(());
        }
        if matches!(http_get(address, "/-/ready"), Ok((200, _))) {
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "it is not ready after {} s", PATIENCE.as_secs());
        sleep(Duration::from_millis(200));
    }
    ensure!(can_run, "doctor says that it cannot run, and it does");
    sleep(UP);
    let pid = i32::try_from(running.0.id()).ok().and_then(Pid::from_raw).context("no pid")?;
    kill_process(pid, Signal::TERM).context("ask the controller to stop")?;
    let status = running.0.wait().context("wait for the controller")?;
    ensure!(status.success(), "after SIGTERM it ended with {status}");
    Ok(())
}

/// Every loss has a reason and every problem a remedy; returns whether `run` would start.
fn doctor(controller: &Path) -> Result<bool> {
    let output = Command::new(controller).args(["doctor", "--output", "json"]).output()?;
    let report: Value = serde_json::from_slice(&output.stdout).context("read doctor's JSON")?;
    let can_run = report["can_run"].as_bool().context("no can_run")?;
    let code = output.status.code();
    ensure!(code == Some(if can_run { 0 } else { CANNOT_RUN }), "doctor ended with {code:?}");
    for check in report["checks"].as_array().context("no checks")? {
        let told = check["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty());
        ensure!(check["level"] == "good" || told, "a problem without a remedy: {check}");
    }
    for hook in report["hooks"].as_array().context("no hooks")? {
        match hook["state"].as_str() {
            Some("attached") => {}
            Some("absent" | "refused") => {
                let told = hook["why"].as_str().is_some_and(|why| !why.is_empty());
                ensure!(told, "a loss without a reason: {hook}");
            }
            _ => bail!("a hook in no known state: {hook}"),
        }
    }
    Ok(can_run)
}

/// Ended with us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already if this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
