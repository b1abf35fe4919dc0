//! What is shown to operators: history and faults.

use lvsmesh_core::command::RevisionSummary;
use lvsmesh_core::document::Fault;

use crate::v1;

impl From<&RevisionSummary> for v1::Revision {
    fn from(summary: &RevisionSummary) -> Self {
        Self {
            revision: summary.revision,
            author: summary.author.clone(),
            unix_ms: summary.unix_ms,
            message: summary.message.clone(),
            changes: summary.changes.clone(),
        }
    }
}

impl From<v1::Revision> for RevisionSummary {
    fn from(wire: v1::Revision) -> Self {
        let v1::Revision { revision, author, unix_ms, message, changes } = wire;
        Self { revision, author, unix_ms, message, changes }
    }
}

impl From<&[Fault]> for v1::Faults {
    fn from(faults: &[Fault]) -> Self {
        Self { faults: faults.iter().map(Into::into).collect() }
    }
}

impl From<v1::Faults> for Vec<Fault> {
    fn from(wire: v1::Faults) -> Self {
        wire.faults.into_iter().map(Into::into).collect()
    }
}

impl From<&Fault> for v1::Fault {
    fn from(fault: &Fault) -> Self {
        Self {
            path: fault.path.clone(),
            message: fault.message.clone(),
            hint: fault.hint.clone().unwrap_or_default(),
        }
    }
}

impl From<v1::Fault> for Fault {
    fn from(wire: v1::Fault) -> Self {
        let v1::Fault { path, message, hint } = wire;
        Self { path, message, hint: (!hint.is_empty()).then_some(hint) }
    }
}
