//! `migrate-ctl migrate`: one move by hand.

use std::path::Path;

use migrate_ctl::model::NodeId;
use migrate_ctl::mover::by_hand::{self, HandError, HandErrorKind};
use migrate_ctl::topology::Topology;

use super::{Exit, Output, complain, print};

#[derive(clap::Args)]
pub(crate) struct Migrate {
    pid: u32,
    /// Node that the pages leave
    #[arg(long, value_name = "NODE")]
    from: u16,
    /// Node that they go to
    #[arg(long, value_name = "NODE")]
    to: u16,
    /// Take along what other processes map too (MPOL_MF_MOVE_ALL), libc's text among it
    #[arg(long)]
    shared: bool,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) fn migrate(args: &Migrate) -> Exit {
    let root = Path::new("/");
    let topology = match Topology::read(root) {
        Ok(topology) => topology,
        Err(error) => return complain(&error.into(), Exit::CannotRun),
    };
    let (from, to) = (NodeId(args.from), NodeId(args.to));
    if args.shared {
        warn_of_shared(root, args.pid, from);
    }
    match by_hand::by_hand(root, &topology, args.pid, from, to, args.shared) {
        Ok(report) => {
            print(args.output, &report);
            if report.complete() { Exit::Done } else { Exit::Partly }
        }
        Err(error) => {
            let exit = hand_exit(&error);
            complain(&error.into(), exit)
        }
    }
}

/// Before anything moves: whose memory comes along.
fn warn_of_shared(root: &Path, pid: u32, from: NodeId) {
    // An error here comes again from the move itself.
    for mapping in by_hand::shared_mappings(root, pid, from).unwrap_or_default() {
        let by_hand::SharedMapping { name, pages, processes } = mapping;
        eprintln!("taking along {name}: {pages} pages that up to {processes} processes share");
    }
}

fn hand_exit(error: &HandError) -> Exit {
    match error.kind() {
        HandErrorKind::BadInput => Exit::BadInput,
        HandErrorKind::Gone => Exit::Gone,
        HandErrorKind::NotPermitted => Exit::NotPermitted,
        HandErrorKind::NothingMoved => Exit::Partly,
        HandErrorKind::Internal => Exit::Internal,
    }
}
