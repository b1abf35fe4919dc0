//! Other programs' configurations become a document, and a document becomes theirs.
//!
//! ```text
//!   keepalived.conf ─▶ keepalived: read ─▶ take ─▶ merge, translate ─┐
//!   ipvsadm -Sn ─────▶ ipvsadm ─────────────────▶ Table ─────────────┼▶ Draft ─▶ assemble ─▶ Document, Report
//!   a live kernel ───▶ table ───────────────────▶ Table ─────────────┘
//!   Document ────────▶ export ─▶ keepalived.conf, ipvsadm -Sn
//! ```
//!
//! Pure: files are read and agents are asked in `command/`.

#[cfg(test)]
#[path = "../../core/src/document/arbitrary.rs"]
mod arbitrary;
pub(crate) mod assemble;
mod draft;
pub(crate) mod export;
mod fates;
pub(crate) mod ipvsadm;
pub(crate) mod keepalived;
pub(crate) mod kernel;
mod name;
pub(crate) mod report;
mod table;

use lvsmesh_core::model::Document;
// `arbitrary` looks for it beside itself.
#[cfg(test)]
use lvsmesh_core::model;

use report::Report;

/// What an import gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// It keeps every rule of the document, unless a remark says otherwise.
    pub(crate) document: Document,
    pub(crate) report: Report,
}
