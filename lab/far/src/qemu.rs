//! QEMU's interface for plugins, declared by hand: Debian's package has no header.
//!
//! The functions are looked up in the emulator that has loaded us, so that one
//! which is missing is named, and our tests need no emulator. Signatures as in
//! `include/qemu/qemu-plugin.h` of 7.2 (version 1) to 10.0 (version 4).

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::transmute_copy;

/// Which plugin is meant.
pub(crate) type Id = u64;
/// `QEMU_PLUGIN_CB_NO_REGS`: the callback reads no register.
const NO_REGISTERS: c_int = 0;
/// `QEMU_PLUGIN_MEM_RW`.
const LOADS_AND_STORES: c_int = 3;
/// From this version on `qemu_plugin_insn_data` copies.
const COPIES: c_int = 3;
/// The longest instruction of the processor is one byte shorter.
const LONGEST: usize = 16;

/// What the emulator says of itself; `qemu_info_t`.
#[repr(C)]
pub(crate) struct Info {
    pub(crate) target: *const c_char,
    pub(crate) oldest_version: c_int,
    pub(crate) version: c_int,
    pub(crate) whole_system: bool,
    pub(crate) cpus: c_int,
    pub(crate) most_cpus: c_int,
}

/// A block that is being translated.
pub(crate) type Block = *mut c_void;
/// An instruction of a block, valid while the block is being translated.
type Instruction = *mut c_void;

pub(crate) type Translated = extern "C" fn(Id, Block);
pub(crate) type Executed = extern "C" fn(c_uint, *mut c_void);
pub(crate) type Accessed = extern "C" fn(c_uint, u32, u64, *mut c_void);
pub(crate) type Cleared = extern "C" fn(Id);

/// The functions that we use.
pub(crate) struct Qemu {
    copies: bool,
    reset: unsafe extern "C" fn(Id, Cleared),
    on_translation: unsafe extern "C" fn(Id, Translated),
    instructions: unsafe extern "C" fn(Block) -> usize,
    instruction: unsafe extern "C" fn(Block, usize) -> Instruction,
    bytes: *mut c_void,
    size: unsafe extern "C" fn(Instruction) -> usize,
    on_execution: unsafe extern "C" fn(Instruction, Executed, c_int, *mut c_void),
    on_access: unsafe extern "C" fn(Instruction, Accessed, c_int, c_int, *mut c_void),
    lookup: unsafe extern "C" fn(u32, u64) -> *mut c_void,
    is_device: unsafe extern "C" fn(*const c_void) -> bool,
    address: unsafe extern "C" fn(*const c_void) -> u64,
}

// SAFETY: these are addresses of functions, which any thread may call.
unsafe impl Send for Qemu {}
// SAFETY: as above.
unsafe impl Sync for Qemu {}

impl Qemu {
    /// Finds the functions in the program that has loaded us.
    pub(crate) fn find(info: &Info) -> Result<Self, String> {
        Ok(Self {
            copies: info.version >= COPIES,
            reset: function(c"qemu_plugin_reset")?,
            on_translation: function(c"qemu_plugin_register_vcpu_tb_trans_cb")?,
            instructions: function(c"qemu_plugin_tb_n_insns")?,
            instruction: function(c"qemu_plugin_tb_get_insn")?,
            bytes: symbol(c"qemu_plugin_insn_data")?,
            size: function(c"qemu_plugin_insn_size")?,
            on_execution: function(c"qemu_plugin_register_vcpu_insn_exec_cb")?,
            on_access: function(c"qemu_plugin_register_vcpu_mem_cb")?,
            lookup: function(c"qemu_plugin_get_hwaddr")?,
            is_device: function(c"qemu_plugin_hwaddr_is_io")?,
            address: function(c"qemu_plugin_hwaddr_phys_addr")?,
        })
    }

    /// Forgets every translation and every callback, then calls `then`.
    pub(crate) fn reset(&self, id: Id, then: Cleared) {
        // SAFETY: `id` is what QEMU gave us, and `then` lives as long as the process.
        unsafe { (self.reset)(id, then) };
    }

    pub(crate) fn on_translation(&self, id: Id, then: Translated) {
        // SAFETY: as for `reset`.
        unsafe { (self.on_translation)(id, then) };
    }

    /// Calls `each` for every instruction of a block that is being translated.
    ///
    /// # Safety
    /// The block must be the one that QEMU has just handed to the callback.
    pub(crate) unsafe fn each(&self, block: Block, each: impl Fn(&Translating<'_>)) {
        // SAFETY: our caller has the block from QEMU.
        let number = unsafe { (self.instructions)(block) };
        for index in 0..number {
            // SAFETY: the index is below the number of instructions.
            let instruction = unsafe { (self.instruction)(block, index) };
            each(&Translating { qemu: self, instruction });
        }
    }

    /// The address of an access to memory; none for a device.
    ///
    /// # Safety
    /// Only inside the callback of that access, with what it was given.
    pub(crate) unsafe fn address(&self, access: u32, address: u64) -> Option<u64> {
        // SAFETY: our caller is in the callback.
        let found = unsafe { (self.lookup)(access, address) };
        // SAFETY: what was found is QEMU's until the callback returns; null was excluded.
        let memory = !found.is_null() && unsafe { !(self.is_device)(found) };
        // SAFETY: as above.
        memory.then(|| unsafe { (self.address)(found) })
    }
}

/// An instruction that is being translated.
pub(crate) struct Translating<'a> {
    qemu: &'a Qemu,
    instruction: Instruction,
}

impl Translating<'_> {
    /// Calls `act` with the instruction's bytes.
    pub(crate) fn with_bytes<T>(&self, act: impl FnOnce(&[u8]) -> T) -> T {
        // SAFETY: the instruction is valid during translation, which `Translating` does not outlive.
        let size = unsafe { (self.qemu.size)(self.instruction) }.min(LONGEST);
        let mut copy = [0_u8; LONGEST];
        if self.qemu.copies {
            // SAFETY: that is its signature from version 3 on.
            let copy_to: unsafe extern "C" fn(Instruction, *mut c_void, usize) -> usize =
                unsafe { transmute_copy(&self.qemu.bytes) };
            // SAFETY: there is room for `size` bytes.
            unsafe { copy_to(self.instruction, copy.as_mut_ptr().cast(), size) };
        } else {
            // SAFETY: that is its signature until version 2.
            let data: unsafe extern "C" fn(Instruction) -> *const u8 =
                unsafe { transmute_copy(&self.qemu.bytes) };
            // SAFETY: the instruction is valid.
            let bytes = unsafe { data(self.instruction) };
            // SAFETY: QEMU keeps `size` bytes there until the block is translated.
            unsafe { bytes.copy_to_nonoverlapping(copy.as_mut_ptr(), size) };
        }
        act(&copy[..size])
    }

    /// Calls `then` with `data` whenever a CPU executes it.
    pub(crate) fn on_execution(&self, then: Executed, data: usize) {
        let data = std::ptr::without_provenance_mut(data);
        // SAFETY: the instruction is valid; `then` lives as long as the process and takes `data`
        // for the number that it is.
        unsafe { (self.qemu.on_execution)(self.instruction, then, NO_REGISTERS, data) };
    }

    /// Calls `then` after each of its loads and stores.
    pub(crate) fn on_access(&self, then: Accessed) {
        let (registers, kinds) = (NO_REGISTERS, LOADS_AND_STORES);
        // SAFETY: the instruction is valid, and `then` lives as long as the process.
        unsafe {
            (self.qemu.on_access)(self.instruction, then, registers, kinds, std::ptr::null_mut());
        };
    }
}

/// The function of this name, whose type is what the header says.
fn function<F: Copy>(name: &CStr) -> Result<F, String> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    let address = symbol(name)?;
    // SAFETY: the fields of `Qemu` have the types of the header, and a function pointer has the
    // size of an address.
    Ok(unsafe { transmute_copy(&address) })
}

fn symbol(name: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: the name is terminated and outlives the call.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if address.is_null() {
        return Err(format!("this emulator has no {}", name.to_string_lossy()));
    }
    Ok(address)
}
