//! Work at a pace that can be told from outside: laps, with a call after each.
//!
//! A lap is the same work each time: so many reads that miss every cache, so
//! many steps of arithmetic, and one `write(2)`, which the kernel counts in
//! `/proc/PID/io`. The workload's own clock says how long a lap took, to hold
//! against what somebody else makes of the calls.

use std::collections::VecDeque;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, BufRead, Write};
use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::acts::placed;
use super::say;
use crate::sys::{self, Memory};

/// Laps whose times are kept, the last ones.
const KEPT: usize = 4096;

#[derive(Args)]
pub(crate) struct Pace {
    /// Where its memory is, and where it runs until somebody sends it elsewhere
    #[arg(long)]
    node: u16,
    /// A power of two
    #[arg(long)]
    mib: usize,
    /// Lines of memory that a lap reads
    #[arg(long, default_value_t = 1024)]
    reads: usize,
    /// Steps of arithmetic in a lap, without any memory
    #[arg(long, default_value_t = 0)]
    steps: u64,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Paced {
    /// Since it began.
    pub(crate) laps: u64,
    /// CPU time that these took.
    pub(crate) cpu_nanos: u64,
    /// CPU time of a lap since it was asked last, or of the last `KEPT` laps: of the quickest
    /// quarter the slowest, since what else the host does makes laps longer only.
    pub(crate) quick_nanos: u64,
}

/// Laps from `ready` on; says at each line how far it has come.
pub(super) fn run(args: &Pace) -> Result<()> {
    ensure!(args.mib.is_power_of_two(), "{} MiB is no power of two", args.mib);
    let memory = placed(args.node, args.mib * 256)?;
    let mut null = File::options().write(true).open("/dev/null").context("open /dev/null")?;
    let mut times = VecDeque::with_capacity(KEPT);
    let (mut laps, mut line, mut began) = (0, 0, sys::thread_cpu_time());
    let start = began;
    let asked = lines();
    say("ready")?;
    loop {
        line = read(&memory, line, args.reads);
        compute(args.steps);
        null.write_all(&[0]).context("write to /dev/null")?;
        laps += 1;
        let now = sys::thread_cpu_time();
        times.truncate(KEPT - 1);
        times.push_front(now - began);
        began = now;
        match asked.try_recv() {
            Ok(()) => {
                let cpu_nanos = nanos(now - start);
                let paced = Paced { laps, cpu_nanos, quick_nanos: quick(&mut times) };
                say(&serde_json::to_string(&paced)?)?;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

/// A word for each line of the input; it is disconnected at its end.
fn lines() -> mpsc::Receiver<()> {
    let (asks, asked) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = io::stdin().lock().lines();
        // An error of the input ends it, too.
        while lines.next().is_some_and(|line| line.is_ok()) && asks.send(()).is_ok() {}
    });
    asked
}

/// Reads so many lines in an order that no cache foresees; returns the next.
fn read(memory: &Memory, first: usize, reads: usize) -> usize {
    let mut line = first;
    for _ in 0..reads {
        black_box(memory.read_line(line));
        // A full period for a power of two: each line once before any comes again.
        line = (line * 1_664_525 + 1_013_904_223) % memory.lines();
    }
    line
}

fn compute(steps: u64) {
    let mut sum = black_box(steps);
    for step in 0..steps {
        sum = sum.wrapping_mul(31).wrapping_add(step);
    }
    black_box(sum);
}

fn quick(times: &mut VecDeque<Duration>) -> u64 {
    let mut times: Vec<Duration> = times.drain(..).collect();
    times.sort_unstable();
    times.get(times.len() / 4).copied().map_or(0, nanos)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
