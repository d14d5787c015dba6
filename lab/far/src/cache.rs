//! Is this line in the cache of this CPU?
//!
//! One level, eight ways, the least recently used line leaves. Loads and
//! stores alike fetch a line.

/// Bytes of a line, as a power of two.
const LINE_BITS: u32 = 6;
const WAYS: usize = 8;
/// Where the epoch begins in an entry; below it is the line's number.
const EPOCH_BITS: u32 = 40;
/// Epochs until old entries have to be wiped.
const EPOCHS: u64 = 1 << (64 - EPOCH_BITS);

/// One CPU's cache, by physical address.
pub(crate) struct Cache {
    /// Most recently used first.
    sets: Vec<[u64; WAYS]>,
    /// Entries of another epoch are empty: so emptying costs nothing.
    epoch: u64,
}

impl Cache {
    /// At least one set; a number of sets that is a power of two.
    pub(crate) fn new(kib: usize) -> Self {
        let sets = (kib * 1024 / (WAYS << LINE_BITS)).next_power_of_two();
        Self { sets: vec![[0; WAYS]; sets], epoch: 1 }
    }

    /// Uses the line of this address; whether it was there already.
    pub(crate) fn touch(&mut self, address: u64) -> bool {
        let line = (address >> LINE_BITS) & ((1 << EPOCH_BITS) - 1);
        let entry = self.epoch << EPOCH_BITS | line;
        // The number of sets is a power of two, so the remainder is in range.
        let index = line & (self.sets.len() as u64 - 1);
        let Some(set) = usize::try_from(index).ok().and_then(|index| self.sets.get_mut(index))
        else {
            return false;
        };
        let found = set.iter().position(|&way| way == entry);
        set[..=found.unwrap_or(WAYS - 1)].rotate_right(1);
        set[0] = entry;
        found.is_some()
    }

    pub(crate) fn empty(&mut self) {
        self.epoch += 1;
        if self.epoch == EPOCHS {
            self.sets.fill([0; WAYS]);
            self.epoch = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: u64 = 1 << LINE_BITS;

    #[test]
    fn a_line_is_there_after_its_first_use() {
        let mut cache = Cache::new(32);
        assert!(!cache.touch(4096));
        assert!(cache.touch(4096 + LINE - 1));
        assert!(!cache.touch(4096 + LINE));
        cache.empty();
        assert!(!cache.touch(4096));
    }

    #[test]
    fn what_fits_stays_and_what_is_walked_through_does_not() {
        let mut cache = Cache::new(32);
        let lines = 32 * 1024 / LINE;
        let mut missed =
            |lines: u64| (0..lines).filter(|at| !cache.touch(at * LINE)).count() as u64;
        assert_eq!(missed(lines), lines);
        assert_eq!(missed(lines), 0);
        // One line more in each set than there are ways: the next is always the one that left.
        assert_eq!(missed(lines * 9 / 8), lines / 8);
        assert_eq!(missed(lines * 9 / 8), lines * 9 / 8);
    }

    #[test]
    fn the_least_recently_used_line_leaves() {
        let mut cache = Cache::new(32);
        let stride = 32 * 1024 / WAYS as u64;
        for way in 0..WAYS as u64 {
            cache.touch(way * stride);
        }
        assert!(cache.touch(0));
        assert!(!cache.touch(WAYS as u64 * stride));
        assert!(cache.touch(0));
        assert!(!cache.touch(stride));
    }

    #[test]
    fn epochs_come_round() {
        let mut cache = Cache::new(32);
        cache.touch(0);
        for _ in 0..EPOCHS {
            cache.empty();
        }
        assert!(!cache.touch(0));
        assert!(cache.touch(0));
    }
}
