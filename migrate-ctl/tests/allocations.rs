//! Does a tick allocate for each process? It must not: what a machine with four times as many
//! processes asks of the allocator is one larger vector of decisions.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use migrate_ctl::config::Config;
use migrate_ctl::model::Verdict;
use migrate_ctl::policy::decide;
use migrate_ctl::simulation::fleet::Fleet;
use migrate_ctl::simulation::machines::Machine;
use migrate_ctl::simulation::traces::Law;
use migrate_ctl::table::Table;

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed on to `System`, which keeps the contract; counting neither allocates
// nor unwinds, since the counter is a constant without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: the caller's layout, as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `alloc` and `realloc` got this pointer from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as for `dealloc`; the size is the caller's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[test]
fn a_tick_allocates_no_more_for_more_processes() {
    let (few, many) = (asked(500), asked(2_000));
    assert!(few > 0, "the vector of decisions at least");
    // A vector that grows for so long doubles twice more.
    assert!(many <= few + 2, "{few} for 500 processes, {many} for 2,000");
}

/// The most that a tick over a warm table asks of the allocator, orders aside.
fn asked(processes: usize) -> u64 {
    let mut fleet = Fleet::new(7, processes, &Machine::uniform(4), Some(Law::Stay));
    let mut table = Table::default();
    let mut config = Config::default();
    // Moves that are due are looked at in each tick, and put off.
    config.policy.pages_per_second = 0;
    config.policy.concurrent_moves = 0;
    let mut most = 0;
    for number in 0..120 {
        let tick = fleet.tick();
        let before = ASKED.get();
        let decisions = decide(&mut table, &config, &tick);
        let asked = ASKED.get() - before;
        if number >= 80 {
            assert!(decisions.iter().all(|decision| decision.verdict == Verdict::Stay));
            most = most.max(asked);
        }
    }
    most
}
