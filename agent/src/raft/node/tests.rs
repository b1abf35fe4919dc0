//! Nodes in one thread, driven by hand: every message, gate and crash is the test's decision.

use std::collections::VecDeque;

use raft::eraftpb::ConfState;

use super::super::storage::{Disk, FIRST_INDEX, FIRST_TERM, Fault, MemoryStore};
use super::*;

const NOBODY: [u64; 0] = [];

/// One machine: its disk, its node while it runs, and what it applied.
struct Host {
    disk: Disk,
    node: Option<Node<MemoryStore>>,
    state: Vec<String>,
    events: Vec<NodeEffect>,
    gated: Vec<GateRequest>,
}

/// Machines 1 to n and the messages between them.
struct Fleet {
    hosts: BTreeMap<u64, Host>,
    wire: VecDeque<Message>,
    /// Answers every gate at once.
    auto_pass: bool,
    /// Messages from or to these are lost.
    cut: BTreeSet<u64>,
    keep: u64,
}

fn floor(voters: &[u64]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let meta = snapshot.mut_metadata();
    meta.index = FIRST_INDEX;
    meta.term = FIRST_TERM;
    meta.set_conf_state(ConfState { voters: voters.to_vec(), ..ConfState::default() });
    snapshot
}

impl Fleet {
    /// All of them voters from the start.
    fn voters(count: u64) -> Self {
        let voters: Vec<u64> = (1..=count).collect();
        let mut fleet = Self {
            hosts: BTreeMap::new(),
            wire: VecDeque::new(),
            auto_pass: true,
            cut: BTreeSet::new(),
            keep: 0,
        };
        for id in 1..=count {
            fleet.add(id, Some(&floor(&voters)));
        }
        fleet
    }

    fn add(&mut self, id: u64, floor: Option<&Snapshot>) {
        let disk = Disk::default();
        MemoryStore::open(&disk).install(NodeId(id), floor).unwrap();
        let host =
            Host { disk, node: None, state: Vec::new(), events: Vec::new(), gated: Vec::new() };
        self.hosts.insert(id, host);
        self.start(id);
    }

    fn start(&mut self, id: u64) {
        let store = MemoryStore::open(&self.hosts[&id].disk);
        let (node, effects) = Node::new(store, 0).unwrap();
        let host = self.hosts.get_mut(&id).unwrap();
        host.node = Some(node);
        host.state.clear();
        self.carry_out(id, effects);
    }

    fn crash(&mut self, id: u64) {
        let host = self.hosts.get_mut(&id).unwrap();
        host.node = None;
        host.disk.crash();
    }

    fn step(&mut self, id: u64, input: NodeInput) {
        let Some(node) = self.hosts.get_mut(&id).unwrap().node.as_mut() else { return };
        let effects = node.step(input).unwrap();
        self.carry_out(id, effects);
    }

    fn carry_out(&mut self, id: u64, effects: Vec<NodeEffect>) {
        for effect in effects {
            let host = self.hosts.get_mut(&id).unwrap();
            host.events.push(effect.clone());
            match effect {
                NodeEffect::Send(message) => {
                    if !self.cut.contains(&id) && !self.cut.contains(&message.to) {
                        self.wire.push_back(message);
                    }
                }
                NodeEffect::Gate(request) => {
                    if self.auto_pass {
                        self.step(id, NodeInput::Pass(request.ticket));
                    } else {
                        host.gated.push(request);
                    }
                }
                NodeEffect::Restore { data, .. } => host.state = decode(&data),
                NodeEffect::Apply(committed) => {
                    host.state.push(String::from_utf8(committed.data).unwrap());
                }
                NodeEffect::SnapshotWanted => self.snapshot(id),
                NodeEffect::Configured { .. }
                | NodeEffect::Lost { .. }
                | NodeEffect::Refused { .. }
                | NodeEffect::LeaderHeard
                | NodeEffect::View(_) => {}
            }
        }
    }

    fn snapshot(&mut self, id: u64) {
        let data = encode(&self.hosts[&id].state);
        let (index, keep) = (self.view(id).applied, self.keep);
        self.step(id, NodeInput::Snapshot { index, data, keep });
    }

    /// Delivers until nothing is under way.
    fn settle(&mut self) {
        while let Some(message) = self.wire.pop_front() {
            let (from, to) = (message.from, message.to);
            if self.hosts.contains_key(&to) && !self.cut.contains(&from) && !self.cut.contains(&to)
            {
                self.step(to, NodeInput::Message(Box::new(message)));
            }
        }
    }

    /// Lets time pass for everyone, 10 ms at a time.
    fn pass_time(&mut self, ticks: u64) {
        for _ in 0..ticks {
            for id in self.hosts.keys().copied().collect::<Vec<_>>() {
                self.step(id, NodeInput::Tick);
            }
            self.settle();
        }
    }

    fn elect(&mut self, id: u64) {
        self.step(id, NodeInput::Campaign);
        self.settle();
        assert!(self.view(id).settled, "node {id} was not elected: {:?}", self.view(id));
    }

    /// Makes a leader hand over.
    fn hand_over(&mut self, id: u64, to: u64) {
        let term = self.view(id).term;
        self.step(id, NodeInput::HandOver { term, to: NodeId(to) });
    }

    fn propose(&mut self, id: u64, request: u64, text: &str) {
        self.step(id, NodeInput::Propose { request, data: text.as_bytes().to_vec() });
    }

    fn change(&mut self, id: u64, request: u64, change: Change) {
        self.step(id, NodeInput::Change { request, change });
        self.settle();
    }

    fn view(&self, id: u64) -> &RaftStatus {
        self.hosts[&id].node.as_ref().unwrap().view()
    }

    fn state(&self, id: u64) -> Vec<&str> {
        self.hosts[&id].state.iter().map(String::as_str).collect()
    }

    /// Takes what happened at a node since it was last asked.
    fn events(&mut self, id: u64) -> Vec<NodeEffect> {
        std::mem::take(&mut self.hosts.get_mut(&id).unwrap().events)
    }

    fn leaders(&self) -> Vec<u64> {
        self.hosts
            .iter()
            .filter(|(_, host)| host.node.as_ref().is_some_and(|node| node.view().leading))
            .map(|(id, _)| *id)
            .collect()
    }
}

fn encode(state: &[String]) -> Vec<u8> {
    state.join("\n").into_bytes()
}

fn decode(data: &[u8]) -> Vec<String> {
    let text = String::from_utf8(data.to_vec()).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn applied_requests(events: &[NodeEffect]) -> Vec<u64> {
    events
        .iter()
        .filter_map(
            |event| if let NodeEffect::Apply(committed) = event { committed.request } else { None },
        )
        .collect()
}

#[test]
fn a_campaign_elects_and_what_the_leader_proposes_is_applied_everywhere() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(2);
    fleet.propose(2, 41, "a");
    fleet.propose(2, 42, "b");
    fleet.settle();
    for id in 1..=3 {
        assert_eq!(fleet.state(id), ["a", "b"], "node {id}");
        assert_eq!(fleet.view(id).leader, Some(NodeId(2)));
    }
    assert_eq!(applied_requests(&fleet.events(2)), [41, 42]);
    assert_eq!(applied_requests(&fleet.events(1)), NOBODY);
}

#[test]
fn nobody_campaigns_by_itself_however_long_no_leader_is_heard() {
    let mut fleet = Fleet::voters(3);
    fleet.pass_time(2_000);
    assert_eq!(fleet.leaders(), NOBODY);
    assert!(fleet.hosts.keys().all(|id| fleet.view(*id).term == FIRST_TERM));
    // The timer of raft-rs would fire after at most 1,000,001 ticks.
    let lone = fleet.hosts.get_mut(&1).unwrap().node.as_mut().unwrap();
    let mut effects = Vec::new();
    for _ in 0..1_000_100 {
        lone.feed(NodeInput::Tick, &mut effects);
    }
    lone.flush(&mut effects).unwrap();
    assert_eq!(effects, []);
}

#[test]
fn a_single_voter_elects_itself_in_one_step_that_is_binding() {
    let mut fleet = Fleet::voters(1);
    fleet.auto_pass = false;
    fleet.step(1, NodeInput::Campaign);
    assert_eq!(fleet.leaders(), NOBODY);
    let gated = fleet.hosts[&1].gated.clone();
    let expected =
        GateRequest { ticket: 1, candidate: NodeId(1), term: FIRST_TERM + 1, binding: true };
    assert_eq!(gated, [expected]);
    fleet.step(1, NodeInput::Pass(1));
    assert!(fleet.view(1).settled);
    assert_eq!(fleet.view(1).term, FIRST_TERM + 1);
}

#[test]
fn no_vote_is_given_and_none_is_counted_before_the_lease_allows_it() {
    let mut fleet = Fleet::voters(3);
    fleet.auto_pass = false;
    fleet.cut.insert(3);
    let take = |fleet: &mut Fleet, id: u64| {
        fleet.settle();
        let gated = &mut fleet.hosts.get_mut(&id).unwrap().gated;
        assert_eq!(gated.len(), 1, "node {id} asked for {gated:?}");
        gated.remove(0)
    };

    fleet.step(1, NodeInput::Campaign);
    let pre_vote = take(&mut fleet, 2);
    assert_eq!((pre_vote.candidate, pre_vote.term, pre_vote.binding), (NodeId(1), 2, false));
    assert!(fleet.wire.is_empty(), "an answer went out before the lease allowed it");

    fleet.step(2, NodeInput::Pass(pre_vote.ticket));
    let candidacy = take(&mut fleet, 1);
    assert_eq!((candidacy.candidate, candidacy.term, candidacy.binding), (NodeId(1), 2, true));
    assert_eq!(fleet.view(1).term, 1, "it became a candidate before the lease allowed it");

    fleet.step(1, NodeInput::Pass(candidacy.ticket));
    let vote = take(&mut fleet, 2);
    assert_eq!((vote.candidate, vote.term, vote.binding), (NodeId(1), 2, true));
    assert_eq!(fleet.view(2).term, 1, "its term moved before the lease allowed it");

    fleet.step(2, NodeInput::Pass(vote.ticket));
    fleet.settle();
    assert_eq!(fleet.leaders(), [1]);
}

#[test]
fn a_dropped_step_is_never_taken() {
    let mut fleet = Fleet::voters(3);
    fleet.auto_pass = false;
    fleet.step(1, NodeInput::Campaign);
    fleet.settle();
    let ticket = fleet.hosts[&2].gated[0].ticket;
    fleet.step(2, NodeInput::Drop(ticket));
    fleet.step(2, NodeInput::Pass(ticket));
    assert!(fleet.wire.is_empty());
}

#[test]
fn permission_for_one_term_is_none_for_another() {
    let mut fleet = Fleet::voters(3);
    fleet.auto_pass = false;
    fleet.step(1, NodeInput::Campaign);
    fleet.settle();
    for id in [2, 3] {
        let ticket = fleet.hosts[&id].gated[0].ticket;
        fleet.step(id, NodeInput::Pass(ticket));
    }
    fleet.settle();
    // Two answers complete a majority each; the first is allowed too late, when the term has moved on and node 1 asks around again.
    let stale = fleet.hosts[&1].gated[0];
    assert_eq!(stale.term, 2);
    let newer = Message { from: 3, to: 1, term: 2, ..Message::default() };
    let mut heartbeat = newer;
    heartbeat.set_msg_type(MessageType::MsgHeartbeat);
    fleet.step(1, NodeInput::Message(Box::new(heartbeat)));
    fleet.step(1, NodeInput::Campaign);
    assert_eq!(fleet.view(1).term, 2);
    fleet.step(1, NodeInput::Pass(stale.ticket));
    assert_eq!(fleet.view(1).term, 2, "it became a candidate in a term that was not allowed");
}

#[test]
fn an_order_to_campaign_at_once_waits_for_the_lease_too() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.auto_pass = false;
    fleet.hand_over(1, 2);
    fleet.settle();
    let gated = fleet.hosts[&2].gated.clone();
    assert_eq!(gated.len(), 1);
    assert_eq!((gated[0].candidate, gated[0].term, gated[0].binding), (NodeId(2), 3, true));
    assert_eq!(fleet.leaders(), [1]);
    fleet.auto_pass = true;
    fleet.step(2, NodeInput::Pass(gated[0].ticket));
    fleet.settle();
    assert_eq!(fleet.leaders(), [2]);
}

#[test]
fn an_order_to_campaign_beats_the_old_leaders_priority_and_everybody_elses() {
    let mut fleet = Fleet::voters(5);
    for id in 1..=5 {
        fleet.step(id, NodeInput::SetPriority(100 - i64::try_from(id).unwrap()));
    }
    fleet.elect(1);
    fleet.step(5, NodeInput::Campaign);
    fleet.settle();
    assert_eq!(fleet.leaders(), [1], "unasked, the least preferred is refused");
    fleet.hand_over(1, 5);
    fleet.settle();
    assert_eq!(fleet.leaders(), [5]);
}

#[test]
fn an_order_to_campaign_is_followed_by_a_node_that_asks_around_already() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.hand_over(1, 2);
    fleet.cut.insert(2);
    fleet.step(2, NodeInput::Campaign);
    fleet.cut.clear();
    fleet.settle();
    assert_eq!(fleet.leaders(), [2]);
    assert_eq!(fleet.view(2).term, 3);
}

#[test]
fn an_order_that_comes_too_late_is_not_asked_about() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    let mut order = Message { from: 1, to: 2, term: 2, ..Message::default() };
    order.set_msg_type(MessageType::MsgTimeoutNow);
    // It has become a candidate of the next term on its own, and then its leader.
    fleet.auto_pass = false;
    fleet.step(2, NodeInput::Campaign);
    for id in [1, 3, 2] {
        fleet.settle();
        let ticket = fleet.hosts[&id].gated.last().unwrap().ticket;
        fleet.step(id, NodeInput::Pass(ticket));
    }
    fleet.hosts.get_mut(&2).unwrap().gated.clear();
    fleet.step(2, NodeInput::Message(Box::new(order.clone())));
    assert_eq!(fleet.hosts[&2].gated, [], "a candidate of term 3 asked for a term beyond it");
    fleet.auto_pass = true;
    for id in [1, 3] {
        fleet.settle();
        let ticket = fleet.hosts[&id].gated.last().unwrap().ticket;
        fleet.step(id, NodeInput::Pass(ticket));
    }
    fleet.settle();
    assert_eq!((fleet.leaders(), fleet.view(2).term), (vec![2], 3));
    fleet.auto_pass = false;
    fleet.step(2, NodeInput::Message(Box::new(order)));
    assert_eq!(fleet.hosts[&2].gated, [], "a leader asked for a term beyond its own");
    assert_eq!(fleet.leaders(), [2]);
}

#[test]
fn a_hand_over_that_comes_to_nothing_ends_in_stepping_down() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.cut.insert(2);
    fleet.hand_over(1, 2);
    fleet.propose(1, 1, "refused");
    assert!(
        fleet.events(1).contains(&NodeEffect::Refused { request: 1, why: Refusal::Busy }),
        "a proposal was taken during a hand-over"
    );
    fleet.pass_time(29);
    assert_eq!(fleet.leaders(), [1]);
    fleet.pass_time(2);
    assert_eq!(fleet.leaders(), NOBODY);

    // In favour of a node that does not vote, and in a term that is over.
    fleet.cut.clear();
    fleet.elect(3);
    fleet.step(3, NodeInput::HandOver { term: 2, to: NodeId(1) });
    assert_eq!(fleet.leaders(), [3]);
    fleet.hand_over(3, 9);
    assert_eq!(fleet.leaders(), NOBODY);
}

#[test]
fn a_restarted_node_has_its_state_before_it_hears_from_anyone() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    for request in 0..20 {
        fleet.propose(1, request, &format!("e{request}"));
    }
    fleet.settle();
    // Commit and applied index reach the disk a little later than the entries.
    fleet.pass_time(COMMIT_TICKS + 1);
    fleet.keep = 5;
    fleet.snapshot(3);
    fleet.propose(1, 20, "e20");
    fleet.settle();
    fleet.pass_time(COMMIT_TICKS + 1);
    let before: Vec<String> = fleet.hosts[&3].state.clone();
    let (term, applied) = (fleet.view(3).term, fleet.view(3).applied);
    fleet.crash(3);
    fleet.cut.insert(3);
    fleet.start(3);
    assert_eq!(fleet.hosts[&3].state, before);
    assert_eq!(before.len(), 21);
    assert_eq!((fleet.view(3).term, fleet.view(3).applied), (term, applied));
    assert_eq!(fleet.view(3).voters, ids(&[1, 2, 3]));
}

#[test]
fn a_whole_fleet_that_lost_power_goes_on_where_it_was() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.propose(1, 1, "a");
    fleet.settle();
    for id in 1..=3 {
        fleet.crash(id);
    }
    fleet.wire.clear();
    for id in 1..=3 {
        fleet.start(id);
    }
    fleet.elect(3);
    fleet.propose(3, 2, "b");
    fleet.settle();
    for id in 1..=3 {
        assert_eq!(fleet.state(id), ["a", "b"], "node {id}");
    }
}

#[test]
fn a_node_does_not_vote_twice_in_a_term_across_a_crash() {
    let mut fleet = Fleet::voters(3);
    fleet.cut.insert(3);
    fleet.step(1, NodeInput::Campaign);
    fleet.settle();
    assert_eq!(fleet.leaders(), [1]);
    fleet.crash(2);
    fleet.start(2);
    fleet.events(2);
    let mut request = Message {
        from: 3,
        to: 2,
        term: fleet.view(1).term,
        index: 100,
        log_term: 100,
        ..Message::default()
    };
    request.set_msg_type(MessageType::MsgRequestVote);
    fleet.step(2, NodeInput::Message(Box::new(request)));
    let answers: Vec<bool> = fleet
        .events(2)
        .iter()
        .filter_map(
            |event| if let NodeEffect::Send(message) = event { Some(message) } else { None },
        )
        .filter(|message| message.get_msg_type() == MessageType::MsgRequestVoteResponse)
        .map(|message| message.reject)
        .collect();
    assert_eq!(answers, [true]);
}

#[test]
fn a_promise_leaves_only_after_it_is_durable() {
    for fault in [Fault::BeforeWrite, Fault::AtSync] {
        let mut fleet = Fleet::voters(3);
        fleet.elect(1);
        fleet.events(2);
        fleet.propose(1, 1, "a");
        let append = fleet.wire.iter().position(|message| message.to == 2).unwrap();
        let append = fleet.wire.remove(append).unwrap();
        fleet.hosts[&2].disk.fail(fault);
        let node = fleet.hosts.get_mut(&2).unwrap().node.as_mut().unwrap();
        let mut effects = Vec::new();
        node.feed(NodeInput::Message(Box::new(append)), &mut effects);
        node.flush(&mut effects).unwrap_err();
        assert!(
            !effects.iter().any(|effect| matches!(effect, NodeEffect::Send(_))),
            "{fault:?}: acknowledged what was not durable"
        );
        let error = node.flush(&mut effects).unwrap_err();
        assert!(matches!(error, StoreError::GivenUp { .. }), "{fault:?}: it went on: {error}");
    }
}

#[test]
fn a_joiner_learns_by_snapshot_and_votes_once_promoted() {
    let mut fleet = Fleet::voters(1);
    fleet.elect(1);
    fleet.propose(1, 1, "a");
    fleet.settle();
    fleet.add(2, None);
    assert_eq!(fleet.view(2).voters, ids(&[]));
    fleet.change(1, 10, Change::AddLearner(NodeId(2)));
    assert!(fleet.events(1).contains(&NodeEffect::Configured { request: 10 }));
    fleet.pass_time(30);
    assert_eq!(fleet.state(2), ["a"]);
    assert_eq!(fleet.view(2).learners, ids(&[2]));
    assert_eq!(fleet.view(1).matched[&NodeId(2)], fleet.view(1).commit);

    fleet.step(2, NodeInput::Campaign);
    assert!(fleet.wire.is_empty(), "a learner campaigned");

    fleet.change(1, 11, Change::Promote(NodeId(2)));
    fleet.pass_time(11);
    assert_eq!(fleet.view(2).voters, ids(&[1, 2]));
    fleet.hand_over(1, 2);
    fleet.settle();
    assert_eq!(fleet.leaders(), [2]);
}

#[test]
fn a_follower_that_lags_behind_the_log_gets_a_snapshot() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.cut.insert(3);
    for request in 0..10 {
        fleet.propose(1, request, &format!("e{request}"));
    }
    fleet.settle();
    fleet.snapshot(1);
    fleet.propose(1, 10, "e10");
    fleet.settle();
    fleet.cut.clear();
    fleet.pass_time(30);
    assert_eq!(fleet.state(3), fleet.state(1));
    assert_eq!(fleet.state(3).len(), 11);
    let restored = |event: &NodeEffect| matches!(event, NodeEffect::Restore { .. });
    assert!(fleet.events(3).iter().any(restored), "it did not need the snapshot");
}

#[test]
fn a_lost_snapshot_is_sent_again() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.cut.insert(3);
    for request in 0..10 {
        fleet.propose(1, request, &format!("e{request}"));
    }
    fleet.settle();
    fleet.snapshot(1);
    fleet.cut.clear();
    let is_snapshot = |message: &Message| message.get_msg_type() == MessageType::MsgSnapshot;
    // Lose the first snapshot on the wire.
    for _ in 0..100 {
        fleet.step(1, NodeInput::Tick);
        if let Some(at) = fleet.wire.iter().position(is_snapshot) {
            fleet.wire.remove(at);
            break;
        }
        if let Some(message) = fleet.wire.pop_front() {
            fleet.step(message.to, NodeInput::Message(Box::new(message)));
        }
    }
    fleet.settle();
    assert_eq!(fleet.state(3).len(), 0);
    fleet.pass_time(SNAPSHOT_TICKS + 30);
    assert_eq!(fleet.state(3).len(), 10);
}

#[test]
fn a_proposal_that_another_leaders_entry_replaced_is_lost() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.cut.insert(1);
    fleet.propose(1, 7, "never");
    fleet.elect(2);
    fleet.propose(2, 8, "instead");
    fleet.settle();
    fleet.events(1);
    fleet.cut.clear();
    fleet.pass_time(30);
    assert!(fleet.events(1).contains(&NodeEffect::Lost { request: 7 }));
    assert_eq!(fleet.state(1), ["instead"]);
}

#[test]
fn a_proposal_that_the_next_leader_commits_is_answered_with_its_outcome() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.propose(1, 7, "late");
    // The entry reaches node 2, but its answer is lost with the leader's link.
    let append = fleet.wire.pop_front().unwrap();
    assert_eq!(append.to, 2);
    fleet.step(2, NodeInput::Message(Box::new(append)));
    fleet.cut.insert(1);
    fleet.settle();
    fleet.elect(2);
    fleet.cut.clear();
    fleet.pass_time(30);
    let events = fleet.events(1);
    assert_eq!(applied_requests(&events), [7]);
    assert_eq!(fleet.state(1), ["late"]);
}

#[test]
fn only_the_leader_takes_proposals() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.propose(2, 1, "a");
    let refused = |leader| NodeEffect::Refused { request: 1, why: Refusal::NotLeader(leader) };
    assert!(fleet.events(2).contains(&refused(Some(NodeId(1)))));
    let term = fleet.view(1).term;
    fleet.step(1, NodeInput::StepDown { term: term - 1 });
    assert_eq!(fleet.leaders(), [1]);
    fleet.step(1, NodeInput::StepDown { term });
    assert_eq!(fleet.leaders(), NOBODY);
    fleet.propose(1, 1, "a");
    assert!(fleet.events(1).contains(&refused(None)));
}

#[test]
fn a_leader_knows_that_its_majority_fell_silent_and_that_it_is_back() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    assert!(fleet.view(1).backed, "elected by a majority just now");
    fleet.cut.insert(2);
    fleet.pass_time(3 * BACKED_TICKS);
    assert!(fleet.view(1).backed, "one of the two others is enough");
    fleet.cut.insert(3);
    fleet.pass_time(BACKED_TICKS / 2);
    assert!(fleet.view(1).backed, "a lost heartbeat is no lost majority");
    fleet.pass_time(BACKED_TICKS);
    let view = fleet.view(1);
    assert!((view.leading, view.settled, view.backed) == (true, true, false), "{view:?}");
    fleet.cut.remove(&3);
    fleet.pass_time(2 * HEARTBEAT_TICKS as u64);
    assert!(fleet.view(1).backed);
    assert!(!fleet.view(3).backed, "only a leader is");
}

#[test]
fn a_second_change_at_once_and_the_leaders_own_removal_are_refused() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.step(1, NodeInput::Change { request: 1, change: Change::AddLearner(NodeId(8)) });
    fleet.step(1, NodeInput::Change { request: 2, change: Change::AddLearner(NodeId(9)) });
    fleet.settle();
    fleet.change(1, 3, Change::Remove(NodeId(1)));
    fleet.change(1, 4, Change::Demote(NodeId(1)));
    let events = fleet.events(1);
    assert!(events.contains(&NodeEffect::Configured { request: 1 }));
    for request in [2, 3, 4] {
        let refused = NodeEffect::Refused { request, why: Refusal::Configuration };
        assert!(events.contains(&refused), "request {request}");
    }
    assert_eq!(fleet.view(1).learners, ids(&[8]));
    assert_eq!(fleet.view(2).learners, ids(&[8]));
}

#[test]
fn a_removed_voter_no_longer_counts() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.cut.insert(3);
    fleet.change(1, 1, Change::Remove(NodeId(3)));
    assert_eq!(fleet.view(1).voters, ids(&[1, 2]));
    fleet.change(1, 2, Change::Demote(NodeId(2)));
    assert_eq!(fleet.view(1).voters, ids(&[1]));
    assert_eq!(fleet.view(2).learners, ids(&[2]));
    fleet.cut.insert(2);
    fleet.propose(1, 3, "alone");
    assert_eq!(fleet.state(1), ["alone"]);
}

#[test]
fn a_change_of_configuration_survives_a_crash_and_is_not_applied_again() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.change(1, 1, Change::AddLearner(NodeId(4)));
    fleet.change(1, 2, Change::Promote(NodeId(4)));
    fleet.change(1, 3, Change::Remove(NodeId(3)));
    fleet.crash(2);
    fleet.cut.insert(2);
    fleet.start(2);
    assert_eq!(fleet.view(2).voters, ids(&[1, 2, 4]));
    assert_eq!(fleet.view(2).learners, ids(&[]));
}

#[test]
fn whoever_has_the_newer_log_campaigns_when_it_refuses_a_pre_vote() {
    // 1 and 3 commit an entry that 2 misses; then 1 dies. Only 3 can lead, and 2 is the one that asks.
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.cut.insert(2);
    fleet.propose(1, 1, "a");
    fleet.settle();
    fleet.pass_time(11);
    fleet.crash(1);
    fleet.cut = BTreeSet::from([1]);
    fleet.step(2, NodeInput::SetPriority(100));
    fleet.step(3, NodeInput::SetPriority(-10));
    fleet.pass_time(LEADER_SILENT_TICKS);
    fleet.step(2, NodeInput::Campaign);
    fleet.settle();
    assert_eq!(fleet.leaders(), [3]);
    assert_eq!(fleet.state(2), ["a"]);
}

#[test]
fn a_node_that_lags_makes_nobody_campaign_while_a_leader_is_heard() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.cut.insert(2);
    fleet.propose(1, 1, "a");
    fleet.settle();
    fleet.pass_time(50);
    let term = fleet.view(1).term;
    fleet.cut.clear();
    fleet.step(2, NodeInput::Campaign);
    fleet.settle();
    assert_eq!(fleet.leaders(), [1]);
    assert_eq!(fleet.view(3).term, term);
}

#[test]
fn a_longer_log_of_an_older_term_does_not_outvote_a_newer_one_by_priority() {
    // 2 has many entries of term 2 that nobody else has; 3 has fewer, but of a newer term. Node 1, which could break the tie, is dead.
    let mut fleet = Fleet::voters(3);
    fleet.elect(2);
    fleet.cut.insert(2);
    for request in 0..5 {
        fleet.propose(2, request, "lost");
    }
    fleet.elect(3);
    fleet.crash(1);
    fleet.cut = BTreeSet::from([1]);
    fleet.step(2, NodeInput::StepDown { term: 2 });
    let term = fleet.view(3).term;
    fleet.step(3, NodeInput::StepDown { term });
    fleet.wire.clear();
    fleet.step(2, NodeInput::SetPriority(100));
    fleet.step(3, NodeInput::SetPriority(-10));
    fleet.elect(3);
}

#[test]
fn messages_for_others_and_of_local_kinds_are_ignored() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.events(1);
    let kinds = [MessageType::MsgHup, MessageType::MsgPropose, MessageType::MsgTransferLeader];
    for kind in kinds {
        let mut message = Message {
            from: 2,
            to: 1,
            entries: vec![Entry { data: b"forged".to_vec(), ..Entry::default() }],
            ..Message::default()
        };
        message.set_msg_type(kind);
        fleet.step(1, NodeInput::Message(Box::new(message)));
    }
    let mut stray = Message { from: 2, to: 3, term: 99, ..Message::default() };
    stray.set_msg_type(MessageType::MsgHeartbeat);
    fleet.step(1, NodeInput::Message(Box::new(stray)));
    assert_eq!(fleet.events(1), []);
    assert_eq!(fleet.leaders(), [1]);
}

#[test]
fn a_follower_says_when_it_hears_from_the_leader() {
    let mut fleet = Fleet::voters(3);
    fleet.elect(1);
    fleet.events(2);
    fleet.pass_time(10);
    assert!(fleet.events(2).contains(&NodeEffect::LeaderHeard));
    assert!(!fleet.events(1).contains(&NodeEffect::LeaderHeard));
}

#[test]
fn heartbeats_to_many_learners_are_thinned_and_to_voters_never() {
    let mut fleet = Fleet::voters(2);
    fleet.elect(1);
    for id in 10..10 + FEW_LEARNERS as u64 + 1 {
        fleet.change(1, id, Change::AddLearner(NodeId(id)));
    }
    fleet.events(1);
    for _ in 0..100 {
        fleet.step(1, NodeInput::Tick);
    }
    let mut beats: BTreeMap<u64, u64> = BTreeMap::new();
    for event in fleet.events(1) {
        if let NodeEffect::Send(message) = event
            && message.get_msg_type() == MessageType::MsgHeartbeat
        {
            *beats.entry(message.to).or_default() += 1;
        }
    }
    assert_eq!(beats.remove(&2), Some(10));
    assert_eq!(beats.len(), FEW_LEARNERS + 1);
    assert!(beats.values().all(|count| *count == 1), "{beats:?}");
}
