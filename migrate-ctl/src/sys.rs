//! System calls, capabilities and the clock.
//!
//! The only file with `unsafe`, with libc and with a clock. It offers what the
//! mover, placement and `doctor` want to do and knows nothing about policies.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
pub use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, geteuid, getrlimit, pidfd_open, setrlimit,
};
pub use rustix::thread::CapabilitySet;
use rustix::thread::{CpuSet, capabilities, gettid, sched_setaffinity, set_capabilities};
use rustix::time::{ClockId, clock_gettime};

use crate::model::{Nanos, NodeId};

/// Bytes of a base page. Kernels with other base pages count in other units everywhere.
pub const PAGE_SIZE: u64 = 4096;

const _: () = assert!(size_of::<usize>() == 8, "addresses of other processes are taken as u64");

const _: () = assert!(size_of::<ScanArguments>() == 96, "as PAGEMAP_SCAN's number says");

/// Time since boot, suspend included: the clock of `Order` and `Outcome`.
pub fn boottime() -> Nanos {
    nanos(ClockId::Boottime)
}

/// The clock of the probes: time since boot without suspend.
pub fn monotonic() -> Nanos {
    nanos(ClockId::Monotonic)
}

/// CPU time of the calling thread.
pub fn thread_cpu_time() -> Nanos {
    nanos(ClockId::ThreadCPUTime)
}

fn nanos(clock: ClockId) -> Nanos {
    let now = clock_gettime(clock);
    // The clock starts at 0 and never goes back, so neither part is negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The calling thread, as the kernel numbers it.
pub fn thread_id() -> u32 {
    gettid().as_raw_nonzero().get().unsigned_abs()
}

/// None for root, else the user's number.
pub fn plain_user() -> Option<u32> {
    let user = geteuid();
    (!user.is_root()).then(|| user.as_raw())
}

/// Lets us open a descriptor for each CPU of a large machine.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Refused: the limit that we have must do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// What the calling thread may do now.
pub fn effective_caps() -> io::Result<CapabilitySet> {
    Ok(capabilities(None)?.effective)
}

/// False also where the set cannot be read.
pub fn has_cap(cap: CapabilitySet) -> bool {
    effective_caps().is_ok_and(|caps| caps.contains(cap))
}

/// Takes CAP_SYS_NICE from the calling thread for good manners: without it
/// `migrate_pages(2)` leaves shared pages alone and obeys the target's cpuset.
///
/// # Errors
/// The kernel refused, or said yes and left the capability in place.
pub fn drop_sys_nice() -> io::Result<()> {
    let mut sets = capabilities(None)?;
    sets.effective.remove(CapabilitySet::SYS_NICE);
    set_capabilities(None, sets)?;
    if effective_caps()?.contains(CapabilitySet::SYS_NICE) {
        return Err(io::Error::other("CAP_SYS_NICE is still effective after capset"));
    }
    Ok(())
}

/// A process, to ask later whether it has exited. Its number may be another's by then.
#[derive(Debug)]
pub struct Pinned(OwnedFd);

impl Pinned {
    /// # Errors
    /// ESRCH where there is no such process.
    pub fn open(pid: u32) -> Result<Self, Errno> {
        Ok(Self(pidfd_open(to_pid(pid)?, PidfdFlags::empty())?))
    }

    /// True once its last thread has exited, reaped or not.
    ///
    /// # Errors
    /// The kernel had no memory for the poll.
    pub fn has_exited(&self) -> Result<bool, Errno> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(ready > 0)
    }
}

/// Lets the calling thread run on these CPUs only.
///
/// # Errors
/// None of them is online and in our cpuset.
pub fn run_on(cpus: &[u32]) -> io::Result<()> {
    let mut set = CpuSet::new();
    // Beyond the set's size there is nothing to set.
    for &cpu in cpus.iter().filter(|cpu| (**cpu as usize) < CpuSet::MAX_CPU) {
        set.set(cpu as usize);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Memory of ours that stays on one node.
pub struct NodeMemory {
    start: *mut u64,
    words: usize,
}

// SAFETY: the mapping belongs to this value alone.
unsafe impl Send for NodeMemory {}

impl NodeMemory {
    /// Takes nothing from anybody: where the node has no free memory, there is none.
    ///
    /// # Errors
    /// There is no such memory, or none is free.
    pub fn on(node: NodeId, bytes: usize) -> io::Result<Self> {
        let mut memory = Self::anywhere(bytes)?;
        let bits = NodeBits::new(&[node]);
        // SAFETY: the range is our own mapping and the mask outlives the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                memory.start,
                bytes,
                libc::MPOL_PREFERRED,
                bits.words.as_ptr(),
                bits.maxnode(),
                0,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        memory.words().fill(0);
        if memory.is_on(node)? {
            Ok(memory)
        } else {
            Err(io::Error::other(format!("node {node} has no free memory")))
        }
    }

    fn is_on(&self, node: NodeId) -> io::Result<bool> {
        let start = self.start.addr() as u64;
        let pages = (self.words * size_of::<u64>()) as u64 / PAGE_SIZE;
        let addresses: Vec<u64> = (0..pages).map(|page| start + page * PAGE_SIZE).collect();
        let nodes = query_pages(std::process::id(), &addresses)?;
        Ok(nodes.iter().all(|&on| on == i32::from(node.0)))
    }

    /// Wherever the calling thread gets memory; a power of two of bytes.
    ///
    /// # Errors
    /// There is no memory.
    pub fn anywhere(bytes: usize) -> io::Result<Self> {
        assert!(bytes.is_power_of_two() && bytes >= size_of::<u64>(), "{bytes} bytes");
        // SAFETY: a new anonymous mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), words: bytes / size_of::<u64>() })
    }

    pub fn words(&mut self) -> &mut [u64] {
        // SAFETY: the mapping is ours, writable, zeroed by the kernel and of this length.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.words) }
    }

    /// Takes the lines of these words out of every cache.
    pub fn flush(&self, words: &[usize]) {
        for &word in words {
            assert!(word < self.words, "word {word} of {}", self.words);
            // SAFETY: inside our mapping; the instruction changes no memory.
            unsafe { core::arch::x86_64::_mm_clflush(self.start.wrapping_add(word).cast()) };
        }
        // SAFETY: a fence has no preconditions.
        unsafe { core::arch::x86_64::_mm_mfence() };
    }

    /// Goes so many steps from a word; each word holds the number of the next.
    pub fn follow(&self, first: usize, steps: usize) -> u64 {
        let mut next = first as u64;
        for _ in 0..steps {
            // A mask: a division would take part of the time that is measured.
            let word = usize::try_from(next).unwrap_or(0) & (self.words - 1);
            // SAFETY: inside our mapping, whose size is a power of two; volatile, so that each access happens.
            next = unsafe { self.start.wrapping_add(word).read_volatile() };
        }
        next
    }
}

impl Drop for NodeMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows from it.
        unsafe { libc::munmap(self.start.cast(), self.words * size_of::<u64>()) };
    }
}

/// Moves the pages of a process from some nodes to one. The number is the
/// kernel's count of pages that it left, which is no verdict: pages refused
/// on 6.1 are missing from it, pages that arrived may be in it from 6.12 on.
///
/// # Errors
/// ESRCH: no such process. EPERM: not ours to touch, or outside its cpuset.
/// EINVAL: it has no memory any more, or the target node is offline.
pub fn migrate_pages(pid: u32, from: &[NodeId], to: NodeId) -> Result<u64, Errno> {
    let pid = to_pid(pid)?.as_raw_nonzero().get();
    let from = NodeBits::new(from);
    let to = NodeBits::new(&[to]);
    let maxnode = from.maxnode().min(to.maxnode());
    // SAFETY: both masks live until the call returns and hold `maxnode - 1` bits or more, and
    // the kernel only reads them.
    let left = unsafe {
        libc::syscall(libc::SYS_migrate_pages, pid, maxnode, from.words.as_ptr(), to.words.as_ptr())
    };
    u64::try_from(left).map_err(|_negative| last_errno())
}

/// The groups of whoever connected this Unix socket, besides his own, as they were then.
pub fn peer_groups(socket: &impl AsRawFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 32];
    loop {
        let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice())).unwrap_or(0);
        // SAFETY: `groups` has room for `bytes` bytes, and both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        // Set by the kernel in both cases: what it has written, or what it needs room for.
        let count = bytes as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// The node of the page at each address, or the negated errno of that address.
///
/// # Errors
/// ESRCH: no such process. EPERM: not ours to look at.
pub fn query_pages(pid: u32, addrs: &[u64]) -> io::Result<Vec<i32>> {
    let pid = to_pid(pid)?.as_raw_nonzero().get();
    // The kernel leaves entries unwritten when it stops early.
    let mut status = vec![-libc::ENOENT; addrs.len()];
    // SAFETY: `addrs` and `status` have `addrs.len()` entries each, of the width of a pointer
    // (asserted above) and of an int; the addresses are the target's and never followed here.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            pid,
            addrs.len(),
            addrs.as_ptr(),
            std::ptr::null::<libc::c_int>(),
            status.as_mut_ptr(),
            0,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(status) }
}

/// What to look for in a process's pagemap. Zero pages are never looked for.
#[derive(Clone, Copy, Debug)]
pub struct PageScan {
    /// Addresses, multiples of the page size.
    pub first: u64,
    pub end: u64,
    /// Pages of one answer.
    pub at_most: u64,
    /// Pages of no file and no shared memory.
    pub anonymous: bool,
    /// Pages of a file or of shared memory.
    pub of_file: bool,
}

/// `struct pm_scan_arg` of include/uapi/linux/fs.h, from 6.7.
#[repr(C)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region` of the same file.
#[repr(C)]
#[derive(Default)]
struct ScanRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// The first addresses, and one past the last, of neighbouring pages that are there, by a search
/// that skips what has no page table.
///
/// # Errors
/// ENOTTY: this kernel has no such search. ESRCH: the process is gone.
pub fn scan_pagemap(pagemap: &File, scan: PageScan) -> io::Result<Option<(u64, u64)>> {
    /// `_IOWR('f', 16, struct pm_scan_arg)`.
    const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
    const IS_FILE: u64 = 1 << 2;
    const IS_PRESENT: u64 = 1 << 3;
    const IS_ZERO: u64 = 1 << 5;
    let mut region = ScanRegion::default();
    let without = IS_ZERO | if scan.anonymous { IS_FILE } else { 0 };
    let with = IS_PRESENT | if scan.of_file { IS_FILE } else { 0 };
    let mut arguments = ScanArguments {
        size: size_of::<ScanArguments>() as u64,
        flags: 0,
        start: scan.first,
        end: scan.end,
        walk_end: 0,
        vec: (&raw mut region) as u64,
        vec_len: 1,
        max_pages: scan.at_most,
        category_inverted: without,
        category_mask: with | without,
        category_anyof_mask: 0,
        return_mask: IS_PRESENT,
    };
    // SAFETY: the descriptor is open as long as `pagemap` lives; the kernel reads and writes
    // `arguments`, whose size it is told, and writes the one region that it is told of.
    let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut arguments) };
    match found {
        ..0 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        1.. => Ok(Some((region.start, region.end))),
    }
}

/// What a mapped file lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// tmpfs, as all shared memory is, but not the devices on it.
    Memory,
    HugePages,
    Other,
}

/// # Errors
/// Gone, or not ours to look at.
pub fn file_system(file: &Path) -> io::Result<FileSystem> {
    /// TMPFS_MAGIC and HUGETLBFS_MAGIC of include/uapi/linux/magic.h.
    const TMPFS: i64 = 0x0102_1994;
    const HUGETLBFS: i64 = 0x9584_58f6;
    let mode = rustix::fs::stat(file)?.st_mode;
    if !matches!(FileType::from_raw_mode(mode), FileType::RegularFile) {
        return Ok(FileSystem::Other);
    }
    Ok(match rustix::fs::statfs(file)?.f_type {
        TMPFS => FileSystem::Memory,
        HUGETLBFS => FileSystem::HugePages,
        _ => FileSystem::Other,
    })
}

/// A pid of 0 would mean ourselves to every one of these calls.
fn to_pid(pid: u32) -> Result<Pid, Errno> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// A node mask as the kernel reads it.
struct NodeBits {
    words: Vec<u64>,
}

impl NodeBits {
    /// Enough words for every node that a kernel can have (NODES_SHIFT is at most 10), so that
    /// sparse numbers and masks of different length need no thought.
    const WORDS: usize = 16;

    fn new(nodes: &[NodeId]) -> Self {
        let mut words = vec![0; Self::WORDS];
        for node in nodes {
            let (word, bit) = (usize::from(node.0 / 64), node.0 % 64);
            if word >= words.len() {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << bit;
        }
        Self { words }
    }

    /// The kernel reads `maxnode - 1` bits.
    fn maxnode(&self) -> usize {
        self.words.len() * 64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_sparse_nodes_into_their_words() {
        let bits = NodeBits::new(&[NodeId(0), NodeId(8), NodeId(64), NodeId(1023)]);
        assert_eq!(bits.words[0], 0b1_0000_0001);
        assert_eq!(bits.words[1], 1);
        assert_eq!(bits.words[15], 1 << 63);
        assert_eq!(bits.maxnode(), 1025);
    }

    #[test]
    fn never_takes_pid_zero_for_ourselves() {
        assert_eq!(migrate_pages(0, &[NodeId(0)], NodeId(0)), Err(Errno::SRCH));
        assert!(query_pages(0, &[]).is_err());
        assert_eq!(Pinned::open(0).unwrap_err(), Errno::SRCH);
    }

    #[test]
    fn sees_that_a_pinned_process_has_exited() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pinned = Pinned::open(child.id()).unwrap();
        assert!(!pinned.has_exited().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(pinned.has_exited().unwrap());
    }

    #[test]
    fn drops_sys_nice_on_the_calling_thread_only() {
        let before = effective_caps().unwrap();
        let dropped = std::thread::spawn(|| {
            drop_sys_nice().unwrap();
            effective_caps().unwrap()
        });
        assert!(!dropped.join().unwrap().contains(CapabilitySet::SYS_NICE));
        assert_eq!(effective_caps().unwrap(), before);
    }

    #[test]
    fn the_clock_runs() {
        let first = boottime();
        assert!(first > 0 && boottime() >= first);
        assert!(thread_id() > 0);
    }
}
