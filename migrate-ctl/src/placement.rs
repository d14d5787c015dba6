//! Where a process's private anonymous pages are, estimated in bounded time.
//!
//! Draws addresses from its mappings and looks each up in `/proc/PID/pagemap`:
//! some 512 reads of eight bytes, whatever the size. A mapping of which little
//! is resident wastes draws, so further rounds follow up to a cap; where even
//! those find next to nothing, nothing is said. Pages that others map too, as after a fork,
//! count for the whole but for no node: no ordinary move can take them. Zero
//! pages count for nothing, and neither do pages under migration, which look
//! like swap. Pages that a private file mapping copied are not drawn.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::model::{Est, Node, NodeId, NodeVec, Pages, Source};
use crate::procfs::each_line;
use crate::sys::{PAGE_SIZE, query_pages};
use crate::topology::Topology;

/// Draws in one round, one from each of so many equal parts of the address space in use: a
/// mapping of two such parts or more is never missed.
const ROUND: u64 = 512;
/// Rounds follow until so many pages were found: ± 6 % at worst.
const WANTED: usize = 256;
/// Fewer say nothing that a move could be based on, unless they are half of all there is.
const FEWEST: u64 = 32;
const ROUNDS: usize = 8;
/// Twice the kernel's default for `vm.max_map_count`, about.
const AREAS: usize = 1 << 17;
/// 95 % of a normal distribution.
const Z: f64 = 1.96;

const PRESENT: u64 = 1 << 63;
const FILE_OR_SHARED: u64 = 1 << 61;
const EXCLUSIVE: u64 = 1 << 56;
const OWN: u64 = PRESENT | EXCLUSIVE;
const FRAME: u64 = (1 << 55) - 1;

/// Pages by node with their 95 % intervals (Wilson), scaled to `rss_anon`. The same process in
/// the same state gives the same answer for the same seed. None: gone, not ours to read, or too
/// few pages were found in address space that is mostly empty.
pub fn sample(
    root: &Path,
    topology: &Topology,
    pid: u32,
    rss_anon: Pages,
    seed: u64,
) -> Option<NodeVec<Est>> {
    let areas = Areas::read(root, pid)?;
    let pagemap = File::open(root.join(format!("proc/{pid}/pagemap"))).ok()?;
    let mut found = Found::nothing(topology.len());
    let mut dice = SplitMix64(seed);
    for _ in 0..ROUNDS {
        for page in areas.draw(&mut dice) {
            found.look_up(topology, &pagemap, page)?;
        }
        // Fewer pages than draws: the round has read every one of them.
        if found.len() >= WANTED || areas.pages <= ROUND {
            break;
        }
    }
    let source = found.place_the_rest(topology, pid);
    let shared = found.shared(pid);
    let counted = found.counts.values().sum::<u64>() + shared;
    let enough = counted > 0 && counted >= FEWEST.min(rss_anon / 2);
    enough.then(|| {
        NodeVec::from_fn(topology.len(), |node| {
            wilson(found.counts[node], counted, rss_anon, source)
        })
    })
}

/// What the draws hit.
struct Found {
    counts: NodeVec<u64>,
    /// Addresses of pages whose frame is hidden from us or of a node that we do not know.
    unplaced: Vec<u64>,
    /// Addresses of pages that several processes map, and of zero pages.
    not_exclusive: Vec<u64>,
}

impl Found {
    fn nothing(nodes: usize) -> Self {
        let counts = NodeVec::filled(nodes, 0);
        Self { counts, unplaced: Vec::new(), not_exclusive: Vec::new() }
    }

    /// Pages that an ordinary move could take.
    fn len(&self) -> usize {
        let placed: u64 = self.counts.values().sum();
        self.unplaced.len() + usize::try_from(placed).unwrap_or(usize::MAX)
    }

    /// None: the process is gone.
    fn look_up(&mut self, topology: &Topology, pagemap: &File, page: u64) -> Option<()> {
        let mut entry = [0; 8];
        pagemap.read_exact_at(&mut entry, page * 8).ok()?;
        let entry = u64::from_ne_bytes(entry);
        match entry & (PRESENT | EXCLUSIVE | FILE_OR_SHARED) {
            OWN => {}
            PRESENT => {
                self.not_exclusive.push(page * PAGE_SIZE);
                return Some(());
            }
            _ => return Some(()),
        }
        // Without CAP_SYS_ADMIN the kernel shows 0 for every frame.
        let frame = Some(entry & FRAME).filter(|&frame| frame != 0);
        match frame.and_then(|frame| topology.node_of_frame(frame)) {
            Some(node) => self.counts[node] += 1,
            None => self.unplaced.push(page * PAGE_SIZE),
        }
        Some(())
    }

    /// Asks the kernel for the pages without a known frame; says where most answers come from.
    fn place_the_rest(&mut self, topology: &Topology, pid: u32) -> Source {
        let by_frame: u64 = self.counts.values().sum();
        if self.unplaced.is_empty() {
            return Source::Pagemap;
        }
        let nodes = query_pages(pid, &self.unplaced).unwrap_or_default();
        for node in nodes.iter().filter_map(|&status| known_node(topology, status)) {
            self.counts[node] += 1;
        }
        if by_frame > self.unplaced.len() as u64 { Source::Pagemap } else { Source::MovePages }
    }

    /// Pages that others map too; the kernel has no node for a zero page.
    fn shared(&self, pid: u32) -> u64 {
        if self.not_exclusive.is_empty() {
            return 0;
        }
        let nodes = query_pages(pid, &self.not_exclusive).unwrap_or_default();
        nodes.iter().filter(|&&status| status >= 0).count() as u64
    }
}

/// A negative status is an errno: the page went away, or AutoNUMA has hinted it (6.1).
fn known_node(topology: &Topology, status: i32) -> Option<Node> {
    topology.node(NodeId(u16::try_from(status).ok()?))
}

/// Private mappings without a file, as page numbers.
struct Areas {
    /// Pages before each area, and its first page.
    starts: Vec<(u64, u64)>,
    pages: u64,
}

impl Areas {
    fn read(root: &Path, pid: u32) -> Option<Self> {
        let maps = File::open(root.join(format!("proc/{pid}/maps"))).ok()?;
        let mut areas = Self { starts: Vec::new(), pages: 0 };
        each_line(maps, |line| {
            if let Some((first, end)) = line.and_then(private_anonymous) {
                areas.starts.push((areas.pages, first));
                areas.pages += end - first;
            }
            if areas.starts.len() < AREAS {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
        .ok()?;
        (areas.pages > 0).then_some(areas)
    }

    /// One page from each of [`ROUND`] equal parts, ascending.
    fn draw(&self, dice: &mut SplitMix64) -> impl Iterator<Item = u64> {
        let parts = self.pages.min(ROUND);
        // Below 2^52 pages and 2^9 parts.
        let border = move |part: u64| {
            u64::try_from(u128::from(self.pages) * u128::from(part) / u128::from(parts))
                .unwrap_or(self.pages)
        };
        (0..parts).map(move |part| {
            let (first, end) = (border(part), border(part + 1));
            self.page(first + dice.below(end - first))
        })
    }

    /// The number of the n-th page of all areas.
    fn page(&self, n: u64) -> u64 {
        let after = self.starts.partition_point(|&(before, _)| before <= n);
        // The first area has nothing before it, so there always is one.
        let (before, first) = self.starts[after.saturating_sub(1)];
        first + (n - before)
    }
}

/// First page and one past the last of a line of `maps` that is private, anonymous and not a
/// mere reservation.
fn private_anonymous(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?.as_bytes();
    let inode = words.nth(2)?;
    let of_no_file = inode == "0"
        && words.next().is_none_or(|name| {
            name == "[heap]" || name.starts_with("[stack") || name.starts_with("[anon:")
        });
    let private = permissions.get(3) == Some(&b'p') && !permissions.starts_with(b"---");
    let page = |address| Some(u64::from_str_radix(address, 16).ok()? / PAGE_SIZE);
    let (first, end) = (page(start)?, page(end)?);
    (of_no_file && private && first < end).then_some((first, end))
}

/// 95 % interval of a share seen in a sample, good for shares of 0 and 1 too.
#[expect(clippy::cast_possible_truncation, reason = "a count of pages with seven digits suffices")]
fn wilson(hits: u64, counted: u64, rss: Pages, source: Source) -> Est {
    let (hits, n, rss) = (hits as f64, counted as f64, rss as f64);
    let share = hits / n;
    let shrink = 1.0 + Z * Z / n;
    let centre = (share + Z * Z / (2.0 * n)) / shrink;
    let half = Z / shrink * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    // At the ends rounding may put the interval beyond the share itself.
    let low = (centre - half).clamp(0.0, share);
    let high = (centre + half).clamp(share, 1.0);
    Est { low: (low * rss) as f32, mid: (share * rss) as f32, high: (high * rss) as f32, source }
}

/// Steele, Lea and Flood: one multiplication chain a number, the same on every machine.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..end`; 0 for an empty range. The bias is below `end` ÷ 2^64.
    fn below(&mut self, end: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(end)) >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
