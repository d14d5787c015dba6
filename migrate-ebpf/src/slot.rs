//! Values in maps that several CPUs add to at once.

use core::arch::asm;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::maps::HashMap;

/// A value in a map. It stays valid until the program ends, even if its key is removed.
pub(crate) struct Slot<V>(*mut V);

impl<V: Copy> Slot<V> {
    pub(crate) fn find<K>(map: &HashMap<K, V>, key: &K) -> Option<Self> {
        map.get_ptr_mut(key).map(Self)
    }

    /// Makes the slot where there is none yet; none where the map has no room for it.
    pub(crate) fn find_or_make<K>(map: &HashMap<K, V>, key: &K, empty: &V) -> Option<Self> {
        if let Some(slot) = Self::find(map, key) {
            return Some(slot);
        }
        // Another CPU may have made it meanwhile; looking again settles it.
        let _ = map.insert(key, empty, u64::from(BPF_NOEXIST));
        Self::find(map, key)
    }

    pub(crate) fn read(&self) -> V {
        // SAFETY: made from a map look-up in this very program run; every bit pattern of the
        // integers that our values consist of is valid.
        unsafe { self.0.read() }
    }

    /// Adds to the `u64` at `field`, which is an `offset_of!` in `V`.
    pub(crate) fn add(&self, field: usize, value: u64) {
        add(self.0.wrapping_byte_add(field).cast(), value);
    }

    /// For what is not a sum of `u64`.
    pub(crate) fn as_ptr(&self) -> *mut V {
        self.0
    }
}

/// Adds to a counter in a map.
pub(crate) fn add(counter: *mut u64, value: u64) {
    // SAFETY: the pointer lies in a map's value, 8-byte aligned by the layout of the shared
    // structs; the verifier refuses the program if it does not.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) value) };
}

/// Writes 1 to a word in a map, as one step; whether it was 0.
pub(crate) fn claim(word: *mut u64) -> bool {
    let mut value = 1_u64;
    // SAFETY: as for `add`.
    unsafe { asm!("{1} = xchg_64({0} + 0, {1})", in(reg) word, inout(reg) value) };
    value == 0
}
