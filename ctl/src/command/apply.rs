//! `lvsctl apply`.

use lvsmesh_core::document::Value;
use lvsmesh_core::model::Document;
use lvsmesh_proto::v1;

use crate::args::Apply;
use crate::client::{Client, Repeat};
use crate::failure::{Exit, Failure};
use crate::manifest;
use crate::output::{Done, Format, present};
use crate::tree::{map, number, texts};

/// Longest message that agents take, in bytes.
const LONGEST_MESSAGE: usize = 1000;

/// Everything that can be found wrong here.
pub(super) fn read(apply: &Apply) -> Result<Document, Failure> {
    let length = apply.message.len();
    if length > LONGEST_MESSAGE {
        return Err(Failure::usage(format!(
            "--message has {length} bytes, above the limit of {LONGEST_MESSAGE}"
        )));
    }
    manifest::read(&apply.file)
}

pub(super) async fn run(
    client: &Client,
    format: Format,
    apply: Apply,
    document: Document,
) -> Result<Done, Failure> {
    let request = v1::ApplyRequest {
        document: Some(v1::Document::from(&document)),
        expected_revision: apply.expected_revision,
        message: apply.message,
        unverified_author: author(),
        dry_run: apply.dry_run,
    };
    let answer = client
        .call(Repeat::IfUndone, request, async |control, request| control.apply(request).await)
        .await?;
    let text = present(format, &tree(&answer, apply.dry_run), || table(&answer, apply.dry_run))?;
    let pending = apply.dry_run && !answer.unchanged;
    Ok(Done::printed(text).with_exit(if pending { Exit::Pending } else { Exit::Done }))
}

/// `USER@HOST`, believed only where there are no certificates.
pub(super) fn author() -> String {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let named = |name: Option<String>, otherwise: &str| {
        name.map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| otherwise.to_owned())
    };
    format!("{}@{}", named(user, "unknown"), named(host, "unknown"))
}

fn table(answer: &v1::ApplyResponse, dry_run: bool) -> String {
    let v1::ApplyResponse { revision, unchanged, changes, warnings } = answer;
    let warnings: String = warnings.iter().map(|line| format!("warning: {line}\n")).collect();
    if *unchanged {
        return format!("revision {revision} says the same already; nothing changed\n{warnings}");
    }
    let mut text = match (dry_run, changes.len()) {
        (true, 1) => format!("1 change to revision {revision} (dry run, nothing changed):\n"),
        (true, count) => {
            format!("{count} changes to revision {revision} (dry run, nothing changed):\n")
        }
        (false, 1) => format!("revision {revision}: 1 change\n"),
        (false, count) => format!("revision {revision}: {count} changes\n"),
    };
    for change in changes {
        text += &format!("  {change}\n");
    }
    text + &warnings
}

fn tree(answer: &v1::ApplyResponse, dry_run: bool) -> Value {
    map([
        ("revision", number(answer.revision)),
        ("unchanged", Value::Bool(answer.unchanged)),
        ("changes", texts(&answer.changes)),
        ("warnings", texts(&answer.warnings)),
        ("dry_run", Value::Bool(dry_run)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(unchanged: bool, changes: &[&str]) -> v1::ApplyResponse {
        let changes = changes.iter().map(|&change| change.to_owned()).collect();
        v1::ApplyResponse { revision: 7, unchanged, changes, ..Default::default() }
    }

    #[test]
    fn an_apply_says_what_it_did() {
        let one = answer(false, &["services/web: scheduler wlc -> rr"]);
        assert_eq!(
            table(&one, false),
            "revision 7: 1 change\n  services/web: scheduler wlc -> rr\n"
        );
        assert_eq!(
            table(&one, true),
            "1 change to revision 7 (dry run, nothing changed):\n  services/web: scheduler wlc -> rr\n"
        );
        let two = answer(false, &["a: added", "b: removed"]);
        assert_eq!(table(&two, false), "revision 7: 2 changes\n  a: added\n  b: removed\n");
        let warned = v1::ApplyResponse { warnings: vec!["x: beware".to_owned()], ..two };
        assert!(table(&warned, false).ends_with("  b: removed\nwarning: x: beware\n"));
        for dry_run in [false, true] {
            let text = table(&answer(true, &[]), dry_run);
            assert_eq!(text, "revision 7 says the same already; nothing changed\n");
        }
    }

    #[test]
    fn an_author_is_a_user_on_a_host() {
        let author = author();
        let (user, host) = author.split_once('@').expect("USER@HOST");
        assert!(!user.is_empty() && !host.is_empty() && !host.ends_with('\n'), "{author:?}");
    }
}
