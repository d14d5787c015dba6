//! System calls of the workloads that no safe crate wraps.

use std::io;

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

pub(crate) const PAGE: usize = 4096;

const MPOL_BIND: libc::c_int = 2;

/// Pins a thread, or with 0 the calling one.
pub(crate) fn pin(tid: u32, cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    let pid = Pid::from_raw(i32::try_from(tid)?);
    sched_setaffinity(pid, &set).with_context(|| format!("pin thread {tid} to CPUs {cpus:?}"))
}

/// Private anonymous memory of base pages, not touched yet. Never unmapped.
pub(crate) struct Memory {
    start: *mut u8,
    pub(crate) pages: usize,
}

impl Memory {
    pub(crate) fn map(pages: usize) -> Result<Self> {
        let length = pages * PAGE;
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping, of nobody else's concern.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, kind, -1, 0) };
        ensure!(start != libc::MAP_FAILED, "map {pages} pages: {}", io::Error::last_os_error());
        let memory = Self { start: start.cast(), pages };
        memory.advise(libc::MADV_NOHUGEPAGE)?;
        Ok(memory)
    }

    pub(crate) fn address(&self) -> usize {
        self.start.expose_provenance()
    }

    /// The same memory, for another thread of this process.
    pub(crate) fn at(start: usize, pages: usize) -> Self {
        Self { start: std::ptr::with_exposed_provenance_mut(start), pages }
    }

    /// Writes all over it, for ever.
    pub(crate) fn burn(&self) -> ! {
        loop {
            self.touch(3);
        }
    }

    pub(crate) fn advise(&self, advice: libc::c_int) -> Result<()> {
        // SAFETY: the whole of our own mapping.
        let result = unsafe { libc::madvise(self.start.cast(), self.pages * PAGE, advice) };
        ensure!(result == 0, "madvise({advice}): {}", io::Error::last_os_error());
        Ok(())
    }

    /// Writes one byte to each page.
    pub(crate) fn touch(&self, value: u8) {
        for page in 0..self.pages {
            // SAFETY: within our mapping; volatile, so that each pass really writes.
            unsafe { self.start.add(page * PAGE).write_volatile(value) };
        }
    }

    /// Fills the pages so that each differs from all others but equals its twin elsewhere.
    pub(crate) fn number(&self) {
        for page in 0..self.pages {
            // SAFETY: within our mapping, aligned to a page.
            unsafe { self.start.add(page * PAGE).cast::<u64>().write_volatile(page as u64 + 1) };
        }
    }

    /// Binds the mapping to one node; its pages go there when they are touched.
    pub(crate) fn bind(&self, node: u16) -> Result<()> {
        let mask = 1u64 << node;
        let length = self.pages * PAGE;
        // SAFETY: our own mapping, and a mask that outlives the call.
        let result = unsafe {
            libc::syscall(libc::SYS_mbind, self.start, length, MPOL_BIND, &raw const mask, 65, 0)
        };
        ensure!(result == 0, "mbind to node {node}: {}", io::Error::last_os_error());
        Ok(())
    }

    /// The kernel's word on where a page is, after asking it to go to `node`.
    pub(crate) fn move_to(&self, node: i32) -> Result<()> {
        let pages: Vec<*const u8> =
            (0..self.pages).map(|page| self.start.wrapping_add(page * PAGE).cast_const()).collect();
        let nodes = vec![node; self.pages];
        let mut status = vec![i32::MIN; self.pages];
        const MPOL_MF_MOVE: libc::c_int = 2;
        // SAFETY: three arrays of `pages` elements that outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                pages.len(),
                pages.as_ptr(),
                nodes.as_ptr(),
                status.as_mut_ptr(),
                MPOL_MF_MOVE,
            )
        };
        ensure!(result >= 0, "move_pages: {}", io::Error::last_os_error());
        Ok(())
    }

    /// Puts references to the first pages into a pipe: they cannot move until it is closed.
    pub(crate) fn into_pipe(&self, pages: usize) -> Result<std::os::fd::OwnedFd> {
        let (reader, writer) = rustix::pipe::pipe().context("make a pipe")?;
        let part = libc::iovec { iov_base: self.start.cast(), iov_len: pages * PAGE };
        let fd = std::os::fd::AsRawFd::as_raw_fd(&writer);
        // SAFETY: one part, within our mapping.
        let result = unsafe { libc::vmsplice(fd, &raw const part, 1, 0) };
        ensure!(result >= 0, "vmsplice: {}", io::Error::last_os_error());
        Ok(reader)
    }
}

/// Binds the calling thread's future pages to one node.
pub(crate) fn bind_task(node: u16) -> Result<()> {
    let mask = 1u64 << node;
    // SAFETY: a mask that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, MPOL_BIND, &raw const mask, 65) };
    ensure!(result == 0, "set_mempolicy to node {node}: {}", io::Error::last_os_error());
    Ok(())
}

/// Minor and major faults of this process, by the kernel.
pub(crate) fn own_faults() -> (u64, u64) {
    // SAFETY: all zeroes is a valid rusage, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    (usage.ru_minflt.unsigned_abs(), usage.ru_majflt.unsigned_abs())
}

/// How many BPF programs the kernel holds.
pub(crate) fn bpf_programs() -> usize {
    const BPF_PROG_GET_NEXT_ID: libc::c_int = 11;
    let mut count = 0;
    // `union bpf_attr`: start id, next id, open flags.
    let mut attr = [0u32; 4];
    loop {
        // SAFETY: the call reads and writes the 16 bytes that it is given.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_GET_NEXT_ID,
                attr.as_mut_ptr(),
                size_of_val(&attr),
            )
        };
        if result != 0 {
            return count;
        }
        count += 1;
        attr[0] = attr[1];
    }
}
