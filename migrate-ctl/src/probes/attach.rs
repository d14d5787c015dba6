//! Loads one program and attaches it to its hook.

use std::error::Error;
use std::io::ErrorKind;

use aya::Ebpf;
use aya::programs::fentry::FEntryLink;
use aya::programs::fexit::FExitLink;
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{BtfTracePoint, FEntry, FExit, PerfEvent, ProgramError};
use migrate_common::SAMPLE_PERIOD_NS;

use super::hooks::{Hook, Kind};
use crate::snapshot::HookState;

/// What became of the hook. Where it is refused, nothing of it stays in the kernel.
pub(super) fn attach(ebpf: &mut Ebpf, hook: &Hook, btf: &aya::Btf, cpus: &[u32]) -> HookState {
    let program = match &hook.program {
        Ok(program) => *program,
        Err(why) => return HookState::Absent(why.clone()),
    };
    match try_attach(ebpf, hook, program, btf, cpus) {
        Ok(()) => HookState::Attached,
        Err(error) => {
            tracing::debug!(hook = hook.name(), error = in_full(&error), "refused");
            HookState::Refused(in_short(&error))
        }
    }
}

/// Lets go of what [`attach`] attached.
pub(super) fn detach(ebpf: &mut Ebpf, hook: &Hook) {
    if let Err(error) = try_detach(ebpf, hook) {
        tracing::warn!(hook = hook.name(), error = in_full(&error), "cannot be detached");
    }
}

fn try_detach(ebpf: &mut Ebpf, hook: &Hook) -> Result<(), ProgramError> {
    let program = hook.program.as_ref().ok().and_then(|name| ebpf.program_mut(name));
    let program = program.ok_or_else(|| ProgramError::IOError(ErrorKind::NotFound.into()))?;
    match hook.kind {
        Kind::FEntry => <&mut FEntry>::try_from(program)?.unload(),
        Kind::FExit => <&mut FExit>::try_from(program)?.unload(),
        Kind::TracePoint => <&mut BtfTracePoint>::try_from(program)?.unload(),
        Kind::CpuClock => <&mut PerfEvent>::try_from(program)?.unload(),
    }
}

fn try_attach(
    ebpf: &mut Ebpf,
    hook: &Hook,
    program: &str,
    btf: &aya::Btf,
    cpus: &[u32],
) -> Result<(), ProgramError> {
    let missing = || ProgramError::IOError(ErrorKind::NotFound.into());
    let program = ebpf.program_mut(program).ok_or_else(missing)?;
    match hook.kind {
        Kind::FEntry => {
            let program: &mut FEntry = program.try_into()?;
            program.load(hook.function, btf)?;
            let link = program.attach().inspect_err(|_| drop(program.unload()))?;
            // That it can be attached is all that we wanted to know.
            if hook.is_momentary() { program.detach(link) } else { Ok(()) }
        }
        Kind::FExit => {
            let program: &mut FExit = program.try_into()?;
            program.load(hook.function, btf)?;
            let link = program.attach().inspect_err(|_| drop(program.unload()))?;
            if hook.is_momentary() { program.detach(link) } else { Ok(()) }
        }
        Kind::TracePoint => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(hook.function, btf)?;
            program.attach().map(drop).inspect_err(|_| drop(program.unload()))
        }
        Kind::CpuClock => {
            let program: &mut PerfEvent = program.try_into()?;
            program.load()?;
            sample(program, cpus).inspect_err(|_| drop(program.unload()))
        }
    }
}

/// Both halves of what is on every fault's way. Each detaches when it is dropped.
pub(super) struct Timing {
    begin: Option<FEntryLink>,
    _end: FExitLink,
}

impl Timing {
    /// The ends first: a beginning without one would be forgotten, not missed.
    pub(super) fn start(ebpf: &mut Ebpf) -> Result<Self, ProgramError> {
        let missing = || ProgramError::IOError(ErrorKind::NotFound.into());
        let program = ebpf.program_mut("handle_mm_fault_leave").ok_or_else(missing)?;
        let program: &mut FExit = program.try_into()?;
        let end = program.attach().and_then(|link| program.take_link(link))?;
        let program = ebpf.program_mut("handle_mm_fault_enter").ok_or_else(missing)?;
        let program: &mut FEntry = program.try_into()?;
        let begin = program.attach().and_then(|link| program.take_link(link))?;
        Ok(Self { begin: Some(begin), _end: end })
    }

    /// No further fault is timed, but those that have begun are.
    pub(super) fn begin_no_more(&mut self) {
        self.begin = None;
    }
}

/// One clock for each CPU.
fn sample(program: &mut PerfEvent, cpus: &[u32]) -> Result<(), ProgramError> {
    for &cpu in cpus {
        program.attach(
            PerfEventConfig::Software(SoftwareEvent::CpuClock),
            PerfEventScope::AllProcessesOneCpu { cpu },
            SamplePolicy::Period(SAMPLE_PERIOD_NS),
            false,
        )?;
    }
    Ok(())
}

/// The kernel's answer without the verifier's log, which may be pages long.
fn in_short(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return in_full(error) };
    let log = verifier_log.to_string();
    let mut said = log.lines().rev().map(str::trim);
    match said.find(|line| !line.is_empty() && !line.starts_with("processed")) {
        Some(said) => format!("{io_error}; the verifier says: {said}"),
        None => io_error.to_string(),
    }
}

/// An error with its causes, but for those that its own text repeats.
pub(super) fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&cause| cause.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
