//! The same ticks, played by different policies: what would each have cost?

pub mod world;
pub(crate) mod past;
pub(crate) mod field;
