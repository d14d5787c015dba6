//! How does one look around in a guest by hand?
//!
//! A shell on this terminal, or one command whose exit code becomes ours.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::guest::{self, Accel, DISTANCE, End, Guest, Load, Node, Rig, Topology};
use crate::kernels;
use crate::paths::say;
use crate::setup::{self, Part};

/// Long enough for whatever somebody watches by hand.
const TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernel series such as 6.1, or "newest".
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// A machine of the tests, in place of --nodes, --cpus and --memory.
    #[arg(long, value_enum, conflicts_with_all = ["nodes", "cpus", "memory"])]
    topology: Option<Topology>,
    /// Nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    nodes: u32,
    /// CPUs of each node.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Memory of each node in MiB.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(128..))]
    memory: u32,
    /// Distance between any two nodes; a node to itself is 10.
    #[arg(long, default_value_t = DISTANCE, value_parser = clap::value_parser!(u32).range(11..=254))]
    distance: u32,
    /// Really makes another node's memory so many times as slow as the own, by a plugin of the
    /// emulator.
    #[arg(long, value_parser = factor, conflicts_with = "accel")]
    far: Option<f64>,
    /// NUMA balancing of the guest's kernel; as the kernel has it if not given.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=1))]
    balancing: Option<u8>,
    /// KVM where the processor has it, else emulation.
    #[arg(long, value_enum)]
    accel: Option<Accel>,
    /// HOST:GUEST, a TCP port of this machine's loopback and the guest's port behind it.
    #[arg(long, value_parser = ports)]
    forward: Option<(u16, u16)>,
    /// Size of an empty disk in MiB; may be given again: /dev/vda, /dev/vdb, ….
    #[arg(long)]
    disk: Vec<u64>,
    /// Program and arguments to run in place of a shell.
    #[arg(last = true)]
    command: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    setup::prepare(&[Part::Ebpf, Part::Qemu, Part::Busybox], &[&args.kernel])?;
    let kernel = kernels::find(&args.kernel)?;
    let shell = args.command.is_empty();
    let settings: Vec<_> =
        args.balancing.iter().map(|balancing| ("balancing", balancing.to_string())).collect();
    let rig = Rig::new()?;
    let far = args.far.map(|factor| rig.far(factor)).transpose()?;
    let load = Load { command: args.command, settings: &settings, programs: None, far };
    let machine = rig.guest("vm", &kernel, &load)?;
    let one = Node { cpus: args.cpus, memory_mib: args.memory };
    let nodes = match args.topology {
        Some(topology) => topology.nodes(),
        None => (0..args.nodes).map(|_| one).collect(),
    };
    let machine = Guest {
        accel: args.accel,
        nodes,
        distance: args.distance,
        tiers: args.topology.is_some_and(Topology::tiers),
        forward: args.forward,
        disks: args.disk,
        timeout: TIMEOUT,
        ..machine
    };
    if shell {
        say(format!(
            "kernel {}; leave with `exit`, stop the machine with Ctrl-A X",
            kernel.release
        ));
        guest::attach(&machine)?;
        return Ok(ExitCode::SUCCESS);
    }
    match guest::boot(&machine, |line| say(line))? {
        End::Exit(code) => Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)),
        End::Died => bail!("the guest died: {}", guest::log(&machine.name).display()),
        End::TimedOut => bail!("the guest ran for more than {} h", TIMEOUT.as_secs() / 3600),
    }
}

fn factor(text: &str) -> Result<f64> {
    let factor = text.parse::<f64>().with_context(|| format!("no number: {text:?}"))?;
    ensure!((1.0..=100.0).contains(&factor), "a factor of {factor}: it lies between 1 and 100");
    Ok(factor)
}

fn ports(text: &str) -> Result<(u16, u16)> {
    let (host, inside) = text.split_once(':').with_context(|| format!("no colon in {text:?}"))?;
    let port = |port: &str| port.parse::<u16>().with_context(|| format!("no port: {port:?}"));
    let (host, inside) = (port(host)?, port(inside)?);
    ensure!(host != 0 && inside != 0, "port 0 in {text:?}");
    Ok((host, inside))
}
