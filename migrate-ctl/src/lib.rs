//! Decides when a process's memory should follow its CPU.
//!
//! probes → sampler → task table → policy → mover → ledger → exporter
pub mod model;
