//! One Raft node, without threads, clocks or sockets: `step(input) -> effects`.
//!
//! *In*: peers' messages, proposals, the lease's verdicts, ticks. *Out*: messages, entries to apply, requests to the lease's gate, a view.
//!
//! Three things differ from Raft as the thesis has it:
//!
//! - **Nobody campaigns by a timer.** The lease machine says when; a follower's ticks are not passed on to raft-rs at all.
//! - **Every step that could elect a leader waits for the lease.** Requests for votes, the last pre-vote before a candidacy, an order to campaign at
//!   once: each is parked under a ticket, asked for with [`NodeEffect::Gate`], and taken when [`NodeInput::Pass`] names it.
//! - **A newer log beats priority, and so does an order.** raft-rs lets a voter of higher priority refuse a candidate whose last entry is of a newer
//!   term but has no higher index; if the third voter is dead, nobody could ever be elected. And it lets one refuse the candidate that the leader
//!   has just told to take over, who would then have deposed the leader for nothing.
//!
//! What happens to one `Ready`, in this order: the leader's messages go out; snapshot, entries and hard state become durable in one write; only
//! then a follower's or candidate's messages go out (they are promises about what is durable); committed entries become effects.

mod gate;
mod log;
mod pending;
mod replay;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use lvsmesh_core::lease::GateRequest;
use lvsmesh_core::membership::Change;
use lvsmesh_core::model::NodeId;
use prost011::Message as _;
use raft::eraftpb::{
    ConfChange, ConfChangeType, ConfChangeV2, Entry, EntryType, Message, MessageType, Snapshot,
};
use raft::{RawNode, SnapshotStatus, StateRole};

use self::gate::Gate;
use self::pending::{Kind, Pending};
pub(crate) use self::replay::unreadable;
use super::RaftStatus;
use super::storage::{Batch, LogStore, StoreError};

/// One tick of [`NodeInput::Tick`], in milliseconds.
pub const TICK_MS: u64 = 10;
/// A leader tells followers how far the log is committed this often. Says nothing about who is alive: that is the lease's business.
const HEARTBEAT_TICKS: usize = 10;
/// A hand-over of leadership has come to nothing after this.
const TRANSFER_TICKS: usize = 30;
/// With more learners than this, only one heartbeat in [`LEARNER_HEARTBEATS`] goes to each: they get entries as soon as those are committed, and
/// heartbeats only repair what was lost.
const FEW_LEARNERS: usize = 20;
const LEARNER_HEARTBEATS: u64 = 10;
/// A follower that has not confirmed a snapshot after this is sent another.
const SNAPSHOT_TICKS: u64 = 500;
/// A leader that was not heard from for two heartbeats may be dead.
const LEADER_SILENT_TICKS: u64 = 2 * HEARTBEAT_TICKS as u64;
/// A leader counts a voter as behind it for so long after its last message. Heartbeats ask for one every [`HEARTBEAT_TICKS`].
const BACKED_TICKS: u64 = 20 * HEARTBEAT_TICKS as u64;
/// How long commit and applied index may stay in memory only. Both can be learned again from the leader; on disk they let a node that boots alone
/// act on what it had applied.
const COMMIT_TICKS: u64 = 10;

/// Entries in flight to one follower.
const MAX_INFLIGHT: usize = 64;
/// Bytes in one append message; a larger entry travels alone.
const MAX_APPEND_BYTES: u64 = 256 << 10;
/// Bytes proposed and not committed; proposals above it are refused.
const MAX_UNCOMMITTED_BYTES: u64 = 16 << 20;
/// Bytes of committed entries handed out at once.
const MAX_APPLY_BYTES: u64 = 1 << 20;

/// Something that happened outside the node.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeInput {
    /// [`TICK_MS`] have passed.
    Tick,
    /// A peer's message arrived.
    Message(Box<Message>),
    /// Append this to the log, if this node leads.
    Propose {
        /// Comes back in [`NodeEffect::Apply`], [`NodeEffect::Lost`] or [`NodeEffect::Refused`].
        request: u64,
        /// Never empty: an empty entry is a new leader's first.
        data: Vec<u8>,
    },
    /// Change the configuration, if this node leads.
    Change {
        /// Comes back in [`NodeEffect::Configured`], [`NodeEffect::Lost`] or [`NodeEffect::Refused`].
        request: u64,
        /// One step.
        change: Change,
    },
    /// Ask the other voters whether they would elect this node. A fleet of one voter elects itself, and that goes through the gate.
    Campaign,
    /// Take the step that waits under this ticket.
    Pass(u64),
    /// Forget the step that waits under this ticket.
    Drop(u64),
    /// Lead or campaign no more in this term.
    StepDown {
        /// Nothing happens if the node is in another one.
        term: u64,
    },
    /// Hand the leadership of this term to this voter, and lead it no more: at once if that is no voter, else when it has taken over or, unless
    /// it does within 300 ms, then. No proposals are taken meanwhile.
    HandOver {
        /// Nothing happens if the node does not lead in it; if it campaigns in it, it steps down.
        term: u64,
        /// The successor.
        to: NodeId,
    },
    /// Voters with a higher priority and a log as new as the candidate's refuse their votes, unless it was told to campaign by the leader.
    SetPriority(i64),
    /// The state machine as of the newest applied entry: stored, and the log before it dropped. Ignored if more was applied meanwhile, so it has
    /// to be the first input after the effects that led to it.
    Snapshot {
        /// The newest entry that it contains.
        index: u64,
        /// Its encoding.
        data: Vec<u8>,
        /// How many entries before it stay, for followers that lag a little.
        keep: u64,
    },
    /// Messages to this node are lost: what is in flight to it must be sent again.
    Unreachable(NodeId),
}

/// Something that the caller must now do, in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeEffect {
    /// Send a message; losing it is legal.
    Send(Message),
    /// Ask the lease whether this step may be taken; answer [`NodeInput::Pass`] or [`NodeInput::Drop`].
    Gate(GateRequest),
    /// Replace the state machine.
    Restore {
        /// The newest entry that it contains.
        index: u64,
        /// Its encoding.
        data: Vec<u8>,
    },
    /// Apply a committed entry.
    Apply(Committed),
    /// A configuration change was applied, by this node's own request. What it led to is in the next [`NodeEffect::View`].
    Configured {
        /// Of the [`NodeInput::Change`].
        request: u64,
    },
    /// This node's log no longer has what was asked for: another leader's entry is in its place. It was almost certainly never committed; whoever
    /// repeats it must look first.
    Lost {
        /// Of the proposal or change.
        request: u64,
    },
    /// The proposal or change was not even tried.
    Refused {
        /// Of the proposal or change.
        request: u64,
        /// Why.
        why: Refusal,
    },
    /// The leader of the current term was heard from.
    LeaderHeard,
    /// The view changed.
    View(RaftStatus),
    /// A follower needs a snapshot newer than the stored one: answer [`NodeInput::Snapshot`].
    SnapshotWanted,
}

/// A committed entry with content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What was proposed.
    pub data: Vec<u8>,
    /// Of the [`NodeInput::Propose`], if this node proposed it since it started.
    pub request: Option<u64>,
}

/// Why a proposal was not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another node leads, or none does.
    NotLeader(Option<NodeId>),
    /// Leadership is being handed over, or too much waits to be committed.
    Busy,
    /// Another configuration change is not applied yet, or this one makes no sense in the present configuration.
    Configuration,
}

/// Role, term, leader, commit index, applied index, number of configuration changes.
type Seen = Option<(StateRole, u64, u64, u64, u64, u64)>;

/// One Raft node.
pub struct Node<S: LogStore> {
    raw: RawNode<S>,
    id: NodeId,
    gate: Gate,
    pending: Pending,
    view: RaftStatus,
    ticks: u64,
    /// The tick at which the leader was last heard from.
    heard: u64,
    /// The tick of the last message of each node that the configuration knows.
    answered: BTreeMap<u64, u64>,
    /// Snapshots on their way: to whom, and the tick at which to give up.
    snapshots: BTreeMap<u64, u64>,
    /// A [`NodeInput::Snapshot`] that is not stored yet.
    snapshot: Option<(u64, Vec<u8>, u64)>,
    /// How often the configuration has changed.
    configurations: u64,
    /// What the published view depends on, but for `matched`, which is looked at once a tick.
    seen: Seen,
    /// The tick since which commit or applied index are ahead of the store.
    unsaved_since: Option<u64>,
    /// The term whose leadership is being handed over.
    leaving: Option<u64>,
    given_up: bool,
}

impl<S: LogStore> std::fmt::Debug for Node<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("view", &self.view).finish_non_exhaustive()
    }
}

impl<S: LogStore> Node<S> {
    /// Starts from what a store holds. The effects restore the state machine as it was: the stored snapshot, then every entry that is known to be
    /// applied. What is committed beyond that follows with the first input.
    ///
    /// # Errors
    ///
    /// If the store belongs to no node, or cannot be read.
    pub fn new(store: S, priority: i64) -> Result<(Self, Vec<NodeEffect>), StoreError> {
        let (id, mut effects) = replay::replay(&store)?;
        let config = raft::Config {
            id: id.0,
            applied: store.applied(),
            election_tick: TRANSFER_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            // Never reached: only a leader's ticks are passed on. One value, so that nothing is drawn at random.
            min_election_tick: 1_000_000,
            max_election_tick: 1_000_001,
            check_quorum: false,
            pre_vote: true,
            max_inflight_msgs: MAX_INFLIGHT,
            max_size_per_msg: MAX_APPEND_BYTES,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
            max_committed_size_per_ready: MAX_APPLY_BYTES,
            priority,
            ..raft::Config::default()
        };
        let raw = RawNode::new(&config, store, &log::logger()).map_err(unreadable)?;
        let mut node = Self {
            raw,
            id,
            gate: Gate::default(),
            pending: Pending::default(),
            view: RaftStatus::default(),
            ticks: 0,
            heard: 0,
            answered: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            snapshot: None,
            configurations: 0,
            seen: Seen::default(),
            unsaved_since: None,
            leaving: None,
            given_up: false,
        };
        node.flush(&mut effects)?;
        Ok((node, effects))
    }

    /// Takes one input to its end: [`Node::feed`], then [`Node::flush`].
    ///
    /// # Errors
    ///
    /// As [`Node::flush`].
    pub fn step(&mut self, input: NodeInput) -> Result<Vec<NodeEffect>, StoreError> {
        let mut effects = Vec::new();
        self.feed(input, &mut effects);
        self.flush(&mut effects)?;
        Ok(effects)
    }

    /// Takes an input without making anything durable. Several may be fed before one [`Node::flush`], and share its write.
    pub fn feed(&mut self, input: NodeInput, effects: &mut Vec<NodeEffect>) {
        match input {
            NodeInput::Tick => self.tick(),
            NodeInput::Message(message) => self.message(*message, effects),
            NodeInput::Propose { request, data } => self.propose(request, data, effects),
            NodeInput::Change { request, change } => self.change(request, change, effects),
            NodeInput::Campaign => self.campaign(effects),
            NodeInput::Pass(ticket) => self.pass(ticket, effects),
            NodeInput::Drop(ticket) => self.gate.drop(ticket),
            NodeInput::StepDown { term } => self.step_down(term),
            NodeInput::HandOver { term, to } => self.hand_over(term, to),
            NodeInput::SetPriority(priority) => self.raw.set_priority(priority),
            NodeInput::Snapshot { index, data, keep } => self.snapshot = Some((index, data, keep)),
            NodeInput::Unreachable(id) => self.unreachable(id.0),
        }
    }

    /// Makes durable what the inputs led to, and says what is to be done about it.
    ///
    /// # Errors
    ///
    /// If the store fails. What was not yet said is lost with it, which Raft allows; this node takes no further step.
    pub fn flush(&mut self, effects: &mut Vec<NodeEffect>) -> Result<(), StoreError> {
        if self.given_up {
            return Err(StoreError::GivenUp { path: self.raw.store().path().to_owned() });
        }
        let result = self.try_flush(effects);
        self.given_up = result.is_err();
        result
    }

    /// Ends the node: makes durable what could wait until now, so that it starts where it stopped without hearing from anyone.
    ///
    /// # Errors
    ///
    /// If the store fails; nothing that was promised is lost.
    pub fn close(mut self) -> Result<(), StoreError> {
        if self.unsaved_since.is_some() && !self.given_up {
            self.save(Batch::default())?;
        }
        Ok(())
    }

    /// The newest view.
    #[must_use]
    pub fn view(&self) -> &RaftStatus {
        &self.view
    }

    /// The store, for tests and simulations to look into.
    #[must_use]
    pub fn store(&self) -> &S {
        self.raw.store()
    }

    fn tick(&mut self) {
        self.ticks += 1;
        if self.leads() {
            self.raw.tick();
            self.seen = Seen::default();
        }
        self.leave();
        let overdue: Vec<u64> = self
            .snapshots
            .iter()
            .filter(|(_, deadline)| **deadline <= self.ticks)
            .map(|(id, _)| *id)
            .collect();
        for id in overdue {
            self.snapshots.remove(&id);
            self.raw.report_snapshot(id, SnapshotStatus::Failure);
        }
    }

    fn unreachable(&mut self, id: u64) {
        self.raw.report_unreachable(id);
        if self.snapshots.remove(&id).is_some() {
            self.raw.report_snapshot(id, SnapshotStatus::Failure);
        }
    }

    fn message(&mut self, message: Message, effects: &mut Vec<NodeEffect>) {
        if message.to != self.id.0 || !is_for_peers(message.get_msg_type()) {
            return;
        }
        match gate::asks_for(&self.raw, &message) {
            Some((candidate, term, binding)) => {
                let request = self.gate.park(
                    gate::Step::Message(Box::new(message)),
                    candidate,
                    term,
                    binding,
                );
                effects.push(NodeEffect::Gate(request));
            }
            None => self.take(message, effects),
        }
    }

    /// Hands a message to raft-rs.
    fn take(&mut self, mut message: Message, effects: &mut Vec<NodeEffect>) {
        let kind = message.get_msg_type();
        let (from, term) = (message.from, message.term);
        let asked = (message.log_term, message.index);
        if self.raw.raft.prs().get(from).is_some() {
            self.answered.insert(from, self.ticks);
        }
        let ordered = message.context == raft::CAMPAIGN_TRANSFER;
        if is_vote_request(kind) && (ordered || asked.0 > self.last_log().0) {
            message.priority = i64::MAX;
        }
        let rejected_before = self.rejections();
        // It fails for a response of a node that was removed, and a dropped message is legal.
        if let Err(error) = self.raw.step(message) {
            tracing::debug!(from, ?kind, %error, "raft message dropped");
        }
        if is_from_leader(kind) && self.raw.raft.term == term && self.raw.raft.leader_id == from {
            self.heard = self.ticks;
            effects.push(NodeEffect::LeaderHeard);
        }
        let rejected = self.rejections() > rejected_before;
        if kind == MessageType::MsgRequestPreVote && rejected && asked < self.last_log() {
            self.stand_in(effects);
        }
    }

    /// Campaigns in place of a node that would lead if its log were not older than ours: with the third voter dead, nobody else can. Not while a
    /// leader is heard: then it is the one that lags, or that was removed, who is wrong.
    fn stand_in(&mut self, effects: &mut Vec<NodeEffect>) {
        let silent = self.ticks >= self.heard + LEADER_SILENT_TICKS;
        if self.leader().is_none() || silent {
            self.campaign_through_gate(effects);
        }
    }

    fn propose(&mut self, request: u64, data: Vec<u8>, effects: &mut Vec<NodeEffect>) {
        assert!(!data.is_empty(), "an empty entry is a new leader's first");
        // A follower of raft-rs 0.7 would forward it, and nobody here would learn what became of it.
        if !self.leads() {
            let leader = self.leader();
            effects.push(NodeEffect::Refused { request, why: Refusal::NotLeader(leader) });
            return;
        }
        match self.raw.propose(Vec::new(), data) {
            Ok(()) => self.note_pending(request, Kind::Proposal),
            Err(_) => effects.push(NodeEffect::Refused { request, why: Refusal::Busy }),
        }
    }

    fn change(&mut self, request: u64, change: Change, effects: &mut Vec<NodeEffect>) {
        let refuse = |why| NodeEffect::Refused { request, why };
        if !self.leads() {
            effects.push(refuse(Refusal::NotLeader(self.leader())));
            return;
        }
        let (kind, id) = match change {
            Change::AddLearner(id) | Change::Demote(id) => (ConfChangeType::AddLearnerNode, id),
            Change::Promote(id) => (ConfChangeType::AddNode, id),
            Change::Remove(id) => (ConfChangeType::RemoveNode, id),
            Change::HandOver(to) => {
                self.hand_over(self.raw.raft.term, to);
                effects.push(NodeEffect::Configured { request });
                return;
            }
        };
        // raft-rs would let a leader without a vote go on leading, and would replace a second pending change by an empty entry.
        let own_vote = id == self.id && kind != ConfChangeType::AddNode;
        if own_vote || self.raw.raft.has_pending_conf() {
            effects.push(refuse(Refusal::Configuration));
            return;
        }
        let change =
            ConfChange { change_type: kind.into(), node_id: id.0, ..ConfChange::default() };
        match self.raw.propose_conf_change(Vec::new(), change) {
            Ok(()) => self.note_pending(request, Kind::Change),
            Err(_) => effects.push(refuse(Refusal::Busy)),
        }
    }

    fn note_pending(&mut self, request: u64, kind: Kind) {
        let raft = &self.raw.raft;
        self.pending.push(raft.raft_log.last_index(), raft.term, request, kind);
    }

    fn hand_over(&mut self, term: u64, to: NodeId) {
        if self.leads() && self.raw.raft.term == term {
            self.raw.transfer_leader(to.0);
            self.leaving = Some(term);
            self.leave();
        } else {
            self.step_down(term);
        }
    }

    /// Steps down from a leadership that is being handed over once raft-rs has given up on that, or never took it up.
    fn leave(&mut self) {
        if self.raw.raft.lead_transferee.is_none()
            && let Some(term) = self.leaving.take()
        {
            self.step_down(term);
        }
    }

    fn step_down(&mut self, term: u64) {
        let raft = &mut self.raw.raft;
        if raft.term == term && raft.state != StateRole::Follower {
            raft.become_follower(term, raft::INVALID_ID);
        }
    }

    fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Whether this node, or one that was heard from lately.
    fn is_heard(&self, id: NodeId) -> bool {
        id == self.id || self.answered.get(&id.0).is_some_and(|at| at + BACKED_TICKS >= self.ticks)
    }

    fn leader(&self) -> Option<NodeId> {
        let id = self.raw.raft.leader_id;
        (id != raft::INVALID_ID).then_some(NodeId(id))
    }

    /// Term and index of the last entry, in the order in which Raft compares logs.
    fn last_log(&self) -> (u64, u64) {
        let log = &self.raw.raft.raft_log;
        (log.last_term(), log.last_index())
    }

    /// Refusals of pre-votes that wait to be sent.
    fn rejections(&self) -> usize {
        let refused = |message: &&Message| {
            message.get_msg_type() == MessageType::MsgRequestPreVoteResponse && message.reject
        };
        self.raw.raft.msgs.iter().filter(refused).count()
    }

    fn try_flush(&mut self, effects: &mut Vec<NodeEffect>) -> Result<(), StoreError> {
        while self.raw.has_ready() {
            self.ready(effects)?;
        }
        if let Some((index, data, keep)) = self.snapshot.take()
            && index == self.raw.raft.raft_log.applied()
        {
            self.compact(index, data, keep)?;
            while self.raw.has_ready() {
                self.ready(effects)?;
            }
        }
        if self.unsaved_since.is_some_and(|since| self.ticks >= since + COMMIT_TICKS) {
            self.save(Batch::default())?;
        }
        if !self.leads() {
            let log = &self.raw.raft.raft_log;
            for request in self.pending.overwritten(|index, term| log.match_term(index, term)) {
                effects.push(NodeEffect::Lost { request });
            }
        }
        if !self.raw.mut_store().take_wanted().is_empty() {
            effects.push(NodeEffect::SnapshotWanted);
        }
        self.publish(effects);
        Ok(())
    }

    /// One round of raft-rs's protocol with its user. Nothing is stepped, proposed or ticked within it.
    fn ready(&mut self, effects: &mut Vec<NodeEffect>) -> Result<(), StoreError> {
        let mut ready = self.raw.ready();
        let messages = ready.take_messages();
        self.send(messages, effects);

        let snapshot = (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone());
        let restored = snapshot.as_ref().map(|snapshot| snapshot.get_metadata().index);
        if let (Some(snapshot), Some(index)) = (&snapshot, restored) {
            self.configurations += 1;
            for request in self.pending.covered(index) {
                effects.push(NodeEffect::Lost { request });
            }
            effects.push(NodeEffect::Restore { index, data: snapshot.data.clone() });
        }
        let entries = ready.take_entries();
        if ready.must_sync() || !entries.is_empty() || snapshot.is_some() {
            self.save(Batch { snapshot, entries, ..Batch::default() })?;
        } else if ready.hs().is_some() {
            self.unsaved_since.get_or_insert(self.ticks);
        }
        let messages = ready.take_persisted_messages();
        self.send(messages, effects);

        let mut committed = ready.take_committed_entries();
        let mut light = self.raw.advance_append(ready);
        if let Some(index) = restored {
            self.raw.advance_apply_to(index);
        }
        if light.commit_index().is_some() {
            self.unsaved_since.get_or_insert(self.ticks);
        }
        let messages = light.take_messages();
        self.send(messages, effects);
        committed.append(&mut light.take_committed_entries());
        self.apply(committed, effects)
    }

    /// Makes a batch durable, with the newest hard state and applied index.
    fn save(&mut self, mut batch: Batch) -> Result<(), StoreError> {
        batch.hard_state = Some(self.raw.raft.hard_state());
        if batch.snapshot.is_none() {
            batch.applied = Some(self.raw.raft.raft_log.applied());
        }
        self.raw.mut_store().write(&batch)?;
        self.unsaved_since = None;
        Ok(())
    }

    fn apply(
        &mut self,
        entries: Vec<Entry>,
        effects: &mut Vec<NodeEffect>,
    ) -> Result<(), StoreError> {
        let Some(last) = entries.last().map(|entry| entry.index) else { return Ok(()) };
        for entry in entries {
            let kind = entry.get_entry_type();
            let (settled, lost) = self.pending.settle(
                entry.index,
                entry.term,
                if kind == EntryType::EntryNormal { Kind::Proposal } else { Kind::Change },
            );
            effects.extend(lost.into_iter().map(|request| NodeEffect::Lost { request }));
            match kind {
                EntryType::EntryNormal if entry.data.is_empty() => {}
                EntryType::EntryNormal => effects.push(NodeEffect::Apply(Committed {
                    index: entry.index,
                    term: entry.term,
                    data: entry.data,
                    request: settled,
                })),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    let taken = self.configure(&entry)?;
                    effects.extend(settled.map(|request| {
                        if taken {
                            NodeEffect::Configured { request }
                        } else {
                            NodeEffect::Refused { request, why: Refusal::Configuration }
                        }
                    }));
                }
            }
        }
        self.raw.advance_apply_to(last);
        self.unsaved_since.get_or_insert(self.ticks);
        Ok(())
    }

    /// Applies a configuration change and makes it durable together with its index, so that it is never applied twice. Returns whether the present
    /// configuration allowed it, which is the same on every node.
    fn configure(&mut self, entry: &Entry) -> Result<bool, StoreError> {
        let applied = if entry.get_entry_type() == EntryType::EntryConfChange {
            let change = ConfChange::decode(entry.data.as_slice());
            change.map(|change| self.raw.apply_conf_change(&change))
        } else {
            let change = ConfChangeV2::decode(entry.data.as_slice());
            change.map(|change| self.raw.apply_conf_change(&change))
        };
        let conf_state = match applied {
            Ok(Ok(conf_state)) => Some(conf_state),
            Ok(Err(error)) => {
                tracing::warn!(index = entry.index, %error, "configuration change refused");
                None
            }
            Err(error) => {
                tracing::error!(index = entry.index, %error, "configuration change unreadable");
                None
            }
        };
        let taken = conf_state.is_some();
        let batch = Batch {
            hard_state: Some(self.raw.raft.hard_state()),
            applied: Some(entry.index),
            conf_state,
            ..Batch::default()
        };
        self.raw.mut_store().write(&batch)?;
        self.configurations += 1;
        Ok(taken)
    }

    fn compact(&mut self, index: u64, data: Vec<u8>, keep: u64) -> Result<(), StoreError> {
        // The store's applied index must reach the snapshot's, or a crash between the two would leave a log that contradicts itself.
        self.save(Batch::default())?;
        let raft = &self.raw.raft;
        let mut snapshot = Snapshot { data, ..Snapshot::default() };
        let meta = snapshot.mut_metadata();
        meta.index = index;
        meta.term = raft.raft_log.term(index).map_err(unreadable)?;
        meta.set_conf_state(raft.prs().conf().to_conf_state());
        self.raw.mut_store().compact(&snapshot, keep)?;
        if self.leads() {
            // Whoever waits for it has been told "later".
            for id in self.behind(index, keep) {
                self.raw.raft.send_append(id);
            }
        }
        Ok(())
    }

    /// Followers whose logs end before the first entry that is kept.
    fn behind(&self, index: u64, keep: u64) -> Vec<u64> {
        let prs = self.raw.raft.prs().iter();
        let first = index.saturating_sub(keep);
        prs.filter(|(id, progress)| **id != self.id.0 && progress.matched < first)
            .map(|(id, _)| *id)
            .collect()
    }

    fn send(&mut self, messages: Vec<Message>, effects: &mut Vec<NodeEffect>) {
        let learners = self.raw.raft.prs().conf().learners();
        for message in messages {
            let kind = message.get_msg_type();
            if kind == MessageType::MsgHeartbeat
                && learners.len() > FEW_LEARNERS
                && learners.contains(&message.to)
            {
                // Spread over the learners, so that no beat is a burst to all of them.
                if !(self.ticks / HEARTBEAT_TICKS as u64 + message.to)
                    .is_multiple_of(LEARNER_HEARTBEATS)
                {
                    continue;
                }
            }
            if kind == MessageType::MsgSnapshot {
                self.snapshots.insert(message.to, self.ticks + SNAPSHOT_TICKS);
            }
            effects.push(NodeEffect::Send(message));
        }
    }

    fn publish(&mut self, effects: &mut Vec<NodeEffect>) {
        let raft = &self.raw.raft;
        let seen = Some((
            raft.state,
            raft.term,
            raft.leader_id,
            raft.raft_log.committed,
            raft.raft_log.applied(),
            self.configurations,
        ));
        if self.seen == seen {
            return;
        }
        self.seen = seen;
        let view = self.current_view();
        if view != self.view {
            self.view = view.clone();
            effects.push(NodeEffect::View(view));
        }
    }

    fn current_view(&self) -> RaftStatus {
        let raft = &self.raw.raft;
        let leading = self.leads();
        let prs = raft.prs();
        let nodes = |ids: Vec<u64>| -> BTreeSet<NodeId> { ids.into_iter().map(NodeId).collect() };
        let conf = prs.conf().to_conf_state();
        let voters = nodes([conf.voters, conf.voters_outgoing].concat());
        let learners = nodes(conf.learners);
        let heard: BTreeSet<NodeId> =
            voters.union(&learners).copied().filter(|id| leading && self.is_heard(*id)).collect();
        let backing = voters.intersection(&heard).count();
        RaftStatus {
            id: self.id,
            term: raft.term,
            leader: self.leader(),
            leading,
            settled: leading && raft.commit_to_current_term(),
            backed: leading && backing > voters.len() / 2,
            heard,
            voters,
            learners,
            commit: raft.raft_log.committed,
            applied: raft.raft_log.applied(),
            fault: None,
            matched: if leading {
                prs.iter().map(|(id, progress)| (NodeId(*id), progress.matched)).collect()
            } else {
                BTreeMap::new()
            },
        }
    }
}

/// What peers may send: everything else is a node's own business, and a forged one could make a leader or a proposal out of nothing.
fn is_for_peers(kind: MessageType) -> bool {
    match kind {
        MessageType::MsgAppend
        | MessageType::MsgAppendResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgSnapshot
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgTimeoutNow
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => true,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp => false,
    }
}

fn is_vote_request(kind: MessageType) -> bool {
    matches!(kind, MessageType::MsgRequestVote | MessageType::MsgRequestPreVote)
}

fn is_from_leader(kind: MessageType) -> bool {
    matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot)
}
