//! The raw system calls of the workloads and witnesses.
//!
//! The only file of the lab with `unsafe`. Offers verbs of the tests' domain;
//! what has a safe wrapper in rustix or std is not here.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// MPOL_MF_MOVE of include/uapi/linux/mempolicy.h: pages that only this process maps.
const MOVE: libc::c_int = 2;

/// Bytes of a base page.
pub(crate) const PAGE: usize = 4096;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Memory of this process, 4 KiB pages only, so that counts are exact.
pub(crate) struct Memory {
    start: *mut u8,
    pages: usize,
}

// SAFETY: through a shared reference the memory is only read; writing takes `&mut`.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps so many pages; none of them is there until touched.
    pub(crate) fn map(pages: usize) -> io::Result<Self> {
        let memory = Self::anonymous(pages, libc::MAP_PRIVATE | libc::MAP_NORESERVE)?;
        memory.advise(libc::MADV_NOHUGEPAGE)?;
        Ok(memory)
    }

    /// Maps so many pages of 4 KiB, a multiple of 512, that may become transparent huge pages.
    pub(crate) fn map_huge(pages: usize) -> io::Result<Self> {
        let memory = Self::anonymous(pages, libc::MAP_PRIVATE | libc::MAP_NORESERVE)?;
        memory.advise(libc::MADV_HUGEPAGE)?;
        Ok(memory)
    }

    /// The same of hugetlbfs; the administrator has reserved them.
    pub(crate) fn map_hugetlb(pages: usize) -> io::Result<Self> {
        Self::anonymous(pages, libc::MAP_PRIVATE | libc::MAP_HUGETLB)
    }

    /// Memory that children would share.
    pub(crate) fn map_shared(pages: usize) -> io::Result<Self> {
        Self::anonymous(pages, libc::MAP_SHARED | libc::MAP_NORESERVE)
    }

    fn anonymous(pages: usize, flags: libc::c_int) -> io::Result<Self> {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                pages * PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                flags | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), pages })
    }

    /// Maps the beginning of a file for reading, without readahead.
    pub(crate) fn map_file(file: &File, pages: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing; it is only
        // read, and a short file would end us with SIGBUS, not with wrong data.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                pages * PAGE,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = Self { start: start.cast(), pages };
        memory.advise(libc::MADV_RANDOM)?;
        Ok(memory)
    }

    /// Maps the same pages of a file so often, one behind the other, for reading.
    pub(crate) fn map_often(file: &File, pages: usize, times: usize) -> io::Result<Self> {
        let memory = Self::anonymous(pages * times, libc::MAP_PRIVATE | libc::MAP_NORESERVE)?;
        for time in 0..times {
            // SAFETY: replaces a part of the mapping that was just made, and that nobody has used.
            let there = unsafe {
                libc::mmap(
                    memory.start.wrapping_add(time * pages * PAGE).cast(),
                    pages * PAGE,
                    libc::PROT_READ,
                    libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE,
                    file.as_raw_fd(),
                    0,
                )
            };
            if there == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(memory)
    }

    /// Lets every page be read only, or not at all: the kernel holds the lock of the address space
    /// while it changes the entries.
    pub(crate) fn set_readable(&self, readable: bool) -> io::Result<()> {
        self.protect(if readable { libc::PROT_READ } else { libc::PROT_NONE })
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    pub(crate) fn read_all(&self) -> u64 {
        (0..self.pages).fold(0, |sum, page| sum ^ self.read(page))
    }

    /// Writes a word that is different for each page and `salt`.
    pub(crate) fn write(&mut self, page: usize, salt: u64) {
        let word = self.word(page);
        // SAFETY: `word` checked that the page is inside the mapping, which is writable and
        // page-aligned; volatile, so that the access happens.
        unsafe { word.write_volatile(salt ^ ((page as u64) << 16) ^ 0x5a5a) };
    }

    pub(crate) fn read(&self, page: usize) -> u64 {
        let word = self.word(page);
        // SAFETY: as for `write`; anonymous memory is always initialised.
        unsafe { word.read_volatile() }
    }

    /// Cache lines in it.
    pub(crate) fn lines(&self) -> usize {
        self.pages * PAGE / LINE
    }

    pub(crate) fn read_line(&self, line: usize) -> u64 {
        assert!(line < self.lines(), "line {line} of {}", self.lines());
        let word: *mut u64 = self.start.wrapping_add(line * LINE).cast();
        // SAFETY: the line is inside the mapping and aligned; anonymous memory is always
        // initialised.
        unsafe { word.read_volatile() }
    }

    pub(crate) fn touch_all(&mut self) {
        for page in 0..self.pages {
            self.write(page, 0);
        }
    }

    pub(crate) fn advise(&self, advice: i32) -> io::Result<()> {
        // SAFETY: the range is our own mapping; the advices used here keep its contents.
        check(unsafe { libc::madvise(self.start.cast(), self.pages * PAGE, advice) }.into())
    }

    /// Binds the mapping to one node; pages that are there already stay where they are.
    pub(crate) fn bind(&self, node: u16) -> io::Result<()> {
        self.mbind(node, 0)
    }

    /// The same, and moves the pages that are there.
    pub(crate) fn bind_and_move(&self, node: u16) -> io::Result<()> {
        self.mbind(node, MOVE)
    }

    fn mbind(&self, node: u16, flags: libc::c_int) -> io::Result<()> {
        let mask = mask(node);
        // SAFETY: the range is our own mapping and the mask outlives the call.
        check(unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.start,
                self.pages * PAGE,
                libc::MPOL_BIND,
                mask.as_ptr(),
                MASK_BITS,
                flags,
            )
        })
    }

    /// Changes every page's entry: the kernel holds the lock of the address space meanwhile.
    pub(crate) fn forbid_writing(&self) -> io::Result<()> {
        self.protect(libc::PROT_READ)
    }

    pub(crate) fn allow_writing(&self) -> io::Result<()> {
        self.protect(libc::PROT_READ | libc::PROT_WRITE)
    }

    fn protect(&self, protection: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is our own mapping; who writes to it meanwhile takes `&mut`.
        check(unsafe { libc::mprotect(self.start.cast(), self.pages * PAGE, protection) }.into())
    }

    /// Gives one page back; it is not there any more.
    pub(crate) fn give_back(&mut self, page: usize) -> io::Result<()> {
        let address = self.word(page);
        // SAFETY: a page of our own mapping, which nobody else can see while we have `&mut`.
        check(unsafe { libc::madvise(address.cast(), PAGE, libc::MADV_DONTNEED) }.into())
    }

    /// Moves every page to a node with `move_pages(2)`; returns how many are there then.
    pub(crate) fn move_to(&self, node: u16) -> io::Result<usize> {
        let addresses: Vec<*mut u8> =
            (0..self.pages).map(|page| self.start.wrapping_add(page * PAGE)).collect();
        let nodes = vec![i32::from(node); self.pages];
        // The kernel leaves entries unwritten when it stops early.
        let mut status = vec![-1_i32; self.pages];
        // SAFETY: the three arrays have `pages` entries each and outlive the call.
        check(unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                self.pages,
                addresses.as_ptr(),
                nodes.as_ptr(),
                status.as_mut_ptr(),
                MOVE,
            )
        })?;
        Ok(status.iter().filter(|&&at| at == i32::from(node)).count())
    }

    /// The node that a page is on; none while it is being moved.
    pub(crate) fn node_of(&self, page: usize) -> io::Result<Option<u16>> {
        let address = self.word(page);
        let mut status = -1_i32;
        // SAFETY: both outlive the call, which reads one and writes to the other; without nodes to
        // move to it only looks.
        check(unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                1,
                &raw const address,
                std::ptr::null::<i32>(),
                &raw mut status,
                0,
            )
        })?;
        // A negative status is the reason why it is on none.
        Ok(u16::try_from(status).ok())
    }

    /// Puts the pages into a pipe, which holds a reference to each until it is read or closed.
    pub(crate) fn splice_into(&self, pipe: &impl AsRawFd) -> io::Result<usize> {
        let range = libc::iovec { iov_base: self.start.cast(), iov_len: self.pages * PAGE };
        // SAFETY: `range` describes our own mapping, which outlives the pipe's references: those
        // are references to pages, not to addresses.
        let bytes = unsafe {
            libc::vmsplice(pipe.as_raw_fd(), &raw const range, 1, libc::SPLICE_F_NONBLOCK)
        };
        usize::try_from(bytes)
            .map(|bytes| bytes / PAGE)
            .map_err(|_negative| io::Error::last_os_error())
    }

    fn word(&self, page: usize) -> *mut u64 {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        self.start.wrapping_add(page * PAGE).cast()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows from it.
        unsafe { libc::munmap(self.start.cast(), self.pages * PAGE) };
    }
}

/// Bits of the node masks below; Linux has at most 1,024 nodes.
const MASK_BITS: usize = 1025;

fn mask(node: u16) -> [u64; 16] {
    let mut words = [0; 16];
    words[usize::from(node) / 64] = 1 << (node % 64);
    words
}

/// Lets the calling thread's new pages come from one node only.
pub(crate) fn bind_task(node: u16) -> io::Result<()> {
    let mask = mask(node);
    // SAFETY: the mask outlives the call, which only reads it.
    check(unsafe {
        libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_BIND, mask.as_ptr(), MASK_BITS)
    })
}

/// Takes the calling thread's memory policy away.
pub(crate) fn unbind_task() -> io::Result<()> {
    // SAFETY: without a mask the kernel reads nothing.
    check(unsafe {
        libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_DEFAULT, std::ptr::null::<u64>(), 0)
    })
}

/// Moves all pages of a process as root does: shared ones as well. Returns the kernel's count
/// of what it left.
pub(crate) fn migrate_all(pid: u32, from: u16, to: u16) -> io::Result<u64> {
    let (from, to) = (mask(from), mask(to));
    // SAFETY: both masks outlive the call, which only reads them.
    let left = unsafe {
        libc::syscall(libc::SYS_migrate_pages, pid, MASK_BITS, from.as_ptr(), to.as_ptr())
    };
    u64::try_from(left).map_err(|_negative| io::Error::last_os_error())
}

/// From here on the calling thread, and those that it starts, take no CPU from whom they are woken
/// by.
pub(crate) fn never_preempt() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: `priority` outlives the call, which only reads it; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const priority) }.into())
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu_time() -> std::time::Duration {
    let mut raw = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `raw` is ours to write to; the call cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut raw) };
    let nanos = u32::try_from(raw.tv_nsec).unwrap_or(0);
    std::time::Duration::new(raw.tv_sec.unsigned_abs(), nanos)
}

/// What `getrusage` says of the calling process.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Usage {
    pub(crate) minor: u64,
    pub(crate) major: u64,
    /// User and system CPU time.
    pub(crate) cpu_nanos: u64,
}

pub(crate) fn usage() -> Usage {
    usage_of(libc::RUSAGE_SELF)
}

/// The same of all children that have ended and been waited for.
pub(crate) fn usage_of_children() -> Usage {
    usage_of(libc::RUSAGE_CHILDREN)
}

fn usage_of(whom: libc::c_int) -> Usage {
    let mut raw = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `raw` has room for the structure; the call cannot fail for one of the two.
    unsafe { libc::getrusage(whom, raw.as_mut_ptr()) };
    // SAFETY: it was zeroed, which is valid for integers, and then filled.
    let raw = unsafe { raw.assume_init() };
    let nanos = |time: libc::timeval| {
        time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_usec.unsigned_abs() * 1000
    };
    Usage {
        minor: raw.ru_minflt.unsigned_abs(),
        major: raw.ru_majflt.unsigned_abs(),
        cpu_nanos: nanos(raw.ru_utime) + nanos(raw.ru_stime),
    }
}

/// The numbers of all BPF programs that are loaded on this machine.
pub(crate) fn loaded_programs() -> io::Result<Vec<u32>> {
    /// BPF_PROG_GET_NEXT_ID of enum bpf_cmd in include/uapi/linux/bpf.h.
    const GET_NEXT_ID: libc::c_long = 11;
    /// The part of union bpf_attr that the command reads and writes.
    #[repr(C)]
    struct NextId {
        start: u32,
        next: u32,
        flags: u32,
    }
    let mut programs = Vec::new();
    loop {
        let mut attr = NextId { start: programs.last().copied().unwrap_or(0), next: 0, flags: 0 };
        // SAFETY: `attr` is the beginning of union bpf_attr, of the size that is passed.
        let result = check(unsafe {
            libc::syscall(libc::SYS_bpf, GET_NEXT_ID, &raw mut attr, size_of::<NextId>())
        });
        match result {
            Ok(()) => programs.push(attr.next),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(programs),
            Err(error) => return Err(error),
        }
    }
}

/// Makes a child that shares all memory until one of the two writes to it, and that dies with us.
/// The child's number; none in the child.
pub(crate) fn fork() -> io::Result<Option<u32>> {
    // SAFETY: the workloads that fork have one thread, so that no lock is held by another.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the call takes numbers only.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }.into())?;
    }
    check(child.into())?;
    Ok(u32::try_from(child).ok().filter(|child| *child > 0))
}

/// Ends the calling thread and no other: the process goes on for as long as one is left.
pub(crate) fn end_thread() -> ! {
    // SAFETY: the call takes a number and does not return; what the thread's stack owns is left to
    // the end of the process.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("the thread has ended")
}

/// Takes a capability from the calling process for good: neither it nor what it executes gets
/// it back.
pub(crate) fn drop_from_bounding_set(capability: u32) -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    check(
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) }
            .into(),
    )
}

/// Mounts a folder over another.
pub(crate) fn bind_mount(source: &str, target: &str) -> io::Result<()> {
    let (source, target) = (std::ffi::CString::new(source)?, std::ffi::CString::new(target)?);
    // SAFETY: both strings are terminated and outlive the call; a bind mount needs no more.
    check(
        unsafe {
            libc::mount(
                source.as_ptr(),
                target.as_ptr(),
                std::ptr::null(),
                libc::MS_BIND,
                std::ptr::null(),
            )
        }
        .into(),
    )
}

pub(crate) fn unmount(target: &str) -> io::Result<()> {
    let target = std::ffi::CString::new(target)?;
    // SAFETY: the string is terminated and outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }.into())
}

/// Tells the emulator's plugin, if there is one, where we are; no other effect.
pub(crate) fn mark<const CODE: u32>() {
    // SAFETY: a no-op, whatever the registers hold.
    unsafe {
        std::arch::asm!(
            "nop dword ptr [rax + rax + {code}]",
            code = const CODE,
            options(nomem, nostack, preserves_flags)
        );
    }
}

/// Drops clean caches of a file from memory.
pub(crate) fn forget_cache(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `file` lives.
    let error = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a command do something between fork and exec. `act` may only make system calls.
pub(crate) fn before_exec(
    command: &mut std::process::Command,
    act: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the callers of this module pass closures that make a system call and nothing
    // else: no allocation, no lock.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, act) };
}
