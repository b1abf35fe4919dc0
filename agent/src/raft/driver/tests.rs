//! Raft threads with real logs and a transport within the process. The lease lets everything pass, unless a test is about that.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};

use lvsmesh_core::command::{Candidate, Command, Outcome, Rejection};
use lvsmesh_core::lease::GateRequest;
use lvsmesh_core::membership::Change;
use lvsmesh_core::model::Role;
use prost011::Message as _;
use tempfile::TempDir;

use super::super::storage::{Disk, Fault, MemoryStore, RedbStore, StoreError};
use super::super::{start, storage};
use super::*;
use crate::lease::{self, Order as LeaseOrder};

/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Handles by node id: the wire.
type Wire = Arc<Mutex<BTreeMap<NodeId, RaftHandle>>>;

struct Wired {
    own: NodeId,
    wire: Wire,
}

impl Outbound for Wired {
    fn send(&mut self, messages: Vec<Message>) {
        let wire = self.wire.lock().unwrap();
        for message in messages {
            if let Some(peer) = wire.get(&NodeId(message.to)) {
                peer.deliver(self.own, &[message.encode_to_vec()]).unwrap();
            }
        }
    }
}

/// A raft thread and what it told the lease.
struct Running {
    handle: RaftHandle,
    thread: JoinHandle<Result<(), RaftError>>,
    told: Arc<Mutex<Vec<Input>>>,
    gated: mpsc::Receiver<GateRequest>,
}

impl Running {
    fn start<S: LogStore + Send + 'static>(
        store: S,
        own: NodeId,
        wire: &Wire,
        compaction: Compaction,
        pass: bool,
    ) -> Self {
        let (inputs, orders) = lease::queue().unwrap();
        let wired = Wired { own, wire: Arc::clone(wire) };
        let (handle, thread) = spawn(store, 0, compaction, inputs, wired).unwrap();
        wire.lock().unwrap().insert(own, handle.clone());
        let told = Arc::new(Mutex::new(Vec::new()));
        let (gate, gated) = mpsc::channel();
        let (lease_handle, lease_told) = (handle.clone(), Arc::clone(&told));
        // Ends when the raft thread drops its end of the queue.
        std::thread::spawn(move || {
            while let Ok(LeaseOrder::Input(input)) = orders.queue.recv() {
                if let Input::Gate(request) = input {
                    if pass {
                        lease_handle.verdict(Verdict::Pass(request.ticket));
                    }
                    // A test that does not look at it may have dropped the other end.
                    let _ = gate.send(request);
                } else {
                    lease_told.lock().unwrap().push(input);
                }
            }
        });
        Self { handle, thread, told, gated }
    }

    /// Makes a leader hand over.
    fn hand_over(&self, to: &Self) {
        let term = self.handle.status.borrow().term;
        let to = to.handle.status.borrow().id;
        self.handle.verdict(Verdict::HandOver { term, to });
    }

    async fn until(&self, what: &str, holds: impl FnMut(&RaftStatus) -> bool) -> RaftStatus {
        let mut status = self.handle.status.clone();
        let found = tokio::time::timeout(PATIENCE, status.wait_for(holds)).await;
        match found {
            Ok(Ok(status)) => status.clone(),
            other => panic!("{what}: {other:?}, status {:?}", self.handle.status.borrow()),
        }
    }

    async fn elect(&self) {
        self.handle.verdict(Verdict::Campaign);
        self.until("elected", |status| status.settled).await;
    }

    fn names(&self) -> Vec<String> {
        let applied = self.handle.state.borrow();
        applied.state.members().map(|member| member.name.clone()).collect()
    }

    fn stop(self) {
        self.handle.shutdown();
        self.thread.join().unwrap().unwrap();
    }
}

struct Fleet {
    dir: TempDir,
    wire: Wire,
    compaction: Compaction,
}

impl Fleet {
    fn found() -> Self {
        let fleet = Self {
            dir: tempfile::tempdir().unwrap(),
            wire: Wire::default(),
            compaction: Compaction::default(),
        };
        start::found(&fleet.log(NodeId(1)), "test", candidate("n1")).unwrap();
        fleet
    }

    fn log(&self, id: NodeId) -> PathBuf {
        self.dir.path().join(format!("{id}.redb"))
    }

    fn run(&self, id: NodeId) -> Running {
        let store = RedbStore::open(&self.log(id)).unwrap();
        Running::start(store, id, &self.wire, self.compaction, true)
    }

    /// Admits a machine, starts it, and makes it a voter.
    async fn grow(&self, leader: &Running, name: &str) -> Running {
        let outcome = leader.handle.propose(admit(name)).await.unwrap();
        let Outcome::Admitted { id } = outcome else { panic!("{outcome:?}") };
        let members = leader.handle.state.borrow().state.members().cloned().collect();
        start::join(&self.log(id), id, &start::seed("test", members).unwrap()).unwrap();
        let running = self.run(id);
        leader.handle.change(Change::AddLearner(id)).await.unwrap();
        leader
            .until("caught up", |status| {
                status.matched.get(&id).is_some_and(|matched| *matched >= status.commit)
            })
            .await;
        leader.handle.change(Change::Promote(id)).await.unwrap();
        running
    }
}

fn candidate(name: &str) -> Candidate {
    Candidate {
        name: name.to_owned(),
        roles: BTreeSet::from([Role::Director]),
        addresses: vec![[192, 0, 2, 1].into()],
        grpc: ([192, 0, 2, 1], 7400).into(),
        lease: ([192, 0, 2, 1], 7401).into(),
    }
}

fn admit(name: &str) -> Command {
    Command::Admit(candidate(name))
}

#[tokio::test]
async fn whoever_has_an_answer_reads_its_own_write() {
    let fleet = Fleet::found();
    let one = fleet.run(NodeId(1));
    assert_eq!(one.names(), ["n1"]);
    assert!(!one.handle.voted_before);
    one.elect().await;
    for (name, id) in [("n2", 2), ("n3", 3)] {
        let outcome = one.handle.propose(admit(name)).await.unwrap();
        assert_eq!(outcome, Outcome::Admitted { id: NodeId(id) });
        assert_eq!(one.names().last().unwrap(), name);
    }
    let refused = one.handle.propose(Command::Remove { name: "n9".into() }).await.unwrap();
    assert_eq!(refused, Outcome::Rejected(Rejection::UnknownNode { name: "n9".into() }));
    one.stop();
}

#[tokio::test]
async fn a_node_joins_votes_leads_and_the_old_leader_says_who_does() {
    let fleet = Fleet::found();
    let one = fleet.run(NodeId(1));
    one.elect().await;
    let two = fleet.grow(&one, "n2").await;
    one.hand_over(&two);
    two.until("leads", |status| status.settled).await;
    one.until("follows", |status| status.leader == Some(NodeId(2))).await;
    assert_eq!(
        one.handle.propose(admit("n3")).await,
        Err(ProposeError::NotLeader { leader: Some(NodeId(2)) })
    );
    let outcome = two.handle.propose(admit("n3")).await.unwrap();
    assert_eq!(outcome, Outcome::Admitted { id: NodeId(3) });
    let mut state = one.handle.state.clone();
    let arrived = state.wait_for(|applied| applied.state.member_by_name("n3").is_some());
    tokio::time::timeout(PATIENCE, arrived).await.unwrap().unwrap();
    one.stop();
    two.stop();
}

#[tokio::test]
async fn a_node_that_boots_alone_has_everything_that_it_had_applied() {
    let fleet = Fleet::found();
    let one = fleet.run(NodeId(1));
    one.elect().await;
    let two = fleet.grow(&one, "n2").await;
    one.handle.propose(admit("n3")).await.unwrap();
    let commit = one.handle.status.borrow().commit;
    two.until("applied", |status| status.applied >= commit).await;
    let before = two.handle.state.borrow().state.clone();
    one.stop();
    two.stop();
    fleet.wire.lock().unwrap().clear();

    let two = fleet.run(NodeId(2));
    assert_eq!(*two.handle.state.borrow().state, *before);
    assert_eq!(two.names(), ["n1", "n2", "n3"]);
    let status = two.handle.status.borrow().clone();
    assert_eq!((status.leader, status.voters.len()), (None, 2));
    assert!(two.handle.voted_before);
    two.stop();
}

#[tokio::test]
async fn a_log_that_grew_is_compacted_and_a_joiner_gets_the_snapshot() {
    let mut fleet = Fleet::found();
    fleet.compaction = Compaction { entries: 20, bytes: u64::MAX, keep: 3 };
    let one = fleet.run(NodeId(1));
    one.elect().await;
    for round in 0..50 {
        one.handle.propose(admit(&format!("m{round}"))).await.unwrap();
    }
    let two = fleet.grow(&one, "n2").await;
    let commit = one.handle.status.borrow().commit;
    two.until("applied", |status| status.applied >= commit).await;
    assert_eq!(*two.handle.state.borrow().state, *one.handle.state.borrow().state);
    assert_eq!(two.names().len(), 52);
    let names = one.names();
    one.stop();
    two.stop();

    for id in [1, 52] {
        let store = RedbStore::open(&fleet.log(NodeId(id))).unwrap();
        let first = raft::Storage::first_index(&store).unwrap();
        assert!(first > 20, "node {id} keeps its log from entry {first}");
        drop(store);
        let again = fleet.run(NodeId(id));
        assert_eq!(again.names(), names);
        again.stop();
    }
}

#[tokio::test]
async fn the_lease_is_told_and_nobody_is_elected_before_it_allows_it() {
    let fleet = Fleet::found();
    let store = RedbStore::open(&fleet.log(NodeId(1))).unwrap();
    let one = Running::start(store, NodeId(1), &fleet.wire, Compaction::default(), false);
    one.handle.verdict(Verdict::Campaign);
    let request = one.gated.recv_timeout(PATIENCE).unwrap();
    assert_eq!((request.candidate, request.term, request.binding), (NodeId(1), 2, true));
    // The priority is taken after everything that was queued before it; it has nothing to do with this.
    assert_eq!(
        one.handle.propose(admit("n2")).await,
        Err(ProposeError::NotLeader { leader: None })
    );
    one.handle.verdict(Verdict::Pass(request.ticket));
    let status = one.until("elected", |status| status.settled).await;
    one.handle.verdict(Verdict::StepDown { term: status.term });
    one.until("stepped down", |status| !status.leading).await;

    let told = Arc::clone(&one.told);
    one.stop();
    let told = told.lock().unwrap().clone();
    assert_eq!(told[0], Input::Voters(BTreeSet::from([NodeId(1)])));
    let views: Vec<RaftView> = told
        .iter()
        .filter_map(|input| if let Input::Raft(view) = input { Some(*view) } else { None })
        .collect();
    let view = |term, leader, settled| RaftView { term, leader, settled };
    let leads = Some(NodeId(1));
    assert_eq!(views, [view(1, None, false), view(2, leads, true), view(2, None, false)]);
    assert!(told.contains(&Input::Applied(status.applied)));
}

#[tokio::test]
async fn a_failed_disk_silences_the_node_and_leaves_what_it_had_applied() {
    for fault in [Fault::BeforeWrite, Fault::AtSync] {
        let disk = Disk::default();
        let mut store = MemoryStore::open(&disk);
        start::found_in(&mut store, "test", candidate("n1")).unwrap();
        let wire = Wire::default();
        let one = Running::start(store, NodeId(1), &wire, Compaction::default(), true);
        one.elect().await;
        // What can wait is written some ticks later; the failure is meant for the proposal.
        disk.fail(fault);
        assert_eq!(one.handle.propose(admit("n2")).await, Err(ProposeError::Disk));
        let status = one.until("it says so", |status| status.fault.is_some()).await;
        assert!(!status.leading && !status.settled && status.leader.is_none(), "{status:?}");
        assert!(status.fault.unwrap().contains("the test broke this disk"));
        assert_eq!(one.names(), ["n1"], "what was applied stands");

        // The disk is well again, and still nothing is asked of it: what it has of the failed write, nobody knows.
        one.handle.verdict(Verdict::Campaign);
        let vote = Message {
            msg_type: raft::eraftpb::MessageType::MsgRequestVote.into(),
            from: 2,
            to: 1,
            term: 99,
            ..Message::default()
        };
        one.handle.deliver(NodeId(2), &[vote.encode_to_vec()]).unwrap();
        assert_eq!(one.handle.propose(admit("n3")).await, Err(ProposeError::Disk));
        assert_eq!(one.handle.change(Change::AddLearner(NodeId(2))).await, Err(ProposeError::Disk));
        let term = one.handle.status.borrow().term;
        assert!(term < 99 && one.gated.try_iter().all(|request| request.term < 99));
        let silent = Input::Raft(RaftView { term, leader: None, settled: false });
        let started = Instant::now();
        while one.told.lock().unwrap().last() != Some(&silent) {
            assert!(started.elapsed() < PATIENCE, "{:?}", one.told.lock().unwrap());
            tokio::time::sleep(TICK).await;
        }
        assert!(one.told.lock().unwrap().contains(&Input::Abdicate { successor: None }));

        one.handle.shutdown();
        let error = one.thread.join().unwrap().unwrap_err();
        assert!(matches!(error, RaftError::Store(StoreError::Io { .. })), "{error:?}");
        assert!(one.handle.status.has_changed().is_err(), "readers cannot see that it ended");
    }
}

#[tokio::test]
async fn a_log_of_nobody_and_an_entry_of_a_newer_version_are_refused() {
    let fleet = Fleet::found();
    let refusal = |id| {
        let store = RedbStore::open(&fleet.log(NodeId(id))).unwrap();
        let wired = Wired { own: NodeId(id), wire: Wire::default() };
        spawn(store, 0, Compaction::default(), lease::queue().unwrap().0, wired).unwrap_err()
    };
    let error = refusal(5);
    assert!(matches!(error, RaftError::Store(StoreError::Vacant { .. })), "{error:?}");
    assert!(error.hint().unwrap().contains("lvs-agent init"));

    let mut store = RedbStore::open(&fleet.log(NodeId(1))).unwrap();
    let entry = raft::eraftpb::Entry {
        index: storage::FIRST_INDEX + 1,
        term: 2,
        data: vec![0xff; 8],
        ..Default::default()
    };
    let hard_state = raft::eraftpb::HardState { term: 2, vote: 1, commit: entry.index };
    let applied = Some(entry.index);
    let batch = storage::Batch {
        entries: vec![entry],
        hard_state: Some(hard_state),
        applied,
        ..Default::default()
    };
    store.write(&batch).unwrap();
    drop(store);
    let error = refusal(1);
    assert!(matches!(error, RaftError::Entry { index: 2, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("upgrade"));
}

#[tokio::test]
async fn leadership_goes_where_the_leader_hands_it_whatever_the_priorities() {
    let fleet = Fleet::found();
    let one = fleet.run(NodeId(1));
    one.elect().await;
    let two = fleet.grow(&one, "n2").await;
    let three = fleet.grow(&one, "n3").await;
    for (running, priority) in [(&one, 200), (&two, 100), (&three, -1000)] {
        running.handle.set_priority(priority);
    }
    // With the third voter gone, the leader's own vote decides.
    fleet.wire.lock().unwrap().remove(&NodeId(3));
    for (from, to) in [(&one, &two), (&two, &one)] {
        from.hand_over(to);
        to.until("leads", |status| status.settled).await;
    }
    for running in [one, two, three] {
        running.stop();
    }
}
