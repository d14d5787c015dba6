//! What does an operation cost, in instructions?
//!
//! A process of its own: what the one with the probes maps for them would
//! lengthen each look-up of an address. The numbers are the least of several
//! rounds, since an interrupt only adds.

use std::hint::black_box;
use std::io::{self, Read, Write, pipe};
use std::thread;

use anyhow::{Context, Result, ensure};
use migrate_ctl::sys::boottime;
use serde::{Deserialize, Serialize};

use super::acts::placed;
use super::say;
use crate::sys::{self, Memory};
use crate::witness::vmstat;
use crate::{balancing, nodes};

/// Each operation is repeated so often in a round.
const OPERATIONS: usize = 2048;
const ROUNDS: usize = 7;
/// Looks at a counter, each far shorter than the kernel's pause between two scans.
const LOOKS: usize = 100_000;

/// Instructions an operation.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Costs {
    /// The first touch of an anonymous page.
    fault: u64,
    /// The first write to a page that was read before.
    write_fault: u64,
    /// A fault of the kernel's balancing, which brings the page here.
    hint_fault: u64,
    /// By `move_pages(2)`.
    moved_page: u64,
    /// To another thread and back.
    switches: u64,
    system_call: u64,
}

pub(super) fn measure() -> Result<()> {
    nodes::run_on(None, 0)?;
    balancing::hasten()?;
    // Else the scheduler switches once more in some turns, and in which is chance.
    sys::never_preempt().context("become a batch task")?;
    say("ready")?;
    while io::stdin().read_line(&mut String::new()).context("read a line")? > 0 {
        let costs = Costs {
            fault: least(faults)?,
            write_fault: least(write_faults)?,
            hint_fault: least(|| balancing::during(hint_faults))?,
            moved_page: least(moved_pages)?,
            switches: least(switches)?,
            system_call: least(system_calls)?,
        };
        say(&serde_json::to_string(&costs)?)?;
    }
    Ok(())
}

/// Of several rounds, each of which says what one of its operations cost.
pub(crate) fn least(round: impl FnMut() -> Result<u64>) -> Result<u64> {
    let rounds = std::iter::repeat_with(round).take(ROUNDS).collect::<Result<Vec<u64>>>()?;
    rounds.into_iter().min().context("no rounds")
}

/// Instructions for each of the operations of a round.
fn counted(act: impl FnOnce() -> Result<()>) -> Result<u64> {
    let began = boottime();
    act()?;
    Ok((boottime() - began) / OPERATIONS as u64)
}

fn faults() -> Result<u64> {
    let mut memory = Memory::map(OPERATIONS).context("map")?;
    counted(|| {
        memory.touch_all();
        Ok(())
    })
}

/// Reading maps the zero page.
fn write_faults() -> Result<u64> {
    let mut memory = Memory::map(OPERATIONS).context("map")?;
    black_box(memory.read_all());
    counted(|| {
        memory.touch_all();
        Ok(())
    })
}

/// Reads pages of node 1 once the kernel has hinted all of them.
fn hint_faults() -> Result<u64> {
    let memory = placed(1, OPERATIONS)?;
    // Puts the last pages on their LRU: the kernel does so before it unmaps anything.
    drop(Memory::map(1).context("map")?);
    let (hinted, moved) = (vmstat("numa_pte_updates")?, vmstat("numa_pages_migrated")?);
    let pages = OPERATIONS as u64;
    let since = |name, before| vmstat(name).map(|now| now - before);
    let mut looks = 0;
    while since("numa_pte_updates", hinted)? < pages {
        ensure!(looks < LOOKS, "the kernel hints no pages");
        looks += 1;
    }
    let passed = counted(|| {
        black_box(memory.read_all());
        Ok(())
    })?;
    let moved = since("numa_pages_migrated", moved)?;
    ensure!(moved * 100 >= pages * 99, "{moved} of {pages} hinted pages have moved");
    Ok(passed)
}

/// There and back, so that each round finds the pages where the one before did.
fn moved_pages() -> Result<u64> {
    let mut memory = Memory::map(OPERATIONS / 2).context("map")?;
    memory.touch_all();
    counted(|| {
        memory.move_to(1).context("move_pages")?;
        memory.move_to(0).context("move_pages").map(drop)
    })
}

fn switches() -> Result<u64> {
    let (mut here, mut to_there) = pipe().context("make a pipe")?;
    let (mut there, mut to_here) = pipe().context("make a pipe")?;
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while here.read_exact(&mut byte).is_ok() && to_here.write_all(&byte).is_ok() {}
    });
    let mut turn = || to_there.write_all(&[1]).and_then(|()| there.read_exact(&mut [0]));
    turn().context("wake the other thread")?;
    let passed = counted(|| (0..OPERATIONS).try_for_each(|_| turn()).context("switch"))?;
    drop(to_there);
    echo.join().map_err(|_panic| anyhow::anyhow!("the other thread has panicked"))?;
    Ok(passed)
}

fn system_calls() -> Result<u64> {
    counted(|| {
        for _ in 0..OPERATIONS {
            black_box(rustix::process::getppid());
        }
        Ok(())
    })
}
