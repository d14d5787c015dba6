//! Address space that pages are drawn from, in whole pages.
//!
//! Pure. Runs are ascending and disjoint; what lies between them does not exist for a draw.

/// Pages `first..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) end: u64,
}

/// Runs, one after the other, as if there were nothing between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ground {
    runs: Vec<Run>,
    /// Pages before each run.
    before: Vec<u64>,
    pub(super) pages: u64,
}

impl Ground {
    /// In any order; those that touch or overlap become one.
    pub(super) fn new(mut runs: Vec<Run>) -> Self {
        runs.sort_unstable();
        let mut joined: Vec<Run> = Vec::with_capacity(runs.len());
        for run in runs.into_iter().filter(|run| run.first < run.end) {
            match joined.last_mut() {
                Some(last) if run.first <= last.end => last.end = last.end.max(run.end),
                _ => joined.push(run),
            }
        }
        let mut pages = 0;
        let mut before = Vec::with_capacity(joined.len());
        for run in &joined {
            before.push(pages);
            pages += run.end - run.first;
        }
        Self { runs: joined, before, pages }
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(super) fn holds(&self, page: u64) -> bool {
        let after = self.runs.partition_point(|run| run.first <= page);
        after.checked_sub(1).is_some_and(|before| page < self.runs[before].end)
    }

    /// What is in both.
    pub(super) fn within(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        let (mut mine, mut theirs) = (self.runs.iter().peekable(), other.runs.iter().peekable());
        while let (Some(&&one), Some(&&two)) = (mine.peek(), theirs.peek()) {
            let common = Run { first: one.first.max(two.first), end: one.end.min(two.end) };
            if common.first < common.end {
                both.push(common);
            }
            if one.end < two.end {
                mine.next()
            } else {
                theirs.next()
            };
        }
        Self::new(both)
    }

    /// What is not in the other.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut holes = Vec::with_capacity(other.runs.len() + 1);
        let mut at = 0;
        for run in &other.runs {
            holes.push(Run { first: at, end: run.first });
            at = run.end;
        }
        holes.push(Run { first: at, end: u64::MAX });
        self.within(&Self::new(holes))
    }

    /// The n-th to the m-th page, as runs of real addresses.
    pub(super) fn part(&self, first: u64, end: u64) -> impl Iterator<Item = Run> {
        // The first run has nothing before it, so there always is one.
        let from = self.before.partition_point(|&before| before <= first).saturating_sub(1);
        let runs = self.runs.iter().zip(&self.before).skip(from);
        runs.take_while(move |(_, before)| **before < end).filter_map(move |(run, before)| {
            let cut = |n: u64| (run.first + n.saturating_sub(*before)).min(run.end);
            let (first, end) = (cut(first), cut(end));
            (first < end).then_some(Run { first, end })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Ground, Run};

    fn ground(runs: &[(u64, u64)]) -> Ground {
        Ground::new(runs.iter().map(|&(first, end)| Run { first, end }).collect())
    }

    #[test]
    fn joins_what_touches() {
        assert_eq!(
            ground(&[(5, 9), (1, 3), (3, 4), (8, 12), (20, 20)]),
            ground(&[(1, 4), (5, 12)])
        );
        assert_eq!(ground(&[(1, 4), (5, 12)]).pages, 10);
    }

    #[test]
    fn parts_it_into_what_is_in_another_and_what_is_not() {
        let (all, some) = (ground(&[(0, 10), (20, 30)]), ground(&[(5, 22), (28, 40)]));
        assert_eq!(all.within(&some), ground(&[(5, 10), (20, 22), (28, 30)]));
        assert_eq!(all.without(&some), ground(&[(0, 5), (22, 28)]));
        assert_eq!(all.without(&Ground::default()), all);
        let held: Vec<u64> = (0..32).filter(|&page| all.holds(page)).collect();
        assert_eq!(held, (0..10).chain(20..30).collect::<Vec<u64>>());
    }

    #[test]
    fn a_part_may_lie_in_several_runs() {
        let ground = ground(&[(100, 110), (200, 205), (300, 400)]);
        let runs: Vec<(u64, u64)> = ground.part(8, 20).map(|run| (run.first, run.end)).collect();
        assert_eq!(runs, [(108, 110), (200, 205), (300, 305)]);
        assert_eq!(ground.part(10, 11).map(|run| run.first).collect::<Vec<_>>(), [200]);
    }
}
