//! Where are the programs that guests and tests run?
//!
//! Taken from the system if installed there, else unpacked from Debian's
//! packages into `target/packages`, without root. Only QEMU is installed: it
//! finds its firmware by absolute paths.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::apt::Apt;
use crate::paths::{program, quiet, target};
use crate::setup::{self, Part, Step};

/// Where Debian's packages put libraries, below whichever root.
const LIBRARIES: &str = "lib/x86_64-linux-gnu";
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// Programs that go into guests, in a folder that can be a guest's root as it is: it holds
/// `usr/bin`, the shared libraries and the loader.
struct Bundle {
    name: &'static str,
    programs: &'static [&'static str],
    packages: &'static [&'static str],
    mebibytes: u32,
}

const REDIS: Bundle = Bundle {
    name: "redis",
    programs: &["redis-server", "redis-cli", "redis-benchmark"],
    packages: &["redis-server", "redis-tools"],
    mebibytes: 20,
};
const BPFTRACE: Bundle =
    Bundle { name: "bpftrace", programs: &["bpftrace"], packages: &["bpftrace"], mebibytes: 200 };

pub(crate) struct Prometheus {
    pub(crate) prometheus: PathBuf,
    pub(crate) promtool: PathBuf,
}

pub(crate) fn redis() -> Result<PathBuf> {
    setup::need(Part::Redis)?;
    Ok(REDIS.root())
}

pub(crate) fn bpftrace() -> Result<PathBuf> {
    setup::need(Part::Bpftrace)?;
    Ok(BPFTRACE.root())
}

pub(crate) fn prometheus() -> Result<Prometheus> {
    setup::need(Part::Prometheus)?;
    let prometheus = locate("prometheus").context("prometheus is not where setup put it")?;
    let promtool = locate("promtool").context("promtool is not where setup put it")?;
    Ok(Prometheus { prometheus, promtool })
}

/// A statically linked busybox.
pub(crate) fn busybox() -> Result<PathBuf> {
    setup::need(Part::Busybox)?;
    static_busybox().context("busybox is not where setup put it")
}

pub(crate) fn qemu() -> Result<PathBuf> {
    setup::need(Part::Qemu)?;
    program("qemu-system-x86_64").context("qemu-system-x86_64 is not on PATH")
}

pub(crate) fn missing_qemu() -> Vec<Step> {
    if program("qemu-system-x86_64").is_some() {
        return Vec::new();
    }
    vec![setup::install("QEMU", vec!["qemu-system-x86"], 250)]
}

pub(crate) fn missing_busybox() -> Vec<Step> {
    if static_busybox().is_some() {
        return Vec::new();
    }
    vec![unpacked("busybox, the guest's tools", &["busybox-static"], 3)]
}

pub(crate) fn missing_prometheus() -> Vec<Step> {
    if locate("prometheus").is_some() && locate("promtool").is_some() {
        return Vec::new();
    }
    vec![unpacked("Prometheus and promtool", &["prometheus"], 95)]
}

pub(crate) fn missing_redis() -> Vec<Step> {
    REDIS.missing("redis, the demo's server")
}

pub(crate) fn missing_bpftrace() -> Vec<Step> {
    BPFTRACE.missing("bpftrace, for comparison")
}

/// Drops everything fetched, so that it is fetched anew.
pub(crate) fn forget() -> Result<()> {
    let folder = folder();
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}

fn folder() -> PathBuf {
    target("packages")
}

/// The step that unpacks packages into the shared folder.
fn unpacked(what: &str, packages: &'static [&'static str], mebibytes: u32) -> Step {
    Step {
        what: what.to_owned(),
        from: "Debian's mirror, unpacked into target/packages".to_owned(),
        mebibytes,
        act: Box::new(move || {
            let names: Vec<String> = packages.iter().map(|&name| name.to_owned()).collect();
            Apt::open()?.unpack(&names, &folder().join("debian"))
        }),
    }
}

/// The system's program, or the unpacked one.
fn locate(name: &str) -> Option<PathBuf> {
    program(name).or_else(|| in_debian(name))
}

fn in_debian(name: &str) -> Option<PathBuf> {
    let debian = folder().join("debian");
    ["usr/bin", "bin"].map(|place| debian.join(place).join(name)).into_iter().find(|p| p.is_file())
}

/// Another distribution's busybox may need libraries that a guest lacks.
fn static_busybox() -> Option<PathBuf> {
    let candidates = [program("busybox"), in_debian("busybox")];
    candidates.into_iter().flatten().find(|file| crate::elf::is_static(file).unwrap_or(false))
}

impl Bundle {
    fn root(&self) -> PathBuf {
        folder().join(self.name)
    }

    fn missing(&'static self, what: &str) -> Vec<Step> {
        if self.root().join(LOADER).exists() {
            return Vec::new();
        }
        let from = match self.installed() {
            Some(_) => "this machine, copied",
            None => "Debian's mirror, unpacked",
        };
        vec![Step {
            what: what.to_owned(),
            from: format!("{from} into target/packages"),
            mebibytes: self.mebibytes,
            act: Box::new(|| self.assemble()),
        }]
    }

    /// All programs, if this machine has all.
    fn installed(&self) -> Option<Vec<PathBuf>> {
        self.programs.iter().map(|name| program(name)).collect()
    }

    /// Collects the programs and just the libraries that they load into a small root.
    fn assemble(&self) -> Result<()> {
        let scratch = folder().join(format!("{}.new", self.name));
        // Left over from an interrupted run.
        let _ = fs::remove_dir_all(&scratch);
        match self.installed() {
            Some(programs) => collect(Path::new("/"), &programs, &scratch)?,
            None => {
                let debian = folder().join(format!("{}.debian", self.name));
                let apt = Apt::open()?;
                apt.unpack(&apt.with_libraries(self.packages)?, &debian)?;
                let programs: Vec<PathBuf> =
                    self.programs.iter().map(|name| debian.join("usr/bin").join(name)).collect();
                collect(&debian, &programs, &scratch)?;
                fs::remove_dir_all(&debian)?;
            }
        }
        let root = self.root();
        let _ = fs::remove_dir_all(&root);
        // Renamed as a whole: the folder is complete or absent.
        fs::rename(&scratch, &root).with_context(|| format!("create {}", root.display()))
    }
}

/// Copies programs, libraries and the loader from one root into another.
fn collect(from: &Path, programs: &[PathBuf], into: &Path) -> Result<()> {
    let loader = from.join(LOADER);
    copy(&loader, &into.join(LOADER))?;
    for program in programs {
        let name = program.file_name().context("a program without a name")?;
        copy(program, &into.join("usr/bin").join(name))?;
        for library in libraries(from, &loader, program)? {
            let name = library.file_name().context("a library without a name")?;
            copy(&library, &into.join(LIBRARIES).join(name))?;
        }
    }
    Ok(())
}

/// Asks the loader of that root what it would load: only it knows its rules.
fn libraries(root: &Path, loader: &Path, program: &Path) -> Result<Vec<PathBuf>> {
    let mut command = Command::new(loader);
    if root != Path::new("/") {
        let path = [root.join(LIBRARIES), root.join("usr").join(LIBRARIES)];
        let path = path.map(|folder| folder.display().to_string()).join(":");
        command.arg("--library-path").arg(path);
    }
    let text = quiet(command.arg("--list").arg(program))?;
    ensure!(!text.contains("not found"), "{} lacks a library:\n{text}", program.display());
    Ok(loaded(&text).map(PathBuf::from).collect())
}

/// The files in the loader's list; the kernel's own page and the loader have no arrow.
fn loaded(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.split_once(" => ")?.1.split(" (").next())
        .filter(|file| !file.contains("ld-linux"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a file without a folder")?;
    fs::create_dir_all(folder)?;
    // Follows links: redis-server is a link to another program of its package.
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_list_gives_the_files_to_copy() {
        let text = "\
\tlinux-vdso.so.1 (0x00007ffd)
\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f00)
\t/lib64/ld-linux-x86-64.so.2 => /x/lib64/ld-linux-x86-64.so.2 (0x00007f01)
";
        assert_eq!(loaded(text).collect::<Vec<_>>(), ["/lib/x86_64-linux-gnu/libm.so.6"]);
    }
}
