//! What does the kernel's own balancing do to a process, for better and for worse?
//!
//! It moves a page only to the node of the CPU that touched it, within the hint
//! fault. So hint faults say where its pages went: what one tick moved is
//! divided among the pairs of nodes by the pages that faults met across them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::loss::cpu_share;
use crate::model::{DomainObs, Node, Pages};

/// The kernel's name for migrations by NUMA balancing.
const REASON: &str = "numa_misplaced";

/// What balancing did, to one process or to many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Balancing {
    pub hint_faults: u64,
    pub pages_moved: Pages,
    /// Of those, pages that went one way and as many that went the other before, of the same
    /// process.
    pub pages_back: f64,
    /// Pages that came to where their process runs, less those that left it: weighed by the shares
    /// of its CPU time on both nodes.
    pub pages_nearer: f64,
}

impl Balancing {
    pub(super) fn add(&mut self, more: &Self) {
        self.hint_faults += more.hint_faults;
        self.pages_moved += more.pages_moved;
        self.pages_back += more.pages_back;
        self.pages_nearer += more.pages_nearer;
    }

    pub fn is_idle(&self) -> bool {
        self.hint_faults == 0 && self.pages_moved == 0
    }
}

/// Pages that went from one node to another and have not been made up for by as many the other way.
#[derive(Clone, Debug, Default)]
pub(super) struct Flows(BTreeMap<(Node, Node), f64>);

impl Flows {
    /// Takes in one tick of the process.
    pub(super) fn step(&mut self, domain: &DomainObs) -> Balancing {
        let moved = domain.migrated.iter().filter(|one| one.reason == REASON);
        let mut done = Balancing {
            hint_faults: domain.hints.iter().map(|hint| hint.faults).sum(),
            pages_moved: moved.map(|one| one.pages).sum(),
            ..Balancing::default()
        };
        let across = || domain.hints.iter().filter(|hint| hint.cpu != hint.memory);
        let met: Pages = across().map(|hint| hint.pages).sum();
        if done.pages_moved == 0 || met == 0 {
            return done;
        }
        for hint in across() {
            let (from, to) = (hint.memory, hint.cpu);
            let pages = done.pages_moved as f64 * hint.pages as f64 / met as f64;
            done.pages_back += self.go(from, to, pages);
            done.pages_nearer += pages * (cpu_share(domain, to) - cpu_share(domain, from));
        }
        done
    }

    /// How many of these pages are on the way back.
    fn go(&mut self, from: Node, to: Node, pages: f64) -> f64 {
        let other = self.0.entry((to, from)).or_default();
        let back = pages.min(*other);
        *other -= back;
        *self.0.entry((from, to)).or_default() += pages - back;
        back
    }
}
