//! Disks of survivors, made by hand.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use lvsmesh_core::command::{Apply, Candidate, Command};
use lvsmesh_core::model::{Document, Fleet, Role};
use raft::eraftpb::Entry;
use tempfile::TempDir;

use super::*;
use crate::raft::start;

/// Node 2 of three, whose log has one document that is confirmed and a second that is not.
struct Survivor {
    _dir: TempDir,
    config: Config,
}

fn candidate(name: &str, port: u16) -> Candidate {
    Candidate {
        name: name.into(),
        roles: [Role::Director].into(),
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        grpc: (Ipv4Addr::LOCALHOST, port).into(),
        lease: (Ipv4Addr::LOCALHOST, port).into(),
    }
}

fn entry(index: u64, command: &Command) -> Entry {
    let data = convert::encode_entry(command, "", 1, index);
    Entry { index, term: 4, data, ..Entry::default() }
}

fn document(ipv6: &str) -> Command {
    Command::Apply(Apply {
        document: Document {
            fleet: Fleet { name: "web".into(), ..Fleet::default() },
            ..Document::default()
        },
        expected_revision: None,
        author: "test".into(),
        message: ipv6.into(),
        unix_ms: 0,
    })
}

impl Survivor {
    fn new(other: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Self::config(dir.path());
        let mut state = State::init("web", candidate("n1", other));
        for (index, name) in [(1, "n2"), (2, "n3")] {
            // Port 1 of the loopback: nothing listens there.
            state.apply(index, Command::Admit(candidate(name, 1)));
        }
        std::fs::create_dir(&config.data_dir).unwrap();
        let mut store = RedbStore::open(&log_path(&config.data_dir)).unwrap();
        start::join_in(&mut store, NodeId(2), &State::default()).unwrap();
        let mut snapshot =
            Snapshot { data: convert::encode_snapshot(&state), ..Snapshot::default() };
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (2, 3);
        meta.set_conf_state(ConfState { voters: vec![1, 2, 3], ..ConfState::default() });
        store
            .write(&Batch {
                snapshot: Some(snapshot),
                entries: vec![
                    entry(3, &document("confirmed")),
                    Entry { index: 4, term: 4, ..Entry::default() },
                    entry(5, &Command::Remove { name: "n3".into() }),
                ],
                hard_state: Some(HardState { term: 6, vote: 1, commit: 4 }),
                ..Batch::default()
            })
            .unwrap();
        let identity = Identity {
            id: NodeId(2),
            name: "n2".into(),
            fleet: "web".into(),
            lease_key: random_key().unwrap(),
            epoch: 0,
        };
        identity.store(&config.data_dir).unwrap();
        Self { _dir: dir, config }
    }

    fn config(dir: &Path) -> Config {
        let path = dir.join("agent.toml");
        let text = format!(
            "name = \"n2\"\nroles = [\"director\"]\naddresses = [\"127.0.0.1\"]\ndata_dir = {:?}\n",
            dir.join("data")
        );
        std::fs::write(&path, text).unwrap();
        Config::load(&path).unwrap()
    }

    fn identity(&self) -> Identity {
        Identity::load(&self.config.data_dir, "n2").unwrap()
    }
}

#[test]
fn a_survivors_disk_is_shown_and_not_changed() {
    let survivor = Survivor::new(1);
    let file = log_path(&survivor.config.data_dir);
    let findings = inspect(&survivor.config).unwrap();
    let before = inspect(&survivor.config).unwrap();
    assert_eq!(findings, before);
    assert_eq!((findings.last, findings.commit, findings.revisions), ((4, 5), 4, (1, 1)));
    assert_eq!(findings.members.len(), 2, "the unconfirmed removal is in it");
    let text = findings.to_string();
    for part in [
        "fleet      web, epoch 0",
        "node       n2 (id 2)",
        "ends with term 4 entry 5",
        "up to entry 4; 1 after it",
        "member     n1 (id 1, voter) at 127.0.0.1:1",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(survivor.identity().epoch, 0);
    assert!(file.exists());
}

#[tokio::test]
async fn a_survivor_becomes_a_fleet_of_its_own_in_a_new_epoch() {
    let survivor = Survivor::new(1);
    let before = survivor.identity();
    let forced = force_new_fleet(&survivor.config, "web", "n2").await.unwrap();
    let expected =
        Forced { epoch: 1, revision: 1, unconfirmed: 1, left_behind: vec!["n1".to_owned()] };
    assert_eq!(forced, expected);

    let after = survivor.identity();
    assert_eq!((after.id, after.epoch), (before.id, 1));
    assert_ne!(after.lease_key, before.lease_key, "old datagrams would be believed");
    assert_ne!(after.lease_key.id, before.lease_key.id);
    let findings = inspect(&survivor.config).unwrap();
    assert_eq!((findings.last, findings.commit, findings.term), ((1006, 6), 6, 1006));
    assert_eq!((findings.voters.as_slice(), findings.members.len()), ([2].as_slice(), 1));
    let store = RedbStore::open(&log_path(&survivor.config.data_dir)).unwrap();
    let state = convert::decode_snapshot(&store.stored_snapshot().unwrap().unwrap().data).unwrap();
    assert_eq!((state.revision(), state.next_id()), (1, NodeId(4)), "no id is given twice");
    assert_eq!(state.departed().map(|member| member.id.0).collect::<Vec<_>>(), [3, 1]);
    drop(store);
    // Again, as after a failure on the way.
    assert_eq!(force_new_fleet(&survivor.config, "web", "n2").await.unwrap().epoch, 2);
}

#[tokio::test]
async fn nothing_is_forced_by_mistake() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let survivor = Survivor::new(listener.local_addr().unwrap().port());
    let refused = |fleet: &'static str, name: &'static str| {
        let config = survivor.config.clone();
        async move { force_new_fleet(&config, fleet, name).await.unwrap_err() }
    };
    let error = refused("mail", "n2").await;
    assert_eq!(error.to_string(), "--fleet mail: this is web");
    let error = refused("web", "n1").await;
    assert_eq!(error.to_string(), "--survivor n1: this is n2");
    let error = refused("web", "n2").await;
    assert!(
        error.to_string().starts_with("voters of this fleet still answer: n1 (127.0.0.1:"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("systemctl stop lvs-agent"));
    drop(listener);

    let running = RedbStore::open(&log_path(&survivor.config.data_dir)).unwrap();
    let error = refused("web", "n2").await;
    assert!(matches!(error, RecoverError::Running { .. }), "{error}");
    assert!(matches!(inspect(&survivor.config).unwrap_err(), RecoverError::Running { .. }));
    drop(running);
    assert_eq!(survivor.identity().epoch, 0, "nothing was changed");
    assert_eq!(inspect(&survivor.config).unwrap().last, (4, 5));
}

#[tokio::test]
async fn a_node_that_has_nothing_or_was_removed_is_no_survivor() {
    let survivor = Survivor::new(1);
    let path = log_path(&survivor.config.data_dir);
    let mut store = RedbStore::open(&path).unwrap();
    let removal = entry(6, &Command::Remove { name: "n2".into() });
    store.write(&Batch { entries: vec![removal], ..Batch::default() }).unwrap();
    drop(store);
    let error = force_new_fleet(&survivor.config, "web", "n2").await.unwrap_err();
    assert!(matches!(error, RecoverError::Removed { id: NodeId(2) }), "{error}");

    std::fs::remove_file(&path).unwrap();
    let mut store = RedbStore::open(&path).unwrap();
    start::join_in(&mut store, NodeId(2), &State::default()).unwrap();
    drop(store);
    let error = force_new_fleet(&survivor.config, "web", "n2").await.unwrap_err();
    assert!(matches!(error, RecoverError::Empty), "{error}");
}
