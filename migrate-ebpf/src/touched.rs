//! Where processes touched memory: addresses of some of their page faults, for whoever has to
//! find the few resident pages of a terabyte mapping.
//!
//! The only program on the way of every fault. Which pages are kept is decided by the page, not
//! by a count: that needs no map, so that all but one fault in 57 pass in a few instructions, and
//! a page that faults often is no likelier to be kept than one that faulted once. The hash is
//! Knuth's multiplicative one, which spreads neighbours evenly: of 64 neighbours one or two are
//! taken, never none of 128.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::BtfTracePointContext;
use migrate_common::{Lost, MAX_TOUCHED, TOUCHED_SLOTS, Touched};

use crate::slot::Slot;
use crate::{kernel, lost};

/// Process → pages that it touched. Written here, read and cleared by the controller; takes memory
/// only for processes that fault. Full: the page is not kept, and counts as lost.
#[map]
static TOUCHED: HashMap<u32, Touched> = HashMap::with_max_entries(MAX_TOUCHED, BPF_F_NO_PREALLOC);

/// Too large for the stack.
static NOTHING: Touched = Touched { pages: [0; TOUCHED_SLOTS] };

/// 2^64 ÷ the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// One page in 2^6.
const KEPT_BITS: u32 = 6;
/// And the first of what one page table maps: a huge page faults once, mostly there.
const HUGE: u64 = 512;

/// `page_fault_user(unsigned long address, struct pt_regs *regs, unsigned long error_code)`,
/// before the kernel looks for the mapping. Checked on 6.1, 6.12, 7.3.
#[btf_tracepoint(function = "page_fault_user")]
fn page_fault_user(ctx: BtfTracePointContext) -> i32 {
    let page = ctx.arg::<u64>(0) >> 12;
    let hash = page.wrapping_mul(GOLDEN);
    if hash >> (u64::BITS - KEPT_BITS) == 0 || page.is_multiple_of(HUGE) {
        keep(&ctx, page, hash);
    }
    0
}

/// Of the pages that share a slot the one with the least hash stays, so that each page ever
/// touched is as likely to be there as any other.
#[inline(never)]
fn keep(ctx: &impl EbpfContext, page: u64, hash: u64) {
    let Some(touched) = Slot::find_or_make(&TOUCHED, &kernel::current().tgid, &NOTHING) else {
        lost::count(ctx, Lost::Touched, 1);
        return;
    };
    // The upper bits are those that the page was chosen by.
    let (slot, rank) = Touched::place(hash);
    let kept = touched.as_ptr().cast::<u64>().wrapping_add(slot);
    // SAFETY: a slot of the array; threads that write at once leave one of their pages there.
    unsafe {
        let there = kept.read_volatile();
        if there == 0 || rank < Touched::place(there.wrapping_mul(GOLDEN)).1 {
            kept.write_volatile(page);
        }
    }
}
