//! What of ours can be undone, and what stays?
//!
//! Removes what xtask made under `target/`. Packages that `setup` installed
//! are the machine's now: they are named, not removed.

use std::fs;

use anyhow::{Context, Result};

use crate::paths::{say, target};
use crate::setup;

const MADE: [&str; 8] = ["tools", "kernels", "apt", "packages", "static", "ebpf", "guests", "logs"];

pub(crate) fn main() -> Result<()> {
    for name in MADE {
        let folder = target(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
            say(format!("removed {}", folder.display()));
        }
    }
    say("left: cargo's own build folders under target/ (`cargo clean` removes them all)");
    let installed = setup::installed();
    if !installed.is_empty() {
        let record = target("installed-packages.txt");
        say(format!("left: packages that setup installed, recorded in {}", record.display()));
        say(format!("  apt-get remove --auto-remove {}", installed.join(" ")));
    }
    Ok(())
}
