//! How do Debian's files get here without touching the machine?
//!
//! A private apt: sources, lists and cache of its own under `target/apt`,
//! nothing installed, packages only unpacked. Knows nothing about what the
//! packages are for. Needs no root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::paths::{program, quiet, say, target};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const MIRROR: &str = "http://deb.debian.org/debian";
/// The guest's files come from these suites, whatever the host runs.
const SUITES: &str = "bookworm bookworm-updates bookworm-backports trixie-backports";
const SECURITY_SUITE: &str = "bookworm-security";
/// Its age is that of the lists.
const STAMP: &str = "updated";
/// Mirrors rotate point releases within days.
const LISTS_KEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// The private apt with fresh lists.
pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Writes the private sources and fetches the lists if they are missing or a day old.
    pub(crate) fn open() -> Result<Self> {
        for tool in ["apt-get", "apt-cache", "dpkg"] {
            ensure!(
                program(tool).is_some(),
                "{tool} is not on this machine: run this on Debian or Ubuntu, or in a container of it"
            );
        }
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing: run apt-get install debian-archive-keyring"
        );
        let apt = Self { folder: target("apt") };
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            let folder = apt.folder.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        // An empty status file: what the machine has installed must not count as available.
        fs::write(apt.folder.join("status"), "")?;
        let list = sources();
        let list_file = apt.folder.join("sources.list");
        let changed = fs::read_to_string(&list_file).ok().as_deref() != Some(&list);
        fs::write(&list_file, list)?;
        if changed || !apt.lists_are_fresh() {
            apt.update()?;
        }
        Ok(apt)
    }

    /// Names of available packages that start with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = quiet(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The packages with the libraries they need, and what those need.
    ///
    /// Follows only `lib*`: a server's scripts want far more than its program.
    pub(crate) fn with_libraries(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut all: Vec<String> = packages.iter().map(|&name| name.to_owned()).collect();
        let mut next = 0;
        while next < all.len() {
            let text = quiet(self.command("apt-cache").arg("depends").args(&all[next..]))?;
            next = all.len();
            for name in depended(&text).filter(|name| name.starts_with("lib")) {
                if !name.ends_with("-perl") && !all.iter().any(|known| known == name) {
                    all.push(name.to_owned());
                }
            }
        }
        Ok(all)
    }

    /// Downloads the packages and unpacks them into `folder`.
    pub(crate) fn unpack(&self, packages: &[String], folder: &Path) -> Result<()> {
        let debs = self.folder.join("debs");
        // Left over from an interrupted run, they would be unpacked too.
        let _ = fs::remove_dir_all(&debs);
        fs::create_dir_all(&debs)?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        say(format!("fetching {}", packages.join(" ")));
        quiet(self.command("apt-get").current_dir(&debs).args(["-q", "download"]).args(packages))
            .context("download Debian packages")?;
        let mut unpacked = 0;
        for deb in fs::read_dir(&debs)? {
            quiet(Command::new("dpkg").arg("-x").arg(deb?.path()).arg(folder))?;
            unpacked += 1;
        }
        ensure!(unpacked == packages.len(), "asked for {packages:?}, got {unpacked} packages");
        fs::remove_dir_all(&debs).context("remove the downloaded packages")
    }

    fn lists_are_fresh(&self) -> bool {
        let age = fs::metadata(self.folder.join(STAMP))
            .and_then(|stamp| stamp.modified())
            .ok()
            .and_then(|time| time.elapsed().ok());
        age.is_some_and(|age| age < LISTS_KEEP)
    }

    fn update(&self) -> Result<()> {
        say("fetching Debian's package lists into target/apt");
        let mut update = self.command("apt-get");
        update.args(["-q", "-o", "APT::Update::Error-Mode=any", "update"]);
        let result = quiet(&mut update);
        // The machine's own hooks may fail below a plain user: what counts is what arrived. A
        // list that did not would make an older kernel the newest.
        if let Some(suite) = SUITES.split(' ').find(|suite| !self.has_list(suite)) {
            result.context("fetch the package lists")?;
            bail!("the mirror has no package list of {suite}: is it complete?");
        }
        if result.is_ok() {
            fs::write(self.folder.join(STAMP), "").context("note the update")?;
        }
        Ok(())
    }

    fn has_list(&self, suite: &str) -> bool {
        let part = format!("_dists_{suite}_main_binary-amd64_Packages");
        let lists = fs::read_dir(self.folder.join("state/lists")).into_iter().flatten().flatten();
        lists.into_iter().any(|entry| entry.file_name().to_string_lossy().contains(&part))
    }

    fn command(&self, program: &str) -> Command {
        let folder = self.folder.display();
        let mut command = Command::new(program);
        // Error texts that we show, and words that we parse, stay the same everywhere.
        command.env("LC_ALL", "C");
        for option in [
            format!("Dir::State={folder}/state"),
            format!("Dir::State::status={folder}/status"),
            format!("Dir::Cache={folder}/cache"),
            format!("Dir::Etc::sourcelist={folder}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures::=amd64".to_owned(),
            // The folder may be one that apt's own user cannot enter.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// What `apt-cache depends` lists as needed, the first of alternatives only.
fn depended(text: &str) -> impl Iterator<Item = &str> {
    let mut alternative = false;
    text.lines().filter_map(move |line| {
        let line = line.trim_start();
        let (first_of_many, rest) = match line.strip_prefix('|') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let name = rest.strip_prefix("Depends: ").or_else(|| rest.strip_prefix("PreDepends: "))?;
        let skip = alternative;
        alternative = first_of_many;
        (!skip && !name.starts_with('<')).then_some(name)
    })
}

/// Makes the next `open` fetch the lists, however fresh they are.
pub(crate) fn forget() -> Result<()> {
    let stamp = target("apt").join(STAMP);
    if stamp.exists() {
        fs::remove_file(&stamp).with_context(|| format!("remove {}", stamp.display()))?;
    }
    Ok(())
}

fn sources() -> String {
    let named = machine_sources();
    let mirror = mirror_of(&named, "/debian").unwrap_or_else(|| MIRROR.to_owned());
    let security = mirror_of(&named, "/debian-security")
        .unwrap_or_else(|| "http://deb.debian.org/debian-security".to_owned());
    let mut list = String::new();
    for suite in SUITES.split(' ') {
        list += &format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
    }
    list + &format!("deb [signed-by={KEYRING}] {security} {SECURITY_SUITE} main\n")
}

/// The text of the machine's own source lists.
fn machine_sources() -> String {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        let is_source = |file: &PathBuf| {
            file.extension().is_some_and(|ending| ending == "list" || ending == "sources")
        };
        files.extend(entries.flatten().map(|entry| entry.path()).filter(is_source));
    }
    files.sort();
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect::<Vec<_>>().join("\n")
}

/// The first address with that ending, so that a nearby mirror is used.
fn mirror_of(sources: &str, ending: &str) -> Option<String> {
    sources
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_end_matches('/'))
        .find(|word| word.starts_with("http") && word.ends_with(ending))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_mirror_is_taken_and_comments_are_not() {
        let sources = "\
# deb http://old.example/debian bookworm main
Types: deb
URIs: http://near.example/debian/
deb https://other.example/ubuntu jammy main
deb http://near.example/debian-security bookworm-security main
";
        assert_eq!(mirror_of(sources, "/debian").as_deref(), Some("http://near.example/debian"));
        assert_eq!(
            mirror_of(sources, "/debian-security").as_deref(),
            Some("http://near.example/debian-security")
        );
        assert_eq!(mirror_of("deb https://other.example/ubuntu jammy main", "/debian"), None);
    }

    #[test]
    fn of_alternatives_only_the_first_is_needed() {
        let text = "\
redis-tools
  Depends: libc6
 |Depends: libsystemd0
  Depends: libelogind0
  Depends: <virtual>
  PreDepends: libssl3
  Suggests: ruby-redis
";
        let needed: Vec<&str> = depended(text).collect();
        assert_eq!(needed, ["libc6", "libsystemd0", "libssl3"]);
    }
}
