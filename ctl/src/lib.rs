//! lvsmesh
