//! The gRPC server.

pub mod authority;
pub mod status;
