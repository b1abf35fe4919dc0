//! The leader's side: asking for promises, counting them, holding, letting go.

use super::asked::{Asked, given};
use super::electorate::Electorate;
use super::wire::{Message, Speaker};
use super::{Effect, Effects, Lease, LeaseConfig, Loss, Phase};
use crate::model::NodeId;
use crate::time::Mono;

/// One leader's time of asking for promises, from election to loss. There is at most one per term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Tenure {
    pub(super) term: u64,
    pub(super) phase: Phase,
    /// End of the lease, as of the last step; `None` until a majority has promised.
    pub(super) until: Option<Mono>,
    /// The end that a majority of the previous configuration gave. It stands beside what the current one gives, because any majority of the
    /// one meets any majority of the other.
    carried: Mono,
    /// When the configuration last changed in this tenure, or the tenure's begin.
    pub(super) reconfigured: Mono,
    /// When to ask next.
    pub(super) beat_at: Mono,
    /// When to give up unless a lease is won, or then, the VIP is claimed by then.
    pub(super) give_up_at: Mono,
    /// What promises are asked for; while nothing was, there is nothing to relinquish.
    pub(super) asked: Asked,
}

impl Tenure {
    /// Keeps the running lease across a change of the configuration. What was itself carried over from before is not kept: majorities two
    /// changes apart need not meet.
    pub(super) fn carry_over(&mut self, before: &Electorate, config: &LeaseConfig, now: Mono) {
        self.carried = given(&self.asked, before, config, now).unwrap_or_default();
        self.reconfigured = now;
        self.beat_at = now;
    }

    /// What the lease's end is now.
    fn count(&self, voters: &Electorate, config: &LeaseConfig, now: Mono) -> Option<Mono> {
        let given = given(&self.asked, voters, config, now);
        given.max(Some(self.carried).filter(|carried| *carried > now))
    }

    /// Whatever was promised so far is relied on until then at most.
    fn rely_until(&mut self, most: Mono, voters: &mut Electorate) {
        voters.rely_until(most);
        self.carried = self.carried.min(most);
        self.until = self.until.map(|until| until.min(most));
    }

    /// Walks through the ends of spans; the moment of giving up, which an exhaustive check lets come at any time, is put off for ever.
    pub(super) fn for_each_end(&mut self, f: &mut impl FnMut(&mut Mono)) {
        self.give_up_at = Mono(u64::MAX);
        self.until.iter_mut().for_each(&mut *f);
        [&mut self.carried, &mut self.reconfigured, &mut self.beat_at].into_iter().for_each(f);
    }
}

/// A relinquishment that is still being repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Farewell {
    term: u64,
    pub(super) last_seq: u64,
    successor: Option<NodeId>,
    left: u8,
    pub(super) at: Mono,
}

impl Lease {
    /// Starts a tenure if Raft has made this node the leader of a term in which it may hold.
    pub(super) fn begin_tenure(&mut self, now: Mono) {
        if !self.could_lead_and_hold() || self.raft.term < self.term_floor() {
            return;
        }
        self.voters.forget_promises();
        self.farewell = None;
        self.adapting.begin();
        self.tenure = Some(Tenure {
            term: self.raft.term,
            phase: Phase::Asking,
            until: None,
            carried: Mono(0),
            reconfigured: now,
            beat_at: now,
            give_up_at: now.after(self.wanted.promise * 2),
            asked: Asked::new(now, self.wanted),
        });
    }

    /// Steps down from a term in which this node leads, could hold, and never will, because it has let a step into a higher term go. If Raft took
    /// that step, this changes nothing. If it did not, nobody would hold as long as this node leads: it campaigns again when its time comes, and
    /// Raft's next term is high enough.
    pub(super) fn leave_a_lost_term(&mut self, out: &mut Effects) {
        if self.could_lead_and_hold() && self.raft.term < self.term_floor() {
            self.abdicated_term = self.raft.term;
            out.push(Effect::StepDown { term: self.raft.term });
        }
    }

    /// Whether this node leads a term that it has not held or given up in, and is one that may hold.
    fn could_lead_and_hold(&self) -> bool {
        let spent = self.abdicated_term >= self.raft.term && !self.config.faults.term_reused;
        let leads = self.raft.leader == Some(self.config.id);
        let may_hold = self.standing.eligible && self.voters.contains(self.config.id);
        self.tenure.is_none() && leads && may_hold && !spent
    }

    /// Ends the tenure, if there is one: stop emitting, then free the voters, then hand over or step down. The term is spent: a relinquishment that is
    /// still under way must never meet a later promise of the same term.
    pub(super) fn end_tenure(
        &mut self,
        now: Mono,
        why: Loss,
        successor: Option<NodeId>,
        out: &mut Effects,
    ) {
        let Some(tenure) = self.tenure.take() else { return };
        if tenure.phase != Phase::Asking {
            out.push(Effect::Release { epoch: tenure.term, why });
        }
        if self.config.faults.kept_after_relinquishing && why == Loss::Abdicated {
            self.tenure = Some(tenure);
        } else {
            self.abdicated_term = tenure.term;
        }
        let successor = successor.filter(|node| *node != self.config.id);
        if tenure.asked.anything() {
            let left = self.config.timing.relinquish_times;
            let farewell =
                Farewell { term: tenure.term, last_seq: self.seq, successor, left, at: now };
            self.farewell = Some(farewell);
            self.say_farewell(now, out);
        }
        self.back_off(now);
        if self.tenure.is_none() {
            out.push(farewell_to_raft(tenure.term, successor));
        }
    }

    /// Gives the leadership up on request, held or not.
    pub(super) fn abdicate(&mut self, now: Mono, successor: Option<NodeId>, out: &mut Effects) {
        if self.tenure.is_some() {
            let fresh = now.before(self.span().promise);
            let successor = successor.or_else(|| self.voters.successor(self.config.id, fresh));
            self.end_tenure(now, Loss::Abdicated, successor, out);
        } else if self.raft.leader == Some(self.config.id) {
            self.abdicated_term = self.abdicated_term.max(self.raft.term);
            self.back_off(now);
            let successor = successor.filter(|node| *node != self.config.id);
            out.push(farewell_to_raft(self.raft.term, successor));
        }
    }

    /// A voter promised. Its echo dates the promise by this node's own clock, before the request was sent.
    pub(super) fn acked(&mut self, now: Mono, from: NodeId, ack: Ack) {
        if ack.echo > now {
            return;
        }
        let Some(tenure) = self.tenure.as_ref().filter(|tenure| tenure.term == ack.term) else {
            self.acked_too_late(now, ack);
            return;
        };
        let stamp = if self.config.faults.lease_from_arrival { now } else { ack.echo };
        let Some(until) = tenure.asked.worth(stamp, &self.config) else { return };
        if let Some(voter) = self.voters.get_mut(from) {
            voter.acked = voter.acked.max(Some(stamp));
            voter.until = voter.until.max(until);
            voter.applied = ack.applied;
            voter.eligible = ack.eligible;
        }
    }

    /// Counts promises, and moves the tenure on or ends it.
    pub(super) fn advance_tenure(&mut self, now: Mono, out: &mut Effects) {
        let Some(tenure) = self.tenure.as_mut() else { return };
        let timing = &self.config.timing;
        let end = tenure.count(&self.voters, &self.config, now);
        let enough = end.filter(|until| *until > now.after(self.release_margin));
        let before = std::mem::replace(&mut tenure.until, enough);
        if before.is_none() && enough.is_some() {
            tenure.give_up_at = now.after(timing.patience);
        }
        let lost = before.is_some() && enough.is_none();
        let hopeless = tenure.phase != Phase::Holding && tenure.give_up_at <= now;
        if lost || hopeless {
            let late = now.since(tenure.beat_at) > tenure.asked.span.lease / 2;
            self.adapting.expired(tenure.term);
            if lost && late {
                let term = tenure.term;
                self.lost_for_lateness(term);
            }
            // A leader that is not promised anything must also stop asking: one that can send but not receive would otherwise keep renewing
            // promises for ever while it holds nothing.
            self.end_tenure(now, Loss::Expired, None, out);
            return;
        }
        let Some(until) = tenure.until else { return };
        let epoch = tenure.term;
        if tenure.phase == Phase::Asking && self.raft.settled {
            tenure.phase = Phase::Preparing { ready: false };
            out.push(Effect::Prepare { epoch });
        } else if tenure.phase == (Phase::Preparing { ready: true })
            && until.remaining(now) > tenure.asked.span.claim_slack()
        {
            tenure.phase = Phase::Holding;
            out.push(Effect::Claim { epoch, until });
        } else if tenure.phase == Phase::Holding && Some(until) > before {
            out.push(Effect::Extend { until });
        }
    }

    /// Asks every other voter for a promise when it is time.
    pub(super) fn beat(&mut self, now: Mono, out: &mut Effects) {
        if self.tenure.as_ref().is_none_or(|tenure| tenure.beat_at > now) {
            return;
        }
        self.adapt(now);
        let Some(tenure) = self.tenure.as_mut() else { return };
        if let Some(most) = tenure.asked.ask(now, self.wanted, &self.config) {
            tenure.rely_until(most, &mut self.voters);
        }
        let span = tenure.asked.span;
        tenure.beat_at = now.after(span.beat);
        self.seq += 1;
        let message = Message::Hold {
            group: self.config.group,
            epoch: tenure.term,
            term: tenure.term,
            seq: self.seq,
            stamp: now,
            promise: span.promise,
            hint: self.voters.successor(self.config.id, now.before(span.promise)),
        };
        for voter in self.voters.iter().filter(|voter| voter.id != self.config.id) {
            out.push(Effect::Send { to: voter.id, message });
        }
    }

    /// Repeats a relinquishment when it is time.
    pub(super) fn say_farewell(&mut self, now: Mono, out: &mut Effects) {
        let Some(mut farewell) = self.farewell.filter(|farewell| farewell.at <= now) else {
            return;
        };
        let message = Message::Relinquish {
            group: self.config.group,
            epoch: farewell.term,
            term: farewell.term,
            last_seq: farewell.last_seq,
            successor: farewell.successor,
            by: Speaker::Agent,
        };
        for voter in self.voters.iter().filter(|voter| voter.id != self.config.id) {
            out.push(Effect::Send { to: voter.id, message });
        }
        farewell.left = farewell.left.saturating_sub(1);
        farewell.at = now.after(self.config.timing.relinquish_every);
        self.farewell = Some(farewell).filter(|farewell| farewell.left > 0);
    }

    /// The table stands.
    pub(super) fn table_ready(&mut self, epoch: u64) {
        if let Some(tenure) = self.tenure.as_mut()
            && tenure.term == epoch
            && matches!(tenure.phase, Phase::Preparing { .. })
        {
            tenure.phase = Phase::Preparing { ready: true };
        }
    }
}

/// The end of a leadership: in favour of somebody, or of nobody in particular.
fn farewell_to_raft(term: u64, successor: Option<NodeId>) -> Effect {
    match successor {
        Some(to) => Effect::HandOver { term, to },
        None => Effect::StepDown { term },
    }
}

/// The fields of [`Message::Ack`] that a holder looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack {
    pub(super) term: u64,
    pub(super) echo: Mono,
    pub(super) applied: u64,
    pub(super) eligible: bool,
}
