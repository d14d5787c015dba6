//! How does the guest start, and how does it say how its command ended?
//!
//! The first process: mounts, modules, network, settings, then one command.
//! What fails on the way is said and passed over, because a test that needs it
//! says more; the verdict line comes in any case.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use rustix::system::{RebootCommand, finit_module, reboot};

/// The guest's address in QEMU's user network, where forwarded ports arrive.
const ADDRESS: &str = "10.0.2.15/24";
/// What a shell gives a command that cannot be started.
const NOT_STARTED: i32 = 127;

/// File systems in mounting order: type, path, options.
const MOUNTS: [(&str, &str, &CStr); 9] = [
    ("proc", "/proc", c""),
    ("sysfs", "/sys", c""),
    ("devtmpfs", "/dev", c""),
    ("tmpfs", "/tmp", c""),
    ("tmpfs", "/run", c""),
    ("cgroup2", "/sys/fs/cgroup", c""),
    ("bpf", "/sys/fs/bpf", c""),
    ("tracefs", "/sys/kernel/tracing", c""),
    ("debugfs", "/sys/kernel/debug", c""),
];

/// Brings the guest up, runs its command and powers off.
pub(crate) fn run() -> ! {
    for (kind, path, options) in MOUNTS {
        report(mount_one(kind, path, options));
    }
    // The kernel's lines would break into those of the command.
    report(write("/proc/sys/kernel/printk", "1"));
    report(load_modules());
    network();
    report(apply_settings());
    let code = match run_command() {
        Ok(code) => code,
        Err(error) => {
            say(&format!("init: {error:#}"));
            NOT_STARTED
        }
    };
    say(&format!("\nMIGRATE-GUEST-EXIT {code}"));
    // The emulator stops at once; what the serial line has not sent by then is lost.
    let _ = rustix::termios::tcdrain(io::stdout());
    rustix::fs::sync();
    loop {
        let _ = reboot(RebootCommand::PowerOff);
        // The kernel panics if its first process ends, so a refusal is waited out.
        thread::sleep(Duration::from_secs(1));
    }
}

fn mount_one(kind: &str, path: &str, options: &CStr) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("create {path}"))?;
    mount(kind, path, kind, MountFlags::empty(), options)
        .with_context(|| format!("mount {kind} on {path}"))
}

/// Loads `/lib/modules-load`, whose names are in loading order.
fn load_modules() -> Result<()> {
    let folder = fs::read_dir("/lib/modules-load").context("read /lib/modules-load")?;
    let mut files =
        folder.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    files.sort();
    for path in files {
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let parameters = CString::default();
        report(
            finit_module(file, &parameters, 0).with_context(|| format!("load {}", path.display())),
        );
    }
    Ok(())
}

fn network() {
    report(ip(&["link", "set", "lo", "up"]));
    if Path::new("/sys/class/net/eth0").exists() {
        report(ip(&["addr", "add", ADDRESS, "dev", "eth0"]));
        report(ip(&["link", "set", "eth0", "up"]));
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("/bin/busybox").arg("ip").args(arguments).status();
    let status = status.context("start busybox ip")?;
    ensure!(status.success(), "ip {}: {status}", arguments.join(" "));
    Ok(())
}

fn apply_settings() -> Result<()> {
    let text = fs::read_to_string("/etc/migrate/settings").context("read the settings")?;
    let settings: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once('=')).collect();
    for (key, value) in settings {
        match key {
            "far" => report(check_far()),
            "balancing" => write("/proc/sys/kernel/numa_balancing", value)?,
            _ => say(&format!("init: no setting {key:?}")),
        }
    }
    Ok(())
}

/// Lets the emulator's plugin see each node's memory; what it saw is judged outside.
fn check_far() -> Result<()> {
    let status = Command::new("/bin/lab").arg("far").status().context("start lab far")?;
    ensure!(status.success(), "lab far: {status}");
    Ok(())
}

/// Runs the command to its end; also reaps what it leaves behind.
fn run_command() -> Result<i32> {
    let text = fs::read_to_string("/etc/migrate/command").context("read the command")?;
    let words: Vec<&str> = text.lines().collect();
    let mut command = match words.as_slice() {
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null());
            command
        }
        // A shell needs a terminal of its own, or Ctrl-C ends nothing.
        [] => {
            let mut command = Command::new("/bin/busybox");
            command.args(["setsid", "cttyhack", "sh"]);
            command
        }
    };
    command.env_clear().env("PATH", "/bin:/usr/bin").env("HOME", "/root").env("TERM", "linux");
    let child = command.spawn().with_context(|| format!("start {}", words.join(" ")))?;
    let child = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if Some(pid) == child => return Ok(code(status)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for the command"),
        }
    }
}

/// As a shell has it: a signal counts from 128.
fn code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => NOT_STARTED,
    }
}

fn write(path: &str, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("write {value} to {path}"))
}

fn report(result: Result<()>) {
    if let Err(error) = result {
        say(&format!("init: {error:#}"));
    }
}

fn say(line: &str) {
    // Without a console there is nobody to tell.
    let mut console = io::stdout().lock();
    let _ = writeln!(console, "{line}");
    let _ = console.flush();
}
