//! What went wrong, what to do about it, and the exit code.

use lvsmesh_core::document::Fault;
use lvsmesh_proto::v1;

use tonic::{Code, Status};

use crate::render::time;

/// Exit codes, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or nothing to do.
    Done,
    /// Failed.
    Failed,
    /// Wrong usage.
    Usage,
    /// Changes are pending.
    Pending,
    /// The fleet serves less than it should, or survives less.
    Degraded,
    /// No such thing.
    NotFound,
    /// The desired state moved on.
    Conflict,
    /// No majority of voters can be reached.
    NoQuorum,
    /// The agent did not answer in time.
    TimedOut,
    /// Not allowed.
    Denied,
}

impl Exit {
    /// The number; 7 is free.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Pending | Self::Degraded => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::NoQuorum => 6,
            Self::TimedOut => 8,
            Self::Denied => 9,
        }
    }
}

/// A command's end, if something went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// One line, with causes behind colons.
    pub(crate) message: String,
    /// More lines that belong to the message.
    pub(crate) details: Vec<String>,
    /// What to do.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), details: Vec::new(), hint: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// A document that is refused, whoever found what is wrong with it.
    pub(crate) fn faults(name: &str, faults: &[Fault]) -> Self {
        let count = match faults.len() {
            1 => "1 fault".to_owned(),
            count => format!("{count} faults"),
        };
        Self {
            details: faults.iter().map(ToString::to_string).collect(),
            ..Self::new(Exit::Failed, format!("{name} has {count}; nothing was changed"))
        }
    }

    /// What an agent said no with.
    pub(crate) fn of(status: &Status) -> Self {
        if let Some(faults) = trailer::<v1::Faults>(status, "lvsmesh-faults-bin") {
            let faults: Vec<Fault> = faults
                .faults
                .into_iter()
                .map(|v1::Fault { path, message, hint }| Fault {
                    path,
                    message,
                    hint: (!hint.is_empty()).then_some(hint),
                })
                .collect();
            return Self::faults("the document", &faults);
        }

        let no_quorum = is_no_quorum(status) || reason(status) == Some("unconfirmed");
        let exit = match status.code() {
            _ if tls_refusal(status).is_some() => Exit::Denied,
            Code::Aborted => Exit::Conflict,
            Code::NotFound => Exit::NotFound,
            Code::Unauthenticated | Code::PermissionDenied => Exit::Denied,
            // What tonic makes of a deadline that passes on this side.
            Code::Cancelled | Code::DeadlineExceeded => Exit::TimedOut,
            Code::Unavailable if no_quorum => Exit::NoQuorum,
            Code::Ok
            | Code::Unknown
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Exit::Failed,
        };
        let mut message = status.message().to_owned();
        if message.is_empty() {
            message = status.code().description().to_owned();
        }
        if no_quorum && !message.contains("no quorum") {
            message = format!("no quorum: {message}");
        }
        // Only what went wrong on this side has a source.
        if let Some(source) = source(status) {
            let cause = chain(source);
            if !message.contains(&cause) {
                message =
                    if cause.contains(&message) { cause } else { format!("{message}: {cause}") };
            }
        }
        let conflict = trailer::<v1::HistoryResponse>(status, "lvsmesh-conflict-bin");
        let hint = text_trailer(status, "lvsmesh-hint-bin").or_else(|| default_hint(exit));
        Self { details: conflict.map_or_else(Vec::new, since), hint, ..Self::new(exit, message) }
    }

    /// For stderr: `error: …`, details, a blank line, `hint: …`.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for detail in &self.details {
            text += &format!("  {detail}\n");
        }
        if let Some(hint) = &self.hint {
            text += &format!("\nhint: {hint}\n");
        }
        text
    }
}

/// Who changed what since the revision that a change was made against.
fn since(history: v1::HistoryResponse) -> Vec<String> {
    let mut revisions = history.revisions;
    revisions.sort_by_key(|revision| revision.revision);
    let mut lines = Vec::new();
    for revision in revisions {
        let v1::Revision { revision, author, unix_ms, message, changes } = revision;
        let message = if message.is_empty() { String::new() } else { format!(": {message}") };
        lines.push(format!("revision {revision} by {author} at {}{message}", time(unix_ms)));
        lines.extend(changes.into_iter().map(|change| format!("  {change}")));
    }
    lines
}

fn default_hint(exit: Exit) -> Option<String> {
    match exit {
        Exit::Conflict => Some(
            "`lvsctl get` prints the current state; redo the edit on it, and name its revision with --expected-revision".into(),
        ),
        Exit::NoQuorum => Some(
            "`lvsctl status` shows which nodes can be reached; changes wait until a majority of voters is back".into(),
        ),
        Exit::Denied => Some("--ca, --cert and --key must be an operator's certificate of this fleet".into()),
        Exit::TimedOut => Some(
            "a change may still have been made: `lvsctl history` tells; --timeout allows more time".into(),
        ),
        Exit::Done
        | Exit::Failed
        | Exit::Usage
        | Exit::Pending
        | Exit::Degraded
        | Exit::NotFound => None,
    }
}

/// Whether the agent says that no majority of voters can be reached. Then nothing was changed.
pub(crate) fn is_no_quorum(status: &Status) -> bool {
    reason(status) == Some("no-quorum")
}

/// The agent takes no part in its fleet: it is no member, or its log failed. It has passed nothing on.
pub(crate) fn is_out_of_it(status: &Status) -> bool {
    matches!(reason(status), Some("no-member" | "no-log"))
}

fn reason(status: &Status) -> Option<&str> {
    status.metadata().get("lvsmesh-reason")?.to_str().ok()
}

fn trailer<M: prost::Message + Default>(status: &Status, name: &'static str) -> Option<M> {
    let bytes = status.metadata().get_bin(name)?.to_bytes().ok()?;
    M::decode(bytes).ok()
}

fn text_trailer(status: &Status, name: &'static str) -> Option<String> {
    let bytes = status.metadata().get_bin(name)?.to_bytes().ok()?;
    String::from_utf8(bytes.to_vec()).ok().filter(|text| !text.is_empty())
}

/// Joins an error and its sources: `transport error: connection refused`. A source that only repeats what is said already is left out.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = source(error);
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = source(error);
    }
    text
}

/// What a TLS handshake or an alert in its place said, if that is what went wrong.
pub(crate) fn tls_refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(error.to_string());
        }
        // h2 keeps only the text of an I/O error. In TLS 1.3 a server refuses a client's certificate after the handshake has ended.
        let text = error.to_string();
        if let Some(start) = text.find("received fatal alert") {
            return Some(text[start..].to_owned());
        }
        next = source(error);
    }
    None
}

/// The error's cause. What an I/O error wraps is not its source but itself.
fn source<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a (dyn std::error::Error + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests;
