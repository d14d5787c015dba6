//! How does the guest say where it is? By an instruction that does nothing.
//!
//! `nop dword ptr [rax + rax + CODE]` is a no-op on every processor; the plugin
//! knows it by its displacement. It goes one way: nothing comes back.

/// What the guest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// From now on misses are counted and delayed.
    On,
    /// A stretch begins.
    Begin,
    /// A part of a stretch is over.
    Lap,
    /// The check at boot is over.
    Checked,
}

/// The displacement of the first marker; the others follow.
const FIRST: u32 = 0x4641_5200;
/// The instruction without its displacement.
const NOP: [u8; 4] = [0x0f, 0x1f, 0x84, 0x00];

impl Marker {
    const ALL: [Self; 4] = [Self::On, Self::Begin, Self::Lap, Self::Checked];

    /// The instruction's displacement.
    #[must_use]
    pub const fn code(self) -> u32 {
        FIRST + self as u32
    }

    /// The marker of this displacement.
    #[must_use]
    pub fn of(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|marker| u64::from(marker.code()) == code)
    }

    /// The marker that these bytes of an instruction are.
    pub(crate) fn decode(instruction: &[u8]) -> Option<Self> {
        let displacement = instruction.strip_prefix(&NOP)?;
        Self::of(u32::from_le_bytes(displacement.try_into().ok()?).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_displacements_are_markers() {
        let instruction = |code: u32| [NOP, code.to_le_bytes()].concat();
        for marker in Marker::ALL {
            assert_eq!(Marker::decode(&instruction(marker.code())), Some(marker));
        }
        assert_eq!(Marker::decode(&instruction(FIRST + 4)), None);
        // What compilers fill gaps with.
        assert_eq!(Marker::decode(&instruction(0)), None);
        assert_eq!(Marker::decode(&[0x0f, 0x1f, 0x00]), None);
    }
}
