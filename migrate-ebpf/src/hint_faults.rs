//! NUMA-hint faults by the node of the CPU and the node of the memory.
//!
//! A hint fault says who touched which page, never how often. It only happens
//! while the kernel's NUMA balancing is on.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::{fentry, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::FEntryContext;
use migrate_common::{HintKey, Lost, MAX_TASKS};

use crate::{charge, cpu_time, lost, tasks};

/// Written here, read and cleared of exited processes by the controller. Full: counted as lost.
#[map]
static HINTS: HashMap<HintKey, u64> = HashMap::with_max_entries(4 * MAX_TASKS, 0);

/// Bits to shift `page->flags` right to get the node: 64 − NODES_SHIFT, from BTF.
#[unsafe(no_mangle)]
static NODE_SHIFT: u32 = 0;

/// `int mpol_misplaced(struct page *page, ...)` on 6.1, `struct folio *` from 6.12: once for every
/// hint fault, before the page moves. `flags` is the first field of both. Checked on 6.1, 6.12, 7.3.
#[fentry(function = "mpol_misplaced")]
fn mpol_misplaced(ctx: FEntryContext) -> i32 {
    let flags: *const u64 = ctx.arg(0);
    let shift = charge::global(&NODE_SHIFT);
    // SAFETY: the helper checks the address itself.
    let Ok(flags) = (unsafe { bpf_probe_read_kernel(flags) }) else { return 0 };
    let Some(cpu_node) = cpu_time::current_node() else { return 0 };
    #[expect(clippy::cast_possible_truncation, reason = "NODES_SHIFT is at most 10")]
    let key = HintKey {
        tgid: charge::current().1,
        cpu_node: cpu_node as u16,
        memory_node: (flags >> (shift & 63)) as u16,
    };
    if let Some(count) = HINTS.get_ptr_mut(key) {
        tasks::add(count, 1);
    } else if HINTS.insert(key, 1, 0).is_err() {
        lost::count(&ctx, Lost::Hints);
    }
    0
}
