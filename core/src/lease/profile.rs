//! Timing profiles.

/// Named timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {}

/// Spans of the lease plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timing {}
