//! Memory that will be needed next, asked for now.
//!
//! A machine full of processes has more rows than the caches hold, and the lines of a row are not
//! read in the order in which they lie: the hardware does not foresee them.

/// Bytes that come together, on every x86-64.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Asks for all that lies in place, and waits for none of it.
#[cfg(target_arch = "x86_64")]
pub(super) fn prefetch<T>(next: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let begin = std::ptr::from_ref(next).cast::<i8>();
    for offset in (0..size_of::<T>()).step_by(LINE) {
        // SAFETY: a hint about an address, whatever it is: nothing is read and nothing can fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(begin.wrapping_add(offset)) };
    }
}

/// No other architecture has a stable way to ask.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn prefetch<T>(_next: &T) {}
