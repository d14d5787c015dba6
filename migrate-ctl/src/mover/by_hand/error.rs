//! Why a move by hand did not happen: one line each, with the value and a remedy.

use std::io;

use crate::model::{NodeId, Pages};
use crate::topology::TopologyError;

/// Why there was no move.
#[derive(Debug, thiserror::Error)]
pub enum HandError {
    #[error("node {node} does not exist: choose from {known}")]
    UnknownNode { node: NodeId, known: String },
    #[error("node {node} has no memory: choose from {known}")]
    NoMemory { node: NodeId, known: String },
    #[error("pages are to go from node {node} to itself: name two nodes")]
    SameNode { node: NodeId },
    #[error("process {pid} does not exist (any more): look for its number again")]
    Gone { pid: u32 },
    #[error("process {pid} ({comm}) is a kernel thread and has no pages: name a process")]
    KernelThread { pid: u32, comm: String },
    #[error("not permitted to move process {pid}: run as root or with {needed}")]
    NotPermitted { pid: u32, needed: &'static str },
    #[error(
        "the cpuset of process {pid} allows nodes {allowed}, not {node}: widen its cpuset.mems"
    )]
    Cpuset { pid: u32, node: NodeId, allowed: String },
    #[error(
        "node {node} has room for {room} pages and {needed} are to come: free memory on it first"
    )]
    NoRoom { node: NodeId, room: Pages, needed: Pages },
    #[error("look at the nodes")]
    Topology(#[from] TopologyError),
    #[error("move the pages of process {pid}")]
    Kernel { pid: u32, source: io::Error },
}

/// What a caller does about a [`HandError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandErrorKind {
    /// The arguments make no sense on this machine.
    BadInput,
    Gone,
    NotPermitted,
    /// All is well, but nothing could be moved.
    NothingMoved,
    Internal,
}

impl HandError {
    pub fn kind(&self) -> HandErrorKind {
        match self {
            Self::UnknownNode { .. }
            | Self::NoMemory { .. }
            | Self::SameNode { .. }
            | Self::KernelThread { .. } => HandErrorKind::BadInput,
            Self::Gone { .. } => HandErrorKind::Gone,
            Self::NotPermitted { .. } | Self::Cpuset { .. } => HandErrorKind::NotPermitted,
            Self::NoRoom { .. } => HandErrorKind::NothingMoved,
            Self::Topology(_) | Self::Kernel { .. } => HandErrorKind::Internal,
        }
    }
}
