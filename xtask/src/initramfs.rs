//! What lies in the guest's root file system?
//!
//! Busybox, our two static programs, the modules of a network card and disks,
//! the command to run, and on request redis. No distribution: it boots in
//! seconds, and nothing in it moves memory behind our back.

mod cpio;
mod modules;
mod programs;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use cpio::Archive;

/// Names that busybox answers to in the guest.
const APPLETS: [&str; 40] = [
    "[", "cat", "chmod", "cp", "cttyhack", "cut", "date", "dd", "df", "dmesg", "echo", "env",
    "false", "find", "free", "grep", "head", "hostname", "ip", "kill", "ln", "ls", "mkdir",
    "mknod", "mount", "nc", "nproc", "ps", "rm", "sed", "setsid", "sh", "sleep", "sort", "sysctl",
    "tail", "taskset", "top", "true", "wget",
];
/// Where the guest's init mounts something, or programs expect to write.
const FOLDERS: [&str; 7] = ["dev", "proc", "root", "run", "sys", "tmp", "var/lib"];

/// What one guest gets.
pub(crate) struct Contents<'a> {
    /// Static busybox.
    pub(crate) busybox: &'a Path,
    /// Our static guest program; it is also the first process.
    pub(crate) lab: &'a Path,
    /// The static controller with the probes inside.
    pub(crate) controller: &'a Path,
    /// The kernel's module folder.
    pub(crate) modules: &'a Path,
    /// Root of the file tree that has redis in usr/bin, if redis is wanted.
    pub(crate) redis: Option<&'a Path>,
    /// Program and arguments; empty asks for a shell.
    pub(crate) command: &'a [String],
    /// Read by the guest's init: `balancing`.
    pub(crate) settings: &'a [(&'a str, String)],
}

/// Writes the archive that `-initrd` takes.
pub(crate) fn write(contents: &Contents<'_>, file: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.folder(folder)?;
    }
    archive.console()?;
    for (path, source) in [
        ("bin/busybox", contents.busybox),
        ("bin/lab", contents.lab),
        ("bin/migrate-ctl", contents.controller),
    ] {
        let bytes = fs::read(source).with_context(|| format!("read {}", source.display()))?;
        archive.file(path, 0o755, &bytes)?;
    }
    archive.link("init", "bin/lab")?;
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    for (number, (name, module)) in modules::read(contents.modules)?.into_iter().enumerate() {
        archive.file(&format!("lib/modules-load/{number:02}-{name}.ko"), 0o644, &module)?;
    }
    if let Some(root) = contents.redis {
        programs::add(&mut archive, root, &["redis-server", "redis-cli", "redis-benchmark"])?;
    }
    archive.file("etc/migrate/command", 0o644, lines(contents.command)?.as_bytes())?;
    let settings: Vec<String> =
        contents.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    archive.file("etc/migrate/settings", 0o644, lines(&settings)?.as_bytes())?;
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    fs::write(file, archive.finish()?).with_context(|| format!("write {}", file.display()))
}

/// One word a line; a word with a line break in it would arrive as two.
fn lines(words: &[String]) -> Result<String> {
    for word in words {
        ensure!(!word.contains('\n'), "a line break in {word:?}: the guest takes one word a line");
    }
    Ok(words.iter().map(|word| format!("{word}\n")).collect())
}
