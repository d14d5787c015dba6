//! How does a machine with several NUMA nodes come up, and how did it end?
//!
//! QEMU gives a guest as many nodes as wanted. The guest's last line says how
//! its command ended; without that line the guest died, which is another thing
//! than a failure.

mod rig;
mod topology;
mod far;
mod qemu;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use far::Check;
pub(crate) use far::{Far, Flaw, counts};
pub(crate) use qemu::Accel;
pub(crate) use rig::{DISTANCE, Load, Rig};
pub(crate) use topology::{Node, Topology};

/// What the guest's init prints last, before the exit code.
const VERDICT: &str = "MIGRATE-GUEST-EXIT ";
/// How often a guest is looked after that says nothing.
const LOOK: Duration = Duration::from_millis(100);
/// How long a guest may take from its verdict to its end.
const POWER_OFF: Duration = Duration::from_secs(10);

/// A machine to boot.
pub(crate) struct Guest {
    /// Names the log and the disks.
    pub(crate) name: String,
    pub(crate) qemu: PathBuf,
    pub(crate) accel: Option<Accel>,
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) nodes: Vec<Node>,
    /// Between any two nodes; a node to itself is 10.
    pub(crate) distance: u32,
    /// The firmware says that memory without CPUs is slow (HMAT): the kernel demotes to it.
    pub(crate) tiers: bool,
    /// Makes other nodes as slow as it says, and counts what goes there.
    pub(crate) far: Option<Far>,
    /// A TCP port of the host's loopback, and the guest's port behind it.
    pub(crate) forward: Option<(u16, u16)>,
    /// Sizes in MiB of empty disks: /dev/vda, /dev/vdb, ….
    pub(crate) disks: Vec<u64>,
    /// From power on to the verdict.
    pub(crate) timeout: Duration,
    /// A guest that says nothing for so long hangs.
    pub(crate) silence: Option<Duration>,
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its command ended with this code.
    Exit(i32),
    /// It was gone, or hung, before it said how its command ended.
    Died,
    /// It was stopped because it took too long.
    TimedOut,
}

/// Boots the guest, hands over each line of its console, and returns how it ended.
///
/// The whole console is in the log, whose path [`log`] tells. A far guest that is not as told is
/// an error.
pub(crate) fn boot(guest: &Guest, mut on_line: impl FnMut(&str)) -> Result<End> {
    let disks = Disks::create(guest)?;
    let mut check = Check::of(guest)?;
    let mut log = create(&log(&guest.name))?;
    let mut command = qemu::command(guest, &disks.0);
    command.args(["-serial", "stdio", "-monitor", "none"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(command)?;
    let lines = running.console()?;
    let deadline = Instant::now() + guest.timeout;
    let patience = || guest.silence.map_or(deadline, |silence| Instant::now() + silence);
    let mut hung = patience();
    loop {
        let left = deadline.min(hung).saturating_duration_since(Instant::now());
        let line = lines.recv_timeout(left.min(if check.is_some() { LOOK } else { left }));
        if let Some(check) = &mut check {
            check.look()?;
        }
        match line {
            Ok(line) => {
                writeln!(log, "{line}").context("write the guest's log")?;
                if let Some(code) = verdict(&line) {
                    running.wait(POWER_OFF);
                    check.map_or(Ok(()), |mut check| check.end())?;
                    return Ok(End::Exit(code));
                }
                on_line(&line);
                hung = patience();
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                return Ok(End::TimedOut);
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() >= hung => {
                writeln!(log, "(nothing more: it hangs)").context("write the guest's log")?;
                return Ok(End::Died);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(End::Died),
        }
    }
}

/// Boots the guest with its console on our terminal.
pub(crate) fn attach(guest: &Guest) -> Result<()> {
    let disks = Disks::create(guest)?;
    let mut command = qemu::command(guest, &disks.0);
    command.args(["-serial", "mon:stdio"]);
    let mut check = Check::of(guest)?;
    let mut running = Running::start(command)?;
    // The end of the shell is the end of the guest; how it ended is of no interest.
    while running.0.try_wait().context("wait for the guest")?.is_none() {
        if let Some(check) = &mut check {
            check.look()?;
        }
        thread::sleep(LOOK);
    }
    check.map_or(Ok(()), |mut check| check.end())
}

/// Where the guest's console is kept.
pub(crate) fn log(name: &str) -> PathBuf {
    crate::paths::target("logs").join(format!("{name}.log"))
}

/// Moves the log of a guest that is booted again out of the way.
pub(crate) fn keep_log(name: &str) -> Result<PathBuf> {
    let kept = log(&format!("{name}-died"));
    fs::rename(log(name), &kept).with_context(|| format!("keep {}", kept.display()))?;
    Ok(kept)
}

/// The exit code, if this line carries it; the kernel may have written before it on the line.
fn verdict(line: &str) -> Option<i32> {
    let (_, rest) = line.split_once(VERDICT)?;
    rest.split_whitespace().next()?.parse().ok()
}

fn create(file: &Path) -> Result<File> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    File::create(file).with_context(|| format!("create {}", file.display()))
}

/// A QEMU that ends with us, whichever way we leave.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Result<Self> {
        let program = command.get_program().to_owned();
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        Ok(Self(child))
    }

    /// Lines of the console, and QEMU's own complaints; closed when both are.
    fn console(&mut self) -> Result<Receiver<String>> {
        let (sender, lines) = mpsc::channel();
        let console = self.0.stdout.take().context("qemu has no output")?;
        let complaints = self.0.stderr.take().context("qemu has no error output")?;
        let other = sender.clone();
        thread::spawn(move || forward_lines(BufReader::new(console), &sender));
        thread::spawn(move || forward_lines(BufReader::new(complaints), &other));
        Ok(lines)
    }

    fn wait(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline && matches!(self.0.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a child that is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn forward_lines(mut source: impl BufRead, sender: &mpsc::Sender<String>) {
    let mut line = Vec::new();
    // A console may carry any byte; a line that is no UTF-8 must not end the reading.
    while source.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        if sender.send(text.trim_end_matches(['\r', '\n']).to_owned()).is_err() {
            return;
        }
        line.clear();
    }
}

/// Empty disks, which take no room until written and go with the guest.
struct Disks(Vec<PathBuf>);

impl Disks {
    fn create(guest: &Guest) -> Result<Self> {
        let mut disks = Self(Vec::new());
        for (number, mib) in guest.disks.iter().enumerate() {
            let path = crate::paths::target("guests").join(format!("{}-{number}.img", guest.name));
            let file = create(&path)?;
            disks.0.push(path);
            file.set_len(mib << 20).with_context(|| format!("size a disk of {mib} MiB"))?;
        }
        Ok(disks)
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for disk in &self.0 {
            // What stays behind lies under target/ and is overwritten next time.
            let _ = fs::remove_file(disk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_found_behind_what_the_kernel_wrote() {
        assert_eq!(verdict("MIGRATE-GUEST-EXIT 0"), Some(0));
        assert_eq!(verdict("[    3.1] x: MIGRATE-GUEST-EXIT 137 "), Some(137));
        assert_eq!(verdict("MIGRATE-GUEST-EXIT"), None);
        assert_eq!(verdict("MIGRATE-GUEST-EXIT none"), None);
    }
}
