//! Which files does a dynamically linked program of the host need in the guest?

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cpio::Archive;

/// Where packages keep their libraries.
const LIBRARIES: [&str; 4] =
    ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib", "lib"];

/// Adds the programs of `root/usr/bin` to the guest's `/bin`, with every library they load.
///
/// Libraries go to `/lib`, which every loader searches; the loader itself goes
/// where the programs name it.
pub(super) fn add(archive: &mut Archive, root: &Path, programs: &[&str]) -> Result<()> {
    let mut needed = BTreeMap::new();
    for program in programs {
        let file = root.join("usr/bin").join(program);
        let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        archive.file(&format!("bin/{program}"), 0o755, &bytes)?;
        needed.extend(libraries(root, &file)?);
    }
    for (target, source) in needed {
        let bytes = fs::read(&source).with_context(|| format!("read {}", source.display()))?;
        archive.file(&target, 0o755, &bytes)?;
    }
    Ok(())
}

/// Path in the guest and file on the host of each library.
fn libraries(root: &Path, program: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let search = LIBRARIES.map(|folder| root.join(folder));
    let search = std::env::join_paths(&search).context("folders of libraries")?;
    let output = Command::new("ldd")
        .arg(program)
        .env("LD_LIBRARY_PATH", search)
        .output()
        .context("start ldd (Debian: apt-get install libc-bin)")?;
    if !output.status.success() {
        bail!("ldd {}: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).with_context(|| format!("libraries of {}", program.display()))
}

/// Reads `name => path (address)` and, for the loader, `path (address)`.
fn parse(ldd: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for line in ldd.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, "=>", "not", "found"] => bail!("{name} is not installed"),
            [name, "=>", path, _] => found.insert(format!("lib/{name}"), PathBuf::from(path)),
            [path, _] if path.starts_with('/') => {
                found.insert(path.trim_start_matches('/').to_owned(), PathBuf::from(path))
            }
            // The kernel's own page of code, and "statically linked".
            _ => None,
        };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_go_to_lib_and_the_loader_to_its_own_path() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibm.so.6 => /usr/lib/x/libm.so.6 (0x2)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let found: Vec<String> =
            parse(text).unwrap().into_iter().map(|(to, from)| format!("{to} {from:?}")).collect();
        assert_eq!(
            found,
            [
                "lib/libm.so.6 \"/usr/lib/x/libm.so.6\"",
                "lib64/ld-linux-x86-64.so.2 \"/lib64/ld-linux-x86-64.so.2\""
            ]
        );
        let error = parse("libx.so.1 => not found").unwrap_err().to_string();
        assert_eq!(error, "libx.so.1 is not installed");
    }
}
