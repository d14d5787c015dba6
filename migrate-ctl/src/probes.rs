//! Loads the probes, attaches what fits this kernel, reads what they counted.
//!
//! The only module that names aya. Which program fits is decided by the
//! kernel's BTF, never by its version. A hook that is not there or is refused
//! costs its signal and becomes a verdict. Nothing is pinned: dropping
//! [`Probes`] detaches all of it, and so does the kernel when we are killed.

use std::collections::BTreeSet;
use std::fs;

use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use migrate_common::{REASON_CPUSET, REASON_KHUGEPAGED, REASON_OTHER, REASON_OWN, REASONS};

use crate::btf::{Btf, BtfError};
use crate::snapshot::{HookState, HookVerdict};
use crate::topology::Topology;

mod attach;
mod hooks;
mod maps;

use attach::Timing;
use hooks::Hook;
use maps::{Maps, Sizes};

pub use maps::{Counts, OwnMoves};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probes.o"));

/// Every signal that has probes.
pub const SIGNALS: [&str; 12] = [
    "isolation",
    "scans",
    "faults",
    "fault_time",
    "touched",
    "hint_faults",
    "cpu_time",
    "scheduling",
    "migrations",
    "drains",
    "waits",
    "life",
];

const CPU_TIME: &str = "cpu_time";
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why there can be no probes at all. The messages carry their reasons.
#[derive(Debug, thiserror::Error)]
pub enum ProbesError {
    #[error("this binary has no probes inside; build it with `cargo xtask build`")]
    NoObject,
    #[error("read {KERNEL_BTF}: {0}; boot a kernel with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf(String),
    #[error("{KERNEL_BTF}: {0}")]
    Btf(BtfError),
    #[error("create the maps of the probes: {0}; root or CAP_BPF with CAP_PERFMON is needed")]
    Load(String),
    #[error("this binary's probes have no map {0}; build it anew with `cargo xtask build`")]
    NoMap(&'static str),
    #[error("map {name} of the probes: {why}")]
    Map { name: &'static str, why: String },
}

/// The attached probes.
pub struct Probes {
    verdicts: Vec<HookVerdict>,
    maps: Maps,
    /// Reasons of migrations: `migrate_reason` of the running kernel, and ours.
    reasons: Vec<(String, u32)>,
    logger: EbpfLogger<&'static dyn log::Log>,
    /// Whether the beginnings and ends of faults can be seen here.
    can_time: bool,
    timing: Option<Timing>,
    /// Holds the programs and their attachments.
    ebpf: Ebpf,
}

impl Probes {
    /// Attaches every hook that this kernel has, but those of the signals in `off`.
    ///
    /// # Errors
    /// There is no BTF, or not even maps can be made. A missing hook is a verdict.
    pub fn load(off: &[&str], topology: &Topology) -> Result<Self, ProbesError> {
        Self::load_with(off, topology, u32::MAX)
    }

    /// The same with at most so many entries, a power of two, in each map that can be full.
    ///
    /// # Errors
    /// As [`Probes::load`].
    pub fn load_with(off: &[&str], topology: &Topology, most: u32) -> Result<Self, ProbesError> {
        if OBJECT.is_empty() {
            return Err(ProbesError::NoObject);
        }
        let blob = fs::read(KERNEL_BTF).map_err(|error| ProbesError::NoBtf(error.to_string()))?;
        let btf = Btf::parse(blob).map_err(ProbesError::Btf)?;
        let kernel =
            aya::Btf::from_sys_fs().map_err(|error| ProbesError::NoBtf(attach::in_full(&error)))?;
        let mut ebpf = load_object(&btf, &kernel, &maps::sizes(topology, most))?;
        maps::tell_nodes(&mut ebpf, topology)?;
        let logger = EbpfLogger::init(&mut ebpf)
            .map_err(|error| ProbesError::Load(attach::in_full(&error)))?;
        let maps = Maps::take(&mut ebpf, topology)?;
        let cpus: Vec<u32> = topology.cpus().map(|(cpu, _)| cpu).collect();
        let hooks = hooks::all(&btf);
        let mut verdicts: Vec<HookVerdict> = hooks
            .iter()
            .map(|hook| HookVerdict {
                signal: hook.signal,
                hook: hook.name(),
                state: if off.contains(&hook.signal) || off.contains(&hook.name().as_str()) {
                    HookState::Off
                } else {
                    attach::attach(&mut ebpf, hook, &kernel, &cpus)
                },
            })
            .collect();
        detach_halves(&mut ebpf, &hooks, &mut verdicts);
        if !off.contains(&CPU_TIME) && !verdicts.iter().any(is_attached(CPU_TIME)) {
            let hook = hooks::without_clock(&btf);
            let state = attach::attach(&mut ebpf, &hook, &kernel, &cpus);
            verdicts.push(HookVerdict { signal: hook.signal, hook: hook.name(), state });
        }
        let can_time = hooks
            .iter()
            .zip(&verdicts)
            .filter(|(hook, _)| hook.is_momentary())
            .all(|(_, verdict)| verdict.state == HookState::Attached);
        let reasons = reasons(&btf);
        Ok(Self { verdicts, maps, reasons, logger, can_time, timing: None, ebpf })
    }

    /// One for each hook that we know of.
    pub fn verdicts(&self) -> &[HookVerdict] {
        &self.verdicts
    }

    /// The name of a reason of `migrate_common::MigrationKey`.
    pub fn reason(&self, number: u32) -> &str {
        let found = self.reasons.iter().find(|(_, reason)| *reason == number);
        found.map_or("unknown", |(name, _)| name)
    }

    /// Whether CPU time is counted by process and node, by sampling or otherwise.
    pub fn count_cpu_time(&self) -> bool {
        self.verdicts.iter().any(is_attached(CPU_TIME))
    }

    /// Reads all maps, and hands the probes' own log records on.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn read(&mut self) -> Result<Counts, ProbesError> {
        self.logger.flush();
        self.maps.read(&self.reasons)
    }

    /// From here on the duration of every fault is taken, which costs each of them.
    pub fn time_faults(&mut self) {
        if self.can_time && self.timing.is_none() {
            let timing = Timing::start(&mut self.ebpf).inspect_err(|error| {
                tracing::warn!(error = attach::in_full(error), "faults are not timed")
            });
            self.timing = timing.ok();
        }
    }

    /// Faults that have begun are still timed until [`Probes::end_timed_faults`].
    pub fn stop_timing_faults(&mut self) {
        if let Some(timing) = &mut self.timing {
            timing.begin_no_more();
        }
    }

    /// No fault is timed any more.
    pub fn end_timed_faults(&mut self) {
        self.timing = None;
    }

    /// Numbers of some pages that a process has touched since the probes were attached, or since
    /// they were forgotten.
    pub fn touched(&self, tgid: u32) -> Vec<u64> {
        self.maps.touched(tgid)
    }

    /// Forgets what some processes touched.
    pub fn forget_touched(&mut self, whose: impl Fn(u32) -> bool) {
        self.maps.forget_touched(whose);
    }

    /// Frees the slots of exited processes, given what the last [`Probes::read`] saw.
    pub fn forget(&mut self, whose: &BTreeSet<u32>, seen: &Counts) {
        self.maps.forget(whose, seen);
    }

    /// The mover's own counters, once; none where migrations cannot be counted.
    pub fn own_moves(&mut self) -> Option<OwnMoves> {
        // Without the brackets no migration is known to be ours, and all moves would look empty.
        let needed = ["tp_btf mm_migrate_pages", "fentry migrate_to_node", "fexit migrate_to_node"];
        let counted = needed.iter().all(|needed| {
            let of = |verdict: &&HookVerdict| verdict.hook == *needed;
            self.verdicts.iter().find(of).is_some_and(|found| found.state == HookState::Attached)
        });
        if counted { OwnMoves::take(&mut self.ebpf) } else { None }
    }
}

fn is_attached(signal: &str) -> impl Fn(&HookVerdict) -> bool {
    move |verdict| verdict.signal == signal && verdict.state == HookState::Attached
}

/// A beginning without its end would leave behind what nobody takes away.
fn detach_halves(ebpf: &mut Ebpf, hooks: &[Hook], verdicts: &mut [HookVerdict]) {
    for (index, hook) in hooks.iter().enumerate() {
        let Some(end) = hook.ended_by(hooks) else { continue };
        let attached = |index: usize| verdicts[index].state == HookState::Attached;
        if attached(index) && !attached(end) {
            attach::detach(ebpf, hook);
            let why = format!("let go: {} is not attached", hooks[end].name());
            verdicts[index].state = HookState::Refused(why);
        }
    }
}

/// Makes the maps and hands the kernel's offsets to the probes.
fn load_object(btf: &Btf, kernel: &aya::Btf, sizes: &Sizes) -> Result<Ebpf, ProbesError> {
    let globals = hooks::globals(btf);
    // A slot there is found by a mask.
    let mask = sizes.callers - 1;
    let mut loader = EbpfLoader::new();
    loader.btf(Some(kernel));
    for (name, value) in &globals {
        loader.override_global(name, value, true);
    }
    loader.override_global("CALLERS_MASK", &mask, true);
    for (map, entries) in sizes.of_maps() {
        loader.map_max_entries(map, entries);
    }
    loader.load(OBJECT).map_err(|error| ProbesError::Load(attach::in_full(&error)))
}

/// `MR_NUMA_MISPLACED` = 5 becomes (`numa_misplaced`, 5).
fn reasons(btf: &Btf) -> Vec<(String, u32)> {
    let reasons = btf.values("migrate_reason").into_iter();
    let mut reasons: Vec<(String, u32)> = reasons
        .filter(|&(name, value)| name != "MR_TYPES" && value < REASONS)
        .map(|(name, value)| (name.trim_start_matches("MR_").to_ascii_lowercase(), value))
        .collect();
    let ours = [
        ("own", REASON_OWN),
        ("cpuset", REASON_CPUSET),
        ("khugepaged", REASON_KHUGEPAGED),
        ("other", REASON_OTHER),
    ];
    reasons.extend(ours.map(|(name, reason)| (name.to_owned(), reason)));
    reasons
}
