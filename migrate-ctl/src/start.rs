//! What everyone who watches the machine begins with: may we, and with what?
//!
//! Owns the order of the start and what each refusal says. The sampler that
//! comes out of it holds the probes: dropping it detaches them.

use std::path::Path;
use std::sync::Arc;

use tracing::{info, warn};

use crate::config::{Config, Filter};
use crate::hardware::{Hardware, HardwareError};
use crate::instance::{self, Instance, InstanceError, LOCK_FILE};
use crate::latency::{Latency, Meter, Wanted};
use crate::model::Reason;
use crate::mover::MoveCounter;
use crate::probes::{Probes, ProbesError};
use crate::sampler::Sampler;
use crate::snapshot::{HookState, HookVerdict};
use crate::topology::{Topology, TopologyError};
use crate::{guards, procfs, sys};

/// Why nothing can be watched here. Each is one line with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error(
        "this is PID namespace {0}, where the probes' pids mean other processes; run it on the \
         host, or with hostPID / --pid=host"
    )]
    PidNamespace(String),
    #[error("user {0} may not watch or move other users' processes; run it as root, by sudo")]
    NotRoot(u32),
    #[error(transparent)]
    Instance(#[from] InstanceError),
    #[error(transparent)]
    Probes(#[from] ProbesError),
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error(transparent)]
    Sampler(anyhow::Error),
}

/// The sampler, and what else is known once the probes are loaded.
pub struct Watch {
    pub sampler: Sampler,
    pub topology: Arc<Topology>,
    pub hooks: Vec<HookVerdict>,
    /// Counts what a move of ours did; none where its probes are not attached.
    pub own_moves: Option<Box<dyn MoveCounter>>,
}

/// Whether we may watch here at all, and alone: held as long as we do.
pub fn claim() -> Result<Instance, WatchError> {
    if let Some(user) = sys::plain_user() {
        return Err(WatchError::NotRoot(user));
    }
    if let Ok(Some(namespace)) = procfs::foreign_pid_namespace(Path::new("/")) {
        return Err(WatchError::PidNamespace(namespace));
    }
    sys::raise_descriptor_limit();
    Ok(instance::take(Path::new(LOCK_FILE))?)
}

/// Loads the probes, but for those of some signals, and gets everything else ready.
pub fn watch(config: &Config, without: &[String], wanted: Wanted) -> Result<Watch, WatchError> {
    let root = Path::new("/");
    let topology = Topology::read(root)?;
    let off: Vec<&str> = without.iter().map(String::as_str).collect();
    let mut probes = Probes::load(&off, &topology)?;
    let hooks = probes.verdicts().to_vec();
    for hook in &hooks {
        if hook.state != HookState::Attached {
            warn!(signal = hook.signal, hook = %hook.hook, state = ?hook.state, "hook not attached");
        }
    }
    let own_moves = probes.own_moves().map(|moves| Box::new(moves) as Box<dyn MoveCounter>);
    let filter = if guards::on(config, Reason::Excluded) {
        config.filter.clone()
    } else {
        Filter::default()
    };
    let topology = Arc::new(topology);
    let sampler = Sampler::new(
        root,
        Arc::clone(&topology),
        Some(probes),
        config.policy.boundness,
        filter,
        latency(&topology, wanted),
        hardware(root, &topology),
    );
    let sampler = sampler.map_err(WatchError::Sampler)?;
    Ok(Watch { sampler, topology, hooks, own_moves })
}

/// A machine without such a PMU is the usual case.
fn hardware(root: &Path, topology: &Topology) -> Option<Hardware> {
    match Hardware::open(root, topology) {
        Ok(hardware) => {
            info!(event = hardware.name(), "the PMU samples loads");
            Some(hardware)
        }
        Err(HardwareError::NoPmu) => None,
        Err(error @ (HardwareError::Refused { .. } | HardwareError::Strange { .. })) => {
            warn!(%error, "no samples of loads");
            None
        }
    }
}

fn latency(topology: &Arc<Topology>, wanted: Wanted) -> Latency {
    match wanted {
        Wanted::Configured(ratio) => Latency::Configured(ratio),
        Wanted::Firmware => Latency::Firmware,
        Wanted::Measured => {
            Meter::start(Arc::clone(topology)).map_or_else(unmeasured, Latency::Measured)
        }
    }
}

fn unmeasured(error: std::io::Error) -> Latency {
    warn!(%error, "memory latency cannot be measured; the firmware's distances must do");
    Latency::Firmware
}
