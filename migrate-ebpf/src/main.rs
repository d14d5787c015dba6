//! The probes. One file a signal; each counts in the kernel and sends nothing.
//!
//! Every signal stands alone: a hook that the kernel lacks costs that signal
//! only. `charge` knows whose pages a thread is working on, `lost` what could
//! not be counted, `slot` how several CPUs add to one counter.
#![no_std]
#![no_main]
// Atomic addition: `core` compiles none of it for a target without compare-and-swap.
#![feature(asm_experimental_arch)]

mod charge;
mod durations;
mod kernel;
mod lost;
mod slot;
mod stamps;
mod tasks;

mod isolation;
mod scans;
mod drains;
mod faults;
mod touched;
mod hint_faults;
mod cpu_time;
mod sched;
mod migrations;
mod waits;
mod life;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects code that could get here.
    loop {}
}

/// Reading kernel memory and the current task are helpers for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
