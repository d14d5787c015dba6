//! Which compiler builds the probes, and why that one?
//!
//! The eBPF target needs a nightly compiler (or one told to act as such), the
//! source of the core library, and bpf-linker with a matching LLVM. Two ways:
//! rustup's nightly, or Debian's packages. The choice is made by looking.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::paths::{cargo, program, quiet, root, run, target};
use crate::setup::{self, Step};

const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "bpf-linker@0.13.0";
/// Debian's compiler with its library source, and what bpf-linker is built from.
const PACKAGES: [&str; 8] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "llvm-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
    "libxml2-dev",
    "libpolly-22-dev",
];

/// What the user asked for on the command line.
static REQUESTED: OnceLock<Kind> = OnceLock::new();

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// rustup's nightly with rust-src.
    Rustup,
    /// Debian's rustc-web with LLVM 22.
    Debian,
}

/// A chosen toolchain; it may still have to be installed.
pub(crate) struct Toolchain {
    kind: Kind,
    why: String,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            Kind::Rustup => "rustup's nightly",
            Kind::Debian => "Debian's rustc-web",
        };
        write!(f, "{name}, because {}", self.why)
    }
}

impl Toolchain {
    /// Cargo of this toolchain with bpf-linker in reach.
    pub(crate) fn cargo(&self) -> Result<Command> {
        let linker = linker(self.kind).context("bpf-linker is not where setup put it")?;
        let linker = linker.parent().context("bpf-linker without a folder")?.to_owned();
        let mut folders = vec![linker];
        let mut command = match self.kind {
            Kind::Rustup => {
                folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                command.env_remove("RUSTC");
                command
            }
            Kind::Debian => {
                // Without rustup's own folders: its `rustc` would be taken instead.
                folders.extend(["/usr/bin", "/bin"].map(PathBuf::from));
                let mut command = Command::new("/usr/bin/cargo");
                command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
        command.env("PATH", env::join_paths(folders)?).current_dir(root());
        // What the cargo that runs us left behind belongs to its own toolchain.
        for name in ["RUSTUP_TOOLCHAIN", "CARGO", "LD_LIBRARY_PATH", "CARGO_ENCODED_RUSTFLAGS"] {
            command.env_remove(name);
        }
        // A wrapper is the user's wish for the host, and may not be on this PATH.
        command.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
        Ok(command)
    }
}

/// Asks for a toolchain, for the whole run; the first call counts.
pub(crate) fn request(kind: Kind) {
    let _ = REQUESTED.set(kind);
}

/// Chooses by wish, else by what is there; Debian's if neither is and apt can install it.
pub(crate) fn choose() -> Result<Toolchain> {
    if let Some(&kind) = REQUESTED.get() {
        return Ok(Toolchain { kind, why: "--toolchain asks for it".to_owned() });
    }
    if let Ok(wish) = env::var("MIGRATE_TOOLCHAIN") {
        let kind = match wish.as_str() {
            "rustup" => Kind::Rustup,
            "debian" => Kind::Debian,
            _ => bail!("MIGRATE_TOOLCHAIN is {wish:?}: use rustup or debian"),
        };
        return Ok(Toolchain { kind, why: "MIGRATE_TOOLCHAIN asks for it".to_owned() });
    }
    let why_not_rustup = match rustup_lacks() {
        None => {
            let why = "rustup has a nightly with rust-src".to_owned();
            return Ok(Toolchain { kind: Kind::Rustup, why });
        }
        Some(lack) => lack,
    };
    if setup::lacking(&PACKAGES).is_empty() {
        return Ok(Toolchain { kind: Kind::Debian, why: why_not_rustup.to_owned() });
    }
    if program("apt-get").is_some() {
        let why = format!("{why_not_rustup} and apt can install Debian's");
        return Ok(Toolchain { kind: Kind::Debian, why });
    }
    bail!(
        "no toolchain for eBPF: {why_not_rustup}, and there is no apt-get; \
         run  rustup toolchain install nightly --component rust-src"
    )
}

/// What must be installed or built before the chosen toolchain works.
pub(crate) fn missing(toolchain: &Toolchain) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut packages = compilers();
    match toolchain.kind {
        Kind::Debian => packages.extend(setup::lacking(&PACKAGES)),
        Kind::Rustup if rustup_lacks().is_some() => steps.push(Step {
            what: "rustup's nightly with rust-src".to_owned(),
            from: "rustup toolchain install".to_owned(),
            mebibytes: 1000,
            act: Box::new(install_nightly),
        }),
        Kind::Rustup => {}
    }
    if !packages.is_empty() {
        steps.insert(0, setup::install("the eBPF toolchain", packages, 1500));
    }
    if linker(toolchain.kind).is_none() {
        let kind = toolchain.kind;
        steps.push(Step {
            what: LINKER_VERSION.to_owned(),
            from: "crates.io, built into target/tools".to_owned(),
            mebibytes: 45,
            act: Box::new(move || build_linker(kind)),
        });
    }
    steps
}

/// The step that brings rustfmt and clippy to the host's toolchain, which rustup's minimal
/// profile lacks.
pub(crate) fn missing_lint() -> Vec<Step> {
    let has = |tool: &str| quiet(cargo().args([tool, "--version"])).is_ok();
    if has("fmt") && has("clippy") {
        return Vec::new();
    }
    vec![Step {
        what: "rustfmt and clippy".to_owned(),
        from: "rustup component add".to_owned(),
        mebibytes: 40,
        act: Box::new(|| {
            run(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]))
        }),
    }]
}

/// What rustup lacks to build for eBPF; nothing if it can.
fn rustup_lacks() -> Option<&'static str> {
    if program("rustup").is_none() {
        return Some("there is no rustup");
    }
    let mut rustc = Command::new("rustup");
    rustc.args(["run", "nightly", "rustc", "--print", "sysroot"]);
    match quiet(&mut rustc) {
        Err(_) => Some("rustup has no nightly"),
        Ok(sysroot) => {
            let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
            (!source.is_dir()).then_some("rustup's nightly has no rust-src")
        }
    }
}

/// The package of a C and C++ compiler if the host has none: cargo links with it.
fn compilers() -> Vec<&'static str> {
    let whole = program("cc").is_some() && program("c++").is_some();
    if whole { Vec::new() } else { vec!["g++"] }
}

/// The linker that reads this toolchain's bitcode.
///
/// One from PATH counts for rustup only: Debian's compiler needs the one
/// built against Debian's LLVM.
fn linker(kind: Kind) -> Option<PathBuf> {
    let built = tools(kind).join("bin").join(LINKER);
    let found = built.is_file().then_some(built);
    match kind {
        Kind::Rustup => program(LINKER).or(found),
        Kind::Debian => found,
    }
}

fn tools(kind: Kind) -> PathBuf {
    match kind {
        Kind::Rustup => target("tools/rustup"),
        Kind::Debian => target("tools"),
    }
}

fn install_nightly() -> Result<()> {
    let mut rustup = Command::new("rustup");
    rustup.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
    run(rustup.args(["--component", "rust-src"])).context(
        "run by hand: rustup toolchain install nightly --component rust-src, \
         or take Debian's with --toolchain debian",
    )
}

fn build_linker(kind: Kind) -> Result<()> {
    let mut command = match kind {
        Kind::Debian => {
            let mut command = cargo();
            command.env("LLVM_PREFIX", "/usr/lib/llvm-22");
            command
        }
        Kind::Rustup => {
            // The linker must read the bitcode of the compiler that it is built by.
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "cargo"]).current_dir(root());
            command.env_remove("RUSTUP_TOOLCHAIN").env_remove("LD_LIBRARY_PATH");
            command
        }
    };
    // Its own warnings and target are not ours.
    command.env_remove("RUSTFLAGS");
    command.args(["install", "--locked", LINKER_VERSION, "--root"]).arg(tools(kind));
    let build = target("tools/build");
    command.arg("--target-dir").arg(&build);
    if kind == Kind::Debian {
        command.args(["--no-default-features", "--features", "llvm-22"]);
    }
    run(&mut command)?;
    fs::remove_dir_all(build).context("remove the linker's build folder")
}
