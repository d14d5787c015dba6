//! Numbers that look like chance and are the same for the same seed.

/// Steele, Lea and Flood: one multiplication chain a number, the same on every machine.
pub(super) struct SplitMix64(pub(super) u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..end`; 0 for an empty range. The bias is below `end` ÷ 2^64.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(end)) >> 64).unwrap_or(0)
    }

    /// One of `0..all`, from the n-th of so many equal parts.
    pub(super) fn in_part(&mut self, all: u64, parts: u64, part: u64) -> u64 {
        let (first, end) = part_of(all, parts, part);
        first + self.below(end - first)
    }
}

/// The n-th of so many equal parts of `0..all`.
pub(super) fn part_of(all: u64, parts: u64, part: u64) -> (u64, u64) {
    // Not more than `all`, as no part is beyond the last.
    let border = |part: u64| {
        let border = u128::from(all) * u128::from(part) / u128::from(parts.max(1));
        u64::try_from(border).unwrap_or(all)
    };
    (border(part), border(part + 1))
}
