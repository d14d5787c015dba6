//! Which kernels do the guests boot, and where are they?
//!
//! Debian's cloud kernels by series, since mirrors rotate point releases.
//! Each lies unpacked in `target/kernels/RELEASE/` as `vmlinuz` and
//! `modules/`; a link by series says which release was the newest when it was
//! fetched, so that nothing asks the network again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::apt::Apt;
use crate::paths::{say, target};
use crate::setup::{self, Step};

/// The series that every change is tested on.
pub(crate) const MATRIX: [&str; 3] = ["6.1", "6.12", "newest"];

#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// What `uname -r` says in the guest.
    pub(crate) release: String,
    pub(crate) vmlinuz: PathBuf,
    /// Holds `kernel/...`; modules may be compressed.
    pub(crate) modules: PathBuf,
}

/// Finds the kernel of a series such as `6.1`, or `newest`; fetches it if it is not here.
pub(crate) fn find(wanted: &str) -> Result<Kernel> {
    setup::prepare(&[], &[wanted])?;
    cached(wanted).with_context(|| format!("no kernel in {}", folder().join(wanted).display()))
}

/// The step that fetches the kernel of a series, unless it is here.
pub(crate) fn missing(wanted: &str) -> Result<Option<Step>> {
    let plain = !wanted.is_empty()
        && wanted.chars().all(|sign| sign.is_ascii_alphanumeric() || ".+-".contains(sign))
        && !wanted.starts_with('.');
    ensure!(plain, "kernel {wanted:?} is not a series such as 6.1, nor \"newest\"");
    if cached(wanted).is_some() {
        return Ok(None);
    }
    let series = wanted.to_owned();
    Ok(Some(Step {
        what: format!("Debian's cloud kernel, {}", described(wanted)),
        from: "Debian's mirror, unpacked into target/kernels".to_owned(),
        // 6.1 does not compress its modules.
        mebibytes: if wanted == "6.1" { 105 } else { 40 },
        act: Box::new(move || fetch(&series)),
    }))
}

/// Drops the links by series: the next `find` asks for the newest of each.
pub(crate) fn forget() -> Result<()> {
    for entry in fs::read_dir(folder()).into_iter().flatten().flatten() {
        if entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn folder() -> PathBuf {
    target("kernels")
}

fn described(wanted: &str) -> String {
    if wanted == "newest" { "newest in backports".to_owned() } else { format!("newest {wanted}") }
}

fn cached(wanted: &str) -> Option<Kernel> {
    // Canonical, so that the release is the folder's own name and not the link's.
    let folder = folder().join(wanted).canonicalize().ok()?;
    let release = folder.file_name()?.to_str()?.to_owned();
    let (vmlinuz, modules) = (folder.join("vmlinuz"), folder.join("modules"));
    let whole = vmlinuz.is_file() && modules.join("kernel").is_dir();
    whole.then_some(Kernel { release, vmlinuz, modules })
}

fn fetch(wanted: &str) -> Result<()> {
    let apt = Apt::open()?;
    let mut names = apt.names("linux-image-")?;
    names.extend(apt.names("linux-binary-")?);
    let Some(choice) = newest(&names, wanted) else {
        bail!("Debian has no cloud kernel {wanted:?}; `newest`, 6.1 and 6.12 are usual");
    };
    say(format!("kernel {wanted} is {}", choice.release));
    if cached(&choice.release).is_none() {
        let scratch = folder().join(".unpack");
        // Left over from an interrupted run.
        let _ = fs::remove_dir_all(&scratch);
        apt.unpack(&choice.packages, &scratch)?;
        arrange(&scratch, &choice.release)?;
    }
    let link = folder().join(wanted);
    if link != folder().join(&choice.release) {
        let _ = fs::remove_file(&link);
        symlink(&choice.release, &link).with_context(|| format!("link {}", link.display()))?;
    }
    prune(&choice.release)
}

/// Moves kernel and modules out of the unpacked packages, whichever layout they have.
fn arrange(unpacked: &Path, release: &str) -> Result<()> {
    let first = |places: [String; 2]| {
        let place = places.iter().map(|place| unpacked.join(place)).find(|place| place.exists());
        place.with_context(|| format!("none of {places:?} in the packages of {release}"))
    };
    let vmlinuz =
        first([format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")])?;
    let modules = first([format!("lib/modules/{release}"), format!("usr/lib/modules/{release}")])?;
    let whole = unpacked.join("whole");
    fs::create_dir_all(&whole)?;
    fs::rename(vmlinuz, whole.join("vmlinuz"))?;
    fs::rename(modules, whole.join("modules"))?;
    let folder = folder().join(release);
    let _ = fs::remove_dir_all(&folder);
    // Renamed as a whole: a folder of that name is complete or absent.
    fs::rename(&whole, &folder).with_context(|| format!("create {}", folder.display()))?;
    fs::remove_dir_all(unpacked).context("remove the unpacked packages")
}

/// Removes releases that no series points to any more, but for the one just fetched.
fn prune(fetched: &str) -> Result<()> {
    let entries: Vec<_> = fs::read_dir(folder())?.collect::<Result<_, _>>()?;
    let linked: Vec<_> =
        entries.iter().filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    // Without all links of the matrix a refresh is still under way.
    if MATRIX.into_iter().any(|series| cached(series).is_none()) {
        return Ok(());
    }
    for entry in &entries {
        let name = PathBuf::from(entry.file_name());
        let ours = entry.file_name().to_string_lossy().ends_with("-cloud-amd64");
        let wanted = linked.contains(&name) || name.as_os_str() == fetched;
        if entry.file_type()?.is_dir() && ours && !wanted {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Choice {
    release: String,
    packages: Vec<String>,
}

/// The newest cloud kernel among the package names that belongs to the series.
fn newest(names: &[String], wanted: &str) -> Option<Choice> {
    names
        .iter()
        .filter_map(|name| choice(name))
        .filter(|choice| wanted == "newest" || belongs(&choice.release, wanted))
        .max_by_key(|choice| numbers(&choice.release))
}

/// What a package name offers; kernels from 7.x on come in two packages.
fn choice(name: &str) -> Option<Choice> {
    let (release, split) = match name.strip_prefix("linux-binary-") {
        Some(release) => (release, true),
        None => (name.strip_prefix("linux-image-")?.strip_suffix("-unsigned")?, false),
    };
    // Release candidates are nobody's newest.
    if !release.ends_with("-cloud-amd64") || release.contains("rc") {
        return None;
    }
    // A package without a point release is a name for whichever is current.
    if !release.starts_with(|sign: char| sign.is_ascii_digit()) {
        return None;
    }
    let mut packages = vec![name.to_owned()];
    if split {
        packages.push(format!("linux-modules-{release}"));
    }
    Some(Choice { release: release.to_owned(), packages })
}

fn belongs(release: &str, wanted: &str) -> bool {
    let rest = release.strip_prefix(wanted);
    rest.is_some_and(|rest| !rest.starts_with(|sign: char| sign.is_ascii_digit()))
}

/// The version's numbers in order: enough to compare Debian's kernel releases.
fn numbers(release: &str) -> Vec<u32> {
    let version = release.trim_end_matches("-cloud-amd64");
    version
        .split(|sign: char| !sign.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wanted: &str, release: Option<&str>) {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64-unsigned",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-57-cloud-amd64",
            "linux-image-6.1.0-58-amd64-unsigned",
            "linux-image-6.12.9+bpo-cloud-amd64-unsigned",
            "linux-image-6.12.117+deb12-cloud-amd64-unsigned",
            "linux-image-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.4~rc2-cloud-amd64",
        ];
        let names = names.map(str::to_owned);
        assert_eq!(newest(&names, wanted).map(|choice| choice.release).as_deref(), release);
    }

    #[test]
    fn the_newest_of_a_series_is_found_by_number_and_not_by_spelling() {
        check("6.1", Some("6.1.0-56-cloud-amd64"));
        check("6.12", Some("6.12.117+deb12-cloud-amd64"));
        check("newest", Some("7.3.4+deb13-cloud-amd64"));
        check("7.3.4+deb13-cloud-amd64", Some("7.3.4+deb13-cloud-amd64"));
        check("6.3", None);
    }

    #[test]
    fn a_split_kernel_needs_both_packages() {
        let choice = choice("linux-binary-7.3.4+deb13-cloud-amd64").unwrap();
        let modules = "linux-modules-7.3.4+deb13-cloud-amd64";
        assert_eq!(choice.packages, ["linux-binary-7.3.4+deb13-cloud-amd64", modules]);
    }

    #[test]
    fn a_name_that_leaves_the_folder_is_refused() {
        for bad in ["", "../x", "6.1/..", ".."] {
            let error = find(bad).unwrap_err().to_string();
            assert!(error.contains("is not a series"), "{error}");
        }
    }
}
