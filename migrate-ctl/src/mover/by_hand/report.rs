//! Says in a few lines what a move by hand did.

use std::fmt::{Display, Formatter, Result};

use super::{HandReport, Stayed};
use crate::model::Pages;

/// Shared mappings named before the rest is summed up.
const NAMED: usize = 3;

impl HandReport {
    /// Something moved, and nothing stayed that could have moved.
    pub fn complete(&self) -> bool {
        self.moved > 0 && self.stayed.refused_or_pinned == 0 && self.stayed.file == 0
    }

    fn write_dragged(&self, f: &mut Formatter<'_>) -> Result {
        if self.dragged.is_empty() {
            return Ok(());
        }
        write!(f, "along with it, shared:")?;
        for mapping in self.dragged.iter().take(NAMED) {
            let (name, pages, processes) = (&mapping.name, mapping.pages, mapping.processes);
            write!(f, " {name} ({pages} pages, up to {processes} processes)")?;
        }
        match self.dragged.len().saturating_sub(NAMED) {
            0 => writeln!(f),
            more => writeln!(f, " and {more} more"),
        }
    }
}

impl Display for HandReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { pid, comm, from, to, .. } = self;
        writeln!(f, "process {pid} ({comm}), node {from} to node {to}")?;
        self.write_dragged(f)?;
        let seconds = self.duration as f64 / 1e9;
        writeln!(f, "moved: {} in {seconds:.3} s", amount(self.moved))?;
        writeln!(f, "stayed on node {from}: {}", self.stayed)?;
        for node in self.nodes.iter().filter(|node| node.before + node.after > 0) {
            writeln!(f, "node {}: {} pages before, {} after", node.node, node.before, node.after)?;
        }
        if let Some(kernel) = self.kernel {
            let (migrated, failed) = (kernel.migrated, kernel.failed);
            writeln!(f, "whole machine meanwhile: {migrated} pages migrated, {failed} failed")?;
        }
        for (policy, mappings) in &self.policies {
            let policy = crate::procfs::printable(policy);
            writeln!(f, "note: policy {policy} on {mappings} mapping(s): new pages obey it")?;
        }
        Ok(())
    }
}

impl Display for Stayed {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let reasons = [
            (self.shared, "in shared mappings (--shared moves them)"),
            (self.file, "of files"),
            (self.refused_or_pinned, "refused or pinned"),
            (self.arrived_since, "arrived since"),
        ];
        let mut some = false;
        for (pages, reason) in reasons.iter().filter(|(pages, _)| *pages > 0) {
            write!(f, "{}{pages} {reason}", if some { ", " } else { "" })?;
            some = true;
        }
        if some { Ok(()) } else { f.write_str("nothing") }
    }
}

fn amount(pages: Pages) -> String {
    format!("{pages} pages ({:.1} MiB)", pages as f64 / 256.0)
}
