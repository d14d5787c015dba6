//! What is missing on this machine, and how does it get here?
//!
//! Every step is printed with its source and its size before anything is
//! done. Only Debian's packages of the eBPF toolchain and of QEMU are
//! installed, and only they need root; all else goes under `target/`.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

use crate::paths::{program, quiet, run, say, target};
use crate::{apt, kernels, packages, toolchain};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only report what is missing; ends with 1 if something is.
    #[arg(long)]
    check: bool,
    /// Fetch kernels and guest programs again: the newest that Debian has.
    #[arg(long, conflicts_with = "check")]
    refresh: bool,
}

/// Whether nobody is to be asked.
static AGREED: OnceLock<()> = OnceLock::new();

/// Something that a subcommand needs on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A toolchain for the eBPF target, and bpf-linker.
    Ebpf,
    Qemu,
    Busybox,
    Redis,
    Prometheus,
    /// For a comparison that must be asked for; in no plan but that one's.
    Bpftrace,
    /// rustfmt and clippy.
    Lint,
}

impl Part {
    const ALL: [Self; 6] =
        [Self::Lint, Self::Ebpf, Self::Qemu, Self::Busybox, Self::Redis, Self::Prometheus];

    fn missing(self) -> Result<Vec<Step>> {
        Ok(match self {
            Self::Ebpf => toolchain::missing(&toolchain::choose()?),
            Self::Qemu => packages::missing_qemu(),
            Self::Busybox => packages::missing_busybox(),
            Self::Redis => packages::missing_redis(),
            Self::Prometheus => packages::missing_prometheus(),
            Self::Bpftrace => packages::missing_bpftrace(),
            Self::Lint => toolchain::missing_lint(),
        })
    }
}

/// One thing to fetch, build or install.
pub(crate) struct Step {
    pub(crate) what: String,
    pub(crate) from: String,
    /// On disk when done; rounded up.
    pub(crate) mebibytes: u32,
    pub(crate) act: Box<dyn FnOnce() -> Result<()>>,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    if args.refresh {
        apt::forget()?;
        kernels::forget()?;
        packages::forget()?;
    }
    say(format!("eBPF toolchain: {}", toolchain::choose()?));
    let steps = missing(&Part::ALL, &kernels::MATRIX)?;
    if steps.is_empty() {
        say("nothing is missing");
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        show(&steps);
        return Ok(ExitCode::FAILURE);
    }
    carry_out(steps)?;
    say("everything is here");
    Ok(ExitCode::SUCCESS)
}

/// Does not ask from now on.
pub(crate) fn agree() {
    let _ = AGREED.set(());
}

/// Makes sure that the part is here; silent if it is.
pub(crate) fn need(part: Part) -> Result<()> {
    carry_out(part.missing()?)
}

/// Everything that a subcommand will need, so that there is one plan and one question.
pub(crate) fn prepare(parts: &[Part], kernels: &[&str]) -> Result<()> {
    carry_out(missing(parts, kernels)?)
}

/// Shows the steps, asks if someone is there to answer, and does them.
pub(crate) fn carry_out(steps: Vec<Step>) -> Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    show(&steps);
    if AGREED.get().is_none() && io::stdin().is_terminal() && !asked()? {
        bail!("stopped: nothing was fetched or installed");
    }
    for step in steps {
        (step.act)().with_context(|| format!("set up {}", step.what))?;
    }
    Ok(())
}

/// The step that installs Debian packages on the machine; the only kind that needs root.
pub(crate) fn install(what: &str, packages: Vec<&'static str>, mebibytes: u32) -> Step {
    Step {
        what: format!("{what} ({})", packages.join(" ")),
        from: "apt-get install on this machine, as root".to_owned(),
        mebibytes,
        act: Box::new(move || apt_install(&packages)),
    }
}

/// Which of the packages are not installed.
pub(crate) fn lacking(packages: &[&'static str]) -> Vec<&'static str> {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f=${db:Status-Status} ${Package}\n"]).args(packages);
    // It ends with an error if it does not know one of them, and still lists the others.
    let known = query.output().map(|output| output.stdout).unwrap_or_default();
    let known = String::from_utf8_lossy(&known).into_owned();
    let installed = |name: &str| known.lines().any(|line| line == format!("installed {name}"));
    packages.iter().copied().filter(|name| !installed(name)).collect()
}

/// The names of packages that `install` has installed so far.
pub(crate) fn installed() -> Vec<String> {
    let text = fs::read_to_string(target("installed-packages.txt")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn missing(parts: &[Part], kernels: &[&str]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for part in parts {
        steps.extend(part.missing()?);
    }
    for kernel in kernels {
        steps.extend(kernels::missing(kernel)?);
    }
    Ok(steps)
}

fn show(steps: &[Step]) {
    say("missing on this machine:");
    for Step { what, from, mebibytes, .. } in steps {
        say(format!("  {what}\n    from {from}, about {mebibytes} MiB"));
    }
    let sum: u32 = steps.iter().map(|step| step.mebibytes).sum();
    say(format!("  together about {sum} MiB of disk"));
}

fn asked() -> Result<bool> {
    let mut out = io::stdout().lock();
    write!(out, "go on? [Y/n] ")?;
    out.flush()?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer).context("read the answer")?;
    Ok(read > 0 && matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}

fn apt_install(packages: &[&'static str]) -> Result<()> {
    let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    ensure!(
        program("apt-get").is_some(),
        "no apt-get here: install what Debian calls {} by your system's means",
        packages.join(" ")
    );
    // Only what was not here before is ours to name on `clean`.
    let added = lacking(packages);
    let root = rustix::process::geteuid().is_root();
    if !root && !sudo_works() {
        bail!("not root, and no sudo without a password: run as root  {by_hand}");
    }
    let apt = |words: &[&str]| {
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            command.args(["-n", "apt-get"]);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive").args(words);
        command
    };
    // A broken third-party source fails the update; what counts is whether the packages are there.
    if let Err(error) = quiet(&mut apt(&["-q", "update"])) {
        say(format!("apt-get update complained, going on: {error:#}"));
    }
    let mut words = vec!["-q", "install", "-y", "--no-install-recommends"];
    words.extend(packages);
    run(&mut apt(&words)).with_context(|| format!("run by hand: sudo {by_hand}"))?;
    record(&added)
}

fn sudo_works() -> bool {
    program("sudo").is_some() && quiet(Command::new("sudo").args(["-n", "true"])).is_ok()
}

/// Notes what was installed, so that `clean` can name it.
fn record(packages: &[&str]) -> Result<()> {
    let mut all = installed();
    all.extend(packages.iter().map(|&name| name.to_owned()));
    all.sort();
    all.dedup();
    let file = target("installed-packages.txt");
    fs::write(&file, all.join("\n") + "\n").with_context(|| format!("write {}", file.display()))
}
