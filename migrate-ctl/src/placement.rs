//! Where a process's pages are, estimated in bounded time.
//!
//! First finds where in its mappings there is anything (`find`), then draws pages there and looks
//! each up in `/proc/PID/pagemap` (`draw`), round after round until the shares are known within two
//! points or the budget is spent (`share`). What it costs does not depend on what is resident,
//! nor on what is mapped.
//!
//! Pages of private anonymous memory that others map too, as after a fork, count for the whole but
//! for no node: no ordinary move can take them. Zero pages count for nothing, and neither do pages
//! under migration, which look like swap. Private pages that a mapping of a file copied are not
//! drawn. The other classes are only shown: one round each.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::model::{Class, Est, NodeVec, Pages, Source};
use crate::procfs::Resident;
use crate::sys::PAGE_SIZE;
use crate::topology::Topology;

mod areas;
mod dice;
mod draw;
mod find;
mod ground;
mod pagemap;
mod share;

use areas::Areas;
use draw::{Draws, Width};
use find::Found;
use ground::Ground;
use pagemap::Pagemap;
use share::{Sample, Share};

/// Draws in one round.
const ROUND: u64 = 1024;
/// Rounds of a process's private memory.
const ROUNDS: u32 = 8;
/// No further round begins once a look has taken so many entries, at some 1 us each.
const ENTRIES: u64 = 1 << 15;
/// Two points, less what the kernel's own figure differs by.
const HALF_WIDTH: f64 = 0.0195;
/// Draws where there is probably nothing, and for a class that is only shown.
const FEW: u64 = 512;
/// A window that is read whole has no more entries.
const WIDEST: u64 = 32;
/// Fewer pages say nothing that a move could be based on, unless they are half of all there is.
const FEWEST: usize = 32;
/// Resident pages that no draw can find: copies of a file's pages.
const COPIES: f64 = 512.0;
/// Where more than this share of the resident pages was not found, nothing is said.
const UNSEEN: f64 = 0.5;
/// Mappings whose page size is told.
const SIZED: usize = 1024;

/// Whose pages, and what is known beforehand.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub pid: u32,
    pub resident: Resident,
    /// The same process in the same state gives the same answer for the same seed.
    pub seed: u64,
    /// Page numbers that it was seen to touch.
    pub touched: Vec<u64>,
    /// Whether the classes that do not move are looked at, too.
    pub all_classes: bool,
    /// Not to use the kernel's own search, as if it had none.
    pub without_search: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// Private anonymous pages by node, with their 95 % intervals, scaled to what is resident.
    /// Empty: too few pages were found in address space that is mostly empty.
    pub private: NodeVec<Est>,
    /// Those that have pages: all, or the first only.
    pub classes: Vec<ClassPages>,
    pub all_classes: bool,
    /// By the address of a mapping: pages looked at that are base pages, and that are part of a
    /// huge one.
    pub sizes: BTreeMap<u64, Sizes>,
    /// Pagemap entries that this took, and runs that the kernel's search gave.
    pub entries: u64,
    /// Some page in whose neighbourhood others were found: worth starting from the next time.
    /// Nothing where the kernel searches.
    pub found: Vec<u64>,
}

/// Of one mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub base: u32,
    pub huge: u32,
}

impl Sizes {
    /// The page size of the most, bytes.
    pub fn page_size(self) -> u64 {
        if self.huge > self.base { 512 * PAGE_SIZE } else { PAGE_SIZE }
    }
}

/// One class of a process's memory.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassPages {
    pub class: Class,
    /// Expected pages by node; in base pages and in huge ones.
    pub base: NodeVec<f64>,
    pub huge: NodeVec<f64>,
}

/// Private anonymous pages by node; none as in [`Placement::private`], or where it is gone.
pub fn sample(
    root: &Path,
    topology: &Topology,
    pid: u32,
    rss_anon: Pages,
    seed: u64,
) -> Option<NodeVec<Est>> {
    let resident = Resident { anonymous: rss_anon, ..Resident::default() };
    let placement = place(root, topology, &Ask { pid, resident, seed, ..Ask::default() })?;
    (!placement.private.is_empty()).then_some(placement.private)
}

/// None: gone, or not ours to read.
pub fn place(root: &Path, topology: &Topology, ask: &Ask) -> Option<Placement> {
    let areas = Areas::read(root, ask.pid, ask.all_classes)?;
    let mut pagemap = Pagemap::open(root, ask.pid).ok()?;
    let mut placement = Placement { all_classes: ask.all_classes, ..Placement::default() };
    for class in Class::ALL {
        let wanted = class == Class::PrivateAnonymous || ask.all_classes;
        let ground = areas.ground(class);
        if !wanted || ground.pages == 0 || ask.resident.of(class) == 0 {
            continue;
        }
        pagemap.look_for(class);
        let mut draws = Draws::new(topology, ask.pid, class, ask.seed);
        if let Some(seen) = look(&pagemap, &ground, areas.whole, ask, &mut draws).ok()? {
            placement.take(&areas, &draws, &seen, ask.resident.of(class), topology.len());
        }
    }
    placement.entries = pagemap.entries();
    Some(placement)
}

/// What the rounds brought.
struct Seen {
    hits: usize,
    shares: Vec<Share>,
    /// The part of the resident pages that was not found.
    unseen: f64,
    /// Nothing is anywhere else than where it was looked for.
    complete: bool,
}

/// Where to draw, and how.
struct Plan {
    found: Found,
    width: Width,
    /// Nothing is anywhere else.
    complete: bool,
}

fn plan(pagemap: &Pagemap, ground: &Ground, ask: &Ask, draws: &mut Draws<'_>) -> io::Result<Plan> {
    let everywhere = |near| Found { near, rest: Ground::default() };
    if ground.pages <= ROUND {
        let found = everywhere(ground.clone());
        return Ok(Plan { found, width: Width::Read(1), complete: true });
    }
    let resident = ask.resident.of(draws.class).max(1);
    if !ask.without_search
        && let Ok(near) = find::by_search(pagemap, ground, resident)
    {
        let width = match near.pages / resident {
            0 | 1 => Width::Read(1),
            sparse => Width::Searched(sparse.next_power_of_two()),
        };
        return Ok(Plan { found: everywhere(near), width, complete: true });
    }
    let found = find::by_touches(pagemap, ground, &ask.touched, &mut draws.dice)?;
    let width = Width::Read(measure(pagemap, &found.near, draws)?);
    Ok(Plan { found, width, complete: false })
}

/// How wide a window must be to hold a page or so.
fn measure(pagemap: &Pagemap, near: &Ground, draws: &mut Draws<'_>) -> io::Result<u64> {
    let mut pilot = Sample::default();
    draws.round(pagemap, near, FEW, Width::Read(1), &mut pilot)?;
    let hits = pilot.hits.len().max(1);
    let sparse = (pilot.windows.len() / hits).next_power_of_two() as u64;
    Ok(if sparse <= 2 { 1 } else { sparse.min(WIDEST) })
}

fn look(
    pagemap: &Pagemap,
    ground: &Ground,
    whole: bool,
    ask: &Ask,
    draws: &mut Draws<'_>,
) -> io::Result<Option<Seen>> {
    let Plan { found, width, complete } = plan(pagemap, ground, ask, draws)?;
    let complete = complete && whole;
    let moves = draws.class == Class::PrivateAnonymous;
    let (round, rounds) = if moves { (ROUND, ROUNDS) } else { (FEW, 1) };
    let resident = ask.resident.of(draws.class) as f64;
    let mut samples = [Sample::default(), Sample::default()];
    let mut seen = None;
    for _ in 0..rounds {
        draws.round(pagemap, &found.near, round, width, &mut samples[0])?;
        draws.round(pagemap, &found.rest, FEW, Width::Read(1), &mut samples[1])?;
        // A single hit in an enormous rest stands for thousands of pages and says little. That the
        // rest holds what was not found near by is then the better knowledge.
        let nodes = draws.topology.len();
        let with_rest = conclude(&samples, nodes, resident - COPIES, complete);
        let near = conclude(&samples[..1], nodes, resident, complete);
        seen = [with_rest, near]
            .into_iter()
            .flatten()
            .min_by(|one, other| one.widest().total_cmp(&other.widest()));
        let sure = seen.as_ref().is_some_and(|seen| seen.drawn() <= HALF_WIDTH);
        if sure || ground.pages <= round || pagemap.entries() >= ENTRIES {
            break;
        }
    }
    Ok(seen)
}

/// So many pages there must be; what was not found of them may be anywhere.
fn conclude(samples: &[Sample], nodes: usize, expected: f64, complete: bool) -> Option<Seen> {
    let shares = share::shares(samples, nodes)?;
    // Not the least that may be missing: a block that was never met is no error of the draws, and
    // would shift every interval of this process by its share.
    let missing = (1.0 - share::pages(samples) / expected.max(1.0)).max(0.0);
    let unseen = if complete { 0.0 } else { missing };
    let hits = samples.iter().map(|sample| sample.hits.len()).sum();
    Some(Seen { hits, shares, unseen, complete })
}

impl Seen {
    /// Half of the widest interval.
    fn widest(&self) -> f64 {
        self.drawn() + self.unseen / 2.0
    }

    /// What more draws make narrower.
    fn drawn(&self) -> f64 {
        self.shares.iter().map(|share| share.half_width()).fold(0.0, f64::max)
    }
}

impl Placement {
    fn take(
        &mut self,
        areas: &Areas,
        draws: &Draws<'_>,
        seen: &Seen,
        resident: Pages,
        nodes: usize,
    ) {
        let pages = resident as f64;
        let hits = seen.hits;
        if draws.class == Class::PrivateAnonymous {
            let few = hits < FEWEST && (hits as f64) < pages / 2.0;
            if !few && hits > 0 && seen.unseen <= UNSEEN {
                let source = draws.source();
                self.private = NodeVec::from_fn(nodes, |node| {
                    let share = seen.shares[usize::from(node.0)].but_for(seen.unseen);
                    est(share, pages, source)
                });
            }
            if !seen.complete {
                self.found = draws.places();
            }
        }
        let huge = draws.huge_share();
        let by_node = |part: f64| {
            NodeVec::from_fn(nodes, |node| seen.shares[usize::from(node.0)].mid * pages * part)
        };
        let class = draws.class;
        self.classes.push(ClassPages { class, base: by_node(1.0 - huge), huge: by_node(huge) });
        for (&page, &huge) in &draws.sizes {
            let Some(start) = areas.start_of(page) else { continue };
            let start = start * PAGE_SIZE;
            if self.sizes.len() < SIZED || self.sizes.contains_key(&start) {
                let sizes = self.sizes.entry(start).or_default();
                *(if huge { &mut sizes.huge } else { &mut sizes.base }) += 1;
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a count of pages with seven digits suffices")]
fn est(share: Share, pages: f64, source: Source) -> Est {
    let of = |share: f64| (share * pages) as f32;
    Est { low: of(share.low), mid: of(share.mid), high: of(share.high), source }
}

#[cfg(test)]
mod tests;
