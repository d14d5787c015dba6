//! Drives the real `migrate-ctl` and reads what it writes: journal, output, /metrics.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PROGRAM: &str = "/bin/migrate-ctl";
const METRICS: &str = "127.0.0.1:9816";

/// A running controller. Dropping it kills it.
pub(crate) struct Controller {
    child: Child,
    folder: PathBuf,
}

impl Controller {
    /// Starts `migrate-ctl run ARGS` and waits until it is ready.
    pub(crate) fn start(args: &[&str]) -> Result<Self> {
        let controller = Self::spawn(Command::new(PROGRAM), args)?;
        controller.wait_until_ready()
    }

    /// The same through another program that becomes it in the end.
    pub(crate) fn start_through(mut command: Command, args: &[&str]) -> Result<Self> {
        command.arg(PROGRAM);
        let controller = Self::spawn(command, args)?;
        controller.wait_until_ready()
    }

    fn spawn(mut command: Command, args: &[&str]) -> Result<Self> {
        let nanos = migrate_ctl::sys::boottime();
        let folder = PathBuf::from(format!("/tmp/controller-{nanos}"));
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        let child = command
            .arg("run")
            .args(args)
            .arg("--journal")
            .arg(folder.join("journal"))
            .stdin(Stdio::null())
            .stdout(File::create(folder.join("out"))?)
            .stderr(File::create(folder.join("err"))?)
            .spawn()
            .context("start migrate-ctl")?;
        Ok(Self { child, folder })
    }

    fn wait_until_ready(mut self) -> Result<Self> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            if let Some(status) = self.child.try_wait()? {
                bail!("migrate-ctl ended with {status}: {}", self.said("err").trim());
            }
            if get("/-/ready").is_ok_and(|(status, _)| status == 200) {
                return Ok(self);
            }
            sleep(Duration::from_millis(200));
        }
        bail!("migrate-ctl was not ready after 60 s: {}", self.said("err").trim())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `out` or `err` so far.
    pub(crate) fn said(&self, stream: &str) -> String {
        fs::read_to_string(self.folder.join(stream)).unwrap_or_default()
    }

    /// The journal so far.
    pub(crate) fn facts(&self) -> Vec<Value> {
        let journal = self.said("journal");
        journal.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Facts of one kind.
    pub(crate) fn of_kind(&self, kind: &str) -> Vec<Value> {
        self.facts().iter().filter_map(|fact| fact.get(kind).cloned()).collect()
    }

    /// The journal's decisions on one process.
    pub(crate) fn decisions(&self, pid: u32) -> Vec<Value> {
        let of_pid = |decision: &Value| decision["extent"]["domain"]["pid"] == pid;
        self.of_kind("decision").into_iter().filter(of_pid).collect()
    }

    /// The journal's outcomes of one process.
    pub(crate) fn outcomes(&self, pid: u32) -> Vec<Value> {
        self.of_kind("outcome").into_iter().filter(|it| it["target"]["pid"] == pid).collect()
    }

    /// Waits until something is true of it.
    pub(crate) fn wait_for<T>(
        &self,
        seconds: u64,
        what: &str,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            sleep(Duration::from_millis(100));
        }
        bail!("{what}: not within {seconds} s")
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("a pid")?;
        kill_process(pid, signal).context("signal migrate-ctl")
    }

    /// SIGTERM, and its exit.
    pub(crate) fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "migrate-ctl ended with {status} on SIGTERM");
                return Ok(status);
            }
            sleep(Duration::from_millis(50));
        }
        bail!("migrate-ctl does not end on SIGTERM")
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill().context("kill migrate-ctl")?;
        self.child.wait().context("wait for migrate-ctl")?;
        Ok(())
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It has ended already if this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs one of its commands to the end.
pub(crate) fn command(args: &[&str]) -> Result<Output> {
    Command::new(PROGRAM).args(args).stdin(Stdio::null()).output().context("run migrate-ctl")
}

pub(crate) fn metrics() -> Result<String> {
    let (status, text) = get("/metrics")?;
    ensure!(status == 200, "/metrics answers {status}");
    Ok(text)
}

/// Status and body.
pub(crate) fn get(path: &str) -> Result<(u16, String)> {
    let mut stream =
        TcpStream::connect(METRICS).with_context(|| format!("connect to {METRICS}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {METRICS}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("read {path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("an answer without a status")?, body.to_owned()))
}

/// Sum of a family's samples whose labels contain all of `labels`.
pub(crate) fn metric(text: &str, name: &str, labels: &[&str]) -> f64 {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter_map(|rest| {
        let (inner, value) = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        labels.iter().all(|label| inner.contains(label)).then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}
