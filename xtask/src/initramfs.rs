//! What lies in the guest's root file system?
//!
//! Busybox, our two static programs, the modules of a network card and disks,
//! the command to run, and on request others'
//! programs. No distribution: it boots in
//! seconds, and nothing in it moves memory behind our back.

mod cpio;
mod modules;

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
    /// A folder with programs and their libraries at the paths they have in the guest.
    pub(crate) programs: Option<&'a Path>,
    /// Program and arguments; empty asks for a shell.
    pub(crate) command: &'a [String],
    /// Read by the guest's init: `balancing`, `far`.
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
    for (number, (name, module)) in
        modules::read(contents.modules, contents.busybox)?.into_iter().enumerate()
    {
        archive.file(&format!("lib/modules-load/{number:02}-{name}.ko"), 0o644, &module)?;
    }
    if let Some(root) = contents.programs {
        add_tree(&mut archive, root, "")?;
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

/// Adds a folder of the host as it is: links as links, programs executable.
fn add_tree(archive: &mut Archive, root: &Path, below: &str) -> Result<()> {
    let folder = root.join(below);
    let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name =
            name.to_str().with_context(|| format!("no UTF-8: {}", entry.path().display()))?;
        let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            add_tree(archive, root, &path)?;
        } else if kind.is_symlink() {
            let to = fs::read_link(entry.path())?;
            archive.link(&path, &to.to_string_lossy())?;
        } else {
            let bytes = fs::read(entry.path()).with_context(|| format!("read {path}"))?;
            archive.file(&path, 0o755, &bytes)?;
        }
    }
    Ok(())
}
