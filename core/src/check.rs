//! Up or down, from probes.
