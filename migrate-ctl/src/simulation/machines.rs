//! What machines do simulated processes run on?

use std::str::FromStr;

use crate::model::{Est, Node, NodeId, NodeObs, NodeVec, Pages, Source};

/// Free on each node, in 4 KiB pages: 64 GiB.
const FREE: Pages = 1 << 24;
/// A usual high watermark of such a node.
const HIGH_WATERMARK: Pages = 16_384;
/// The most nodes that a machine of equal distances may have.
const MOST: usize = 8;

/// Two sockets of AMD EPYC 7001: four dies each (`numactl --hardware`).
const NAPLES: [[u8; 8]; 8] = sockets(16);
/// Two sockets of AMD EPYC 7002 with four nodes per socket (NPS4).
const ROME: [[u8; 8]; 8] = sockets(12);
/// Four sockets of AMD Opteron 6200, two dies each, on HyperTransport links that do not join all
/// of them (`numactl --hardware`).
const OPTERON: [[u8; 8]; 8] = [
    [10, 16, 16, 22, 16, 22, 16, 22],
    [16, 10, 22, 16, 22, 16, 22, 16],
    [16, 22, 10, 16, 16, 22, 16, 22],
    [22, 16, 16, 10, 22, 16, 22, 16],
    [16, 22, 16, 22, 10, 16, 16, 22],
    [22, 16, 22, 16, 16, 10, 22, 16],
    [16, 22, 16, 22, 16, 22, 10, 16],
    [22, 16, 22, 16, 22, 16, 16, 10],
];

/// Two sockets of four nodes, so far from each other within one, and 32 beyond.
const fn sockets(within: u8) -> [[u8; 8]; 8] {
    let mut rows = [[32; 8]; 8];
    let mut at = 0;
    while at < 64 {
        let (from, to) = (at / 8, at % 8);
        if from == to {
            rows[from][to] = 10;
        } else if from / 4 == to / 4 {
            rows[from][to] = within;
        }
        at += 1;
    }
    rows
}

/// Distances between nodes, as firmware states them: 10 is local.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine(Vec<Vec<u8>>);

impl Machine {
    /// All nodes at distance 20 from each other.
    pub fn uniform(nodes: usize) -> Self {
        Self(
            (0..nodes)
                .map(|from| (0..nodes).map(|to| if from == to { 10 } else { 20 }).collect())
                .collect(),
        )
    }

    /// Of this machine its first so many nodes.
    #[must_use]
    pub fn first(mut self, nodes: usize) -> Self {
        self.0.truncate(nodes);
        self.0.iter_mut().for_each(|row| row.truncate(nodes));
        self
    }

    pub fn nodes(&self) -> usize {
        self.0.len()
    }

    /// As the sampler would see them.
    pub fn observe(&self) -> NodeVec<NodeObs> {
        let ratio = |distance: u8| Est::exact(f32::from(distance) / 10.0, Source::Firmware);
        let row = |node: Node| &self.0[usize::from(node.0)];
        NodeVec::from_fn(self.nodes(), |from| NodeObs {
            id: NodeId(from.0),
            has_cpus: true,
            has_memory: true,
            free: FREE,
            high_watermark: HIGH_WATERMARK,
            inactive_file: 0,
            reclaimed: 0,
            latency: NodeVec::from_fn(self.nodes(), |to| ratio(row(from)[usize::from(to.0)])),
        })
    }
}

/// Names no machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no machine; write a number of nodes from 2 to 8, naples, rome or opteron")]
pub struct MachineError(String);

impl FromStr for Machine {
    type Err = MachineError;

    fn from_str(text: &str) -> Result<Self, MachineError> {
        let table = |rows: [[u8; 8]; 8]| Self(rows.iter().map(|row| row.to_vec()).collect());
        match text {
            "naples" => Ok(table(NAPLES)),
            "rome" => Ok(table(ROME)),
            "opteron" => Ok(table(OPTERON)),
            _ => match text.parse() {
                Ok(nodes) if (2..=MOST).contains(&nodes) => Ok(Self::uniform(nodes)),
                Ok(_) | Err(_) => Err(MachineError(text.to_owned())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Machine;

    #[test]
    fn distances_are_symmetric_and_least_at_home() {
        for name in ["2", "8", "naples", "rome", "opteron"] {
            let Machine(rows) = name.parse().unwrap();
            for (from, row) in rows.iter().enumerate() {
                for (to, &distance) in row.iter().enumerate() {
                    assert_eq!(distance, rows[to][from], "{name}");
                    assert_eq!(distance == 10, from == to, "{name}");
                }
            }
        }
    }

    #[test]
    fn what_names_no_machine_is_refused() {
        for bad in ["", "1", "9", "-2", "xeon"] {
            let error = bad.parse::<Machine>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{bad}`")) && error.contains("write"), "{error}");
        }
    }
}
