//! Which command line makes QEMU a machine with these nodes?

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use super::{Guest, Node};
use crate::paths::dies_with_us;

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// Emulation: works everywhere.
    Tcg,
    /// The processor's own virtualisation.
    Kvm,
    /// Emulation in which an instruction takes a virtual nanosecond: slow, one processor at a
    /// time, and the same in every run.
    Counted,
}

/// QEMU with everything but the console.
pub(super) fn command(guest: &Guest, disks: &[PathBuf]) -> Command {
    // A guest left behind would take a machine's processors until somebody looks.
    let mut qemu = dies_with_us(&guest.qemu);
    // Without `erms` and `fsrm` the emulator copies pages word by word: with
    // them a byte at a time, and every move looks far too slow.
    // Only an emulator sees every access.
    let accel = guest.accel.or_else(|| guest.far.as_ref().map(|_| Accel::Tcg));
    match accel.unwrap_or_else(available) {
        Accel::Tcg => qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max,-erms,-fsrm"]),
        Accel::Kvm => qemu.args(["-accel", "kvm", "-cpu", "host"]),
        Accel::Counted => {
            qemu.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
            qemu.args(["-cpu", "max,-erms,-fsrm"])
        }
    };
    qemu.args(["-display", "none", "-vga", "none", "-no-reboot", "-nodefaults"]);
    if let Some(far) = &guest.far {
        qemu.args(["-plugin", &far.argument(guest)]);
    }
    qemu.args(machine(&guest.nodes, guest.distance, guest.tiers));
    if guest.tiers {
        qemu.args(tiers(&guest.nodes));
    }
    qemu.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&guest.initrd);
    // A kernel that stumbles must end the guest: what it counts afterwards is worth nothing.
    qemu.args(["-append", "console=ttyS0 quiet panic=-1 oops=panic"]);
    if let Some((host, inside)) = guest.forward {
        let user =
            format!("user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{host}-10.0.2.15:{inside}");
        qemu.args(["-netdev", &user, "-device", "virtio-net-pci,netdev=n0,romfile="]);
    }
    for (number, disk) in disks.iter().enumerate() {
        qemu.arg("-drive").arg(drive(number, disk));
        qemu.args(["-device", &format!("virtio-blk-pci,drive=d{number}")]);
    }
    qemu
}

/// KVM only where the processor offers it: a nested `/dev/kvm` without the
/// flag is somebody's emulation of it, under which a stock kernel hangs.
fn available() -> Accel {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = processor.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let real = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    let ours = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if real && ours { Accel::Kvm } else { Accel::Tcg }
}

/// Of a node without CPUs by the firmware's distances, however slow its tables of latency call it:
/// a controller that goes by distances alone would think it the best place for what all share.
const BARE: u32 = 11;

/// Memory, processors, and who is how far from whom.
fn machine(nodes: &[Node], distance: u32, tiers: bool) -> Vec<String> {
    let memory: u32 = nodes.iter().map(|node| node.memory_mib).sum();
    let cpus: u32 = nodes.iter().map(|node| node.cpus).sum();
    let mut args: Vec<String> = vec!["-m".into(), format!("{memory}M"), "-smp".into()];
    args.push(sockets(nodes, cpus));
    let mut first = 0;
    for (id, node) in nodes.iter().enumerate() {
        let mut numa = format!("node,nodeid={id}");
        if node.cpus > 0 {
            numa += &format!(",cpus={first}-{}", first + node.cpus - 1);
            first += node.cpus;
        } else if tiers {
            numa += ",initiator=0";
        }
        if node.memory_mib > 0 {
            let backend = format!("memory-backend-ram,id=m{id},size={}M", node.memory_mib);
            args.extend(["-object".into(), backend]);
            numa += &format!(",memdev=m{id}");
        }
        args.extend(["-numa".into(), numa]);
    }
    for from in 0..nodes.len() {
        for to in (0..nodes.len()).filter(|to| *to != from) {
            let bare = tiers && (nodes[from].cpus == 0 || nodes[to].cpus == 0);
            let val = if bare { BARE } else { distance };
            args.extend(["-numa".into(), format!("dist,src={from},dst={to},val={val}")]);
        }
    }
    args
}

/// Latency and bandwidth of each memory from each CPU: without CPUs a tenth as good.
fn tiers(nodes: &[Node]) -> Vec<String> {
    let mut args: Vec<String> = vec!["-machine".into(), "hmat=on".into()];
    let cpus = (0..nodes.len()).filter(|&node| nodes[node].cpus > 0);
    for (from, to) in cpus.flat_map(|from| (0..nodes.len()).map(move |to| (from, to))) {
        let (nanos, gigabytes) = if nodes[to].cpus > 0 { (10, 10) } else { (100, 1) };
        for figure in [
            format!("access-latency,latency={nanos}"),
            format!("access-bandwidth,bandwidth={gigabytes}G"),
        ] {
            let of = format!("hmat-lb,initiator={from},target={to},hierarchy=memory");
            args.extend(["-numa".into(), format!("{of},data-type={figure}")]);
        }
    }
    args
}

/// A socket to a node: the kernel distrusts caches that two nodes share.
fn sockets(nodes: &[Node], cpus: u32) -> String {
    let mut sizes = nodes.iter().map(|node| node.cpus).filter(|cpus| *cpus > 0);
    let first = sizes.next().unwrap_or(1);
    let cores = if sizes.all(|size| size == first) { first } else { 1 };
    format!("cpus={cpus},sockets={},cores={cores},threads=1", cpus / cores)
}

/// Commas end a value in QEMU's lists, two of them are one in the path.
fn drive(number: usize, disk: &Path) -> String {
    let path = disk.display().to_string().replace(',', ",,");
    format!("file={path},if=none,id=d{number},format=raw,cache=unsafe")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_cpus_and_one_without_memory_keep_their_numbers() {
        let nodes = [
            Node { cpus: 2, memory_mib: 512 },
            Node { cpus: 0, memory_mib: 256 },
            Node { cpus: 1, memory_mib: 0 },
        ];
        let args = machine(&nodes, 21, false).join(" ");
        assert!(args.starts_with("-m 768M -smp cpus=3,sockets=3,cores=1,threads=1 "), "{args}");
        assert!(args.contains("-numa node,nodeid=0,cpus=0-1,memdev=m0"), "{args}");
        assert!(args.contains("-numa node,nodeid=1,memdev=m1"), "{args}");
        assert!(args.contains("-numa node,nodeid=2,cpus=2-2 "), "{args}");
        assert_eq!(args.matches("val=21").count(), 6, "every pair both ways: {args}");
    }

    #[test]
    fn equal_nodes_are_sockets() {
        let two = [Node { cpus: 2, memory_mib: 512 }; 2];
        assert_eq!(sockets(&two, 4), "cpus=4,sockets=2,cores=2,threads=1");
    }
}
