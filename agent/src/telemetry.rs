//! telemetry.

pub mod propagate;
