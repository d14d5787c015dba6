//! What each workload does.

use std::fs::File;
use std::io::{self, pipe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::pipe::fcntl_setpipe_size;

use super::{Did, Done, at_each_line, repeat, say, tell};
use crate::sys::{self, Memory};
use crate::witness::OffCpu;
use crate::{ksm, nodes};

/// Nobody writes to it, so that its pages are in no cache but that of their readers.
const DISK: &str = "/dev/vda";
/// So long a gap is the host's doing: no loop of ours takes a hundredth of it.
const STANDSTILL: Duration = Duration::from_secs(1);
/// Moves to and fro while a thread reads.
const DANCES: u32 = 20;
/// Buffers of a pipe: 1 MiB, as many as a user may ask for.
const PIPE_PAGES: usize = 256;

/// Memory on a node, there by first touch; on a node without CPUs by a policy that is gone
/// afterwards. The thread runs on the node's CPUs from then on, if it has any.
pub(super) fn placed(node: u16, pages: usize) -> Result<Memory> {
    let mut memory = Memory::map(pages).context("map")?;
    if nodes::cpus(node)?.is_empty() {
        sys::bind_task(node).with_context(|| format!("bind to node {node}"))?;
        memory.touch_all();
        sys::unbind_task().context("unbind")?;
    } else {
        nodes::run_on(None, node)?;
        memory.touch_all();
    }
    Ok(memory)
}

pub(super) fn touch(node: u16, pages: usize) -> Result<()> {
    nodes::run_on(None, node)?;
    at_each_line(|| {
        let mut memory = Memory::map(pages).context("map")?;
        memory.touch_all();
        Ok(pages)
    })
}

/// Reading maps the zero page; writing then meets a page that is there and protected.
pub(super) fn rewrite(node: u16, pages: usize) -> Result<()> {
    nodes::run_on(None, node)?;
    at_each_line(|| {
        let mut memory = Memory::map(pages).context("map")?;
        std::hint::black_box(memory.read_all());
        memory.touch_all();
        Ok(pages)
    })
}

pub(super) fn rewrite_huge(node: u16, pages: usize) -> Result<()> {
    nodes::run_on(None, node)?;
    let mut memory = Memory::map_huge(512 * pages).context("map")?;
    std::hint::black_box(memory.read_all());
    at_each_line(|| {
        memory.touch_all();
        Ok(pages)
    })
}

pub(super) fn swap(node: u16, pages: usize) -> Result<()> {
    let memory = placed(node, pages)?;
    at_each_line(|| {
        memory.advise(libc::MADV_PAGEOUT).context("madvise(PAGEOUT)")?;
        std::hint::black_box(memory.read_all());
        Ok(pages)
    })
}

/// The reader sleeps for nothing but a page that is being moved.
pub(super) fn dance(node: u16, to: u16, pages: usize, huge: bool) -> Result<()> {
    let memory = if huge { huge_pages(node, pages)? } else { placed(node, pages)? };
    repeat(|| {
        let ended = AtomicBool::new(false);
        let read = || {
            let off = OffCpu::begin()?;
            while !ended.load(Ordering::Relaxed) {
                std::hint::black_box(memory.read_all());
            }
            off.end()
        };
        let (slept, off_cpu) = std::thread::scope(|scope| {
            let reader = scope.spawn(read);
            let moved = (0..DANCES).try_for_each(|turn| {
                memory.move_to(if turn % 2 == 0 { to } else { node }).map(drop)
            });
            ended.store(true, Ordering::Relaxed);
            moved.context("move_pages")?;
            reader.join().map_err(|_panic| anyhow::anyhow!("a thread has panicked"))?
        })?;
        Ok(Done { pages, slept, off_cpu })
    })
}

pub(super) fn shift(node: u16, to: u16, pages: usize) -> Result<()> {
    nodes::run_on(None, node)?;
    let memory = placed(node, pages)?;
    let mut next = to;
    at_each_line(|| {
        let moved = memory.move_to(next).context("move_pages")?;
        next = if next == to { node } else { to };
        Ok(moved)
    })
}

pub(super) fn scan(node: u16, cpu: u16, pages: usize, huge: bool) -> Result<()> {
    let memory = if huge { huge_pages(node, pages)? } else { placed(node, pages)? };
    nodes::run_on(None, cpu)?;
    at_each_line(|| {
        let end = Instant::now() + Duration::from_secs(1);
        let mut sum = 0_u64;
        while Instant::now() < end {
            for page in 0..memory.pages() {
                sum = sum.wrapping_add(memory.read(page));
            }
        }
        std::hint::black_box(sum);
        Ok(pages)
    })
}

pub(super) fn mix(node: u16, pages: usize, other: u16, other_pages: usize) -> Result<()> {
    let near = placed(node, pages)?;
    // The kernel's balancing would bring it near before anybody has looked.
    let mut far = Memory::map(other_pages).context("map")?;
    far.bind(other).context("bind the mapping")?;
    far.touch_all();
    nodes::run_on_one(node)?;
    let (lines, all) = (near.lines(), near.lines() + far.lines());
    let mut random = 1_u64;
    at_each_line(|| {
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            for _ in 0..1000 {
                // Knuth's; the high bits are good.
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let line = usize::try_from(random >> 33)? % all;
                std::hint::black_box(if line < lines {
                    near.read_line(line)
                } else {
                    far.read_line(line - lines)
                });
            }
        }
        Ok(pages + other_pages)
    })
}

/// A thread on each node uses the CPU time that is given for it, by its own clock. Time in which
/// the host let the CPU stand still is not used, although that clock goes on.
pub(super) fn burn(millis: &[u64]) -> Result<()> {
    repeat(|| {
        std::thread::scope(|scope| {
            let burning: Vec<_> = (0..)
                .zip(millis)
                .map(|(node, &millis)| scope.spawn(move || use_cpu(node, millis)))
                .collect();
            burning.into_iter().try_for_each(|thread| {
                thread.join().map_err(|_panic| anyhow::anyhow!("a thread has panicked"))?
            })
        })?;
        Ok(Done::default())
    })
}

fn use_cpu(node: u16, millis: u64) -> Result<()> {
    nodes::run_on(None, node)?;
    let time = Duration::from_millis(millis);
    let (mut last, mut used) = (sys::thread_cpu_time(), Duration::ZERO);
    let mut sum = 0_u64;
    while used < time {
        for step in 0..10_000 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(step));
        }
        let now = sys::thread_cpu_time();
        if now - last < STANDSTILL {
            used += now - last;
        }
        last = now;
    }
    Ok(())
}

pub(super) fn merged(pages: usize, to: u16) -> Result<()> {
    let (one, two) = (placed(0, pages)?, placed(0, pages)?);
    ksm::merge(&[&one, &two])?;
    at_each_line(|| {
        // Both mappings are walked before anything moves, so each merged page is met twice.
        sys::migrate_all(std::process::id(), 0, to).context("migrate_pages")?;
        Ok(one.pages())
    })
}

pub(super) fn pinned(node: u16, to: u16) -> Result<()> {
    let memory = placed(node, PIPE_PAGES)?;
    let (reader, writer) = pipe().context("make a pipe")?;
    fcntl_setpipe_size(&writer, PIPE_PAGES * 4096).context("make the pipe larger")?;
    let held = memory.splice_into(&writer).context("vmsplice")?;
    ensure!(held == PIPE_PAGES, "the pipe took {held} of {PIPE_PAGES} pages");
    at_each_line(|| {
        sys::migrate_all(std::process::id(), node, to).context("migrate_pages")?;
        Ok(held)
    })?;
    drop(reader);
    Ok(())
}

pub(super) fn reread(node: u16, pages: usize) -> Result<()> {
    nodes::run_on(None, node)?;
    let disk = File::open(DISK).with_context(|| format!("open {DISK}"))?;
    sys::forget_cache(&disk).with_context(|| format!("drop the page cache of {DISK}"))?;
    let memory = Memory::map_file(&disk, pages).with_context(|| format!("map {DISK}"))?;
    at_each_line(|| {
        std::hint::black_box(memory.read_all());
        Ok(pages)
    })
}

pub(super) fn split(pages: usize) -> Result<()> {
    let mut memory = Memory::map(pages).context("map")?;
    let nodes = nodes::with_memory()?;
    for (turn, &node) in nodes.iter().enumerate() {
        nodes::run_on(None, node)?;
        // Three of eight are on the first node, the rest is shared by the others.
        let whose = |page: &usize| match (page.wrapping_mul(0x9e37_79b9) >> 13) % 8 {
            0..3 => 0,
            eighth => (eighth % (nodes.len() - 1).max(1) + 1).min(nodes.len() - 1),
        };
        for page in (0..pages).filter(|page| whose(page) == turn) {
            memory.write(page, 0);
        }
    }
    at_each_line(|| Ok(pages))
}

pub(super) fn sparse(gib: usize, islands: usize, pages: usize) -> Result<()> {
    let mut memory = Memory::map(gib << 18).context("map")?;
    let apart = memory.pages() / islands;
    at_each_line(|| {
        let nodes = nodes::with_memory()?;
        for (turn, &node) in nodes.iter().enumerate() {
            nodes::run_on(None, node)?;
            for island in (0..islands).filter(|island| island % nodes.len() == turn) {
                // Not at the same place of each part, and not at the border of a page table.
                let first = island * apart + (island * 7919) % (apart - pages);
                for page in first..first + pages {
                    memory.write(page, 0);
                }
            }
        }
        Ok(islands * pages)
    })
}

pub(super) fn zeros(node: u16, pages: usize) -> Result<()> {
    let memory = placed(node, pages)?;
    let unwritten = Memory::map(4 * pages).context("map")?;
    std::hint::black_box(unwritten.read_all());
    at_each_line(|| Ok(memory.pages()))
}

/// Private base pages and transparent huge ones on node 0, the rest on another one.
pub(super) fn classes(other: u16, pages: usize) -> Result<()> {
    let base = placed(0, pages)?;
    let mut huge = Memory::map_huge(2 * pages).context("map huge pages")?;
    huge.touch_all();
    nodes::run_on(None, other)?;
    let mut shared = Memory::map_shared(pages).context("map shared memory")?;
    shared.touch_all();
    let mut hugetlb = Memory::map_hugetlb(pages).context("map hugetlbfs")?;
    hugetlb.touch_all();
    let disk = File::open(DISK).with_context(|| format!("open {DISK}"))?;
    sys::forget_cache(&disk).with_context(|| format!("drop the page cache of {DISK}"))?;
    let file = Memory::map_file(&disk, pages).with_context(|| format!("map {DISK}"))?;
    std::hint::black_box(file.read_all());
    at_each_line(|| Ok(base.pages()))
}

/// Each change of protection goes through five million entries under the lock.
pub(super) fn hold() -> Result<()> {
    const PAGES: usize = 1 << 14;
    const TIMES: usize = 192;
    let disk = File::open(DISK).with_context(|| format!("open {DISK}"))?;
    let memory = Memory::map_often(&disk, PAGES, TIMES).with_context(|| format!("map {DISK}"))?;
    say("ready")?;
    if io::stdin().read_line(&mut String::new()).context("read a line")? == 0 {
        return Ok(());
    }
    let usage = sys::usage();
    tell(&Did { before: usage, after: usage, pages: memory.pages(), slept: 0, off_cpu: 0 })?;
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut readable = false;
                while !ended.load(Ordering::Relaxed) && memory.set_readable(readable).is_ok() {
                    readable = !readable;
                }
            });
        }
        while io::stdin().read_line(&mut String::new()).is_ok_and(|read| read > 0) {}
        ended.store(true, Ordering::Relaxed);
    });
    Ok(())
}

pub(super) fn fill(node: u16, mib: usize) -> Result<()> {
    let memory = placed(node, mib * 256)?;
    at_each_line(|| Ok(memory.pages()))
}

pub(super) fn siblings(pages: usize) -> Result<()> {
    at_each_line(|| {
        let (done, all) = std::sync::mpsc::channel();
        for share in [pages, 3 * pages] {
            let done = done.clone();
            std::thread::spawn(move || {
                // Without memory there are too few faults, which is noticed.
                if let Ok(mut memory) = Memory::map(share) {
                    memory.touch_all();
                }
                // Nobody waits for it any more once the process ends.
                let _ = done.send(());
                loop {
                    std::thread::park();
                }
            });
        }
        drop(done);
        Ok(all.iter().take(2).count() * 2 * pages)
    })
}

pub(super) fn orphans(node: u16, pages: usize, threads: usize) -> Result<()> {
    nodes::run_on(None, node)?;
    let alone = Arc::new(AtomicBool::new(false));
    at_each_line(|| {
        for _ in 0..threads {
            let alone = Arc::clone(&alone);
            std::thread::spawn(move || {
                while !alone.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // Without memory there are too few faults, which is noticed.
                if let Ok(mut memory) = Memory::map(pages) {
                    memory.touch_all();
                }
            });
        }
        Ok(pages * threads)
    })?;
    alone.store(true, Ordering::Relaxed);
    sys::end_thread()
}

pub(super) fn rebind(node: u16, to: u16, pages: usize) -> Result<()> {
    let memory = placed(node, pages)?;
    at_each_line(|| {
        memory.bind_and_move(to).context("mbind")?;
        Ok(memory.pages())
    })
}

pub(super) fn collapse(node: u16, mib: usize) -> Result<()> {
    let memory = placed(node, mib * 256)?;
    at_each_line(|| {
        memory.advise(libc::MADV_HUGEPAGE).context("madvise(HUGEPAGE)")?;
        Ok(memory.pages())
    })
}

pub(super) fn riddle(node: u16, mib: usize) -> Result<()> {
    let mut memory = placed(node, mib * 256)?;
    for page in (0..memory.pages()).step_by(2) {
        memory.give_back(page).context("madvise(DONTNEED)")?;
    }
    at_each_line(|| Ok(memory.pages() / 2))
}

pub(super) fn huge(node: u16, mib: usize) -> Result<()> {
    let memory = huge_pages(node, mib * 256)?;
    at_each_line(|| Ok(memory.pages()))
}

/// On a node, in transparent huge pages as far as the kernel has some.
fn huge_pages(node: u16, pages: usize) -> Result<Memory> {
    nodes::run_on(None, node)?;
    let mut memory = Memory::map(pages).context("map")?;
    memory.advise(libc::MADV_HUGEPAGE).context("madvise(HUGEPAGE)")?;
    memory.touch_all();
    Ok(memory)
}

pub(super) fn hop(node: u16, to: u16, times: usize) -> Result<()> {
    nodes::run_on(None, node)?;
    at_each_line(|| {
        for _ in 0..times {
            nodes::run_on(None, to)?;
            nodes::run_on(None, node)?;
        }
        Ok(0)
    })
}

/// One thread changes a large mapping's protection and back while another maps and unmaps: both
/// want the lock of the address space all the time.
pub(super) fn contend(node: u16, mib: usize, time: Duration) -> Result<()> {
    let memory = placed(node, mib * 256)?;
    repeat(|| {
        let end = Instant::now() + time;
        let change = || -> Result<(u64, u64)> {
            let off = OffCpu::begin()?;
            while Instant::now() < end {
                memory.forbid_writing().context("mprotect")?;
                memory.allow_writing().context("mprotect")?;
            }
            off.end()
        };
        let map = || -> Result<(u64, u64)> {
            let off = OffCpu::begin()?;
            while Instant::now() < end {
                drop(Memory::map(1).context("map")?);
            }
            off.end()
        };
        let (one, other) = std::thread::scope(|scope| -> Result<_> {
            let other = scope.spawn(map);
            let one = change()?;
            let other = other.join().map_err(|_panic| anyhow::anyhow!("a thread has panicked"))?;
            Ok((one, other?))
        })?;
        Ok(Done { slept: one.0 + other.0, off_cpu: one.1 + other.1, ..Done::default() })
    })
}
