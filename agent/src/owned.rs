//! owned.
