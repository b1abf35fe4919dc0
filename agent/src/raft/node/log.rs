//! What raft-rs says, as tracing events.

use slog::{Drain, Level, Never, OwnedKVList, Record};

/// A logger for raft-rs. Its `info` is about protocol steps, which are `debug` here.
pub(super) fn logger() -> slog::Logger {
    slog::Logger::root(Events, slog::o!())
}

struct Events;

impl Drain for Events {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        let text = record.msg();
        match record.level() {
            Level::Critical | Level::Error => {
                tracing::error!(target: "raft", text = %text, "raft-rs");
            }
            Level::Warning => {
                tracing::warn!(target: "raft", text = %text, "raft-rs");
            }
            Level::Info => {
                tracing::debug!(target: "raft", text = %text, "raft-rs");
            }
            Level::Debug | Level::Trace => {
                tracing::trace!(target: "raft", text = %text, "raft-rs");
            }
        }
        Ok(())
    }
}
