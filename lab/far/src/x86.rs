//! Which instructions drop a line from the caches?

/// Whether these bytes are `clflush` or `clflushopt`: `0f ae /7` with memory.
///
/// The emulator does nothing for them, so no access shows that they ran.
pub(crate) fn is_flush(instruction: &[u8]) -> bool {
    let prefix = |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67);
    let start = instruction.iter().take_while(|byte| prefix(byte)).count();
    match instruction.get(start..) {
        // With a register in place of memory it is `sfence`.
        Some([0x0f, 0xae, mode, ..]) => mode & 0x38 == 0x38 && mode & 0xc0 != 0xc0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_flush;

    #[test]
    fn flushes_are_known_with_any_prefix_and_fences_are_not_flushes() {
        assert!(is_flush(&[0x0f, 0xae, 0x38]), "clflush [rax]");
        assert!(is_flush(&[0x41, 0x0f, 0xae, 0x7d, 0x00]), "clflush [r13]");
        assert!(is_flush(&[0x66, 0x0f, 0xae, 0x3f]), "clflushopt [rdi]");
        assert!(!is_flush(&[0x0f, 0xae, 0xf8]), "sfence");
        assert!(!is_flush(&[0x0f, 0xae, 0xf0]), "mfence");
        assert!(!is_flush(&[0x66, 0x0f, 0xae, 0x37]), "clwb [rdi] keeps the line");
        assert!(!is_flush(&[0x48, 0x8b, 0x00]), "mov rax, [rax]");
        assert!(!is_flush(&[0x66]));
    }
}
