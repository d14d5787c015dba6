//! Is this far machine what it was told to be? The check at boot, from outside.
//!
//! The guest reads memory of each node from each node's CPUs and marks each
//! lap; what was counted and how long it took is judged here. A run whose
//! check fails is void: neither its counts nor its times mean anything.

use std::fmt;

use crate::counts::{Counts, Mark};
use crate::marker::Marker;

/// Laps of a stretch.
pub const LAPS: usize = 128;
/// Different lines read in each lap, each once a stretch.
pub const LINES: usize = 512;

/// Of a stretch's misses, at least so many are to the memory that it reads.
const THERE: f64 = 0.999;
/// Of a lap's reads, at least so many are misses.
const MISSED: f64 = 0.99;
/// The ratio may be off by this share.
const TOLERANCE: f64 = 0.05;

/// What the machine was told to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Remote latency ÷ local latency.
    pub factor: f64,
    /// The node of each CPU.
    pub cpus: Vec<usize>,
    /// Nodes with memory, in ascending order.
    pub memory: Vec<usize>,
}

/// One stretch: a CPU of one node read memory of one node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    pub cpu_node: usize,
    pub memory_node: usize,
    /// Of the misses, those to that memory.
    pub there: f64,
    /// ns a miss.
    pub nanos: f64,
    /// Latency ÷ that of the CPU's own memory; none for a node without memory.
    pub ratio: Option<f64>,
}

/// Why a run is void.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Void(String);

impl fmt::Display for Void {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "void: {}", self.0)
    }
}

impl std::error::Error for Void {}

/// Judges the check; none while it is not over.
///
/// # Errors
/// The machine is not what it was told to be.
pub fn judge(counts: &Counts, told: &Told) -> Result<Option<Vec<Stretch>>, Void> {
    let Some(end) = counts.marks.iter().position(|mark| mark.marker == Marker::Checked) else {
        return Ok(None);
    };
    let laps: Vec<&Mark> =
        counts.marks[..end].iter().filter(|mark| mark.marker != Marker::On).collect();
    let pairs = pairs(told);
    if laps.len() != pairs.len() * (LAPS + 1) {
        return Err(Void(format!("{} marks for {} stretches", laps.len(), pairs.len())));
    }
    let mut stretches: Vec<Stretch> = laps
        .chunks_exact(LAPS + 1)
        .zip(pairs)
        .map(|(marks, pair)| stretch(marks, pair, told))
        .collect::<Result<_, Void>>()?;
    let times = stretches.clone();
    for one in &mut stretches {
        let own =
            |other: &&Stretch| other.cpu_node == one.cpu_node && other.memory_node == one.cpu_node;
        one.ratio = times.iter().find(own).map(|own| one.nanos / own.nanos);
        let expected = if one.cpu_node == one.memory_node { 1.0 } else { told.factor };
        if let Some(ratio) = one.ratio.filter(|ratio| (ratio / expected - 1.0).abs() > TOLERANCE) {
            return Err(Void(format!(
                "from node {}, memory of node {} is {ratio:.3} times as slow as local memory, not \
                 {expected}",
                one.cpu_node, one.memory_node
            )));
        }
    }
    Ok(Some(stretches))
}

/// CPU node and memory node of each stretch, in the order in which the guest goes.
fn pairs(told: &Told) -> Vec<(usize, usize)> {
    let mut with_cpus = told.cpus.clone();
    with_cpus.sort_unstable();
    with_cpus.dedup();
    let memory = |cpu| told.memory.iter().map(move |&memory| (cpu, memory));
    with_cpus.into_iter().flat_map(memory).collect()
}

fn stretch(marks: &[&Mark], pair: (usize, usize), told: &Told) -> Result<Stretch, Void> {
    let (cpu_node, memory_node) = pair;
    let name = || format!("from node {cpu_node} to memory of node {memory_node}");
    let (Some(first), Some(last)) = (marks.first(), marks.last()) else {
        return Err(Void("an empty stretch".to_owned()));
    };
    if let Some(mark) = marks.iter().find(|mark| mark.cpu != first.cpu) {
        return Err(Void(format!("{}: it went from CPU {} to {}", name(), first.cpu, mark.cpu)));
    }
    if told.cpus.get(first.cpu) != Some(&cpu_node) {
        return Err(Void(format!("{}: it ran on CPU {}", name(), first.cpu)));
    }
    let grown = |from: &Mark, to: &Mark, node: usize| {
        let at = |mark: &Mark| mark.misses.user.get(node).copied().unwrap_or(0);
        at(to).saturating_sub(at(from))
    };
    let all =
        |from, to| (0..first.misses.user.len()).map(|node| grown(from, to, node)).sum::<u64>();
    let there = grown(first, last, memory_node) as f64 / all(first, last).max(1) as f64;
    if there < THERE {
        return Err(Void(format!(
            "{}: only {:.2} % of the misses are there",
            name(),
            there * 100.0
        )));
    }
    let missed = all(first, last) as f64 / (LAPS * LINES) as f64;
    if missed < MISSED {
        return Err(Void(format!("{}: only {:.1} % of the reads miss", name(), missed * 100.0)));
    }
    let mut nanos: Vec<f64> = marks
        .windows(2)
        .map(|lap| (lap[1].nanos - lap[0].nanos) as f64 / all(lap[0], lap[1]).max(1) as f64)
        .collect();
    nanos.sort_by(f64::total_cmp);
    // What else the host does makes laps longer and none shorter: the quickest eighth ran alone.
    let nanos = nanos[nanos.len() / 8];
    Ok(Stretch { cpu_node, memory_node, there, nanos, ratio: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Misses;

    fn told() -> Told {
        Told { factor: 2.0, cpus: vec![0, 0, 1, 1], memory: vec![0, 1] }
    }

    /// A check of two nodes, whose reads from `cpu` to `memory` go to the node that `goes` says
    /// and take as many ns as `takes` says.
    fn counts(goes: impl Fn(usize) -> usize, takes: impl Fn(usize, usize) -> u64) -> Counts {
        let mut marks = vec![];
        let mut nanos = 0;
        let mut mark = |marker, cpu, user: &[u64; 2], took| {
            nanos += took;
            let misses = Misses { user: user.to_vec(), kernel: vec![0; 2] };
            marks.push(Mark { marker, cpu, nanos, misses });
        };
        for cpu in 0..2 {
            let mut user = [0; 2];
            for memory in 0..2 {
                mark(Marker::Begin, cpu * 2, &user, 0);
                for lap in 0..LAPS {
                    user[goes(memory)] += LINES as u64;
                    // Every third lap is disturbed.
                    let disturbed = if lap % 3 == 0 { 9 } else { 1 };
                    let took = takes(cpu, memory) * LINES as u64 * disturbed;
                    mark(Marker::Lap, cpu * 2, &user, took);
                }
            }
        }
        mark(Marker::Checked, 0, &[0; 2], 0);
        Counts { cpus: vec![], marks }
    }

    fn far(cpu: usize, memory: usize) -> u64 {
        if cpu == memory { 500 } else { 1000 }
    }

    fn reason(counts: &Counts, told: &Told) -> String {
        judge(counts, told).unwrap_err().to_string()
    }

    #[test]
    fn a_machine_as_told_passes_with_its_ratios() {
        let stretches = judge(&counts(|memory| memory, far), &told()).unwrap().unwrap();
        let found: Vec<_> = stretches.iter().map(|one| (one.ratio, one.nanos, one.there)).collect();
        let (own, other) = ((Some(1.0), 500.0, 1.0), (Some(2.0), 1000.0, 1.0));
        assert_eq!(found, [own, other, other, own]);
    }

    #[test]
    fn nothing_is_said_before_the_end() {
        let mut counts = counts(|memory| memory, far);
        counts.marks.pop();
        assert_eq!(judge(&counts, &told()), Ok(None));
    }

    #[test]
    fn misses_to_another_node_make_it_void() {
        let swapped = counts(|memory| 1 - memory, far);
        assert!(reason(&swapped, &told()).contains("only 0.00 % of the misses are there"));
    }

    #[test]
    fn another_factor_makes_it_void() {
        let near = counts(|memory| memory, |_, _| 500);
        assert!(reason(&near, &told()).contains("1.000 times as slow as local memory, not 2"));
    }

    #[test]
    fn another_cpu_makes_it_void() {
        let told = Told { cpus: vec![0, 1, 0, 1], ..told() };
        assert!(reason(&counts(|memory| memory, far), &told).contains("it ran on CPU 2"));
    }

    #[test]
    fn reads_that_do_not_miss_and_marks_that_are_missing_make_it_void() {
        let mut few = counts(|memory| memory, far);
        few.marks.remove(3);
        assert!(reason(&few, &told()).contains("marks for 4 stretches"));
        for mark in &mut few.marks {
            mark.misses.user.iter_mut().for_each(|count| *count /= 2);
        }
        few.marks.insert(0, few.marks[0].clone());
        assert!(judge(&few, &told()).is_err());
    }
}
