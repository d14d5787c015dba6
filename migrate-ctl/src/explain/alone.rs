//! What a look at one process finds where no controller runs.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::{Earlier, Explanation, Known, explain};
use crate::config::{Config, Mode, Pattern};
use crate::latency::Wanted;
use crate::start::{self, WatchError};
use crate::table::Table;
use crate::{policy, procfs};

/// How long one process is watched, in seconds and ticks: enough for a rate, and for its placement
/// and its memory policy to be read.
pub const WATCHED: u64 = 5;

/// Why there is nothing to say.
#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    #[error("there is no process {0}")]
    Gone(u32),
    #[error("no controller is running to be asked")]
    Watch(#[source] WatchError),
    #[error("watch it without a controller")]
    Tick(#[source] anyhow::Error),
}

/// Watches one process for a few seconds as the controller in `observe` would, then explains it.
pub fn watch_alone(pid: u32, wanted: Wanted) -> Result<Explanation, AloneError> {
    let look = || procfs::process(Path::new("/"), pid).ok_or(AloneError::Gone(pid));
    look()?;
    let _alone = start::claim().map_err(AloneError::Watch)?;
    let mut config = Config::default();
    config.policy = config.policy.observing();
    config.filter.include.push(Pattern::Pid(pid));
    let mut sampler = start::watch(&config, &[], wanted).map_err(AloneError::Watch)?.sampler;
    let (mut table, mut earlier, mut last) = (Table::default(), Earlier::default(), None);
    for _ in 0..WATCHED {
        thread::sleep(Duration::from_secs(1));
        look()?;
        let tick = sampler.tick(&table.wants_mempolicy(&config), &[]);
        let tick = tick.map_err(AloneError::Tick)?;
        let decisions = policy::decide(&mut table, &config, &tick);
        earlier.keep(last.replace((tick, decisions)));
    }
    let known = Known {
        last: last.as_ref(),
        earlier: &earlier,
        mode: Mode::Observe,
        config: &config,
        watched_seconds: Some(WATCHED),
        controller: std::process::id(),
    };
    Ok(explain(&known, &look()?))
}
