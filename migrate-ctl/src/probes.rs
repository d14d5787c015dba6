//! Loads the probes, attaches what fits this kernel, reads what they counted.
//!
//! The only module that names aya. Which program fits is decided by the
//! kernel's BTF, never by its version. A hook that is not there or is refused
//! costs its signal and becomes a verdict. Nothing is pinned: dropping
//! [`Probes`] detaches all of it, and so does the kernel when we are killed.

use std::collections::BTreeMap;
use std::fs;

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{BtfTracePoint, FEntry, FExit, PerfEvent, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader, Pod};
use aya_log::EbpfLogger;
use migrate_common::{
    CpuKey, HintKey, LOST_SLOTS, Latency, MigrationKey, MigrationTotals, OwnMove, REASONS,
    SAMPLE_PERIOD_NS, TaskCounters,
};

use crate::btf::{Btf, BtfError};
use crate::model::NodeId;
use crate::mover::MoveCounter;
use crate::snapshot::{HookState, HookVerdict};

mod hooks;

use hooks::{Hook, Kind};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probes.o"));

const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

#[derive(Debug, thiserror::Error)]
pub enum ProbesError {
    #[error("this binary has no probes inside; build it with `cargo xtask build`")]
    NoObject,
    #[error("read {KERNEL_BTF}: {0}; boot a kernel with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf(std::io::Error),
    #[error("{KERNEL_BTF}: {0}")]
    Btf(#[from] BtfError),
    #[error("{KERNEL_BTF}: {0}")]
    AyaBtf(#[from] aya::BtfError),
    #[error("create the maps: {0}; root or CAP_BPF is needed")]
    Load(#[from] EbpfError),
    #[error("map {name}: {source}")]
    Map { name: &'static str, source: MapError },
}

/// Everything counted since the probes were attached, but for processes forgotten since.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub tasks: BTreeMap<u32, TaskCounters>,
    /// Samples, one each [`SAMPLE_PERIOD_NS`] of CPU time.
    pub cpu: BTreeMap<CpuKey, u64>,
    pub hints: BTreeMap<HintKey, u64>,
    pub migrations: BTreeMap<MigrationKey, MigrationTotals>,
    /// By reason, as this kernel names it; every reason that it has.
    pub latency: Vec<(String, Latency)>,
    /// By slot of `migrate_common::Lost`.
    pub lost: [u64; LOST_SLOTS as usize],
}

/// The attached probes.
pub struct Probes {
    ebpf: Ebpf,
    verdicts: Vec<HookVerdict>,
    reasons: Vec<(String, u32)>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
}

impl Probes {
    /// Attaches every hook that this kernel has, but those of the signals in `off`.
    ///
    /// # Errors
    /// There is no BTF, or not even maps can be made. A missing hook is a verdict.
    pub fn load(
        off: &[&str],
        cpus: impl Iterator<Item = (u32, NodeId)>,
    ) -> Result<Self, ProbesError> {
        if OBJECT.is_empty() {
            return Err(ProbesError::NoObject);
        }
        let btf = Btf::parse(fs::read(KERNEL_BTF).map_err(ProbesError::NoBtf)?)?;
        let aya_btf = aya::Btf::from_sys_fs()?;
        let mut ebpf = load_object(&btf, &aya_btf)?;
        let cpus: Vec<(u32, NodeId)> = cpus.collect();
        tell_nodes(&mut ebpf, &cpus)?;
        let mut probes = Self {
            logger: EbpfLogger::init(&mut ebpf).ok(),
            ebpf,
            verdicts: Vec::new(),
            reasons: reasons(&btf),
        };
        for hook in hooks::all(&btf) {
            let state = if off.contains(&hook.signal) {
                HookState::Off
            } else {
                probes.attach(&hook, &aya_btf, &cpus)
            };
            probes.verdicts.push(HookVerdict { signal: hook.signal, hook: hook.name(), state });
        }
        Ok(probes)
    }

    /// One for each hook that we know of.
    pub fn verdicts(&self) -> &[HookVerdict] {
        &self.verdicts
    }

    /// Whether all hooks of a signal are attached.
    pub fn has(&self, signal: &str) -> bool {
        let mut hooks = self.verdicts.iter().filter(|hook| hook.signal == signal).peekable();
        hooks.peek().is_some() && hooks.all(|hook| hook.state == HookState::Attached)
    }

    /// Reads all maps, and hands the probes' own log records on.
    pub fn read(&mut self) -> Result<Counts, ProbesError> {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        let mut counts = Counts {
            tasks: self.entries("TASKS")?,
            cpu: self.entries("CPU_TIME")?,
            hints: self.entries("HINTS")?,
            migrations: self.entries("MIGRATIONS")?,
            ..Counts::default()
        };
        let latency: PerCpuArray<&MapData, Latency> = self.map("LATENCY")?;
        for (name, reason) in &self.reasons {
            let slots = latency.get(reason, 0).map_err(at("LATENCY"))?;
            counts.latency.push((name.clone(), slots.iter().fold(Latency::default(), sum)));
        }
        let lost: PerCpuArray<&MapData, u64> = self.map("LOST")?;
        for (slot, count) in (0..).zip(&mut counts.lost) {
            *count = lost.get(&slot, 0).map_err(at("LOST"))?.iter().sum();
        }
        Ok(counts)
    }

    /// Frees the slots of an exited process, given what the last [`Probes::read`] saw.
    pub fn forget(&mut self, tgid: u32, seen: &Counts) {
        // An entry that is gone already is just what we want.
        if let Ok(mut tasks) = self.map_mut::<HashMap<_, u32, TaskCounters>>("TASKS") {
            let _ = tasks.remove(&tgid);
        }
        if let Ok(mut cpu) = self.map_mut::<HashMap<_, CpuKey, u64>>("CPU_TIME") {
            for key in seen.cpu.keys().filter(|key| key.tgid == tgid) {
                let _ = cpu.remove(key);
            }
        }
        if let Ok(mut hints) = self.map_mut::<HashMap<_, HintKey, u64>>("HINTS") {
            for key in seen.hints.keys().filter(|key| key.tgid == tgid) {
                let _ = hints.remove(key);
            }
        }
        if let Ok(mut all) = self.map_mut::<HashMap<_, MigrationKey, MigrationTotals>>("MIGRATIONS")
        {
            for key in seen.migrations.keys().filter(|key| key.tgid == tgid) {
                let _ = all.remove(key);
            }
        }
    }

    /// The mover's own counters, once; none where migrations cannot be seen.
    pub fn own_moves(&mut self) -> Option<OwnMoves> {
        if !self.has("migrations") {
            return None;
        }
        let moves = HashMap::try_from(self.ebpf.take_map("OWN_MOVES")?).ok()?;
        let moving = HashMap::try_from(self.ebpf.take_map("MOVING")?).ok()?;
        Some(OwnMoves { moves, moving })
    }

    fn attach(&mut self, hook: &Hook, btf: &aya::Btf, cpus: &[(u32, NodeId)]) -> HookState {
        let program = match &hook.program {
            Ok(program) => *program,
            Err(why) => return HookState::Absent(why.clone()),
        };
        match self.try_attach(hook, program, btf, cpus) {
            Ok(()) => HookState::Attached,
            Err(error) => HookState::Refused(in_short(&error)),
        }
    }

    fn try_attach(
        &mut self,
        hook: &Hook,
        program: &str,
        btf: &aya::Btf,
        cpus: &[(u32, NodeId)],
    ) -> Result<(), ProgramError> {
        let missing = || ProgramError::IOError(std::io::ErrorKind::NotFound.into());
        let program = self.ebpf.program_mut(program).ok_or_else(missing)?;
        match hook.kind {
            Kind::FEntry => {
                let program: &mut FEntry = program.try_into()?;
                program.load(hook.function, btf)?;
                program.attach()?;
            }
            Kind::FExit => {
                let program: &mut FExit = program.try_into()?;
                program.load(hook.function, btf)?;
                program.attach()?;
            }
            Kind::TracePoint => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(hook.function, btf)?;
                program.attach()?;
            }
            Kind::CpuClock => {
                let program: &mut PerfEvent = program.try_into()?;
                program.load()?;
                for &(cpu, _) in cpus {
                    program.attach(
                        PerfEventConfig::Software(SoftwareEvent::CpuClock),
                        PerfEventScope::AllProcessesOneCpu { cpu },
                        SamplePolicy::Period(SAMPLE_PERIOD_NS),
                        false,
                    )?;
                }
            }
        }
        Ok(())
    }

    fn entries<K: Pod + Ord, V: Pod>(
        &self,
        name: &'static str,
    ) -> Result<BTreeMap<K, V>, ProbesError> {
        let map: HashMap<&MapData, K, V> = self.map(name)?;
        // An entry that vanishes while we walk belongs to a process that we forget anyway.
        Ok(map.iter().filter_map(Result::ok).collect())
    }

    fn map<'a, M>(&'a self, name: &'static str) -> Result<M, ProbesError>
    where
        M: TryFrom<&'a aya::maps::Map, Error = MapError>,
    {
        let map = self.ebpf.map(name).ok_or(ProbesError::Map { name, source: no_map() })?;
        M::try_from(map).map_err(at(name))
    }

    fn map_mut<'a, M>(&'a mut self, name: &'static str) -> Result<M, ProbesError>
    where
        M: TryFrom<&'a mut aya::maps::Map, Error = MapError>,
    {
        let map = self.ebpf.map_mut(name).ok_or(ProbesError::Map { name, source: no_map() })?;
        M::try_from(map).map_err(at(name))
    }
}

/// Counters of the moves that the mover's thread carries out.
pub struct OwnMoves {
    moves: HashMap<MapData, u32, OwnMove>,
    moving: HashMap<MapData, u32, u32>,
}

impl MoveCounter for OwnMoves {
    fn begin(&mut self, tid: u32, target: u32) {
        let fresh = OwnMove { target, ..OwnMove::default() };
        // Where the slot cannot be made nothing is counted: the move then shows as 0 pages.
        let made =
            self.moves.insert(tid, fresh, 0).and_then(|()| self.moving.insert(target, tid, 0));
        if let Err(error) = made {
            tracing::warn!(%error, target, "this move will not be counted");
        }
    }

    fn end(&mut self, tid: u32) -> OwnMove {
        let counted = self.moves.get(&tid, 0).unwrap_or_default();
        // What is gone already need not be removed.
        let _ = self.moving.remove(&counted.target);
        let _ = self.moves.remove(&tid);
        counted
    }
}

/// Makes the maps and hands the kernel's offsets to the probes.
fn load_object(btf: &Btf, aya_btf: &aya::Btf) -> Result<Ebpf, ProbesError> {
    // nodemask_t has a bit for each possible node, so log2 of its bits is NODES_SHIFT; the node
    // sits in the uppermost bits of page->flags.
    let node_bits = btf.size_of("nodemask_t").map_or(0, |bytes| (bytes * 8).ilog2());
    let globals = [
        ("MM_OWNER", btf.offset("mm_struct", "owner").unwrap_or(0)),
        ("TASK_TGID", btf.offset("task_struct", "tgid").unwrap_or(0)),
        ("TASK_MEMPOLICY", btf.offset("task_struct", "mempolicy").unwrap_or(0)),
        ("TASK_SIGNAL", btf.offset("task_struct", "signal").unwrap_or(0)),
        ("SIGNAL_LIVE", btf.offset("signal_struct", "live").unwrap_or(0)),
        ("NODE_SHIFT", 64 - node_bits),
    ];
    let mut loader = EbpfLoader::new();
    loader.btf(Some(aya_btf));
    for (name, value) in &globals {
        loader.override_global(name, value, true);
    }
    Ok(loader.load(OBJECT)?)
}

fn tell_nodes(ebpf: &mut Ebpf, cpus: &[(u32, NodeId)]) -> Result<(), ProbesError> {
    let name = "NODE_OF_CPU";
    let map = ebpf.map_mut(name).ok_or(ProbesError::Map { name, source: no_map() })?;
    let mut nodes: Array<&mut MapData, u32> = Array::try_from(map).map_err(at(name))?;
    for &(cpu, node) in cpus {
        nodes.set(cpu, u32::from(node.0) + 1, 0).map_err(at(name))?;
    }
    Ok(())
}

/// `MR_NUMA_MISPLACED` = 5 becomes (`numa_misplaced`, 5).
fn reasons(btf: &Btf) -> Vec<(String, u32)> {
    btf.values("migrate_reason")
        .into_iter()
        .filter(|(name, _)| name != "MR_TYPES")
        .filter_map(|(name, value)| {
            let value = u32::try_from(value).ok().filter(|&value| (value as usize) < REASONS)?;
            Some((name.trim_start_matches("MR_").to_ascii_lowercase(), value))
        })
        .collect()
}

fn sum(mut all: Latency, one: &Latency) -> Latency {
    all.calls += one.calls;
    all.moved += one.moved;
    all.failed += one.failed;
    all.nanos += one.nanos;
    for (all, one) in all.buckets.iter_mut().zip(&one.buckets) {
        *all += one;
    }
    all
}

/// The kernel's answer without the verifier's log, which may be pages long.
fn in_short(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        let said = log.lines().rev().find(|line| !line.starts_with("processed"));
        return match said.map(str::trim).filter(|said| !said.is_empty()) {
            Some(said) => format!("{io_error}; the verifier says: {said}"),
            None => io_error.to_string(),
        };
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn at(name: &'static str) -> impl Fn(MapError) -> ProbesError {
    move |source| ProbesError::Map { name, source }
}

fn no_map() -> MapError {
    MapError::IoError(std::io::ErrorKind::NotFound.into())
}
