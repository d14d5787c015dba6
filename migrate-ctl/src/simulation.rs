//! Simulated: processes that never were, and what a policy makes of them.
//!
//! The yardstick of the policy. Nothing here runs in the daemon.

pub mod traces;
pub mod machines;
pub mod fleet;
pub mod game;
pub mod yardstick;
