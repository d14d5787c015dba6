//! Which nodes does a guest have?

use clap::ValueEnum;

/// One node; either number may be 0, but not both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
}

/// The machines that the tests boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topology {
    /// Two equal nodes.
    Two,
    /// A machine without NUMA.
    One,
    /// Four small nodes.
    Four,
    /// Nodes 0 and 1 are complete; node 2 has memory and no CPU.
    ///
    /// Linux numbers the nodes with CPUs first, so no other can be without.
    Cpuless,
    /// Nodes 0 and 2 are complete; node 1 has CPUs and no memory.
    Memoryless,
}

impl Topology {
    /// The name as the command line and the guest's tests have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Two => "two",
            Self::One => "one",
            Self::Four => "four",
            Self::Cpuless => "cpuless",
            Self::Memoryless => "memoryless",
        }
    }

    /// Between any two nodes; not the same everywhere, so that tests do not come to rely on it.
    pub(crate) fn distance(self) -> u32 {
        match self {
            Self::Four => 31,
            Self::Two | Self::One | Self::Cpuless | Self::Memoryless => super::DISTANCE,
        }
    }

    /// Whether its firmware tells how slow each node's memory is, beside the distances.
    pub(crate) fn tiers(self) -> bool {
        self == Self::Cpuless
    }

    /// Its nodes, by number.
    pub(crate) fn nodes(self) -> Vec<Node> {
        let whole = Node { cpus: 2, memory_mib: 1024 };
        let single = Node { cpus: 1, memory_mib: 1024 };
        match self {
            Self::Two => vec![whole; 2],
            Self::One => vec![whole],
            Self::Four => vec![single; 4],
            Self::Cpuless => vec![single, single, Node { cpus: 0, memory_mib: 1024 }],
            Self::Memoryless => vec![single, Node { cpus: 1, memory_mib: 0 }, single],
        }
    }
}
