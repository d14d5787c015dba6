//! The exporter as its readers meet it: the text, the sockets, the document
//! and the dashboard, all held against the one table of metrics.

#![expect(clippy::unwrap_used, reason = "helpers of tests stand outside of test functions")]

mod dashboard;
mod document;
mod exposition;
mod sample;
mod server;
