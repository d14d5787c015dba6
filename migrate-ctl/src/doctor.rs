//! `migrate-ctl doctor`: can the controller run here, and what will it see?
//!
//! Looks, attaches every probe once and lets go of it again. Changes nothing.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustix::thread::CapabilitySet;
use serde::Serialize;

use crate::hardware::{Hardware, HardwareError};
use crate::model::{Est, NodeId, NodeVec};
use crate::probes::Probes;
use crate::snapshot::{HookState, HookVerdict};
use crate::topology::{Topology, TopologyError};
use crate::{latency, procfs, sys};

/// A controller answers at once or not at all.
const ANSWER: Duration = Duration::from_secs(2);
/// Bytes of the longest scrape that is read.
const LONGEST: u64 = 16 << 20;

#[derive(Serialize)]
pub struct Report {
    pub checks: Vec<Check>,
    pub hooks: Vec<HookVerdict>,
    pub nodes: Vec<NodeLine>,
    /// Whether `run` would start.
    pub can_run: bool,
}

/// One thing that was looked at.
#[derive(Serialize)]
pub struct Check {
    pub name: &'static str,
    pub level: Level,
    pub found: String,
    /// What to do about it; empty where all is well.
    pub remedy: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Good,
    /// Something is lost, the rest works.
    Lost,
    /// The controller does not start.
    Fatal,
}

#[derive(Serialize)]
pub struct NodeLine {
    pub node: NodeId,
    pub cpus: bool,
    pub free_mib: u64,
    pub memory: bool,
    /// By node: latency ÷ local latency, as the firmware says.
    pub ratios: NodeVec<f32>,
    /// The same as measured just now.
    pub measured: NodeVec<Option<Est>>,
}

/// `controller` is where one that runs answers `/metrics`.
pub fn examine(root: &Path, controller: SocketAddr) -> Report {
    let mut checks = vec![kernel(root), user(), btf(root), capabilities()];
    let (topology, nodes) = nodes(root, &mut checks);
    let hooks = topology.as_ref().map_or_else(Vec::new, |topology| hooks(topology, &mut checks));
    checks.extend([
        perf_event_paranoid(root, &hooks),
        lockdown(root),
        pid_namespace(root),
        numa_balancing(root, nodes.len()),
    ]);
    checks.extend(topology.map(|topology| pmu(root, &topology)));
    checks.push(events_lost(controller));
    let can_run = checks.iter().all(|check| check.level != Level::Fatal);
    Report { checks, hooks, nodes, can_run }
}

fn good(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, level: Level::Good, found: found.into(), remedy: String::new() }
}

fn lost(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name, level: Level::Lost, found: found.into(), remedy: remedy.into() }
}

fn fatal(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name, level: Level::Fatal, found: found.into(), remedy: remedy.into() }
}

fn read(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned())
}

fn kernel(root: &Path) -> Check {
    good("kernel", read(root, "proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()))
}

fn user() -> Check {
    match sys::plain_user() {
        None => good("user", "root"),
        Some(user) => fatal("user", format!("user {user}"), "run as root: sudo migrate-ctl doctor"),
    }
}

fn btf(root: &Path) -> Check {
    match fs::metadata(root.join("sys/kernel/btf/vmlinux")) {
        Ok(file) => good("btf", format!("/sys/kernel/btf/vmlinux, {} KiB", file.len() / 1024)),
        Err(error) => fatal(
            "btf",
            format!("/sys/kernel/btf/vmlinux: {error}"),
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y; Debian's 6.1 and later have it",
        ),
    }
}

fn capabilities() -> Check {
    let needed = [
        (CapabilitySet::BPF, "CAP_BPF (no probe can be loaded)"),
        (CapabilitySet::PERFMON, "CAP_PERFMON (no probe can be attached)"),
        (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE (no other process can be read or moved)"),
        (
            CapabilitySet::SYS_ADMIN,
            "CAP_SYS_ADMIN (placement is asked of the kernel page by page, and perf may be refused)",
        ),
    ];
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(capability, _)| !sys::has_cap(*capability))
        .map(|(_, effect)| *effect)
        .collect();
    if missing.is_empty() {
        good("capabilities", "all that is used")
    } else {
        lost(
            "capabilities",
            format!("without {}", missing.join(", ")),
            "grant them, for instance in AmbientCapabilities= of the unit",
        )
    }
}

fn nodes(root: &Path, checks: &mut Vec<Check>) -> (Option<Topology>, Vec<NodeLine>) {
    let look = || {
        let topology = Topology::read(root)?;
        let observed = topology.observe(root)?;
        Ok::<_, TopologyError>((topology, observed))
    };
    let (topology, observed) = match look() {
        Ok(seen) => seen,
        Err(error) => {
            checks.push(fatal("nodes", error.to_string(), "mount sysfs on /sys and proc on /proc"));
            return (None, Vec::new());
        }
    };
    let measured = latency::measure(&topology).unwrap_or_else(|error| {
        checks.push(lost(
            "latency",
            error.to_string(),
            "without a measurement the firmware's distances are taken; free memory on each node",
        ));
        None
    });
    let lines: Vec<NodeLine> = observed
        .iter()
        .map(|(position, node)| NodeLine {
            measured: measured.as_ref().map_or_else(NodeVec::default, |all| all[position].clone()),
            node: node.id,
            cpus: node.has_cpus,
            memory: node.has_memory,
            free_mib: node.free / 256,
            ratios: NodeVec::from_fn(node.latency.len(), |to| node.latency[to].mid),
        })
        .collect();
    checks.push(if topology.matters() {
        good("nodes", format!("{}", lines.len()))
    } else {
        good("nodes", format!("{}: nowhere to move memory to, nothing to do here", lines.len()))
    });
    (Some(topology), lines)
}

fn hooks(topology: &Topology, checks: &mut Vec<Check>) -> Vec<HookVerdict> {
    match Probes::load(&[], topology) {
        Ok(probes) => {
            let hooks = probes.verdicts().to_vec();
            let attached = hooks.iter().filter(|hook| hook.state == HookState::Attached).count();
            let found = format!("{attached} of {} attached", hooks.len());
            checks.push(if attached == hooks.len() {
                good("hooks", found)
            } else {
                lost("hooks", found, "each is named below; its signal is lost, the rest works")
            });
            hooks
        }
        Err(error) => {
            checks.push(fatal("hooks", error.to_string(), "see the checks above"));
            Vec::new()
        }
    }
}

fn perf_event_paranoid(root: &Path, hooks: &[HookVerdict]) -> Check {
    let found = read(root, "proc/sys/kernel/perf_event_paranoid");
    let level = found.unwrap_or_else(|| "no perf events in this kernel".to_owned());
    let counted_by =
        hooks.iter().find(|hook| hook.signal == "cpu_time" && hook.state == HookState::Attached);
    if let Some(hook) = counted_by {
        good("perf_event_paranoid", format!("{level}; CPU time is counted by {}", hook.hook))
    } else {
        lost(
            "perf_event_paranoid",
            format!(
                "{level}; CPU time comes from /proc, coarser, and processes with threads stay, \
                 since nobody sees the threads' memory policies"
            ),
            "grant CAP_SYS_ADMIN, or CAP_PERFMON with kernel.perf_event_paranoid at 2",
        )
    }
}

fn lockdown(root: &Path) -> Check {
    let found = read(root, "sys/kernel/security/lockdown").unwrap_or_else(|| "none".to_owned());
    if found.contains("[confidentiality]") {
        lost("lockdown", "confidentiality: probes may not read kernel memory", "boot without it")
    } else {
        good("lockdown", found)
    }
}

fn pid_namespace(root: &Path) -> Check {
    match procfs::foreign_pid_namespace(root) {
        Ok(None) => good("pid_namespace", "the initial one"),
        Ok(Some(namespace)) => fatal(
            "pid_namespace",
            format!("{namespace}: the probes' pids are not the pids seen here"),
            "run on the host, or with hostPID / --pid=host",
        ),
        Err(error) => fatal("pid_namespace", error.to_string(), "mount proc on /proc"),
    }
}

fn numa_balancing(root: &Path, nodes: usize) -> Check {
    match read(root, "proc/sys/kernel/numa_balancing").as_deref() {
        _ if nodes == 1 => good("numa_balancing", "one node: hint faults are not applicable"),
        Some("0") => good(
            "numa_balancing",
            "off: no hint faults, and the kernel moves no page for being remote",
        ),
        Some(mode) => good(
            "numa_balancing",
            format!("{mode}: on; hint faults are seen, and the kernel moves pages by itself"),
        ),
        None => good("numa_balancing", "not in this kernel: no hint faults"),
    }
}

/// Whether the processor itself says where accesses go.
fn pmu(root: &Path, topology: &Topology) -> Check {
    match Hardware::open(root, topology) {
        Ok(hardware) => good(
            "pmu",
            format!(
                "{}: loads are sampled; shown only, and never tried on such a machine",
                hardware.name()
            ),
        ),
        Err(error @ HardwareError::NoPmu) => {
            good("pmu", format!("{error}: remote accesses are estimated, not sampled"))
        }
        Err(error) => lost(
            "pmu",
            error.to_string(),
            "remote accesses are estimated instead; perf has to be allowed, and the PMU be free",
        ),
    }
}

/// Only a controller that runs knows what its probes could not count.
fn events_lost(controller: SocketAddr) -> Check {
    const NAME: &str = "events_lost";
    let Ok(metrics) = scrape(controller) else {
        return good(NAME, format!("no controller answers on {controller}"));
    };
    let lost_events = lost_events(&metrics);
    if lost_events.is_empty() {
        good(NAME, "none since the running controller started")
    } else {
        lost(
            NAME,
            format!("since the running controller started: {}", lost_events.join(", ")),
            "what is counted is only a part of what happened while this grows: start it anew \
             when there are fewer processes",
        )
    }
}

/// The series of one metric that are not 0, as `tasks 12`.
fn lost_events(metrics: &str) -> Vec<String> {
    let series = metrics.lines().filter_map(|line| {
        let (event, count) =
            line.strip_prefix("migrate_events_lost_total{event=\"")?.split_once("\"} ")?;
        (count != "0").then(|| format!("{event} {count}"))
    });
    series.collect()
}

fn scrape(controller: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&controller, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {controller}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    Ok(answer)
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            writeln!(f, "{:5} {:20} {}", mark(check.level), check.name, check.found)?;
            if !check.remedy.is_empty() {
                writeln!(f, "{:26} remedy: {}", "", check.remedy)?;
            }
        }
        for node in &self.nodes {
            let ratios: Vec<String> =
                node.ratios.values().map(|ratio| format!("{ratio:.1}")).collect();
            writeln!(
                f,
                "      node {:15} {}, {}; latency ratios {} (firmware){}",
                node.node.0,
                if node.cpus { "with CPUs" } else { "no CPUs" },
                if node.memory {
                    format!("{} MiB free", node.free_mib)
                } else {
                    "no memory".into()
                },
                ratios.join(" "),
                measured(&node.measured),
            )?;
        }
        for hook in &self.hooks {
            let (level, why) = match &hook.state {
                HookState::Attached => (Level::Good, "attached".to_owned()),
                HookState::Absent(why) => (Level::Lost, format!("absent: {why}")),
                HookState::Refused(why) => (Level::Lost, format!("refused: {why}")),
                HookState::Off => (Level::Lost, "switched off".to_owned()),
            };
            writeln!(f, "{:5} {:20} {}: {why}", mark(level), hook.signal, hook.hook)?;
        }
        let verdict = if self.can_run { "can run here" } else { "cannot run here" };
        write!(f, "migrate-ctl {verdict}")
    }
}

fn measured(ratios: &NodeVec<Option<Est>>) -> String {
    let shown = ratios.values().map(|ratio| match ratio {
        Some(Est { low, mid, high, .. }) => format!(" {mid:.2} ({low:.2} to {high:.2})"),
        None => " -".to_owned(),
    });
    if ratios.is_empty() {
        String::new()
    } else {
        format!(",{} (measured)", shown.collect::<String>())
    }
}

fn mark(level: Level) -> &'static str {
    match level {
        Level::Good => "ok",
        Level::Lost => "lost",
        Level::Fatal => "FATAL",
    }
}

#[cfg(test)]
mod tests {
    use super::lost_events;

    #[test]
    fn only_events_that_were_lost_are_named() {
        let metrics = "# HELP migrate_events_lost_total x\n\
                       migrate_events_lost_total{event=\"hints\"} 0\n\
                       migrate_events_lost_total{event=\"tasks\"} 12\n\
                       migrate_ticks_total 3\n";
        assert_eq!(lost_events(metrics), ["tasks 12"]);
    }
}
