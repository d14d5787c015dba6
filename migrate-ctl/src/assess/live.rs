//! `migrate-ctl assess`: watches for a while, moves nothing, and says what it saw.

use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use migrate_common::FaultKind;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::warn;

use super::{Assessment, FaultTime, Report};
use crate::config::Config;
use crate::latency::Wanted;
use crate::model::Input;
use crate::start::{self, Watch};

/// What `assess` was asked to do.
pub struct Options {
    pub lasts: Duration,
    pub tick: Duration,
    /// Signals whose probes stay off.
    pub without: Vec<String>,
    pub config: Config,
    pub latency: Wanted,
}

/// Watches until the time is over, or SIGINT or SIGTERM comes. `progress` is told how much of the
/// time has passed, at the beginning and once a tick.
pub async fn watch(options: Options, progress: impl Fn(Duration)) -> anyhow::Result<Report> {
    let _instance = start::claim()?;
    let Watch { mut sampler, .. } =
        start::watch(&options.config, &options.without, options.latency)?;
    let mut assessment = Assessment::new(&options.config);
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut clock = tokio::time::interval(options.tick);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    clock.tick().await;
    let began = Instant::now();
    progress(Duration::ZERO);
    let mut end = pin!(tokio::time::sleep(options.lasts));
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = &mut end => break,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
        let wants = assessment.wants_mempolicy();
        let look = move || {
            let tick = sampler.tick(&wants, &[]);
            (sampler, tick)
        };
        let (back, tick) = spawn_blocking(look).await.context("sample")?;
        sampler = back;
        match tick {
            Ok(tick) => assessment.absorb(&Input::Tick(tick)),
            Err(error) => warn!(error = format!("{error:#}"), "this tick saw nothing"),
        }
        progress(began.elapsed());
    }
    let minor = &sampler.totals().fault_time[FaultKind::Minor as usize];
    Ok(assessment.report(FaultTime::of(minor)))
}
