//! Decides when a process's memory should follow its CPU, moves it, and checks
//! what it got for it.
//!
//! probes → sampler → task table → policy → mover → ledger → exporter
//!
//! One way through: each stage takes the values of the one before. The modules
//! stand in that order; `ARCHITECTURE.md` has the map.

pub mod model;

pub mod sys;

pub mod btf;
pub mod probes;
pub mod topology;
pub mod procfs;
pub mod latency;
pub mod hardware;
pub mod placement;
mod pool;
pub mod sampler;

pub mod config;
pub mod table;
pub mod policy;
pub mod guards;
pub mod plain;
pub mod contest;
pub mod simulation;
pub mod assess;

pub mod mover;
pub mod ledger;
pub mod journal;
pub mod replay;

pub mod snapshot;
pub mod cgroups;
pub mod own;
pub mod metrics;
pub mod http;
pub mod explain;
pub mod status;
pub mod control;
pub mod ask;

pub mod instance;
pub mod start;
pub mod daemon;
pub mod doctor;
pub mod report;
