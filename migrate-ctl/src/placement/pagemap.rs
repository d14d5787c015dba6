//! One process's pagemap: what is at an address, and where anything is at all.
//!
//! Counts what it reads: every entry, and every run that the kernel's own search gave back.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::ground::Run;
use crate::model::Class;
use crate::sys::{self, PAGE_SIZE, PageScan};

const PRESENT: u64 = 1 << 63;
const FILE_OR_SHARED: u64 = 1 << 61;
const EXCLUSIVE: u64 = 1 << 56;
const FRAME: u64 = (1 << 55) - 1;
/// Compound pages in `/proc/kpageflags` (include/uapi/linux/kernel-page-flags.h).
const COMPOUND_TAIL: u64 = 1 << 16;
/// Base pages in a huge one.
const HUGE: u64 = 512;
/// The kernel's search looks at no more address space than this in one call, so that it holds the
/// lock for a tenth of a second at worst: 256 GiB.
const REACH: u64 = 1 << 26;

/// An entry that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) number: u64,
    /// 0: hidden from us.
    pub(super) frame: u64,
    /// Only this process maps it.
    pub(super) exclusive: bool,
}

pub(super) struct Pagemap {
    pagemap: File,
    /// None: not ours to read.
    flags: Option<File>,
    class: Class,
    read: Cell<u64>,
}

impl Pagemap {
    pub(super) fn open(root: &Path, pid: u32) -> io::Result<Self> {
        Ok(Self {
            pagemap: File::open(root.join(format!("proc/{pid}/pagemap")))?,
            flags: File::open(root.join("proc/kpageflags")).ok(),
            class: Class::PrivateAnonymous,
            read: Cell::new(0),
        })
    }

    /// From here on pages of this class count.
    pub(super) fn look_for(&mut self, class: Class) {
        self.class = class;
    }

    /// Entries read so far.
    pub(super) fn entries(&self) -> u64 {
        self.read.get()
    }

    /// What counts in a run. Pages under migration look like swap, which is not present.
    pub(super) fn pages(&self, run: Run) -> io::Result<Vec<Page>> {
        let count = usize::try_from(run.end - run.first).unwrap_or(usize::MAX);
        let mut bytes = vec![0; count.saturating_mul(8)];
        self.pagemap.read_exact_at(&mut bytes, run.first * 8)?;
        self.read.set(self.read.get() + run.end - run.first);
        let (entries, _) = bytes.as_chunks::<8>();
        let pages = (run.first..).zip(entries.iter().map(|entry| u64::from_ne_bytes(*entry)));
        Ok(pages.filter_map(|(number, entry)| self.page(number, entry)).collect())
    }

    fn page(&self, number: u64, entry: u64) -> Option<Page> {
        let of_class = match self.class {
            Class::PrivateAnonymous => entry & FILE_OR_SHARED == 0,
            // What a private mapping of a file copied is anonymous.
            Class::File | Class::Shared => entry & FILE_OR_SHARED != 0,
            Class::Hugetlb => true,
        };
        (entry & PRESENT != 0 && of_class).then_some(Page {
            number,
            // Without CAP_SYS_ADMIN the kernel shows 0 for every frame.
            frame: entry & FRAME,
            exclusive: entry & EXCLUSIVE != 0,
        })
    }

    /// The first run of pages that count, by the kernel's own search, of so many pages at most.
    ///
    /// # Errors
    /// This kernel has no such search (before 6.7), or the process is gone.
    pub(super) fn next(&self, within: Run, at_most: u64) -> io::Result<Option<Run>> {
        let mut at = within.first;
        while at < within.end {
            let end = within.end.min(at.saturating_add(REACH));
            self.read.set(self.read.get() + 1);
            let scan = PageScan {
                first: at * PAGE_SIZE,
                end: end * PAGE_SIZE,
                at_most,
                anonymous: self.class == Class::PrivateAnonymous,
                of_file: matches!(self.class, Class::File | Class::Shared),
            };
            if let Some((first, end)) = sys::scan_pagemap(&self.pagemap, scan)? {
                return Ok(Some(Run { first: first / PAGE_SIZE, end: end / PAGE_SIZE }));
            }
            at = end;
        }
        Ok(None)
    }

    /// Whether a frame is part of a huge page; none where nobody tells.
    pub(super) fn is_huge(&self, frame: u64) -> Option<bool> {
        let flags = self.flags.as_ref()?;
        let mut entry = [0; 8];
        // Compound pages lie at multiples of their size: only one of 2 MiB or more has its middle
        // page, and not a beginning, in the middle of such a block.
        let middle = frame / HUGE * HUGE + HUGE / 2;
        flags.read_exact_at(&mut entry, middle * 8).ok()?;
        Some(u64::from_ne_bytes(entry) & COMPOUND_TAIL != 0)
    }
}
