//! Starts `lab work ...` and talks to it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::sys::Usage;

/// A workload that runs. It is killed when this is dropped.
pub(crate) struct Worker {
    child: Child,
    /// None once it has been told to end.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// What a workload did at one line.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Did {
    pub(crate) before: Usage,
    pub(crate) after: Usage,
    pub(crate) pages: u64,
    /// In ns, where it is about that: its threads slept, and were off their CPUs.
    #[serde(default)]
    pub(crate) slept: u64,
    #[serde(default)]
    pub(crate) off_cpu: u64,
}

impl Worker {
    /// Returns once the workload is ready. `words` are those of `lab work`, split at spaces.
    pub(crate) fn start(words: &str) -> Result<Self> {
        let ourselves = std::env::current_exe().context("find our own binary")?;
        let mut child = Command::new(ourselves)
            .arg("work")
            .args(words.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start `lab work {words}`"))?;
        let input = Some(child.stdin.take().context("no standard input")?);
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut worker = Self { child, input, output };
        let line = worker.line().with_context(|| format!("`lab work {words}`"))?;
        ensure!(line == "ready", "`lab work {words}` said {line:?} instead of ready");
        Ok(worker)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it act once and waits until it has.
    pub(crate) fn act(&mut self) -> Result<Did> {
        self.go()?;
        self.done()
    }

    /// Lets it act once.
    pub(crate) fn go(&mut self) -> Result<()> {
        let input = self.input.as_mut().context("it was told to end")?;
        writeln!(input, "go").context("write to the workload")
    }

    /// Waits until it has acted.
    pub(crate) fn done<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("the workload said {line:?}"))
    }

    /// Lets it end by itself.
    pub(crate) fn wait(&mut self) -> Result<()> {
        self.input = None;
        let status = self.child.wait().context("wait for the workload")?;
        ensure!(status.success(), "the workload ended with {status}");
        Ok(())
    }

    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line).context("read from the workload")?;
        ensure!(read > 0, "the workload ended");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}
