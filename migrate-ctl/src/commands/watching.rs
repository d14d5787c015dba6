//! What every command that watches the machine can be told.

use std::time::Duration;

use migrate_ctl::config::{Config, Pattern};
use migrate_ctl::latency;
use migrate_ctl::probes::SIGNALS;

#[derive(clap::Args)]
pub(crate) struct Watching {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = tick)]
    pub(crate) tick: Duration,
    /// Look at these only: pid:N, comm:NAME or cgroup:PATH; repeatable
    #[arg(long, value_name = "PATTERN")]
    include: Vec<Pattern>,
    /// Leave these alone: pid:N, comm:NAME or cgroup:PATH; repeatable
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<Pattern>,
    /// Leave this signal's probes off; repeatable
    #[arg(long, value_name = "SIGNAL", value_parser = SIGNALS)]
    pub(crate) without: Vec<String>,
    /// How many times slower another node's memory is than local memory: `measured`, by the
    /// `firmware`'s distances, or a number for every other node
    #[arg(long, value_name = "RATIO", default_value = "measured", value_parser = ratio)]
    pub(crate) latency_ratio: latency::Wanted,
}

impl Watching {
    /// The defaults, for those that the user wants looked at.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        config.filter.include.clone_from(&self.include);
        config.filter.exclude.clone_from(&self.exclude);
        config
    }
}

/// Writes what happens to stderr.
pub(crate) fn log(level: tracing::Level) {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level)
        .init();
}

/// Runs to its end on this thread, and what blocks beside it.
pub(crate) fn block_on<T>(watch: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(watch);
    // A thread that waits for somebody's lock must not keep us.
    runtime.shutdown_background();
    result
}

pub(crate) fn ratio(text: &str) -> Result<latency::Wanted, String> {
    match text {
        "measured" => return Ok(latency::Wanted::Measured),
        "firmware" => return Ok(latency::Wanted::Firmware),
        _ => {}
    }
    let ratio: f32 = text.parse().map_err(|error| {
        format!("`{text}` is neither measured, nor firmware, nor a ratio: {error}")
    })?;
    if (1.0..=100.0).contains(&ratio) {
        Ok(latency::Wanted::Configured(ratio))
    } else {
        Err(format!("{ratio} is not between 1 and 100 times the local latency"))
    }
}

fn tick(text: &str) -> Result<Duration, String> {
    let seconds: f64 =
        text.parse().map_err(|error| format!("`{text}` is not a number of seconds: {error}"))?;
    if (0.1..=60.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("{seconds} is not between 0.1 and 60 seconds"))
    }
}
