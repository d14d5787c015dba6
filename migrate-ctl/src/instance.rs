//! One controller per machine: two would move the same process against each other.
//!
//! A lock on a file in /run that names its holder. The kernel drops the lock
//! with the process, so a killed controller never blocks the next.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The lock of the machine's one controller.
pub const LOCK_FILE: &str = "/run/migrate-ctl.lock";

#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    #[error(
        "another controller runs on this machine: pid {0}; stop it first, or read its /metrics"
    )]
    Taken(String),
    #[error("cannot lock {path}; check that /run is writable")]
    File { path: PathBuf, source: std::io::Error },
}

/// Held as long as the controller runs.
#[derive(Debug)]
pub struct Instance {
    _file: File,
}

/// Takes the lock, or names who has it.
pub fn take(path: &Path) -> Result<Instance, InstanceError> {
    let failed = |source| InstanceError::File { path: path.to_path_buf(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        // Whoever can open it can lock it, and so keep us from starting.
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            Read::by_ref(&mut file).take(20).read_to_string(&mut holder).map_err(failed)?;
            return Err(InstanceError::Taken(holder.trim().to_owned()));
        }
        Err(error) => return Err(failed(error.into())),
    }
    let name_us = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    name_us(&mut file).map_err(failed)?;
    Ok(Instance { _file: file })
}

#[cfg(test)]
mod tests {
    use super::{InstanceError, take};

    #[test]
    fn a_second_controller_is_told_who_is_first() {
        let path = std::env::temp_dir().join(format!("migrate-lock-{}", std::process::id()));
        let first = take(&path).expect("the lock is free");
        let second = take(&path).expect_err("the lock is taken");
        let pid = std::process::id().to_string();
        assert!(matches!(second, InstanceError::Taken(holder) if holder == pid));
        drop(first);
        take(&path).expect("the lock is free again");
        std::fs::remove_file(&path).expect("ours to remove");
    }
}
