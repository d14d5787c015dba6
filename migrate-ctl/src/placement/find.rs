//! Where in its mappings a process has pages at all.
//!
//! A sparse mapping of a terabyte holds nothing nearly everywhere. Either the kernel searches for
//! us (PAGEMAP_SCAN, from 6.7: it skips what has no page table), and what is left out is known to be
//! empty; or we start from where the process was seen to touch memory, and draw elsewhere too, but
//! less densely.

use std::io;

use super::dice::SplitMix64;
use super::ground::{Ground, Run};
use super::pagemap::Pagemap;

/// Calls that a search may take.
const CALLS: u32 = 1024;
/// It begins with pieces of one in so many of the whole, and goes on with an eighth of each.
const PIECES: u64 = 256;
const FINER: u64 = 8;
/// Pieces of fewer pages than these are not worth a call.
const FINEST: u64 = 64;
/// Pages that one page table maps: 2 MiB.
const BLOCK: u64 = 512;
/// Draws that tell whether a ground is dense.
const PILOT: u64 = 512;

/// A process's ground by what is known of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where pages are.
    pub(super) near: Ground,
    /// Where some may be, too.
    pub(super) rest: Ground,
}

/// Narrows a ground down to pieces with pages in them, or as far as the calls suffice. It is
/// enough when half of it is resident.
///
/// # Errors
/// This kernel cannot search, or the process is gone.
pub(super) fn by_search(pagemap: &Pagemap, ground: &Ground, resident: u64) -> io::Result<Ground> {
    if let Some(&run) = ground.runs().first() {
        // Also where nothing is to be narrowed down, since only a kernel that can search knows
        // that there is nothing anywhere else.
        pagemap.next(run, 1)?;
    }
    let mut calls = CALLS;
    let mut found = ground.clone();
    let mut piece = (ground.pages / PIECES).next_power_of_two().max(FINEST);
    while calls > 0 && found.pages > resident.saturating_mul(2) {
        let mut finer = Vec::with_capacity(found.runs().len());
        for &run in found.runs() {
            let mut left = run;
            while left.first < left.end {
                if calls == 0 {
                    finer.push(left);
                    break;
                }
                calls -= 1;
                let Some(next) = pagemap.next(left, 1)? else { break };
                let end = left.end.min((next.first / piece + 1) * piece);
                finer.push(Run { first: next.first, end });
                left.first = end;
            }
        }
        found = Ground::new(finer);
        if piece == FINEST {
            break;
        }
        piece = (piece / FINER).max(FINEST);
    }
    Ok(found)
}

/// The blocks around pages that were touched, the neighbours of what a few draws hit, and what
/// lies between two hits next to each other; all of it where every second draw hits.
///
/// # Errors
/// The process is gone.
pub(super) fn by_touches(
    pagemap: &Pagemap,
    ground: &Ground,
    touched: &[u64],
    dice: &mut SplitMix64,
) -> io::Result<Found> {
    let touched = Ground::new(touched.iter().map(|&page| blocks_around(page, 0)).collect());
    let mut near = touched.runs().to_vec();
    let parts = ground.pages.min(PILOT);
    let mut hits = 0;
    let mut before: Option<(u64, u64)> = None;
    for part in 0..parts {
        let place = dice.in_part(ground.pages, parts, part);
        for run in ground.part(place, place + 1) {
            if pagemap.pages(run)?.is_empty() {
                continue;
            }
            hits += 1;
            // Around what was touched there is nothing that was not touched, too.
            if !touched.holds(run.first) {
                near.push(blocks_around(run.first, 1));
            }
            if let Some((_, earlier)) = before.filter(|&(earlier, _)| earlier + 1 == part) {
                near.push(Run { first: earlier, end: run.first });
            }
            before = Some((part, run.first));
        }
    }
    if 2 * hits >= parts {
        return Ok(Found { near: ground.clone(), rest: Ground::default() });
    }
    let near = ground.within(&Ground::new(near));
    let rest = ground.without(&near);
    Ok(Found { near, rest })
}

fn blocks_around(page: u64, neighbours: u64) -> Run {
    let block = page / BLOCK;
    Run {
        first: block.saturating_sub(neighbours) * BLOCK,
        end: (block + 1 + neighbours).saturating_mul(BLOCK),
    }
}
