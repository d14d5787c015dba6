//! Where does everything lie, and how does xtask speak and start other programs?
//!
//! All that xtask makes lies under `target/`, so that a clone stays clean and
//! deleting one folder undoes it.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// A path under the workspace's `target/`, or under `CARGO_TARGET_DIR`.
pub(crate) fn target(path: &str) -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        // Relative to where we were started, as cargo has it.
        Some(folder) => env::current_dir().unwrap_or_default().join(folder).join(path),
        None => root().join("target").join(path),
    }
}

/// Prints a line for the user; a closed pipe is not worth an error.
pub(crate) fn say(line: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{}", line.as_ref());
    let _ = out.flush();
}

/// The first file of that name on `PATH`; the administrator's folders count
/// too, as a plain user's `PATH` lacks them.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The program with a parent whose death ends it: killed, xtask drops nothing.
pub(crate) fn dies_with_us(file: &Path) -> Command {
    let Some(setpriv) = program("setpriv") else { return Command::new(file) };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(file);
    command
}

/// The host's cargo: the one that started xtask.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    // Cargo puts its own libraries first for the program it runs; a compiler
    // of another toolchain below us must not see them.
    cargo.env_remove("LD_LIBRARY_PATH");
    cargo
}

/// Runs a command whose output the user wants to see.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs a command whose output matters only if it fails; returns what it wrote.
pub(crate) fn quiet(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {}", shown(command)))?;
    if !output.status.success() {
        bail!("{} ended with {}:\n{}", shown(command), output.status, tail(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// The last lines that a failed command wrote: where the reason stands.
fn tail(output: &Output) -> String {
    let all = [output.stdout.as_slice(), &output.stderr].concat();
    let all = String::from_utf8_lossy(&all);
    let lines: Vec<&str> = all.trim_end().lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
