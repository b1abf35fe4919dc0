//! Wire and disk forms ↔ core's nouns, one file a message family.
//!
//! *In*: messages from the network or the disk. *Out*: core's values, or an error that names the field. Rules of the desired state are
//! core's alone ([`lvsmesh_core::document`]): its wire form is turned into the same tree as a YAML document, and read by the same code.

mod desired;
mod ipvs;
mod log;
mod status;

pub use desired::Refused;
pub use ipvs::Impossible;
pub use log::{DecodeError, Entry, decode_entry, decode_snapshot, encode_entry, encode_snapshot};

#[cfg(test)]
#[path = "../../core/src/document/arbitrary.rs"]
mod arbitrary;
#[cfg(test)]
use lvsmesh_core::model;
