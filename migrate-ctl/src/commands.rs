//! The commands, one a file, and what they have in common: how they print, complain and end.

use std::io::Write;

use clap::ValueEnum;

pub(crate) mod watching;
pub(crate) mod run;
pub(crate) mod migrate;
pub(crate) mod doctor;

/// Where the exporter listens by default.
pub(crate) const LISTEN: &str = "127.0.0.1:9816";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

/// What the process ends with; `EXIT_CODES` says the same to people.
#[derive(Clone, Copy)]
pub(crate) enum Exit {
    Done = 0,
    Internal = 1,
    BadInput = 2,
    CannotRun = 3,
    Gone = 4,
    NotPermitted = 5,
    Partly = 6,
}

pub(crate) fn print(output: Output, report: &(impl std::fmt::Display + serde::Serialize)) {
    match output {
        Output::Text => say(report),
        Output::Json => match serde_json::to_string(report) {
            Ok(json) => say(json),
            Err(error) => eprintln!("migrate-ctl: cannot write JSON: {error}"),
        },
    }
}

/// Whoever does not listen any more, as `head`, does not matter.
pub(crate) fn say(text: impl std::fmt::Display) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}

/// One line on stderr: what, which value, what to do.
pub(crate) fn complain(error: &anyhow::Error, exit: Exit) -> Exit {
    eprintln!("migrate-ctl: {error:#}");
    exit
}
