//! A far node that is really slower, and a truth about it outside the guest.
//!
//! In an emulated guest all memory is equally fast and no hardware counts
//! accesses. This plugin of QEMU sees every load and store with its physical
//! address, passes it through a small cache model of the CPU that made it,
//! counts the misses by the memory's node, and lets each take as long as a miss
//! to that node would. The counts lie in a file of the host, where tests read
//! them; all that the guest notices is time.
//!
//! What is not modelled: instruction fetches, page table walks and devices'
//! accesses are not seen; the caches of two CPUs know nothing of each other; a
//! load over the end of a line counts for its first line.

pub mod marker;
pub mod check;
pub mod counts;
pub mod options;

mod cache;
mod delay;
mod plugin;
mod qemu;
mod x86;
