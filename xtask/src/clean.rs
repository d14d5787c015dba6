//! What of ours can be undone, and what stays?
//!
//! Removes what xtask made under `target/`. Packages that `setup` installed
//! are the machine's now: they are named, not removed.

use std::fs;

use anyhow::{Context, Result};

use crate::paths::{say, target};
use crate::setup;

const MADE: [&str; 10] = [
    "tools",
    "kernels",
    "apt",
    "packages",
    "static",
    "ebpf",
    "plugin",
    "guests",
    "logs",
    "clippy-probes",
];

pub(crate) fn main() -> Result<()> {
    for name in MADE {
        let folder = target(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
            say(format!("removed {}", folder.display()));
        }
    }
    let installed = setup::installed();
    if !installed.is_empty() {
        let record = target("installed-packages.txt");
        say(format!("left: packages that setup installed, recorded in {}", record.display()));
        say(format!("  apt-get remove --auto-remove {}", installed.join(" ")));
    }
    say("left: cargo's own build folders and that record (then `cargo clean` removes all of it)");
    Ok(())
}
