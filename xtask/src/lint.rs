//! Is the code in the shape that a change must have?
//!
//! Format, clippy on the host's crates and on the probes, the documents with
//! private items, and `tidy`. Each answers for itself, so that one run names
//! everything that is wrong.

use anyhow::{Result, ensure};

use crate::paths::{cargo, run, say, target};
use crate::tidy;

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

/// Checked for the host's target: the probes' own compiler may have no clippy.
fn probes() -> Result<()> {
    let mut command = cargo();
    command
        .args(["clippy", "--locked", "--package", "migrate-ebpf", "--target-dir"])
        .arg(target("clippy-probes"))
        .args(["--", "-D", "warnings"])
        // They use unstable features and have no unwinding.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_PROFILE_DEV_PANIC", "abort");
    run(&mut command)
}

fn rustdoc() -> Result<()> {
    let mut command = cargo();
    command.args(["doc", "--no-deps", "--document-private-items", "--locked"]);
    run(command.env("RUSTDOCFLAGS", "-D warnings"))
}
