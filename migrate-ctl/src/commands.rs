//! The commands, one a file, and what they have in common: how they print, complain and end.

use std::io::Write;

use clap::ValueEnum;
use migrate_ctl::ask::AskError;

pub(crate) mod watching;
pub(crate) mod assess;
pub(crate) mod run;
pub(crate) mod migrate;
pub(crate) mod explain;
pub(crate) mod status;
pub(crate) mod mode;
pub(crate) mod doctor;
pub(crate) mod journal;
pub(crate) mod replay;

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

/// Prints what the running controller answered; its JSON as it came.
pub(crate) fn show<T>(output: Output, answer: &str) -> Exit
where
    T: std::fmt::Display + serde::de::DeserializeOwned,
{
    if output == Output::Json {
        say(answer);
        return Exit::Done;
    }
    match serde_json::from_str::<T>(answer) {
        Ok(value) => {
            say(value);
            Exit::Done
        }
        Err(error) => {
            let error = anyhow::Error::new(error).context("read the controller's answer");
            complain(&error, Exit::Internal)
        }
    }
}

/// Says why the running controller has not answered.
pub(crate) fn no_answer(error: AskError) -> Exit {
    let exit = ask_exit(&error);
    complain(&error.into(), exit)
}

fn ask_exit(error: &AskError) -> Exit {
    match error {
        AskError::NoController(_) | AskError::NotReady(_) => Exit::CannotRun,
        AskError::NotPermitted(_) => Exit::NotPermitted,
        AskError::Gone(_) => Exit::Gone,
        AskError::Refused(_) => Exit::BadInput,
        AskError::Broken { .. } => Exit::Internal,
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
