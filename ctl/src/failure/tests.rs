use tonic::metadata::{MetadataMap, MetadataValue};

use prost::Message as _;

use super::*;

fn status(code: Code, message: &str, trailers: &[(&'static str, Vec<u8>)]) -> Status {
    let mut metadata = MetadataMap::new();
    for (name, value) in trailers {
        if name.ends_with("-bin") {
            metadata.insert_bin(*name, MetadataValue::from_bytes(value));
        } else {
            metadata.insert(*name, MetadataValue::try_from(value.as_slice()).unwrap());
        }
    }
    Status::with_metadata(code, message, metadata)
}

#[test]
fn every_code_has_its_exit_code() {
    let no_quorum: &[(&'static str, Vec<u8>)] = &[("lvsmesh-reason", b"no-quorum".to_vec())];
    let unconfirmed: &[(&'static str, Vec<u8>)] = &[("lvsmesh-reason", b"unconfirmed".to_vec())];
    #[rustfmt::skip]
    let cases = [
        (status(Code::NotFound, "no node is named `x`", &[]),           4),
        (status(Code::Aborted, "moved on", &[]),                        5),
        (status(Code::Unavailable, "no quorum: waited", no_quorum),     6),
        (status(Code::Unavailable, "may or may not be", unconfirmed),   6),
        (status(Code::Unavailable, "the agent is stopping", &[]),       1),
        (status(Code::DeadlineExceeded, "too slow", &[]),               8),
        (status(Code::Cancelled, "Timeout expired", &[]),               8),
        (status(Code::Unauthenticated, "a certificate is needed", &[]), 9),
        (status(Code::PermissionDenied, "not you", &[]),                9),
        (status(Code::FailedPrecondition, "no director", &[]),          1),
        (status(Code::Internal, "", &[]),                               1),
    ];
    for (status, exit) in cases {
        assert_eq!(Failure::of(&status).exit.code(), exit, "{status:?}");
    }
}

#[test]
fn a_refused_document_lists_every_fault_with_its_path() {
    let fault = |path: &str, message: &str, hint: &str| v1::Fault {
        path: path.into(),
        message: message.into(),
        hint: hint.into(),
    };
    let faults = v1::Faults {
        faults: vec![
            fault("services[0].scheduler", "no scheduler \"wlcc\"", "did you mean \"wlc\"?"),
            fault("vips[0].vrrp.vrid", "0 is below the limit of 1", ""),
        ],
    };
    let status = status(
        Code::InvalidArgument,
        "the document has 2 faults",
        &[("lvsmesh-faults-bin", faults.encode_to_vec())],
    );
    insta::assert_snapshot!(Failure::of(&status).render(), @r#"
    error: the document has 2 faults; nothing was changed
      services[0].scheduler: no scheduler "wlcc"; did you mean "wlc"?
      vips[0].vrrp.vrid: 0 is below the limit of 1
    "#);
}

#[test]
fn a_conflict_says_who_changed_what_since_and_what_to_do() {
    let revision = |revision, author: &str, message: &str, changes: &[&str]| v1::Revision {
        revision,
        author: author.into(),
        unix_ms: 1_709_210_096_789,
        message: message.into(),
        changes: changes.iter().map(|&change| change.to_owned()).collect(),
    };
    let since = v1::HistoryResponse {
        stale: false,
        revisions: vec![
            revision(9, "operator/bob", "", &["pools/web: added"]),
            revision(8, "operator/ann", "rotate", &["services/web: scheduler wlc -> rr"]),
        ],
    };
    let status = status(
        Code::Aborted,
        "the desired state is at revision 9, but the change was made against 7",
        &[("lvsmesh-conflict-bin", since.encode_to_vec())],
    );
    insta::assert_snapshot!(Failure::of(&status).render(), @r"
    error: the desired state is at revision 9, but the change was made against 7
      revision 8 by operator/ann at 2024-02-29T12:34:56Z: rotate
        services/web: scheduler wlc -> rr
      revision 9 by operator/bob at 2024-02-29T12:34:56Z
        pools/web: added

    hint: `lvsctl get` prints the current state; redo the edit on it, and name its revision with --expected-revision
    ");
}

#[test]
fn an_agents_hint_is_better_than_ours() {
    let with = status(
        Code::Unavailable,
        "the leader is gone",
        &[
            ("lvsmesh-reason", b"no-quorum".to_vec()),
            ("lvsmesh-hint-bin", "ring Ann".as_bytes().to_vec()),
        ],
    );
    insta::assert_snapshot!(Failure::of(&with).render(), @r"
    error: no quorum: the leader is gone

    hint: ring Ann
    ");
}

#[test]
fn a_chain_says_each_cause_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Outer(#[source] std::io::Error);

    let inner = rustls::Error::General("wrong certificate".into());
    let error = Outer(std::io::Error::other(inner));
    assert_eq!(chain(&error), "transport error: unexpected error: wrong certificate");
    assert_eq!(tls_refusal(&error).as_deref(), Some("unexpected error: wrong certificate"));
    let plain = Outer(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
    assert_eq!(chain(&plain), "transport error: connection refused");
    assert_eq!(tls_refusal(&plain), None);
}
