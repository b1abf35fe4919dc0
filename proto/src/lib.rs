//! The wire and disk forms of lvsmesh, and their translation to core's nouns ([`convert`]).

pub mod backup;
pub mod convert;

/// `lvsmesh.v1`: what operators see.
#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    reason = "generated; which of these it trips changes with the generator"
)]
pub mod v1 {
    tonic::include_proto!("lvsmesh.v1");
}

/// `lvsmesh.internal.v1`: between agents and on disk.
pub mod internal {
    /// Version 1.
    #[allow(
        clippy::all,
        clippy::allow_attributes_without_reason,
        missing_debug_implementations,
        unreachable_pub,
        unused_qualifications,
        reason = "generated; which of these it trips changes with the generator"
    )]
    pub mod v1 {
        tonic::include_proto!("lvsmesh.internal.v1");
    }
}

/// The compiled descriptor set of every `.proto` file.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
