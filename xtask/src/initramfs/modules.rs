//! Which kernel modules does the guest load, and in which order?
//!
//! The order comes from the modules themselves: `depends=` in each one's
//! `.modinfo`. The unpacked packages have no `modules.dep`; depmod writes it
//! when a package is installed, which we never do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths::shown;

/// A network card and disks of the paravirtual kind.
const WANTED: [&str; 3] = ["virtio_pci", "virtio_net", "virtio_blk"];
/// What some kernels have built in: no module of the name is no error.
const OFTEN_BUILT_IN: [&str; 3] = ["virtio_pci", "virtio", "virtio_ring"];

/// The uncompressed modules, each after all that it depends on.
pub(super) fn read(folder: &Path, busybox: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = BTreeMap::new();
    find(folder, &mut files)?;
    let mut loaded = Vec::new();
    for name in WANTED {
        add(name, &files, busybox, &mut loaded)
            .with_context(|| format!("module folder {folder:?}"))?;
    }
    Ok(loaded)
}

/// Modules below the folder by name; the kernel's names have underscores where files may not.
fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            find(&path, files)?;
        } else if let Some((name, "ko" | "ko.xz" | "ko.zst" | "ko.gz")) =
            entry.file_name().to_str().and_then(|file| file.split_once('.'))
        {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn add(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    busybox: &Path,
    loaded: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    if loaded.iter().any(|(known, _)| known == name) {
        return Ok(());
    }
    let Some(file) = files.get(name) else {
        if OFTEN_BUILT_IN.contains(&name) {
            return Ok(());
        }
        bail!("no module {name}");
    };
    let module = uncompressed(file, busybox)?;
    for dependency in dependencies(&module) {
        add(&dependency, files, busybox, loaded)?;
    }
    loaded.push((name.to_owned(), module));
    Ok(())
}

/// A minimal machine has no xz of its own; busybox is needed anyway.
fn uncompressed(file: &Path, busybox: &Path) -> Result<Vec<u8>> {
    let mut unpack = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => applet(busybox, "xzcat"),
        Some("gz") => applet(busybox, "zcat"),
        Some("zst") => {
            let mut zstd = Command::new("zstd");
            zstd.args(["-q", "-dc"]);
            zstd
        }
        _ => return fs::read(file).with_context(|| format!("read {}", file.display())),
    };
    let output = unpack
        .arg(file)
        .output()
        .with_context(|| format!("start {} to unpack {}", shown(&unpack), file.display()))?;
    if !output.status.success() {
        bail!("{} ended with {}", shown(&unpack), output.status);
    }
    Ok(output.stdout)
}

fn applet(busybox: &Path, name: &str) -> Command {
    let mut command = Command::new(busybox);
    command.arg(name);
    command
}

/// The names in the module's own list, which is a `depends=a,b` string of its `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else {
        return Vec::new();
    };
    let list = module[at + key.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(list)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_follows_what_it_depends_on() {
        let folder = std::env::temp_dir().join(format!("xtask-modules-{}", std::process::id()));
        let deep = folder.join("kernel/drivers");
        fs::create_dir_all(&deep).unwrap();
        let write = |name: &str, depends: &str| {
            fs::write(deep.join(name), format!("x\0depends={depends}\0y")).unwrap();
        };
        write("virtio_net.ko", "net_failover,virtio");
        write("net-failover.ko", "failover");
        write("failover.ko", "");
        write("virtio_blk.ko", "");

        let names = |modules: Vec<(String, Vec<u8>)>| {
            modules.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
        };
        let order = names(read(&folder, Path::new("busybox")).unwrap());
        fs::remove_file(deep.join("virtio_blk.ko")).unwrap();
        let missing = read(&folder, Path::new("busybox"));
        fs::remove_dir_all(&folder).unwrap();

        assert_eq!(order, "failover net_failover virtio_net virtio_blk");
        let missing = format!("{:#}", missing.unwrap_err());
        assert!(missing.contains("no module virtio_blk"), "{missing}");
    }
}
