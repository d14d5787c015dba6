//! The guest's part in the check of a far machine: it reads, and says by markers when.
//!
//! What was counted and how long it took is judged outside, by `far::check`.

use anyhow::{Context, Result};
use far::check::{LAPS, LINES};
use far::marker::Marker;

use crate::nodes;
use crate::sys::{Memory, PAGE, mark};

/// Far beyond any cache of the model: a line is visited once in a stretch.
const PAGES: usize = (16 << 20) / PAGE;

/// Reads memory of each node from each node's CPUs.
pub(crate) fn check() -> Result<()> {
    mark::<{ Marker::On.code() }>();
    for cpu in nodes::with_cpus()? {
        nodes::run_on_one(cpu)?;
        for node in nodes::with_memory()? {
            let memory = Reading::on(node)?;
            memory.laps(1);
            mark::<{ Marker::Begin.code() }>();
            for _ in 0..LAPS {
                memory.laps(1);
                mark::<{ Marker::Lap.code() }>();
            }
        }
    }
    mark::<{ Marker::Checked.code() }>();
    Ok(())
}

/// Memory that is read line by line, in an order that no cache foresees.
pub(crate) struct Reading {
    memory: Memory,
    next: std::cell::Cell<usize>,
}

impl Reading {
    /// Memory bound to a node, where the kernel's balancing leaves it.
    pub(crate) fn on(node: u16) -> Result<Self> {
        let mut memory = Memory::map(PAGES).context("map")?;
        memory.bind(node).with_context(|| format!("bind to node {node}"))?;
        memory.touch_all();
        Ok(Self { memory, next: std::cell::Cell::new(0) })
    }

    pub(crate) fn pages(&self) -> usize {
        self.memory.pages()
    }

    /// Reads `LINES` lines for each lap.
    pub(crate) fn laps(&self, laps: usize) {
        // A full period for a power of two: each line once before any comes again.
        let step = |line: usize| (line * 1_664_525 + 1_013_904_223) % self.memory.lines();
        let mut line = self.next.get();
        for _ in 0..laps * LINES {
            std::hint::black_box(self.memory.read_line(line));
            line = step(line);
        }
        self.next.set(line);
    }
}
