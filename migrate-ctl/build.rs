//! Puts the probes into the binary: the object that `MIGRATE_EBPF` names.
//!
//! `cargo xtask build` sets it. Without it, as under plain `cargo check`, an
//! empty object is embedded and loading it says how to get a real one.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=MIGRATE_EBPF");
    let embedded = Path::new(&env::var("OUT_DIR")?).join("probes.o");
    match env::var("MIGRATE_EBPF") {
        Ok(object) => {
            println!("cargo::rerun-if-changed={object}");
            fs::copy(&object, &embedded)
                .map_err(|error| format!("MIGRATE_EBPF={object}: {error}"))?;
        }
        Err(_) => fs::write(&embedded, [])?,
    }
    Ok(())
}
