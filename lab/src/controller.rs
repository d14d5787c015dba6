//! Starts `migrate-ctl` as a user would, and reads what it says and writes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use migrate_ctl::journal::reader;
use migrate_ctl::journal::view::{View, What};
use migrate_ctl::model::{Decision, Order, Outcome};
use migrate_ctl::table::trial::Score;
use rustix::process::{Gid, Signal, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::sys;

const BINARY: &str = "/bin/migrate-ctl";
/// The emulator is slow while it verifies probes.
const START: Duration = Duration::from_secs(60);
/// Still slower in a far guest, where it counts each access.
const LOAD: Duration = Duration::from_secs(120);
/// As a machine with two sockets would have it.
const LATENCY_RATIO: &str = "--latency-ratio 2.1";
/// Nothing is, unless a test is about it: what it waits for might be.
const HOLD_BACK: &str = "--hold-back";
const STOP: Duration = Duration::from_secs(30);
const ADDRESS: &str = "127.0.0.1:9816";

/// A controller that runs. It is killed when this is dropped.
pub(crate) struct Controller {
    child: Child,
    journal: String,
    log: String,
}

/// What is in the journal, as far as the lab judges it.
#[derive(Debug)]
pub(crate) enum Fact {
    Decision(Decided),
    Ordered { order: Order, now: u64 },
    Outcome(Outcome),
    Score(Score),
}

/// What the lab reads of a decision.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    /// In plain words.
    pub(crate) why: String,
    pub(crate) decision: Decision,
}

/// What a command that ended by itself has said.
#[derive(Debug)]
pub(crate) struct Said {
    /// None: a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Controller {
    /// Returns once it is up. `words` are those after `migrate-ctl run`, split at spaces. All
    /// memory is equally fast in a guest, so that the ratio must be configured.
    pub(crate) fn start(words: &str) -> Result<Self> {
        Self::measuring(&format!("{LATENCY_RATIO} {words}"))
    }

    /// The same with what it measures.
    pub(crate) fn measuring(words: &str) -> Result<Self> {
        let mut controller = Self::spawn(words, &[])?;
        controller.wait_until_up()?;
        Ok(controller)
    }

    /// The same without some capabilities, by number.
    pub(crate) fn start_without(words: &str, capabilities: &'static [u32]) -> Result<Self> {
        let words = format!("{LATENCY_RATIO} {words}");
        let mut controller = Self::spawn(&words, capabilities)?;
        controller.wait_until_up()?;
        Ok(controller)
    }

    fn spawn(words: &str, capabilities: &'static [u32]) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let (journal, log) = (format!("/tmp/journal-{number}"), format!("/tmp/log-{number}"));
        let file = File::create(&log).with_context(|| format!("create {log}"))?;
        let mut command = Command::new(BINARY);
        command
            .args(["run", "--journal", &journal])
            .args(words.split_whitespace())
            .args(if words.contains(HOLD_BACK) { &[][..] } else { &[HOLD_BACK, "0"] })
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("share the log")?)
            .stderr(file);
        without(&mut command, capabilities);
        let child = command.spawn().with_context(|| format!("start {BINARY}"))?;
        Ok(Self { child, journal, log })
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let end = Instant::now() + START;
        while !matches!(get("/-/ready"), Ok((200, _))) {
            if let Some(status) = self.child.try_wait().context("wait for the controller")? {
                bail!("the controller ended with {status}: {}", self.log());
            }
            if Instant::now() > end {
                bail!("the controller is not ready after {START:?}: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn is_up(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("wait for the controller")?.is_none())
    }

    /// The journal so far; a record that is being written is left for the next time.
    pub(crate) fn facts(&self) -> Result<Vec<Fact>> {
        let mut view = View::default();
        let mut facts = Vec::new();
        for fact in reader::read(Path::new(&self.journal))? {
            let entries = view.entries(fact?).into_iter();
            facts.extend(entries.filter_map(|entry| match entry.what {
                What::Decision { decision, .. } => {
                    Some(Fact::Decision(Decided { why: entry.why, decision: *decision }))
                }
                What::Ordered(order) => Some(Fact::Ordered { order, now: entry.at }),
                What::Outcome(outcome) => Some(Fact::Outcome(outcome)),
                What::Score(score) => Some(Fact::Score(score)),
                What::Settings(_) | What::HeldBack(_) => None,
            }));
        }
        Ok(facts)
    }

    /// All decisions about one process.
    pub(crate) fn decisions(&self, pid: u32) -> Result<Vec<Decision>> {
        Ok(self.decided(pid)?.into_iter().map(|decided| decided.decision).collect())
    }

    /// The same with their reasons in plain words.
    pub(crate) fn decided(&self, pid: u32) -> Result<Vec<Decided>> {
        let facts = self.facts()?;
        Ok(facts
            .into_iter()
            .filter_map(|fact| match fact {
                Fact::Decision(decided) => Some(decided),
                Fact::Ordered { .. } | Fact::Outcome(_) | Fact::Score(_) => None,
            })
            .filter(|decided| decided.decision.extent.domain.pid == pid)
            .collect())
    }

    /// All orders about one process: when they went to the mover.
    pub(crate) fn orders(&self, pid: u32) -> Result<Vec<u64>> {
        Ok(self
            .facts()?
            .into_iter()
            .filter_map(|fact| match fact {
                Fact::Ordered { order, now } if order.target.pid == pid => Some(now),
                Fact::Ordered { .. } | Fact::Decision(_) | Fact::Outcome(_) | Fact::Score(_) => {
                    None
                }
            })
            .collect())
    }

    /// When an order went to the mover.
    pub(crate) fn ordered(&self, wanted: u64) -> Result<Option<u64>> {
        Ok(self.facts()?.into_iter().find_map(|fact| match fact {
            Fact::Ordered { order, now } if order.seq == wanted => Some(now),
            Fact::Ordered { .. } | Fact::Decision(_) | Fact::Outcome(_) | Fact::Score(_) => None,
        }))
    }

    /// All moves of one process that have ended.
    pub(crate) fn outcomes(&self, pid: u32) -> Result<Vec<Outcome>> {
        let facts = self.facts()?;
        Ok(facts
            .into_iter()
            .filter_map(|fact| match fact {
                Fact::Outcome(outcome) => Some(outcome),
                Fact::Ordered { .. } | Fact::Decision(_) | Fact::Score(_) => None,
            })
            .filter(|outcome| outcome.target.pid == pid)
            .collect())
    }

    /// What came of the moves of one process, made and held back.
    pub(crate) fn scores(&self, pid: u32) -> Result<Vec<Score>> {
        let facts = self.facts()?;
        Ok(facts
            .into_iter()
            .filter_map(|fact| match fact {
                Fact::Score(score) => Some(score),
                Fact::Ordered { .. } | Fact::Decision(_) | Fact::Outcome(_) => None,
            })
            .filter(|score| score.target.pid == pid)
            .collect())
    }

    /// Waits for the end of a first move of a process; none where there is none in time.
    pub(crate) fn first_outcome(&self, pid: u32, patience: Duration) -> Result<Option<Outcome>> {
        let end = Instant::now() + patience;
        loop {
            if let Some(outcome) = self.outcomes(pid)?.into_iter().next() {
                return Ok(Some(outcome));
            }
            if Instant::now() > end {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops it and lets its journal be decided anew: what `migrate-ctl replay` says, as JSON.
    pub(crate) fn replay(&mut self) -> Result<serde_json::Value> {
        let status = self.stop()?;
        ensure!(status.success(), "the controller ended with {status}: {}", self.log());
        let said = say(&format!("replay --output json {}", self.journal))?;
        ensure!(said.code == Some(0), "replay ended with {said:?}");
        serde_json::from_str(&said.out).context("the JSON of replay")
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        self.stop_by(Signal::TERM)
    }

    pub(crate) fn stop_by(&mut self, signal: Signal) -> Result<ExitStatus> {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.context("no pid")?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("{signal:?}"))?;
        let end = Instant::now() + STOP;
        loop {
            if let Some(status) = self.child.try_wait().context("wait for the controller")? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("the controller runs on {STOP:?} after {signal:?}: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it as the OOM killer would.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `migrate-ctl` to its end, but not for longer than a minute.
pub(crate) fn say(words: &str) -> Result<Said> {
    finish(Command::new(BINARY).args(words.split_whitespace()))
}

/// The same as another user.
pub(crate) fn say_as(user: u32, words: &str) -> Result<Said> {
    finish(Command::new(BINARY).args(words.split_whitespace()).uid(user).gid(user))
}

/// The same as another user, who is a member of one more group.
pub(crate) fn say_as_member(user: u32, group: u32, words: &str) -> Result<Said> {
    let mut command = Command::new(BINARY);
    command.args(words.split_whitespace());
    // `Command` forgets all groups but the user's own.
    sys::before_exec(&mut command, move || become_user(user, group));
    finish(&mut command)
}

/// The same without some capabilities, by number.
pub(crate) fn say_without(words: &str, capabilities: &'static [u32]) -> Result<Said> {
    let mut command = Command::new(BINARY);
    command.args(words.split_whitespace());
    without(&mut command, capabilities);
    finish(&mut command)
}

/// A page of the exporter: status and body.
pub(crate) fn get(path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(ADDRESS).context("connect to the exporter")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {ADDRESS}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read from the exporter")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
    let status = head.split(' ').nth(1).context("an answer without a status")?;
    Ok((status.parse()?, body.to_owned()))
}

fn become_user(user: u32, other_group: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(user));
    set_thread_groups(&[Gid::from_raw(other_group)])?;
    set_thread_res_gid(group, group, group)?;
    Ok(set_thread_res_uid(user, user, user)?)
}

fn without(command: &mut Command, capabilities: &'static [u32]) {
    if !capabilities.is_empty() {
        sys::before_exec(command, move || {
            capabilities.iter().try_for_each(|&capability| sys::drop_from_bounding_set(capability))
        });
    }
}

fn finish(command: &mut Command) -> Result<Said> {
    Running::spawn(command)?.end(START)
}

/// `migrate-ctl` while it runs to its end. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    log: String,
}

impl Running {
    /// Returns once it has said so on stderr.
    pub(crate) fn until_it_says(words: &str, sign: &str) -> Result<Self> {
        let mut running = Self::spawn(Command::new(BINARY).args(words.split_whitespace()))?;
        let end = Instant::now() + LOAD;
        while !running.err().contains(sign) {
            let ended = running.child.try_wait().context("wait for migrate-ctl")?.is_some();
            if ended || Instant::now() > end {
                bail!("it does not say {sign:?}: {}", running.err());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(running)
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let log = format!("/tmp/said-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let err = File::create(&log).with_context(|| format!("create {log}"))?;
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(err);
        let child = command.spawn().with_context(|| format!("start {BINARY}"))?;
        Ok(Self { child, log })
    }

    /// What it has said by its end, which comes after so long at the latest. It says less than a
    /// pipe holds.
    pub(crate) fn end(mut self, patience: Duration) -> Result<Said> {
        let end = Instant::now() + patience;
        let code = loop {
            if let Some(status) = self.child.try_wait().context("wait for migrate-ctl")? {
                break status.code();
            }
            if Instant::now() > end {
                self.child.kill().context("kill migrate-ctl")?;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut out = String::new();
        let pipe = self.child.stdout.as_mut().context("no pipe")?;
        pipe.read_to_string(&mut out).context("read what it said")?;
        Ok(Said { code, out, err: self.err() })
    }

    fn err(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
