//! The replicated state, and its only writer.

/// Everything that the fleet has agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {}
