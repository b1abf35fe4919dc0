//! The machine: its state, its inputs, its deadline.

use std::time::Duration;

use super::adapt::Adapting;
use super::electorate::{Electorate, Voter};
use super::gate::{Hold, Parked};
use super::pace::Pace;
use super::tenure::{Ack, Farewell, Tenure};
use super::{Effects, Input, Loss, Message, Promise, RaftView, Span, Standing, Timing};
use crate::model::NodeId;
use crate::time::Mono;

/// What a machine is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseConfig {
    /// This node.
    pub id: NodeId,
    /// VIP group that the lease is for; messages of other groups are ignored.
    pub group: u32,
    /// Spans.
    pub timing: Timing,
    /// Raft's *durable* term at start. It stands for the votes of earlier runs: no HOLD of an older term is acknowledged.
    pub term: u64,
    /// Only for tests.
    #[doc(hidden)]
    pub faults: Faults,
}

impl LeaseConfig {
    /// The configuration of the one VIP group that there is.
    #[must_use]
    pub fn new(id: NodeId, timing: Timing, term: u64) -> Self {
        Self { id, group: 0, timing, term, faults: Faults::default() }
    }

    /// How long a promise for a HOLD that asked for that span is relied on.
    pub(super) fn lease_span(&self, span: Span) -> Duration {
        if self.faults.lease_outlives_promise { span.promise * 2 } else { span.lease }
    }
}

/// Rules that are left out on purpose, one each, so that tests can show that they would notice.
///
/// No configuration leads here: [`LeaseConfig::new`], the agent's only way to a configuration, sets none of them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is one rule left out, and they are independent"
)]
pub struct Faults {
    /// The holder relies on a promise for longer than it was made for.
    pub lease_outlives_promise: bool,
    /// The holder dates a promise by when it heard of it.
    pub lease_from_arrival: bool,
    /// A restarted voter votes at once.
    pub silence_ignored: bool,
    /// A voter stands for election itself while its promise to another runs.
    pub campaign_under_promise: bool,
    /// The holder frees its voters and holds on.
    pub kept_after_relinquishing: bool,
    /// A relinquishment voids promises for HOLDs sent after it.
    pub relinquish_unfenced: bool,
    /// A node may hold again in a term that it gave up.
    pub term_reused: bool,
    /// The gate passes everything.
    pub gate_open: bool,
    /// A holder does not look at its lease before it emits.
    pub emission_unchecked: bool,
    /// An acknowledgement is worth what is asked for by now, and not what its HOLD asked for.
    pub worth_of_present_span: bool,
    /// Older promises are relied on as before when a shorter one is asked for.
    pub shorter_uncapped: bool,
}

/// Where a node stands between follower and holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Leads, asks for promises, and has no lease or has not settled as leader.
    Asking,
    /// Has a lease; the table is being put in place.
    Preparing {
        /// It is in place; a lease with enough time left is awaited.
        ready: bool,
    },
    /// May emit.
    Holding,
}

/// What an operator, a metric or the guard wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// `None`: this node does not ask for promises.
    pub phase: Option<Phase>,
    /// Term of the tenure; 0 without one.
    pub epoch: u64,
    /// Sequence of the newest HOLD sent.
    pub last_seq: u64,
    /// End of the lease.
    pub until: Option<Mono>,
    /// Whether a majority of the *current* configuration renewed the lease since the configuration last changed. Another change should wait
    /// for that.
    pub confirmed: bool,
    /// The highest term that this node voted in, or may have.
    pub voted_term: u64,
    /// Until when it votes for nobody after a restart.
    pub silent_until: Mono,
    /// What promises are asked for, or would be.
    pub span: Span,
    /// Of the spans by which the lease may be counted now, the shortest: a lease that is not renewed has run out after its L.
    pub in_force: Span,
}

/// The lease machine of one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    pub(super) config: LeaseConfig,
    pub(super) voters: Electorate,
    pub(super) standing: Standing,
    pub(super) raft: RaftView,
    pub(super) applied: u64,
    pub(super) voted_term: u64,
    pub(super) promise: Option<Promise>,
    pub(super) silent_until: Mono,
    pub(super) parked: Parked,
    pub(super) tenure: Option<Tenure>,
    pub(super) seq: u64,
    /// Tenures of terms up to this one are over.
    pub(super) abdicated_term: u64,
    pub(super) farewell: Option<Farewell>,
    pub(super) pace: Pace,
    /// What the next HOLD asks for.
    pub(super) wanted: Span,
    pub(super) adapting: Adapting,
    /// How long before the end of an unrenewed lease the release begins.
    pub(super) release_margin: Duration,
}

impl Lease {
    /// A machine that has just started.
    ///
    /// `silent_until` stands for the promises of earlier runs: [`Lease::bound_until`] as recorded by the last one, or
    /// [`Timing::promise_max`] from the start when there is no record of this boot, or zero when this node has never voted. The machine
    /// acknowledges HOLDs meanwhile, but neither votes nor campaigns.
    #[must_use]
    pub fn new(config: LeaseConfig, silent_until: Mono) -> Self {
        Self {
            config,
            voters: Electorate::default(),
            standing: Standing::default(),
            raft: RaftView { term: config.term, leader: None, settled: false },
            applied: 0,
            voted_term: config.term,
            promise: None,
            silent_until,
            parked: Parked::default(),
            tenure: None,
            seq: 0,
            // Raft restarts as a follower and never leads again in a term that it was in before.
            abdicated_term: config.term,
            farewell: None,
            pace: Pace::default(),
            wanted: config.timing.span,
            adapting: Adapting::default(),
            release_margin: config.timing.release_margin,
        }
    }

    /// Whether that node has promised this one not to help another, in this tenure, and the promise may still be relied on.
    #[must_use]
    pub fn has_promised(&self, node: NodeId, now: Mono) -> bool {
        let relied_on = |voter: &Voter| voter.acked.is_some() && voter.until > now;
        self.tenure.is_some() && self.voters.get(node).is_some_and(relied_on)
    }

    /// Takes one input and replaces the content of `out` with what must be done about it, in order.
    ///
    /// `now` must not go back between calls without an [`Input::Suspended`].
    pub fn step(&mut self, now: Mono, input: Input, out: &mut Effects) {
        out.clear();
        match input {
            Input::Timer => {}
            Input::Datagram { from, message } => self.datagram(now, from, message, out),
            Input::Raft(view) => self.observe(now, view, out),
            Input::LeaderHeard => self.leader_heard(now),
            Input::Voters(ids) => {
                let next = self.voters.replaced_by(&ids);
                self.reconfigure(now, next, out);
            }
            Input::Applied(index) => self.applied = index,
            Input::Standing(standing) => self.stand(now, standing, out),
            Input::Gate(request) => self.gate(now, request, out),
            Input::TableReady { epoch } => self.table_ready(epoch),
            Input::Abdicate { successor } => self.abdicate(now, successor, out),
            Input::Ask(span) => self.wanted = span,
            Input::ReleaseMargin(margin) => self.release_margin = margin,
            Input::Suspended => self.end_tenure(now, Loss::Suspended, None, out),
        }
        self.begin_tenure(now);
        self.advance_tenure(now, out);
        self.beat(now, out);
        self.say_farewell(now, out);
        self.replay(now, out);
        self.leave_a_lost_term(out);
        self.campaign(now, out);
    }

    fn datagram(&mut self, now: Mono, from: NodeId, message: Message, out: &mut Effects) {
        let (Message::Hold { group, .. }
        | Message::Ack { group, .. }
        | Message::Nack { group, .. }
        | Message::Relinquish { group, .. }
        | Message::Busy { group, .. }) = message;
        if group != self.config.group || from == self.config.id {
            return;
        }
        match message {
            Message::Hold { group: _, epoch, term, seq, stamp, promise, hint } => {
                self.hold(now, from, Hold { epoch, term, seq, stamp, promise, hint }, out);
            }
            Message::Ack { term, echo, applied, eligible, .. } => {
                self.acked(now, from, Ack { term, echo, applied, eligible });
            }
            Message::Nack { term, .. } => {
                if self.tenure.as_ref().is_some_and(|tenure| tenure.term < term) {
                    self.end_tenure(now, Loss::Deposed, None, out);
                }
            }
            Message::Relinquish { term, last_seq, successor, .. } => {
                self.relinquished(now, from, (term, last_seq), successor);
            }
            Message::Busy { remaining, .. } => self.wait_for_busy(now, remaining),
        }
    }

    /// Raft's view changed.
    fn observe(&mut self, now: Mono, view: RaftView, out: &mut Effects) {
        let leads = view.leader == Some(self.config.id);
        if self.tenure.as_ref().is_some_and(|tenure| !leads || tenure.term != view.term) {
            self.end_tenure(now, Loss::Deposed, None, out);
        }
        if view.leader.is_some() && !leads {
            self.leader_heard(now);
        }
        self.raft = view;
    }

    /// What this node may become changed.
    fn stand(&mut self, now: Mono, standing: Standing, out: &mut Effects) {
        let was = std::mem::replace(&mut self.standing, standing);
        if standing.eligible && !was.eligible {
            self.listen_first(now);
        } else if was.eligible && !standing.eligible {
            self.end_tenure(now, Loss::Ineligible, None, out);
        }
    }

    /// The next moment at which [`Input::Timer`] is due; the end of time when there is none.
    #[must_use]
    pub fn deadline(&self) -> Mono {
        let tenure = self.tenure.iter().flat_map(|tenure| {
            let lost = tenure.until.map(|until| until.before(self.release_margin));
            let hopeless = Some(tenure.give_up_at).filter(|_| tenure.phase != Phase::Holding);
            [Some(tenure.beat_at), lost, hopeless]
        });
        let parked = self.parked.iter().map(|parked| self.blocked_until(parked.candidate, Mono(0)));
        let farewell = self.farewell.as_ref().map(|farewell| farewell.at);
        let single = [farewell, self.campaign_at()].into_iter();
        tenure.chain(parked).chain(single).flatten().min().unwrap_or(Mono(u64::MAX))
    }

    /// The end of this node's lease, held or not yet; `None` without one. It may lie in the past: look at the clock.
    #[must_use]
    pub fn lease_until(&self) -> Option<Mono> {
        self.tenure.as_ref().and_then(|tenure| tenure.until)
    }

    /// Whether this node may answer for the VIP at this moment. Ask immediately before every emission, with the clock just read.
    #[must_use]
    pub fn may_emit(&self, now: Mono) -> bool {
        let holding = self.tenure.as_ref().is_some_and(|tenure| tenure.phase == Phase::Holding);
        let valid = self.lease_until().is_some_and(|until| now < until);
        holding && (valid || self.config.faults.emission_unchecked)
    }

    /// The newest promise to another node, running or not.
    #[must_use]
    pub fn promise(&self) -> Option<Promise> {
        self.promise
    }

    /// Until when this node has promised anything to anybody: to a holder, to itself as the holder, or in an earlier run. It must be on record
    /// before the effects of the step that moved it are performed, because it is what the next run has to keep silent for. The own lease
    /// counts: the addresses of a holder that died are still on its interfaces, and its next run must not help another to them.
    #[must_use]
    pub fn bound_until(&self) -> Mono {
        let promised = self.promise.map_or(Mono(0), |promise| promise.until);
        promised.max(self.lease_until().unwrap_or_default()).max(self.silent_until)
    }

    /// What there is to know from outside.
    #[must_use]
    pub fn status(&self, now: Mono) -> Status {
        let tenure = self.tenure.as_ref();
        let since = self.voters.promised_since(self.config.id, now);
        Status {
            phase: tenure.map(|tenure| tenure.phase),
            epoch: tenure.map_or(0, |tenure| tenure.term),
            last_seq: self.seq,
            until: self.lease_until(),
            confirmed: tenure
                .is_some_and(|tenure| since.is_some_and(|since| since >= tenure.reconfigured)),
            voted_term: self.voted_term,
            silent_until: self.silent_until,
            span: self.span(),
            in_force: tenure.map_or(self.wanted, |tenure| tenure.asked.in_force(now)),
        }
    }

    /// What promises are asked for, or would be.
    #[must_use]
    pub fn span(&self) -> Span {
        self.tenure.as_ref().map_or(self.wanted, |tenure| tenure.asked.span)
    }

    /// Which node's machine it is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Brings machines that behave alike into one form, so that an exhaustive check can recognise states that differ only in when they happen.
    ///
    /// Rewrites ends of spans (which matter only while they lie ahead), stamps of HOLDs, and sequence numbers, each with the node whose HOLDs
    /// they count. Forgets what bears on pace alone. Forgets a promise that has ended, but not its term: what it would still do is to refuse
    /// HOLDs that were overtaken, and a network that loses messages does that as well.
    #[doc(hidden)]
    pub fn normalize(
        &mut self,
        now: Mono,
        mut end: impl FnMut(&mut Mono),
        mut stamp: impl FnMut(&mut Mono),
        mut sequence: impl FnMut(NodeId, &mut u64),
    ) {
        self.pace = Pace::default();
        self.adapting = Adapting::default();
        end(&mut self.silent_until);
        self.voted_term = self.term_floor();
        if self.abdicated_term < self.raft.term {
            self.abdicated_term = 0;
        }
        if let Some(promise) = self.promise.as_mut() {
            end(&mut promise.until);
            sequence(promise.to, &mut promise.seq);
        }
        self.promise = self.promise.filter(|promise| promise.until > now);
        if let Some(tenure) = self.tenure.as_mut() {
            tenure.for_each_end(&mut end);
            tenure.asked.normalize(now, &mut stamp);
            self.voters.for_each_end(&mut end);
            self.voters.for_each_stamp(&mut stamp);
        } else {
            self.voters.forget_promises();
        }
        sequence(self.config.id, &mut self.seq);
        if let Some(farewell) = self.farewell.as_mut() {
            end(&mut farewell.at);
            sequence(self.config.id, &mut farewell.last_seq);
        }
    }
}
