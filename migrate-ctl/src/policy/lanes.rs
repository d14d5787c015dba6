//! A number for each node, eight to a block.
//!
//! A tick walks thousands of rows, and each row's numbers several times. A loop
//! over as many nodes as the machine happens to have is neither unrolled nor
//! vectorised; one over a block is both. Hardly a machine has a second block, so
//! nothing hangs off a row.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

const WIDTH: usize = 8;

/// Reads as a slice, one number per node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<f64>", into = "Vec<f64>")]
pub(crate) struct Lanes {
    nodes: usize,
    /// The lanes behind the last node hold whatever comes of what was put there.
    blocks: SmallVec<[[f64; WIDTH]; 1]>,
}

impl Lanes {
    /// So many nodes, and this for each of them.
    pub(crate) fn reset(&mut self, nodes: usize, value: f64) {
        self.nodes = nodes;
        let blocks = nodes.div_ceil(WIDTH);
        if self.blocks.len() != blocks {
            self.blocks.resize(blocks, [value; WIDTH]);
        }
        self.blocks.iter_mut().for_each(|block| *block = [value; WIDTH]);
    }

    /// So many nodes: these values, and 0 where they are fewer.
    pub(crate) fn set(&mut self, nodes: usize, values: impl Iterator<Item = f64>) {
        self.reset(nodes, 0.0);
        self.iter_mut().zip(values).for_each(|(lane, value)| *lane = value);
    }

    /// Becomes what the other is.
    pub(crate) fn copy(&mut self, other: &Self) {
        self.nodes = other.nodes;
        if self.blocks.len() == other.blocks.len() {
            self.blocks.copy_from_slice(&other.blocks);
        } else {
            self.blocks.clone_from(&other.blocks);
        }
    }

    /// Each becomes what `f` makes of it and of the other's.
    pub(crate) fn with(&mut self, other: &Self, f: impl Fn(f64, f64) -> f64) {
        for (block, other) in self.blocks.iter_mut().zip(&other.blocks) {
            for (lane, other) in block.iter_mut().zip(other) {
                *lane = f(*lane, *other);
            }
        }
    }

    /// The same with two others.
    pub(crate) fn with_both(&mut self, a: &Self, b: &Self, f: impl Fn(f64, f64, f64) -> f64) {
        for ((block, a), b) in self.blocks.iter_mut().zip(&a.blocks).zip(&b.blocks) {
            for ((lane, a), b) in block.iter_mut().zip(a).zip(b) {
                *lane = f(*lane, *a, *b);
            }
        }
    }

    /// The sum of what `f` makes of each and of the other's, node after node.
    pub(crate) fn sum_with(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> f64 {
        let (mut sum, mut left) = (0.0, self.nodes);
        for (block, other) in self.blocks.iter().zip(&other.blocks) {
            let mut terms = [0.0; WIDTH];
            for ((term, lane), other) in terms.iter_mut().zip(block).zip(other) {
                *term = f(*lane, *other);
            }
            sum = terms.iter().take(left).fold(sum, |sum, term| sum + term);
            left = left.saturating_sub(WIDTH);
        }
        sum
    }

    /// Infinite if there are none.
    pub(crate) fn least(&self) -> f64 {
        self.iter().fold(f64::INFINITY, |least, &lane| if lane < least { lane } else { least })
    }
}

impl Deref for Lanes {
    type Target = [f64];

    fn deref(&self) -> &[f64] {
        &self.blocks.as_flattened()[..self.nodes]
    }
}

impl DerefMut for Lanes {
    fn deref_mut(&mut self) -> &mut [f64] {
        &mut self.blocks.as_flattened_mut()[..self.nodes]
    }
}

impl From<Vec<f64>> for Lanes {
    fn from(values: Vec<f64>) -> Self {
        let mut lanes = Self::default();
        lanes.set(values.len(), values.into_iter());
        lanes
    }
}

impl From<Lanes> for Vec<f64> {
    fn from(lanes: Lanes) -> Self {
        lanes.to_vec()
    }
}

/// What stands before each node: nothing where it is open, and no way past it where it is closed.
pub(crate) fn walls(open: impl ExactSizeIterator<Item = bool>) -> Lanes {
    let mut walls = Lanes::default();
    walls.set(open.len(), open.map(wall));
    walls
}

/// To be added to a cost.
fn wall(open: bool) -> f64 {
    if open { 0.0 } else { f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::Lanes;

    #[test]
    fn any_number_of_nodes_reads_as_one_slice() {
        for nodes in [0, 1, 2, 7, 8, 9, 16, 20] {
            let values: Vec<f64> = (0..nodes).map(f64::from).collect();
            let mut lanes = Lanes::from(values.clone());
            assert_eq!(lanes[..], values[..]);
            let other = Lanes::from(vec![2.0; values.len()]);
            assert_eq!(lanes.sum_with(&other, |a, b| a * b), values.iter().sum::<f64>() * 2.0);
            lanes.with(&other, |a, b| a + b);
            lanes.with_both(&other, &other, |lane, a, b| lane - a - b);
            assert!(lanes.iter().zip(&values).all(|(lane, value)| *lane == value - 2.0));
            assert_eq!(lanes.least(), if nodes > 0 { -2.0 } else { f64::INFINITY });
        }
    }

    #[test]
    fn what_was_there_before_is_gone() {
        let mut lanes = Lanes::from(vec![1.0; 12]);
        lanes.set(9, [3.0].into_iter());
        assert_eq!(lanes.iter().sum::<f64>(), 3.0);
        assert_eq!(lanes.len(), 9);
    }
}
