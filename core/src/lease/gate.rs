//! The voter's side: promises, and the gate that keeps them.

use super::electorate::Electorate;
use super::wire::Message;
use super::{Effect, Effects, GateRequest, Lease, Loss, VOTERS_MAX};
use crate::model::NodeId;
use crate::time::Mono;
use std::time::Duration;

/// A promise not to help anybody but `to` to be elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Promise {
    /// The holder it was made to.
    pub to: NodeId,
    /// The term that it leads.
    pub term: u64,
    /// The newest HOLD that was acknowledged.
    pub seq: u64,
    /// When the promise ends. In the past: it has.
    pub until: Mono,
}

/// Steps that wait for a promise to end: the newest of each candidate, in the order in which they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Parked {
    requests: [Option<GateRequest>; VOTERS_MAX],
}

impl Parked {
    pub(super) fn iter(&self) -> impl Iterator<Item = GateRequest> + '_ {
        self.requests.iter().flatten().copied()
    }

    /// Removes the first request that satisfies the condition.
    fn take(&mut self, condition: impl Fn(&GateRequest) -> bool) -> Option<GateRequest> {
        let at = self.requests.iter().position(|slot| slot.as_ref().is_some_and(&condition))?;
        let found = self.requests[at].take();
        // Close the gap: the free slots stay at the end.
        self.requests[at..].rotate_left(1);
        found
    }

    /// Adds a request behind the others, or gives it back when there is no room.
    fn add(&mut self, request: GateRequest) -> Result<(), GateRequest> {
        match self.requests.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => {
                *slot = Some(request);
                Ok(())
            }
            None => Err(request),
        }
    }
}

impl Lease {
    /// The highest term that this node knows to be in use: it promises nothing to the leader of an older one.
    pub(super) fn term_floor(&self) -> u64 {
        let promised = self.promise.map_or(0, |promise| promise.term);
        self.raft.term.max(self.voted_term).max(promised)
    }

    /// Until when this node must not help that candidate; `None` when it may.
    pub(super) fn blocked_until(&self, candidate: NodeId, now: Mono) -> Option<Mono> {
        let faults = &self.config.faults;
        if faults.gate_open {
            return None;
        }
        let silence = if faults.silence_ignored { Mono(0) } else { self.silent_until };
        let promised = self
            .promise
            .filter(|promise| promise.to != candidate)
            .filter(|_| !(faults.campaign_under_promise && candidate == self.config.id))
            .map_or(Mono(0), |promise| promise.until);
        // A holder has promised to itself.
        let own = self.lease_until().filter(|_| candidate != self.config.id).unwrap_or_default();
        Some(silence.max(promised).max(own)).filter(|until| *until > now)
    }

    /// Raft waits to take a step that could elect a leader.
    pub(super) fn gate(&mut self, now: Mono, request: GateRequest, out: &mut Effects) {
        if let Some(older) = self.parked.take(|parked| parked.candidate == request.candidate) {
            out.push(Effect::Drop(older.ticket));
        }
        let Some(until) = self.blocked_until(request.candidate, now) else {
            self.pass(now, request, out);
            return;
        };
        if let Err(refused) = self.parked.add(request) {
            out.push(Effect::Drop(refused.ticket));
        } else if request.candidate != self.config.id {
            let (group, remaining) = (self.config.group, until.remaining(now));
            let message = Message::Busy { group, epoch: 0, term: request.term, remaining };
            out.push(Effect::Send { to: request.candidate, message });
        }
    }

    /// Lets the parked steps go that nothing blocks any more.
    pub(super) fn replay(&mut self, now: Mono, out: &mut Effects) {
        loop {
            let free = |parked: &GateRequest| self.blocked_until(parked.candidate, now).is_none();
            let Some(next) = self.parked.iter().find(free) else { return };
            self.parked.take(|parked| *parked == next);
            self.pass(now, next, out);
        }
    }

    /// Lets a step go. A vote is on record from this instant on: a HOLD of an older term that is read later is refused, however long Raft
    /// takes to make the vote durable.
    fn pass(&mut self, now: Mono, request: GateRequest, out: &mut Effects) {
        if request.binding {
            if self.tenure.as_ref().is_some_and(|tenure| tenure.term < request.term) {
                self.end_tenure(now, Loss::Deposed, None, out);
            }
            self.voted_term = self.voted_term.max(request.term);
            if request.candidate == self.config.id {
                self.wait_for_votes(now);
            } else {
                self.wait_after_vote(now);
            }
        }
        out.push(Effect::Pass(request.ticket));
    }

    /// Somebody asks for a promise.
    pub(super) fn hold(&mut self, now: Mono, from: NodeId, hold: Hold, out: &mut Effects) {
        let (group, epoch) = (self.config.group, hold.epoch);
        let floor = self.term_floor();
        let leads_it = self.raft.leader == Some(self.config.id) && self.raft.term == hold.term;
        let promised = self.promise.filter(|promise| promise.term == hold.term);
        // Raft elects one leader per term. Should two claim one all the same, the first keeps the promise.
        let of_another = promised.is_some_and(|promise| promise.to != from);
        let too_long = hold.promise > self.config.timing.promise_max;
        if hold.term < floor || leads_it || of_another || too_long {
            out.push(Effect::Send {
                to: from,
                message: Message::Nack { group, epoch, term: floor },
            });
            return;
        }
        if promised.is_some_and(|promise| hold.seq <= promise.seq) {
            // Repeated, or overtaken by a newer one or by a relinquishment. Answering it would only lengthen a promise that nobody counts.
            return;
        }
        if self.tenure.is_some() {
            // That term was won by a majority's votes, each given after its promise to this node had ended: so has this node's lease.
            self.end_tenure(now, Loss::Deposed, None, out);
        }
        let until = now.after(hold.promise);
        self.promise = Some(Promise { to: from, term: hold.term, seq: hold.seq, until });
        self.follow(until, hold.promise, hold.hint);
        while let Some(void) = self.parked.take(|_| true) {
            out.push(Effect::Drop(void.ticket));
        }
        let message = Message::Ack {
            group,
            epoch,
            term: hold.term,
            seq: hold.seq,
            echo: hold.stamp,
            applied: self.applied,
            eligible: self.standing.eligible,
        };
        out.push(Effect::Send { to: from, message });
    }

    /// A holder, or its guard, says that it has stopped.
    pub(super) fn relinquished(
        &mut self,
        now: Mono,
        from: NodeId,
        (term, last_seq): (u64, u64),
        successor: Option<NodeId>,
    ) {
        let unfenced = self.config.faults.relinquish_unfenced;
        let Some(promise) = self.promise.as_mut() else { return };
        // A promise for a HOLD that was sent after the relinquishment stands behind a lease that may be in use.
        let covered = promise.seq <= last_seq || unfenced;
        if promise.to != from || promise.term != term || !covered {
            return;
        }
        let running = promise.until > now;
        promise.until = promise.until.min(now);
        if !unfenced {
            promise.seq = last_seq;
        }
        if running {
            self.succeed(now, successor);
        }
    }

    /// The applied configuration changed.
    pub(super) fn reconfigure(&mut self, now: Mono, next: Electorate, out: &mut Effects) {
        let before = std::mem::replace(&mut self.voters, next);
        if !before.contains(self.config.id) {
            self.listen_first(now);
            self.leader_heard(now);
        }
        if !self.voters.contains(self.config.id) {
            self.end_tenure(now, Loss::Ineligible, None, out);
        } else if let Some(tenure) = self.tenure.as_mut() {
            tenure.carry_over(&before, &self.config, now);
        }
    }
}

/// The fields of [`Message::Hold`] that a voter looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) epoch: u64,
    pub(super) term: u64,
    pub(super) seq: u64,
    pub(super) stamp: Mono,
    pub(super) promise: Duration,
    pub(super) hint: Option<NodeId>,
}
