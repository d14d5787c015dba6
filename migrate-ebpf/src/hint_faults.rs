//! NUMA-hint faults by the node of the CPU and the node of the memory.
//!
//! A hint fault says who touched which page, never how often. It only happens
//! while the kernel's NUMA balancing is on.

use aya_ebpf::macros::{fentry, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::FEntryContext;
use migrate_common::{HintKey, Lost, MAX_HINTS};

use crate::slot::Slot;
use crate::{charge, cpu_time, kernel, lost};

/// Written here, read and cleared of exited processes by the controller. Full: counted as lost.
#[map]
static HINTS: HashMap<HintKey, u64> = HashMap::with_max_entries(MAX_HINTS, 0);

/// `int mpol_misplaced(struct page *page, ...)` on 6.1, `struct folio *` from 6.12: once for every
/// hint fault, before the page moves. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "mpol_misplaced")]
fn mpol_misplaced(ctx: FEntryContext) -> i32 {
    let Some(cpu_node) = cpu_time::current_node() else { return 0 };
    charge::remember_hint();
    #[expect(clippy::cast_possible_truncation, reason = "NODES_SHIFT is at most 10")]
    let key = HintKey {
        tgid: kernel::current().tgid,
        cpu_node: cpu_node as u16,
        memory_node: kernel::node_of(kernel::folio_flags(&ctx)) as u16,
    };
    match Slot::find_or_make(&HINTS, &key, &0) {
        Some(count) => count.add(0, 1),
        None => lost::count(&ctx, Lost::Hints, 1),
    }
    0
}
