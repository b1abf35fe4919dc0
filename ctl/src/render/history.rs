//! Revisions.

use lvsmesh_core::document::Value;
use lvsmesh_proto::v1::Revision;

use super::time;
use crate::tree::{map, number, texts};

/// One block a revision, newest first.
pub(crate) fn table(revisions: &[Revision]) -> String {
    if revisions.is_empty() {
        return "no document was ever applied\n".to_owned();
    }
    let blocks: Vec<String> = revisions.iter().map(block).collect();
    blocks.join("\n")
}

fn block(revision: &Revision) -> String {
    let Revision { revision, author, unix_ms, message, changes } = revision;
    let mut text = format!("revision {revision}  {}  {author}\n", time(*unix_ms));
    for line in message.lines() {
        text += &format!("    {line}\n");
    }
    for change in changes {
        text += &format!("  {change}\n");
    }
    text
}

pub(crate) fn tree(revision: &Revision) -> Value {
    map([
        ("revision", number(revision.revision)),
        ("author", Value::Text(revision.author.clone())),
        ("unix_ms", number(revision.unix_ms)),
        ("time", Value::Text(time(revision.unix_ms))),
        ("message", Value::Text(revision.message.clone())),
        ("changes", texts(&revision.changes)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_says_who_when_why_and_what() {
        let revisions = [
            Revision {
                revision: 2,
                author: "ann@ops (unverified)".into(),
                unix_ms: 1_709_210_096_789,
                message: "rotate\nevenly".into(),
                changes: vec!["services/web: scheduler wlc -> rr".into()],
            },
            Revision {
                revision: 1,
                author: "operator/bob".into(),
                unix_ms: 0,
                message: String::new(),
                changes: vec!["vips/web: added".into(), "services/web: added".into()],
            },
        ];
        insta::assert_snapshot!(table(&revisions), @r"
        revision 2  2024-02-29T12:34:56Z  ann@ops (unverified)
            rotate
            evenly
          services/web: scheduler wlc -> rr

        revision 1  1970-01-01T00:00:00Z  operator/bob
          vips/web: added
          services/web: added
        ");
        assert_eq!(table(&[]), "no document was ever applied\n");
    }
}
