//! `migrate-ctl doctor`: whether the controller can run here.

use std::net::SocketAddr;
use std::path::Path;

use migrate_ctl::doctor;

use super::{Exit, LISTEN, Output, print};

#[derive(clap::Args)]
pub(crate) struct Doctor {
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Where a running controller serves /metrics, which know what it lost
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN)]
    listen: SocketAddr,
}

pub(crate) fn examine(args: &Doctor) -> Exit {
    let report = doctor::examine(Path::new("/"), args.listen);
    print(args.output, &report);
    if report.can_run { Exit::Done } else { Exit::CannotRun }
}
