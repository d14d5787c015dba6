//! What do the guests of one run share, and what does a guest get by default?

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::{Far, Guest, Node};
use crate::build::{self, Built};
use crate::initramfs::{self, Contents};
use crate::kernels::Kernel;
use crate::packages;
use crate::paths::target;

/// Local is 10: an access to another node takes about twice as long.
pub(crate) const DISTANCE: u32 = 21;

/// Programs that are looked for or built once.
pub(crate) struct Rig {
    qemu: PathBuf,
    busybox: PathBuf,
    built: Built,
}

impl Rig {
    /// Finds QEMU and busybox and builds our programs.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { qemu: packages::qemu()?, busybox: packages::busybox()?, built: build::build()? })
    }

    /// The binary that the guests run, which runs here as well.
    pub(crate) fn controller(&self) -> &Path {
        &self.built.controller
    }

    /// What makes other nodes so many times as slow.
    pub(crate) fn far(&self, factor: f64) -> Result<Far> {
        Far::new(&self.qemu, factor)
    }

    /// A guest that runs a command, or a shell for none; the caller changes what it wants else.
    pub(crate) fn guest(&self, name: &str, kernel: &Kernel, load: &Load<'_>) -> Result<Guest> {
        let initrd = target("guests").join(format!("{name}.cpio"));
        let far = load.far.iter().map(|_| ("far", "1".to_owned()));
        let settings: Vec<_> = load.settings.iter().cloned().chain(far).collect();
        let contents = Contents {
            busybox: &self.busybox,
            lab: &self.built.lab,
            controller: &self.built.controller,
            modules: &kernel.modules,
            programs: load.programs.as_deref(),
            command: &load.command,
            settings: &settings,
        };
        initramfs::write(&contents, &initrd)?;
        Ok(Guest {
            name: name.to_owned(),
            qemu: self.qemu.clone(),
            accel: None,
            kernel: kernel.vmlinuz.clone(),
            initrd,
            nodes: vec![Node { cpus: 2, memory_mib: 1024 }; 2],
            distance: DISTANCE,
            tiers: false,
            far: load.far.clone(),
            forward: None,
            disks: Vec::new(),
            timeout: Duration::from_secs(600),
            silence: None,
        })
    }
}

/// What the guest is to do.
#[derive(Default)]
pub(crate) struct Load<'a> {
    pub(crate) command: Vec<String>,
    pub(crate) settings: &'a [(&'a str, String)],
    /// A folder with programs of others and their libraries.
    pub(crate) programs: Option<PathBuf>,
    /// Other nodes are really slower; checked before the command runs.
    pub(crate) far: Option<Far>,
}
