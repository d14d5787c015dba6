//! What QEMU calls: at its start, for each block it translates, and for each access.
//!
//! Until the guest passes the first marker only markers are looked for, so that
//! booting costs little. Then all translations are thrown away, and from there
//! on every load and store is seen.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cache::Cache;
use crate::counts::Recorder;
use crate::delay::Delay;
use crate::marker::Marker;
use crate::options::Options;
use crate::qemu::{Block, Id, Info, Qemu};
use crate::x86::is_flush;

/// Addresses of the kernel have this bit, those of programs have not.
const KERNEL: u64 = 1 << 63;

/// The version of the interface that QEMU is to treat us by: xtask knows which it accepts.
#[unsafe(no_mangle)]
pub(crate) static qemu_plugin_version: c_int = match option_env!("MIGRATE_PLUGIN_API") {
    Some(version) => (version.as_bytes()[0] - b'0') as c_int,
    None => 1,
};

static STATE: OnceLock<State> = OnceLock::new();

struct State {
    qemu: Qemu,
    id: Id,
    options: Options,
    recorder: Recorder,
    delay: Delay,
    cpus: Vec<Cell>,
    /// Whether accesses are seen.
    on: AtomicBool,
}

/// What belongs to one CPU, on cache lines of its own.
#[repr(align(128))]
struct Cell(UnsafeCell<Cpu>);

// SAFETY: QEMU calls back for a CPU from the one thread that runs that CPU, and nobody else
// looks into its cell.
unsafe impl Sync for Cell {}

struct Cpu {
    number: usize,
    node: usize,
    cache: Cache,
    /// When its last miss was over, by the host's time stamp counter.
    last: u64,
}

/// QEMU's first call; anything but 0 ends QEMU.
///
/// # Safety
/// As QEMU does it: `info` and `argc` words at `argv` are valid for the call.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let words = (0..usize::try_from(argc).unwrap_or(0)).map(|index| {
        // SAFETY: the index is below the number of words.
        let word = unsafe { *argv.add(index) };
        // SAFETY: QEMU's words are terminated and stay until we return.
        unsafe { CStr::from_ptr(word) }.to_string_lossy().into_owned()
    });
    let words: Vec<String> = words.collect();
    // SAFETY: our caller's promise.
    let info = unsafe { &*info };
    match State::new(id, info, &words) {
        Ok(state) => {
            let state = STATE.get_or_init(|| state);
            state.qemu.on_translation(id, translated);
            0
        }
        Err(why) => {
            // QEMU's own complaints go there as well.
            eprintln!("far: {why}");
            1
        }
    }
}

impl State {
    fn new(id: Id, info: &Info, words: &[String]) -> Result<Self, String> {
        let options = Options::parse(words.iter().map(String::as_str));
        let options = options.map_err(|error| error.to_string())?;
        if usize::try_from(info.most_cpus) != Ok(options.cpus.len()) || !info.whole_system {
            return Err(format!("{} CPUs, not {}", info.most_cpus, options.cpus.len()));
        }
        let recorder = Recorder::create(&options.counts, options.cpus.len(), options.nodes());
        let recorder =
            recorder.map_err(|error| format!("{}: {error}", options.counts.display()))?;
        let cpu = |(number, &node)| {
            let cache = Cache::new(options.cache_kib);
            Cell(UnsafeCell::new(Cpu { number, node, cache, last: 0 }))
        };
        Ok(Self {
            qemu: Qemu::find(info)?,
            id,
            recorder,
            delay: Delay::new(options.local, options.factor),
            cpus: options.cpus.iter().enumerate().map(cpu).collect(),
            options,
            on: AtomicBool::new(false),
        })
    }

    /// One CPU's state, for a callback of that CPU.
    #[expect(clippy::mut_from_ref, reason = "one thread a CPU, as the SAFETY line says")]
    fn cpu(&self, number: c_uint) -> Option<&mut Cpu> {
        let cell = self.cpus.get(usize::try_from(number).ok()?)?;
        // SAFETY: the callbacks run on the thread of their CPU, one after the other, and each
        // asks once.
        Some(unsafe { &mut *cell.0.get() })
    }
}

extern "C" fn translated(_id: Id, block: Block) {
    let Some(state) = STATE.get() else { return };
    let on = state.on.load(Ordering::Acquire);
    // SAFETY: QEMU has just handed us the block.
    unsafe {
        state.qemu.each(block, |instruction| {
            let (marker, flush) =
                instruction.with_bytes(|bytes| (Marker::decode(bytes), is_flush(bytes)));
            if let Some(marker) = marker {
                instruction.on_execution(marked, marker.code() as usize);
            }
            if on && flush {
                instruction.on_execution(flushed, 0);
            }
            if on {
                instruction.on_access(accessed);
            }
        });
    };
}

extern "C" fn marked(cpu: c_uint, code: *mut c_void) {
    let Some(state) = STATE.get() else { return };
    let Some(marker) = Marker::of(code.addr() as u64) else { return };
    if let Some(cpu) = state.cpu(cpu) {
        state.recorder.mark(cpu.number, marker);
    }
    if marker == Marker::On && !state.on.swap(true, Ordering::AcqRel) {
        state.qemu.reset(state.id, cleared);
    }
}

extern "C" fn cleared(id: Id) {
    if let Some(state) = STATE.get() {
        state.qemu.on_translation(id, translated);
    }
}

/// The flushed line is not known: its address is in registers that this interface does not show.
/// So all of them go, on this CPU, as they would after a longer while.
extern "C" fn flushed(cpu: c_uint, _data: *mut c_void) {
    if let Some(cpu) = STATE.get().and_then(|state| state.cpu(cpu)) {
        cpu.cache.empty();
    }
}

extern "C" fn accessed(cpu: c_uint, access: u32, address: u64, _data: *mut c_void) {
    let Some(state) = STATE.get() else { return };
    let Some(cpu) = state.cpu(cpu) else { return };
    // SAFETY: this is the callback of that access.
    let Some(physical) = (unsafe { state.qemu.address(access, address) }) else { return };
    if cpu.cache.touch(physical) {
        return;
    }
    // The firmware's memory and the screen's are no node's.
    let Some(node) = state.options.node_of(physical) else { return };
    state.recorder.miss(cpu.number, address & KERNEL != 0, node);
    cpu.last = state.delay.pass(cpu.last, node != cpu.node);
}
