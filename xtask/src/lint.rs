//! Is the code in the shape that a change must have?
//!
//! Format, clippy on the host's crates and on the probes, the documents with
//! private items, and `tidy`. Each answers for itself, so that one run names
//! everything that is wrong.

use anyhow::{Result, ensure};

use crate::build::probes_cargo;
use crate::paths::{cargo, run, say};
use crate::setup::{self, Part};
use crate::tidy;
use crate::toolchain;

/// Every check with its result, in the order run.
pub(crate) fn all() -> Vec<(String, Result<()>)> {
    vec![
        named("fmt", fmt()),
        named("clippy of the host's crates", clippy()),
        named("clippy of the probes", probes()),
        named("rustdoc", rustdoc()),
        named("tidy", tidy::check()),
    ]
}

fn named(check: &str, result: Result<()>) -> (String, Result<()>) {
    (format!("lint: {check}"), result)
}

/// Runs all checks for the command line.
pub(crate) fn main() -> Result<()> {
    let mut failed = 0;
    for (name, result) in all() {
        match result {
            Ok(()) => say(format!("ok      {name}")),
            Err(error) => {
                failed += 1;
                say(format!("FAILED  {name}\n{error:#}"));
            }
        }
    }
    ensure!(failed == 0, "{failed} checks failed");
    Ok(())
}

fn fmt() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    // The default members: those that build for the host.
    run(cargo().args(["clippy", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

/// Debian has no clippy for its compiler; then the compiler's own warnings must do.
fn probes() -> Result<()> {
    setup::need(&[Part::Ebpf])?;
    let toolchain = toolchain::choose()?;
    let mut command = if toolchain.has_clippy() {
        probes_cargo(&toolchain, "clippy")?
    } else {
        say("lint: the probes' toolchain has no clippy, taking the compiler's warnings");
        probes_cargo(&toolchain, "rustc")?
    };
    run(command.args(["--release", "--bin", "migrate-ebpf", "--", "-D", "warnings"]))
}

fn rustdoc() -> Result<()> {
    let mut command = cargo();
    command.args(["doc", "--no-deps", "--document-private-items", "--locked"]);
    run(command.env("RUSTDOCFLAGS", "-D warnings"))
}
