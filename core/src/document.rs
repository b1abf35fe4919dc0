//! A YAML or JSON tree becomes a document, and a document becomes such a tree.
//!
//! *In*: a [`Value`], from a file or from the wire. *Out*: a [`Document`] that keeps every rule, or every [`Fault`] at once, each with its
//! path and, where there is one, a hint: `services[0].scheduler: no scheduler "wlcc"; did you mean "wlc"?`.
//!
//! Keys are the field names of `lvsmesh/v1/desired.proto` without unit suffix ([`schema`]), enums their lower-case words, durations text
//! (`6s`). What lvsmesh is meant to do and does not do yet is refused by name.

mod advice;
mod check;
mod fault;
pub mod level;
pub mod limits;
mod read;
pub mod schema;
mod value;
mod write;

pub use advice::advice;
pub use check::check;
pub use fault::Fault;
pub use value::Value;
pub use write::encode;

use crate::model::Document;

/// Reads a document and checks every rule that can be checked without knowing the fleet.
///
/// # Errors
///
/// Every fault: what cannot be read in the tree's order, then what breaks a rule. A rule that rests on a value that cannot be read is not
/// reported as well.
pub fn decode(value: &Value) -> Result<Document, Vec<Fault>> {
    let (document, mut faults) = read::document(value);
    let read = faults.len();
    for finding in check::findings(&document) {
        if !finding.rests_on_any(&faults[..read]) {
            faults.push(finding.fault);
        }
    }
    if faults.is_empty() { Ok(document) } else { Err(faults) }
}

/// Reads a document without checking rules between values, or limits narrower than a value's type.
///
/// For what passed [`decode`] once already: a log entry that an older version committed stays readable when a rule becomes stricter.
///
/// # Errors
///
/// Every key that is unknown or missing, and every value that is not of its type.
pub fn decode_committed(value: &Value) -> Result<Document, Vec<Fault>> {
    let (document, faults) = read::document(value);
    if faults.is_empty() { Ok(document) } else { Err(faults) }
}

#[cfg(test)]
mod tests;
