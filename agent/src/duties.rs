//! duties.
