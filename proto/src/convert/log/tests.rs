use std::net::{IpAddr, SocketAddr};

use lvsmesh_core::command::Outcome;
use lvsmesh_core::model::PoolSource;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::convert::arbitrary;

fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

fn real_server() -> impl Strategy<Value = RealServer> {
    (any::<IpAddr>(), any::<u16>(), any::<u32>())
        .prop_map(|(address, port, weight)| RealServer::new(address, port, weight))
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let roles = prop_oneof![
        Just(vec![Role::Director]),
        Just(vec![Role::RealServer]),
        Just(vec![Role::Director, Role::RealServer]),
    ];
    let addresses = proptest::collection::vec(any::<IpAddr>(), 1..3);
    ("[a-c]", roles, addresses, socket(), socket()).prop_map(
        |(name, roles, addresses, grpc, lease)| Candidate {
            name,
            roles: roles.into_iter().collect(),
            addresses,
            grpc,
            lease,
        },
    )
}

fn status() -> impl Strategy<Value = SourceStatus> {
    prop_oneof![
        Just(SourceStatus::Synced),
        text().prop_map(SourceStatus::Stale),
        text().prop_map(SourceStatus::Lost),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let change = (text(), socket(), option::of(text()))
        .prop_map(|(pool, real_server, fault)| HealthChange { pool, real_server, fault });
    let apply = (arbitrary::document(), option::of(any::<u64>()), text(), text(), any::<u64>());
    let servers = || proptest::collection::vec(real_server(), 0..4);
    prop_oneof![
        apply.prop_map(|(document, expected_revision, author, message, unix_ms)| {
            Command::Apply(Apply { document, expected_revision, author, message, unix_ms })
        }),
        candidate().prop_map(Command::Admit),
        text().prop_map(|name| Command::Remove { name }),
        (any::<u64>(), any::<u64>(), option::of(text())).prop_map(|(node, digest, fault)| {
            Command::Ready(Readiness { node: NodeId(node), digest, fault })
        }),
        proptest::collection::vec(change, 0..4).prop_map(Command::Health),
        (text(), status(), servers()).prop_map(|(pool, status, real_servers)| {
            Command::Discovered(Discovered { pool, status, real_servers })
        }),
    ]
}

/// A state that commands led to, with observations about everything that its document has.
fn state() -> impl Strategy<Value = State> {
    let documents = proptest::collection::vec(arbitrary::document(), 0..3);
    let candidates = proptest::collection::vec(candidate(), 1..4);
    let observed = (text(), proptest::collection::vec(real_server(), 1..3), status());
    (documents, candidates, observed).prop_map(|(documents, candidates, observed)| {
        let mut candidates = candidates.into_iter();
        let mut state = State::init("blue", candidates.next().unwrap());
        let mut index = 0;
        let mut run = |state: &mut State, command| {
            index += 1;
            state.apply(index, command)
        };
        for candidate in candidates {
            run(&mut state, Command::Admit(candidate));
        }
        for (unix_ms, mut document) in (0..).zip(documents) {
            document.fleet.name = "blue".into();
            let (author, message) = ("operator/ann".into(), "why".into());
            let apply = Apply { document, expected_revision: None, author, message, unix_ms };
            let outcome = run(&mut state, Command::Apply(apply));
            assert!(matches!(outcome, Outcome::Applied { .. } | Outcome::Unchanged { .. }));
        }
        let (fault, found, status) = observed;
        let members: Vec<_> = state.members().map(|member| member.id).collect();
        for node in members {
            let ready = Readiness { node, digest: node.0, fault: Some(fault.clone()) };
            run(&mut state, Command::Ready(ready));
        }
        for pool in state.document().pools.clone() {
            let listed = match pool.source {
                PoolSource::Listed(listed) => listed,
                PoolSource::Discovery(_) => found.clone(),
            };
            let discovered = Discovered {
                pool: pool.name.clone(),
                status: status.clone(),
                real_servers: found.clone(),
            };
            run(&mut state, Command::Discovered(discovered));
            let down = listed.iter().map(|server| HealthChange {
                pool: pool.name.clone(),
                real_server: server.socket_addr(),
                fault: Some(fault.clone()),
            });
            run(&mut state, Command::Health(down.collect()));
        }
        state
    })
}

proptest! {
    #[test]
    fn an_entry_survives_the_log(
        command in command(), traceparent in text(), proposer: u64, request: u64,
    ) {
        let bytes = encode_entry(&command, &traceparent, proposer, request);
        let entry = Entry { command, traceparent, proposer, request };
        prop_assert_eq!(decode_entry(&bytes), Ok(entry));
    }

    #[test]
    fn a_state_survives_a_snapshot(state in state()) {
        prop_assert_eq!(decode_snapshot(&encode_snapshot(&state)), Ok(state));
    }

    #[test]
    fn no_bytes_bring_a_decoder_down(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        // Whatever is read can be written and read again.
        if let Ok(entry) = decode_entry(&bytes) {
            let Entry { command, traceparent, proposer, request } = &entry;
            let again = encode_entry(command, traceparent, *proposer, *request);
            prop_assert_eq!(decode_entry(&again), Ok(entry));
        }
        if let Ok(state) = decode_snapshot(&bytes) {
            prop_assert_eq!(decode_snapshot(&encode_snapshot(&state)), Ok(state));
        }
    }
}

#[test]
fn an_entry_without_a_command_that_is_known_is_an_error() {
    for bytes in [&b""[..], b"\x08\x01"] {
        assert!(decode_entry(bytes).is_err(), "{bytes:?}");
    }
    // Field 200, which no command has.
    let newer = [0xc2, 0x0c, 0x00];
    assert_eq!(decode_entry(&newer), Err(DecodeError::Missing { field: "entry.command" }));
}

#[test]
fn a_candidate_is_refused_with_the_field_named() {
    type Damage = fn(&mut internal::Candidate);
    let good = internal::Candidate {
        name: "lvs-1".into(),
        director: true,
        real_server: false,
        addresses: vec!["192.0.2.1".into()],
        grpc: "192.0.2.1:7400".into(),
        lease: "192.0.2.1:7401".into(),
    };
    assert!(Candidate::try_from(&good).is_ok());
    #[rustfmt::skip]
    let cases: [(Damage, &str); 6] = [
        (|c| c.name = "LVS 1".into(),           r#"candidate.name: "LVS 1" is not a name of 1 to 63 characters of a-z, 0-9 and `-`"#),
        (|c| c.director = false,                "candidate.director: is missing, or of a kind that this version does not know"),
        (|c| c.addresses.clear(),               "candidate.addresses: is missing, or of a kind that this version does not know"),
        (|c| c.addresses[0] = "x".into(),       r#"candidate.addresses: "x" is not an IP address"#),
        (|c| c.grpc = "192.0.2.1".into(),       r#"candidate.grpc: "192.0.2.1" is not an IP address with a port"#),
        (|c| c.lease.clear(),                   r#"candidate.lease: "" is not an IP address with a port"#),
    ];
    for (damage, expected) in cases {
        let mut candidate = good.clone();
        damage(&mut candidate);
        assert_eq!(Candidate::try_from(&candidate).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_snapshot_whose_parts_do_not_fit_is_refused() {
    let candidate = Candidate {
        name: "a".into(),
        roles: [Role::Director].into(),
        addresses: vec![IpAddr::from([192, 0, 2, 1])],
        grpc: SocketAddr::from(([192, 0, 2, 1], 7400)),
        lease: SocketAddr::from(([192, 0, 2, 1], 7401)),
    };
    let state = State::init("blue", candidate);
    let mut wire = internal::Snapshot::decode(&*encode_snapshot(&state)).unwrap();
    assert_eq!(decode_snapshot(&wire.encode_to_vec()), Ok(state));
    wire.revision = 3;
    let gap = Inconsistent::History { expected: 3, found: 0 };
    assert_eq!(decode_snapshot(&wire.encode_to_vec()), Err(gap.into()));
}

#[test]
fn what_was_written_for_newer_versions_is_not_half_understood() {
    let command = Command::Remove { name: "web-1".into() };
    let mut entry = internal::LogEntry::decode(&*encode_entry(&command, "", 1, 1)).unwrap();
    assert_eq!(entry.level, 0, "every version reads it");
    for (level, expected) in [(LEVEL, None), (LEVEL + 1, Some(LEVEL + 1))] {
        entry.level = level;
        let refused = decode_entry(&entry.encode_to_vec()).err();
        assert_eq!(refused, expected.map(|needed| DecodeError::TooNew { needed }));
    }
    let mut snapshot = internal::Snapshot::decode(&*encode_snapshot(&State::default())).unwrap();
    assert_eq!(snapshot.level, 0);
    snapshot.level = LEVEL + 1;
    let refused = decode_snapshot(&snapshot.encode_to_vec()).unwrap_err();
    assert_eq!(refused, DecodeError::TooNew { needed: LEVEL + 1 });
}

#[test]
fn an_entry_says_which_level_its_words_need() {
    let mut document = lvsmesh_core::model::Document::default();
    let written = |document: &lvsmesh_core::model::Document| {
        let command = Command::Apply(Apply {
            document: document.clone(),
            expected_revision: None,
            author: String::new(),
            message: String::new(),
            unix_ms: 0,
        });
        internal::LogEntry::decode(&*encode_entry(&command, "", 1, 1)).unwrap().level
    };
    assert_eq!(written(&document), 0);
    document.fleet.failback = lvsmesh_core::model::Failback::Immediate;
    assert_eq!(written(&document), 2);
}
