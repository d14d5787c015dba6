//! The probes. One file a signal; each counts in the kernel and sends nothing.
//!
//! Every signal stands alone: a hook that the kernel lacks costs that signal
//! only. `charge` knows whose pages a thread is working on, `lost` what could
//! not be counted.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the only way to an atomic addition on this target")]

mod charge;
mod lost;
mod tasks;

mod isolation;
mod faults;
mod hint_faults;
mod cpu_time;
mod migrations;
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
