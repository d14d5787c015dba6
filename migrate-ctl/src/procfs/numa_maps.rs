//! Reads `/proc/PID/numa_maps`: where every page of every mapping is.
//!
//! The kernel walks the whole page table for it, so it is for small processes,
//! for memory policies and for proof; `placement` samples instead. Line by
//! line, so that the size of a process costs time but no memory.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;

use super::each_line;
use crate::model::{Mempolicy, NodeId, Pages};

/// All mappings of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumaMaps {
    pub mappings: Vec<Mapping>,
    /// Words that this reader does not know, and lines that it could not read.
    pub unknown: u64,
}

/// What a mapping is backed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Private and of no file.
    Anonymous,
    /// A file, mapped privately or shared.
    File,
    /// Shared memory by its name: System V, memfd, /dev/zero, /dev/shm.
    Shared,
}

/// One line. Pages are of 4 KiB, also where the mapping has huge ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    /// `default`, or what the task or the mapping asked for.
    pub policy: String,
    pub kind: Kind,
    /// The file as the kernel escapes it, `heap`, `stack`, or nothing.
    pub name: String,
    pub pages: Vec<(NodeId, Pages)>,
    pub page_kib: u64,
    /// Anonymous pages, also those that a private file mapping copied.
    pub anon: Pages,
    pub dirty: Pages,
    /// The most processes that map one page of it.
    pub mapmax: u64,
}

impl Mapping {
    pub fn on(&self, node: NodeId) -> Pages {
        self.pages.iter().filter(|(id, _)| *id == node).map(|(_, pages)| pages).sum()
    }

    pub fn total(&self) -> Pages {
        self.pages.iter().map(|(_, pages)| pages).sum()
    }
}

/// # Errors
/// Not found: the process is gone. Permission denied: not ours to look at.
pub fn numa_maps(root: &Path, pid: u32) -> io::Result<NumaMaps> {
    let mut maps = NumaMaps::default();
    maps.unknown = each_mapping(open(root, pid)?, |mapping| {
        maps.mappings.push(mapping);
        ControlFlow::Continue(())
    })?;
    Ok(maps)
}

/// Whether the main thread or any mapping has a policy; the former shows on every mapping that
/// has none of its own. Policies of other threads do not show here.
pub fn mempolicy(root: &Path, pid: u32) -> Mempolicy {
    let Ok(file) = open(root, pid) else { return Mempolicy::Unknown };
    let mut found = Mempolicy::Unknown;
    let read = each_mapping(file, |mapping| {
        if mapping.policy == "default" {
            found = Mempolicy::Default;
            ControlFlow::Continue(())
        } else {
            found = Mempolicy::Explicit;
            ControlFlow::Break(())
        }
    });
    match read {
        Ok(_) => found,
        // What was read until then may be less than all.
        Err(_) if found == Mempolicy::Default => Mempolicy::Unknown,
        Err(_) => found,
    }
}

fn open(root: &Path, pid: u32) -> io::Result<File> {
    File::open(root.join(format!("proc/{pid}/numa_maps")))
}

/// Returns the number of words and lines that it did not understand.
fn each_mapping(
    file: impl Read,
    mut found: impl FnMut(Mapping) -> ControlFlow<()>,
) -> io::Result<u64> {
    let mut unknown = 0;
    each_line(file, |line| {
        match line.and_then(|line| parse(line, &mut unknown)) {
            Some(mapping) => return found(mapping),
            None => unknown += 1,
        }
        ControlFlow::Continue(())
    })?;
    Ok(unknown)
}

fn parse(line: &str, unknown: &mut u64) -> Option<Mapping> {
    let mut words = line.split_whitespace().peekable();
    let start = u64::from_str_radix(words.next()?, 16).ok()?;
    let mut policy = words.next()?.to_owned();
    // Two policies have a space in their names.
    let second = |word: &&str| word.starts_with("(many)") || word.starts_with("interleave");
    if let ("prefer" | "weighted", Some(more)) = (policy.as_str(), words.next_if(second)) {
        policy = format!("{policy} {more}");
    }
    let mut mapping = Mapping {
        start,
        policy,
        kind: Kind::Anonymous,
        name: String::new(),
        pages: Vec::new(),
        page_kib: 4,
        anon: 0,
        dirty: 0,
        mapmax: 1,
    };
    for word in words {
        if !mapping.take(word) {
            *unknown += 1;
        }
    }
    mapping.in_small_pages();
    Some(mapping)
}

impl Mapping {
    fn take(&mut self, word: &str) -> bool {
        let Some((key, value)) = word.split_once('=') else {
            if matches!(word, "heap" | "stack") {
                word.clone_into(&mut self.name);
            }
            return matches!(word, "heap" | "stack" | "huge");
        };
        if key == "file" {
            value.clone_into(&mut self.name);
            self.kind = if is_shared_memory(value) { Kind::Shared } else { Kind::File };
            return true;
        }
        let Ok(number) = value.parse::<u64>() else { return false };
        match key {
            "anon" => self.anon = number,
            "dirty" => self.dirty = number,
            "mapmax" => self.mapmax = number,
            "kernelpagesize_kB" => self.page_kib = number,
            "mapped" | "swapcache" | "active" | "writeback" => {}
            _ => return self.take_node(key, number),
        }
        true
    }

    fn take_node(&mut self, key: &str, pages: Pages) -> bool {
        let id = key.strip_prefix('N').and_then(|id| id.parse().ok()).map(NodeId);
        self.pages.extend(id.map(|id| (id, pages)));
        id.is_some()
    }

    /// The kernel counts hugetlb pages as one each, transparent huge pages as 512.
    fn in_small_pages(&mut self) {
        let factor = (self.page_kib / 4).max(1);
        for (_, pages) in &mut self.pages {
            *pages = pages.saturating_mul(factor);
        }
        self.anon = self.anon.saturating_mul(factor);
        self.dirty = self.dirty.saturating_mul(factor);
    }
}

/// The kernel's own names. A file of a tmpfs elsewhere looks like any other file.
fn is_shared_memory(path: &str) -> bool {
    ["/SYSV", "/memfd:", "/dev/zero", "/dev/shm/"].iter().any(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_policy_kind_and_pages() {
        let maps = read(
            b"7f00 default anon=512 dirty=512 active=0 N0=500 N8=12 kernelpagesize_kB=4\n\
              8f00 bind=static:0-1 file=/usr/lib/a\\040b mapped=10 mapmax=3 N0=10 kernelpagesize_kB=4\n\
              9f00 interleave:0 file=/memfd:x\\040(deleted) dirty=2 N1=2 kernelpagesize_kB=4\n",
        );
        let [anon, file, shared] = maps.mappings.as_slice() else { panic!("{maps:?}") };
        assert_eq!((anon.policy.as_str(), anon.kind, anon.anon), ("default", Kind::Anonymous, 512));
        assert_eq!((anon.on(NodeId(8)), anon.on(NodeId(1)), anon.total()), (12, 0, 512));
        assert_eq!(
            (file.policy.as_str(), file.kind, file.mapmax),
            ("bind=static:0-1", Kind::File, 3)
        );
        assert_eq!(file.name, "/usr/lib/a\\040b");
        assert_eq!(shared.kind, Kind::Shared);
        assert_eq!(maps.unknown, 0);
    }

    #[test]
    fn keeps_policies_whole_whose_names_have_a_space() {
        let maps =
            read(b"1000 prefer (many):1 heap anon=1 N0=1\n2000 weighted interleave:0-1 stack\n");
        assert_eq!(maps.mappings[0].policy, "prefer (many):1");
        assert_eq!(maps.mappings[0].name, "heap");
        assert_eq!(maps.mappings[1].policy, "weighted interleave:0-1");
        assert_eq!(maps.unknown, 0);
    }

    #[test]
    fn counts_hugetlb_pages_in_small_ones() {
        let maps = read(
            b"1000 default file=/anon_hugepage huge anon=2 dirty=2 N1=2 kernelpagesize_kB=2048\n",
        );
        assert_eq!((maps.mappings[0].on(NodeId(1)), maps.mappings[0].anon), (1024, 1024));
    }

    #[test]
    fn counts_what_it_does_not_know_and_goes_on() {
        let mut text = b"1000 default shiny=3 N0=1 Nx=2 \xff\n\nnonsense\n2000 default ".to_vec();
        text.extend(std::iter::repeat_n(b'x', 200_000));
        text.extend(b"\n3000 default N0=7 kernelpagesize_kB=4\n");
        let maps = read(&text);
        assert_eq!(maps.mappings.len(), 2);
        assert_eq!(maps.mappings[1].on(NodeId(0)), 7);
        // Three words, an empty line, one without an address and one without an end.
        assert_eq!(maps.unknown, 6);
    }

    fn read(text: &[u8]) -> NumaMaps {
        let mut maps = NumaMaps::default();
        maps.unknown = each_mapping(text, |mapping| {
            maps.mappings.push(mapping);
            ControlFlow::Continue(())
        })
        .unwrap();
        maps
    }
}
