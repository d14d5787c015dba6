//! What was counted, in a file of the host that the plugin maps and tests read.
//!
//! Words of eight bytes: a head, then for each CPU the misses of its programs
//! and those of its kernel by the memory's node, then the marks, each with what
//! its CPU had counted by then. Everything only grows, each word has one
//! writer, so a reader needs no lock.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::marker::Marker;

const MAGIC: u64 = u64::from_le_bytes(*b"farcount");
/// Words of the head: magic, CPUs, nodes, marks.
const HEAD: usize = 4;
/// Where the head has the number of marks.
const MARKED: usize = 3;
/// Words of a mark before its counts: code, CPU, time.
const MARK: usize = 3;
/// Marks that there is room for; later ones are lost.
const MARKS: usize = 1 << 15;

/// Misses by the memory's node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misses {
    /// Of accesses to addresses of programs.
    pub user: Vec<u64>,
    /// Of accesses to addresses of the kernel.
    pub kernel: Vec<u64>,
}

/// A marker that a CPU has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub marker: Marker,
    pub cpu: usize,
    /// Of the host, in ns since the plugin was loaded.
    pub nanos: u64,
    /// Of this CPU until then.
    pub misses: Misses,
}

/// Everything in the file at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// By CPU.
    pub cpus: Vec<Misses>,
    /// In the order in which they were passed.
    pub marks: Vec<Mark>,
}

impl Counts {
    /// # Errors
    /// The file cannot be read, or is not the plugin's.
    pub fn read(file: &Path) -> io::Result<Self> {
        let bytes = fs::read(file)?;
        let words = bytes.chunks_exact(8);
        let words = words.map(|word| word.try_into().map_or(0, u64::from_le_bytes));
        Self::parse(&words.collect::<Vec<_>>())
            .ok_or_else(|| io::Error::other("these are no counts of the plugin"))
    }

    fn parse(words: &[u64]) -> Option<Self> {
        let (&[magic, cpus, nodes, marks], rest) = words.split_first_chunk::<HEAD>()?;
        let small = |number: u64| usize::try_from(number).ok();
        let (cpus, nodes, marks) = (small(cpus)?, small(nodes)?, small(marks)?.min(MARKS));
        let (rows, rest) = rest.split_at_checked(cpus * nodes * 2)?;
        if magic != MAGIC || nodes == 0 {
            return None;
        }
        let misses = |row: &[u64]| {
            let (user, kernel) = row.split_at(nodes);
            Misses { user: user.to_vec(), kernel: kernel.to_vec() }
        };
        let mut passed = Vec::new();
        for words in rest.chunks_exact(MARK + nodes * 2).take(marks) {
            let (&[code, cpu, nanos], row) = words.split_first_chunk::<MARK>()?;
            // Without its code a mark is not complete yet.
            let Some(marker) = Marker::of(code) else { break };
            passed.push(Mark { marker, cpu: small(cpu)?, nanos, misses: misses(row) });
        }
        Some(Self { cpus: rows.chunks_exact(nodes * 2).map(misses).collect(), marks: passed })
    }
}

/// The plugin's side of the file.
pub(crate) struct Recorder {
    words: &'static [AtomicU64],
    cpus: usize,
    nodes: usize,
    began: Instant,
}

impl Recorder {
    /// Makes the file anew.
    pub(crate) fn create(file: &Path, cpus: usize, nodes: usize) -> io::Result<Self> {
        let length = HEAD + cpus * nodes * 2 + MARKS * (MARK + nodes * 2);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(file)?;
        file.set_len(length as u64 * 8)?;
        let recorder = Self { words: map(&file, length)?, cpus, nodes, began: Instant::now() };
        recorder.set(1, cpus as u64);
        recorder.set(2, nodes as u64);
        recorder.set(0, MAGIC);
        Ok(recorder)
    }

    /// Counts a miss of this CPU, which nobody else does at the same time.
    pub(crate) fn miss(&self, cpu: usize, of_kernel: bool, node: usize) {
        if cpu >= self.cpus || node >= self.nodes {
            return;
        }
        let column = node + if of_kernel { self.nodes } else { 0 };
        if let Some(word) = self.words.get(self.row(cpu) + column) {
            word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    pub(crate) fn mark(&self, cpu: usize, marker: Marker) {
        let Some(marked) = self.words.get(MARKED) else { return };
        let width = MARK + self.nodes * 2;
        // Past the room the numbers go on, and the marks are lost.
        let Ok(number) = usize::try_from(marked.fetch_add(1, Ordering::Relaxed)) else { return };
        if number >= MARKS || cpu >= self.cpus {
            return;
        }
        let start = self.row(self.cpus) + number * width;
        self.set(start + 1, cpu as u64);
        self.set(start + 2, u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        for column in 0..self.nodes * 2 {
            let count = self.words.get(self.row(cpu) + column);
            self.set(start + MARK + column, count.map_or(0, |word| word.load(Ordering::Relaxed)));
        }
        // Last: a reader takes a mark for complete from here on.
        self.set(start, marker.code().into());
    }

    fn row(&self, cpu: usize) -> usize {
        HEAD + cpu * self.nodes * 2
    }

    fn set(&self, at: usize, value: u64) {
        if let Some(word) = self.words.get(at) {
            word.store(value, Ordering::Release);
        }
    }
}

/// Maps so many words of a file, for as long as the process lives.
fn map(file: &File, words: usize) -> io::Result<&'static [AtomicU64]> {
    // SAFETY: a new shared mapping at an address of the kernel's choice replaces nothing.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            words * 8,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping has so many words, is aligned to pages, is never unmapped, and is only
    // used through atomics; others change the file by nothing but reading it.
    Ok(unsafe { std::slice::from_raw_parts(start.cast(), words) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_what_is_read() {
        let file = std::env::temp_dir().join(format!("far-counts-{}", std::process::id()));
        let recorder = Recorder::create(&file, 3, 2).unwrap();
        recorder.miss(2, false, 1);
        recorder.mark(2, Marker::Begin);
        recorder.miss(2, false, 1);
        recorder.miss(0, true, 0);
        // Of no node and of no CPU that was announced: not counted, and nothing else is touched.
        recorder.miss(0, false, 2);
        recorder.miss(3, false, 0);
        recorder.mark(0, Marker::Lap);
        let counts = Counts::read(&file).unwrap();
        let misses = |user: [u64; 2], kernel: [u64; 2]| Misses {
            user: user.to_vec(),
            kernel: kernel.to_vec(),
        };
        assert_eq!(
            counts.cpus,
            [
                misses([0, 0], [1, 0]),
                Misses { user: vec![0; 2], kernel: vec![0; 2] },
                misses([0, 2], [0, 0])
            ]
        );
        let marks: Vec<_> =
            counts.marks.iter().map(|mark| (mark.marker, mark.cpu, &mark.misses)).collect();
        assert_eq!(
            marks,
            [
                (Marker::Begin, 2, &misses([0, 1], [0, 0])),
                (Marker::Lap, 0, &misses([0, 0], [1, 0]))
            ]
        );
        assert!(counts.marks[0].nanos <= counts.marks[1].nanos);
        fs::write(&file, [0; 400]).unwrap();
        assert!(Counts::read(&file).is_err());
        fs::remove_file(&file).unwrap();
    }
}
