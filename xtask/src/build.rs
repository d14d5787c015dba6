//! How do probes and controller become one static binary?
//!
//! First the probes with the eBPF toolchain, then the host programs with the
//! object's path in `MIGRATE_EBPF`: `migrate-ctl` embeds it.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::elf;
use crate::paths::{cargo, run, say, target};
use crate::setup::{self, Part};
use crate::toolchain;

/// Named, so that build scripts and procedural macros stay dynamic.
const HOST: &str = "x86_64-unknown-linux-gnu";
const EBPF: &str = "bpfel-unknown-none";

pub(crate) struct Built {
    /// With the probes inside.
    pub(crate) controller: PathBuf,
    /// What runs inside a guest.
    pub(crate) lab: PathBuf,
}

/// Builds everything that runs on a machine or in a guest.
pub(crate) fn build() -> Result<Built> {
    let object = probes()?;
    let mut command = cargo();
    command
        .args([
            "build",
            "--release",
            "--locked",
            "--target",
            HOST,
            "-p",
            "migrate-ctl",
            "-p",
            "lab",
        ])
        .arg("--target-dir")
        .arg(target("static"))
        .env("RUSTFLAGS", flags("-C target-feature=+crt-static"))
        .env("MIGRATE_EBPF", &object);
    run(&mut command).context("build the controller")?;
    let made = target("static").join(HOST).join("release");
    let built = Built { controller: made.join("migrate-ctl"), lab: made.join("lab") };
    for program in [&built.controller, &built.lab] {
        let is_static = elf::is_static(program)?;
        ensure!(is_static, "{} is not static: a guest cannot run it", program.display());
    }
    Ok(built)
}

/// Builds the plugin of far guests for this version of the emulator's interface; returns its path.
pub(crate) fn plugin(interface: u32) -> Result<PathBuf> {
    let mut command = cargo();
    command
        .args(["rustc", "--release", "--locked", "-p", "far", "--crate-type", "cdylib"])
        .arg("--target-dir")
        .arg(target("plugin"))
        .env("MIGRATE_PLUGIN_API", interface.to_string());
    run(&mut command).context("build the emulator's plugin")?;
    let library = target("plugin").join("release/libfar.so");
    library.canonicalize().with_context(|| format!("find the plugin at {}", library.display()))
}

/// Builds the probes; returns the object's absolute path.
fn probes() -> Result<PathBuf> {
    setup::need(Part::Ebpf)?;
    let toolchain = toolchain::choose()?;
    say(format!("building the probes with {toolchain}"));
    let mut command = toolchain.cargo()?;
    command
        .args(["build", "--release", "--locked", "-Z", "build-std=core", "--target", EBPF])
        .args(["-p", "migrate-ebpf", "--target-dir"])
        .arg(target("ebpf"))
        .env("RUSTFLAGS", "-C debuginfo=2 -C link-arg=--btf");
    run(&mut command).context("build the probes")?;
    let object = target("ebpf").join(EBPF).join("release/migrate-ebpf");
    object.canonicalize().with_context(|| format!("find the probes at {}", object.display()))
}

/// The user's own flags and ours.
fn flags(ours: &str) -> String {
    match env::var("RUSTFLAGS") {
        Ok(theirs) => format!("{theirs} {ours}"),
        Err(_) => ours.to_owned(),
    }
}
