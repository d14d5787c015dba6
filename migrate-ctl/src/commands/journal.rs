//! `migrate-ctl journal`: what was decided and done, in plain words.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use migrate_ctl::journal::reader;
use migrate_ctl::journal::view::{Entry, View};

use super::{Exit, Output, complain};

#[derive(clap::Args)]
pub(crate) struct Journal {
    /// What `migrate-ctl run --journal FILE` wrote; the time before it is in FILE.1
    file: PathBuf,
    /// This process only
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// `json` is one object a line, with all that each decision was made from
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) fn journal(args: &Journal) -> Exit {
    match show(args) {
        Ok(()) => Exit::Done,
        Err(error) => complain(&error, Exit::BadInput),
    }
}

fn show(args: &Journal) -> anyhow::Result<()> {
    let mut reader = reader::read(&args.file)?;
    let mut view = View::default();
    let mut output = BufWriter::new(io::stdout().lock());
    for fact in &mut reader {
        for entry in view.entries(fact?) {
            let wanted = args.pid.is_none() || entry.pid() == args.pid;
            if wanted && write(&mut output, &entry, args.output).is_err() {
                // Whoever does not listen any more, as `head`, does not matter.
                return Ok(());
            }
        }
    }
    if reader.torn() {
        eprintln!("the last record of {} is cut short", args.file.display());
    }
    let _ = output.flush();
    Ok(())
}

fn write(output: &mut impl Write, entry: &Entry, form: Output) -> io::Result<()> {
    match form {
        Output::Text => writeln!(output, "{entry}"),
        Output::Json => writeln!(output, "{}", serde_json::to_string(entry)?),
    }
}
