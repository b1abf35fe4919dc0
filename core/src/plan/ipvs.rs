//! Services and destinations.
