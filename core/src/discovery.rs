//! What a source's answers mean.
