//! The raft thread: drains its queue, feeds the node, and does what the node says.
//!
//! What is queued together shares one write to the disk. Per round, in this order: messages go out, entries are applied, readers see the new
//! state, then the new status, and last those who proposed get their answers; so whoever has an answer can read its own write.
//! Nothing here waits for netlink, a peer or a caller.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lvsmesh_core::command::Outcome;
use lvsmesh_core::lease::{Input, RaftView};
use lvsmesh_core::model::NodeId;
use lvsmesh_kernel::raw::favour;
use raft::eraftpb::Message;
use tokio::sync::{oneshot, watch};

use super::inbox::{Order, Outlet, inbox};
use super::machine::Machine;
use super::node::{Node, NodeEffect, NodeInput, Refusal, TICK_MS};
use super::storage::{FIRST_TERM, LogStore, StoreError};
use super::{Applied, Outbound, ProposeError, RaftError, RaftHandle, RaftStatus, Verdict};
use crate::api::status::chain;
use crate::lease::LeaseInputs;

const TICK: Duration = Duration::from_millis(TICK_MS);
/// Orders that may share one round. Bounds how long an answer waits for those behind it.
const MOST_AT_ONCE: usize = 1024;

/// When the log is compacted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compaction {
    /// After so many entries …
    entries: u64,
    /// … or so many bytes of them.
    bytes: u64,
    /// Entries that stay for followers that lag a little.
    keep: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { entries: 10_000, bytes: 64 << 20, keep: 500 }
    }
}

/// Somebody who waits for an answer.
#[derive(Debug)]
enum Waiter {
    Proposal(oneshot::Sender<Result<Outcome, ProposeError>>),
    Change(oneshot::Sender<Result<(), ProposeError>>),
}

/// An answer that is held back until the state is published.
#[derive(Debug)]
enum Answer {
    Outcome(Outcome),
    Configured,
    Failed(ProposeError),
}

struct Driver<S: LogStore, O> {
    node: Node<S>,
    machine: Machine,
    outlet: Outlet,
    outbound: O,
    lease: LeaseInputs,
    state: watch::Sender<Applied>,
    status: watch::Sender<RaftStatus>,
    waiting: BTreeMap<u64, Waiter>,
    told: Told,
    compaction: Compaction,
    heard: Arc<AtomicU64>,
    /// This node is none of the fleet's any more.
    retired: bool,
}

/// What the lease thread was told last.
#[derive(Debug, Default)]
struct Told {
    view: RaftView,
    voters: BTreeSet<NodeId>,
    applied: u64,
}

/// Opens the node, brings its state back, and starts the thread.
pub(super) fn spawn<S>(
    store: S,
    priority: i64,
    compaction: Compaction,
    lease: LeaseInputs,
    outbound: impl Outbound,
) -> Result<(RaftHandle, JoinHandle<Result<(), RaftError>>), RaftError>
where
    S: LogStore + Send + 'static,
{
    let voted_before = may_have_voted(&store)?;
    let proposer = getrandom::u64().map_err(|error| RaftError::System(error.into()))?;
    let (inbox, outlet) = inbox(proposer);
    let (node, effects) = Node::new(store, priority)?;
    let (state, state_seen) = watch::channel(Applied::default());
    let (status, status_seen) = watch::channel(RaftStatus::default());
    let mut driver = Driver {
        node,
        machine: Machine::default(),
        outlet,
        outbound,
        lease,
        state,
        status,
        waiting: BTreeMap::new(),
        told: Told::default(),
        compaction,
        heard: Arc::default(),
        retired: false,
    };
    driver.replay(effects)?;
    let heard = Arc::clone(&driver.heard);
    let handle = RaftHandle {
        state: state_seen,
        status: status_seen,
        voted_before,
        inbox,
        heard,
        doubted: Arc::default(),
    };
    let thread = std::thread::Builder::new()
        .name("raft".to_owned())
        .spawn(move || {
            // An election on a busy machine is otherwise as slow as the machine is busy. The lease thread says so if it may not be.
            let _allowed = favour().is_ok();
            driver.run()
        })
        .map_err(RaftError::System)?;
    Ok((handle, thread))
}

/// A node that has seen a term beyond the fleet's first may have voted in it, and led it.
fn may_have_voted<S: LogStore>(store: &S) -> Result<bool, RaftError> {
    let state = store.initial_state().map_err(super::node::unreadable)?;
    Ok(state.hard_state.vote != 0 || state.hard_state.term > FIRST_TERM)
}

impl<S: LogStore, O: Outbound> Driver<S, O> {
    fn run(mut self) -> Result<(), RaftError> {
        let mut result = self.rounds();
        if let Err(RaftError::Store(error)) = result {
            self.mute(&error);
            result = Err(error.into());
        }
        match &result {
            Ok(()) => tracing::debug!("raft thread ends"),
            // Whoever joins the thread reports it with its hint; this is for the moment at which it happened.
            Err(error) => tracing::error!(%error, "raft thread gives up"),
        }
        let closed = self.node.close();
        result.and(closed.map_err(RaftError::from))
    }

    /// After the log has failed: nothing is voted, acknowledged or proposed any more, because nothing of it could be kept. What was applied stays
    /// published, so that the kernel is kept as it should be; a lease is given up, so that another may have it. Ends when asked to.
    fn mute(&mut self, error: &StoreError) {
        let fault = chain(error);
        tracing::error!(
            error = fault,
            hint = error.hint(),
            "the log failed: this node neither votes nor acknowledges until its agent is started again; its kernel is kept up"
        );
        self.lease.send(Input::Abdicate { successor: None });
        let view = self.node.view();
        let silent = RaftStatus {
            leader: None,
            leading: false,
            settled: false,
            backed: false,
            heard: BTreeSet::new(),
            fault: Some(fault),
            matched: BTreeMap::new(),
            ..view.clone()
        };
        self.tell_lease(&silent);
        self.status.send_replace(silent);
        for (_, waiter) in std::mem::take(&mut self.waiting) {
            waiter.answer(Answer::Failed(ProposeError::Disk));
        }
        while let Ok(order) = self.outlet.queue.recv() {
            match order {
                Order::Stop => return,
                Order::Messages(messages) => self.outlet.took(messages.len()),
                // A caller that gave up does not want to know.
                Order::Propose { reply, .. } => drop(reply.send(Err(ProposeError::Disk))),
                Order::Change { reply, .. } => drop(reply.send(Err(ProposeError::Disk))),
                Order::Retire => {
                    self.retired = true;
                    let silent = self.status.borrow().clone();
                    self.tell_lease(&silent);
                }
                Order::Verdict(_) | Order::Priority(_) | Order::Unreachable(_) => {}
            }
        }
    }

    fn rounds(&mut self) -> Result<(), RaftError> {
        let mut next_tick = Instant::now() + TICK;
        let mut effects = Vec::new();
        loop {
            let patience = next_tick.saturating_duration_since(Instant::now());
            let mut running = true;
            match self.outlet.queue.recv_timeout(patience) {
                Ok(order) => running = self.take(order, &mut effects),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            for _ in 1..MOST_AT_ONCE {
                if !running {
                    break;
                }
                let Ok(order) = self.outlet.queue.try_recv() else { break };
                running = self.take(order, &mut effects);
            }
            let now = Instant::now();
            if now >= next_tick {
                // A late thread does not catch up on ticks: they only pace heartbeats and repetitions.
                next_tick = (next_tick + TICK).max(now);
                self.node.feed(NodeInput::Tick, &mut effects);
                self.waiting.retain(|_, waiter| !waiter.has_gone());
            }
            self.node.flush(&mut effects)?;
            self.carry_out(std::mem::take(&mut effects))?;
            self.compact_if_due()?;
            if !running {
                return Ok(());
            }
        }
    }

    /// Feeds one order to the node; false if it was the last.
    fn take(&mut self, order: Order, effects: &mut Vec<NodeEffect>) -> bool {
        let input = match order {
            Order::Stop => return false,
            Order::Messages(messages) => {
                self.outlet.took(messages.len());
                if self.retired {
                    return true;
                }
                for message in messages {
                    self.node.feed(NodeInput::Message(Box::new(message)), effects);
                }
                return true;
            }
            Order::Retire => {
                self.retired = true;
                let status = self.node.view().clone();
                self.tell_lease(&status);
                NodeInput::StepDown { term: status.term }
            }
            // Nothing that could elect anybody goes through any more.
            Order::Verdict(Verdict::Pass(ticket)) if self.retired => NodeInput::Drop(ticket),
            Order::Verdict(Verdict::Campaign) if self.retired => return true,
            Order::Verdict(verdict) => match verdict {
                Verdict::Pass(ticket) => NodeInput::Pass(ticket),
                Verdict::Drop(ticket) => NodeInput::Drop(ticket),
                Verdict::Campaign => NodeInput::Campaign,
                Verdict::StepDown { term } => NodeInput::StepDown { term },
                Verdict::HandOver { term, to } => NodeInput::HandOver { term, to },
            },
            Order::Propose { request, data, reply } => {
                self.waiting.insert(request, Waiter::Proposal(reply));
                NodeInput::Propose { request, data }
            }
            Order::Change { request, change, reply } => {
                self.waiting.insert(request, Waiter::Change(reply));
                NodeInput::Change { request, change }
            }
            Order::Priority(priority) => NodeInput::SetPriority(priority),
            Order::Unreachable(peer) => NodeInput::Unreachable(peer),
        };
        self.node.feed(input, effects);
        true
    }

    fn carry_out(&mut self, effects: Vec<NodeEffect>) -> Result<(), RaftError> {
        let mut messages: Vec<Message> = Vec::new();
        let mut rest = Vec::with_capacity(effects.len());
        for effect in effects {
            if let NodeEffect::Send(message) = effect {
                messages.push(message);
            } else {
                rest.push(effect);
            }
        }
        if !messages.is_empty() {
            self.outbound.send(messages);
        }

        let mut answers: Vec<(u64, Answer)> = Vec::new();
        let (mut changed, mut heard, mut wanted) = (false, false, false);
        let mut view = None;
        for effect in rest {
            match effect {
                NodeEffect::Send(_) => {}
                NodeEffect::Gate(request) => self.lease.send(Input::Gate(request)),
                NodeEffect::LeaderHeard => heard = true,
                NodeEffect::Restore { index, data } => {
                    self.machine.restore(index, &data)?;
                    changed = true;
                }
                NodeEffect::Apply(committed) => {
                    let outcome = self.machine.apply(&committed)?;
                    answers.extend(committed.request.map(|id| (id, Answer::Outcome(outcome))));
                    changed = true;
                }
                NodeEffect::Configured { request } => answers.push((request, Answer::Configured)),
                NodeEffect::Lost { request } => {
                    answers.push((request, Answer::Failed(ProposeError::Lost)));
                }
                NodeEffect::Refused { request, why } => {
                    let error = match why {
                        Refusal::NotLeader(leader) => ProposeError::NotLeader { leader },
                        Refusal::Busy => ProposeError::Busy,
                        Refusal::Configuration => ProposeError::Configuration,
                    };
                    answers.push((request, Answer::Failed(error)));
                }
                NodeEffect::View(status) => view = Some(status),
                NodeEffect::SnapshotWanted => wanted = true,
            }
        }
        if heard {
            self.heard.fetch_add(1, Ordering::Relaxed);
            self.lease.send(Input::LeaderHeard);
        }
        if changed {
            self.state.send_replace(self.machine.published());
        }
        if let Some(status) = view {
            self.tell_lease(&status);
            self.status.send_replace(status);
        }
        for (request, answer) in answers {
            if let Some(waiter) = self.waiting.remove(&request) {
                waiter.answer(answer);
            }
        }
        if wanted { self.compact() } else { Ok(()) }
    }

    /// As [`Driver::carry_out`], for what was applied before this process started.
    fn replay(&mut self, effects: Vec<NodeEffect>) -> Result<(), RaftError> {
        let known = self.node.store().applied();
        let mut fresh = Vec::new();
        for effect in effects {
            if let NodeEffect::Restore { index, data } = &effect
                && *index <= known
            {
                self.machine.restore(*index, data)?;
            } else if let NodeEffect::Apply(committed) = &effect
                && committed.index <= known
            {
                self.machine.replay(committed)?;
            } else {
                fresh.push(effect);
            }
        }
        self.state.send_replace(self.machine.published());
        self.carry_out(fresh)
    }

    /// Passes on what of the status concerns the lease, where it changed.
    fn tell_lease(&mut self, status: &RaftStatus) {
        // Who is in no configuration neither holds nor campaigns.
        let voters = if self.retired { BTreeSet::new() } else { status.voters.clone() };
        if self.told.voters != voters {
            self.told.voters.clone_from(&voters);
            self.lease.send(Input::Voters(voters));
        }
        let view = RaftView { term: status.term, leader: status.leader, settled: status.settled };
        if self.told.view != view {
            self.told.view = view;
            self.lease.send(Input::Raft(view));
        }
        if self.told.applied != status.applied {
            self.told.applied = status.applied;
            self.lease.send(Input::Applied(status.applied));
        }
    }

    fn compact_if_due(&mut self) -> Result<(), RaftError> {
        let (entries, bytes) = self.machine.since_snapshot(self.node.view().applied);
        if entries >= self.compaction.entries || bytes >= self.compaction.bytes {
            self.compact()?;
        }
        Ok(())
    }

    /// Stores a snapshot of the state as it is. Everything that was applied is in it: the node's last effects have been carried out.
    fn compact(&mut self) -> Result<(), RaftError> {
        let index = self.node.view().applied;
        let data = self.machine.snapshot(index);
        tracing::debug!(index, bytes = data.len(), "snapshot stored");
        let effects =
            self.node.step(NodeInput::Snapshot { index, data, keep: self.compaction.keep })?;
        self.carry_out(effects)
    }
}

impl Waiter {
    /// Whether nobody waits any more.
    fn has_gone(&self) -> bool {
        match self {
            Self::Proposal(reply) => reply.is_closed(),
            Self::Change(reply) => reply.is_closed(),
        }
    }

    fn answer(self, answer: Answer) {
        // A caller that gave up does not want to know.
        match (self, answer) {
            (Self::Proposal(reply), Answer::Outcome(outcome)) => drop(reply.send(Ok(outcome))),
            (Self::Change(reply), Answer::Configured) => drop(reply.send(Ok(()))),
            (Self::Proposal(reply), Answer::Failed(error)) => drop(reply.send(Err(error))),
            (Self::Change(reply), Answer::Failed(error)) => drop(reply.send(Err(error))),
            (Self::Proposal(_), Answer::Configured) | (Self::Change(_), Answer::Outcome(_)) => {
                unreachable!("a request is either a proposal or a change, and the node knows which")
            }
        }
    }
}
