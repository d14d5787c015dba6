//! Draws pages and looks where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::dice::{SplitMix64, part_of};
use super::ground::Ground;
use super::pagemap::{Page, Pagemap};
use super::share::{Hit, Sample, Window};
use crate::model::{Class, NodeId, Source};
use crate::sys::{PAGE_SIZE, query_pages};
use crate::topology::Topology;

/// In a window that the kernel searched so many pages are looked at, wherever there are more.
const LOOKS: u64 = 8;
/// One hit in so many is asked for the size of its page.
const SIZED: u64 = 8;

/// Pages of a block, and how many of those are remembered.
const BLOCK: u64 = 512;
const PLACES: usize = 2048;

/// How wide a window is, and how it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// Every entry of so many is read.
    Read(u64),
    /// The kernel says which of so many are there.
    Searched(u64),
}

/// What is gathered on the way.
pub(super) struct Draws<'a> {
    pub(super) topology: &'a Topology,
    pub(super) pid: u32,
    pub(super) class: Class,
    pub(super) dice: SplitMix64,
    /// Pages by what told their node.
    by_frame: u64,
    by_asking: u64,
    /// Page number → whether it is part of a huge page, of one hit in eight.
    pub(super) sizes: BTreeMap<u64, bool>,
    /// Blocks of 2 MiB in which pages were found.
    places: BTreeSet<u64>,
    looked: u64,
}

impl<'a> Draws<'a> {
    pub(super) fn new(topology: &'a Topology, pid: u32, class: Class, seed: u64) -> Self {
        let dice = SplitMix64(seed);
        let sizes = BTreeMap::new();
        let places = BTreeSet::new();
        Self { topology, pid, class, dice, by_frame: 0, by_asking: 0, sizes, places, looked: 0 }
    }

    /// The first page of each block in which some were found, of so many at most.
    pub(super) fn places(&self) -> Vec<u64> {
        self.places.iter().map(|block| block * BLOCK).collect()
    }

    /// Of what was found, 0 to 1.
    pub(super) fn huge_share(&self) -> f64 {
        let huge = self.sizes.values().filter(|huge| **huge).count();
        huge as f64 / self.sizes.len().max(1) as f64
    }

    /// Where most answers come from.
    pub(super) fn source(&self) -> Source {
        if self.by_asking > self.by_frame { Source::MovePages } else { Source::Pagemap }
    }

    /// One window from each of so many equal parts.
    ///
    /// # Errors
    /// The process is gone.
    pub(super) fn round(
        &mut self,
        pagemap: &Pagemap,
        ground: &Ground,
        parts: u64,
        width: Width,
        sample: &mut Sample,
    ) -> io::Result<()> {
        let (Width::Read(wide) | Width::Searched(wide)) = width;
        let cells = ground.pages.div_ceil(wide);
        let parts = parts.min(cells);
        sample.rounds.push(sample.windows.len());
        let mut unsettled = Vec::new();
        for part in 0..parts {
            let (first, end) = part_of(cells, parts, part);
            let cell = first + self.dice.below(end - first);
            let window = sample.windows.len();
            sample.windows.push(Window { cells: (end - first) as f64, pages: 0.0 });
            let from = cell * wide;
            let (there, looked_at) = match width {
                Width::Read(wide) => {
                    let mut pages = Vec::new();
                    for run in ground.part(from, from + wide) {
                        pages.extend(pagemap.pages(run)?);
                    }
                    (pages.len() as u64, pages)
                }
                Width::Searched(wide) => self.search(pagemap, ground, from, from + wide)?,
            };
            let stands_for = there as f64 / looked_at.len().max(1) as f64;
            for page in looked_at {
                self.look(
                    pagemap,
                    page,
                    Hit { window, node: None, stands_for },
                    &mut unsettled,
                    sample,
                );
            }
        }
        self.settle(&unsettled, sample);
        Ok(())
    }

    /// How many pages a window has, and some of them.
    fn search(
        &mut self,
        pagemap: &Pagemap,
        ground: &Ground,
        first: u64,
        end: u64,
    ) -> io::Result<(u64, Vec<Page>)> {
        let mut found = Vec::new();
        for mut left in ground.part(first, end) {
            while let Some(run) = pagemap.next(left, left.end - left.first)? {
                found.push(run);
                left.first = run.end;
                if left.first >= left.end {
                    break;
                }
            }
        }
        let found = Ground::new(found);
        let looks = found.pages.min(LOOKS);
        let mut pages = Vec::new();
        for look in 0..looks {
            let place = self.dice.in_part(found.pages, looks, look);
            for run in found.part(place, place + 1) {
                pages.extend(pagemap.pages(run)?);
            }
        }
        // What went away meanwhile is not there.
        let there = if pages.is_empty() { 0 } else { found.pages };
        Ok((there, pages))
    }

    fn look(
        &mut self,
        pagemap: &Pagemap,
        page: Page,
        hit: Hit,
        unsettled: &mut Vec<(Page, Hit)>,
        sample: &mut Sample,
    ) {
        if self.places.len() < PLACES {
            self.places.insert(page.number / BLOCK);
        }
        let node = (page.frame != 0).then(|| self.topology.node_of_frame(page.frame)).flatten();
        let settled = node.is_some() && (page.exclusive || self.class != Class::PrivateAnonymous);
        if !settled {
            unsettled.push((page, hit));
            return;
        }
        self.by_frame += 1;
        self.looked += 1;
        if self.looked % SIZED == 1
            && let Some(huge) = pagemap.is_huge(page.frame)
        {
            self.sizes.insert(page.number, huge);
        }
        sample.count(Hit { node, ..hit });
    }

    /// Asks the kernel for the pages that several processes map, which an ordinary move leaves
    /// where they are, and for those without a known frame. It has no node for a zero page.
    fn settle(&mut self, unsettled: &[(Page, Hit)], sample: &mut Sample) {
        if unsettled.is_empty() {
            return;
        }
        let addresses: Vec<u64> =
            unsettled.iter().map(|(page, _)| page.number * PAGE_SIZE).collect();
        let nodes = query_pages(self.pid, &addresses).unwrap_or_default();
        for (&(page, hit), status) in unsettled.iter().zip(nodes) {
            // A negative status is an errno: no page, or one that AutoNUMA has hinted (6.1).
            let Ok(id) = u16::try_from(status) else { continue };
            let ours = page.exclusive || self.class != Class::PrivateAnonymous;
            let node = if ours { self.topology.node(NodeId(id)) } else { None };
            self.by_asking += u64::from(ours);
            if node.is_some() || !ours {
                sample.count(Hit { node, ..hit });
            }
        }
    }
}

impl Sample {
    fn count(&mut self, hit: Hit) {
        self.windows[hit.window].pages += hit.stands_for;
        self.hits.push(hit);
    }
}
