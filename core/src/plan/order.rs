//! Which operation must precede which.
