//! `migrate-ctl assess`: is NUMA a problem here, before anything is moved?

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use migrate_ctl::assess::live::{self, Options};
use migrate_ctl::assess::{Assessment, Report};
use migrate_ctl::instance::InstanceError;
use migrate_ctl::journal::reader;
use migrate_ctl::start::WatchError;

use super::watching::{Watching, block_on, log};
use super::{Exit, Output, complain, print};

#[derive(clap::Args)]
pub(crate) struct Assess {
    /// How long to watch, as in 30s, 10m or 24h; Ctrl-C ends it earlier
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    lasts: Duration,
    /// Assess what `migrate-ctl run --journal FILE` wrote, in place of watching
    #[arg(long, value_name = "FILE", conflicts_with_all = ["lasts", "Watching"])]
    journal: Option<PathBuf>,
    #[command(flatten)]
    watching: Watching,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) fn assess(args: Assess) -> Exit {
    if let Some(file) = &args.journal {
        return match reader::read(file).and_then(Assessment::of_facts) {
            Ok(report) => done(args.output, &report),
            Err(error) => complain(&error.into(), Exit::BadInput),
        };
    }
    log(tracing::Level::WARN);
    let lasts = args.lasts;
    let options = Options {
        lasts,
        tick: args.watching.tick,
        config: args.watching.config(),
        without: args.watching.without,
        latency: args.watching.latency_ratio,
    };
    let result = block_on(live::watch(options, |passed| progress(passed, lasts)));
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    match result {
        Ok(report) => done(args.output, &report),
        Err(error) => refused(error),
    }
}

fn done(output: Output, report: &Report) -> Exit {
    print(output, report);
    Exit::Done
}

fn refused(error: anyhow::Error) -> Exit {
    match error.downcast_ref::<WatchError>() {
        Some(WatchError::Instance(InstanceError::Taken(_))) => {
            let hint =
                "it watches already; assess what it has written: migrate-ctl assess --journal FILE";
            complain(&error.context(hint), Exit::CannotRun)
        }
        Some(_) => complain(&error, Exit::CannotRun),
        None => complain(&error, Exit::Internal),
    }
}

/// One line for whoever waits: on a terminal rewritten each time.
fn progress(passed: Duration, lasts: Duration) {
    let mut stderr = std::io::stderr();
    let whole = |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs()));
    // Whoever does not listen any more does not matter.
    if stderr.is_terminal() {
        let _ = write!(stderr, "\rwatched {} of {} ", whole(passed.min(lasts)), whole(lasts));
        let _ = stderr.flush();
    } else if passed.is_zero() {
        let _ = writeln!(stderr, "watching for {}", whole(lasts));
    }
}
