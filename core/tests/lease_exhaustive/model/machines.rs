//! The machines of the fleet: numbered, and asked only once what they make of an input.

use std::time::Duration;

use lvsmesh_core::lease::wire::Speaker;
use lvsmesh_core::lease::{
    Effect, Effects, GateRequest, Input, Lease, LeaseConfig, Message, RaftView, Span, Standing,
    Timing,
};
use lvsmesh_core::model::NodeId;
use lvsmesh_core::time::Mono;

use super::state::{Kind, Packet};
use super::{BASE, DIRECTORS, Model, NODES, Scope};

/// What a machine is given, in a form that can be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    Timer,
    Packet(Packet),
    Gate { candidate: u8, term: u8 },
    View { term: u8, leads: bool },
    Abdicate,
    HandOver,
    Ask { other: bool },
    Tick,
    Restart { term: u8 },
}

impl Cause {
    /// The cause in one number.
    fn code(self) -> u64 {
        match self {
            Self::Packet(packet) => packet.packed().into(),
            Self::Gate { candidate, term } => 1 << 16 | u64::from(candidate) << 8 | u64::from(term),
            Self::View { term, leads } => 2 << 16 | u64::from(term) << 8 | u64::from(leads),
            Self::Restart { term } => 3 << 16 | u64::from(term),
            Self::Timer => 4 << 16,
            Self::Abdicate => 5 << 16,
            Self::Tick => 6 << 16,
            Self::HandOver => 7 << 16,
            Self::Ask { other } => 8 << 16 | u64::from(other),
        }
    }
}

/// What a machine makes of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) machine: u16,
    /// Unused slots are `Packet::NONE`, at the end.
    pub(super) sent: [Packet; 6],
    pub(super) passed: bool,
    pub(super) steps_down: Option<u8>,
}

impl Outcome {
    const NOTHING: Self =
        Self { machine: 0, sent: [Packet::NONE; 6], passed: false, steps_down: None };
}

/// What is asked of a machine again and again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Ticks for which its lease still runs.
    pub(super) remaining: u8,
    /// The sequence of its newest HOLD.
    pub(super) seq: u64,
    /// The term in which it asks for promises or holds.
    pub(super) asks_in: Option<u8>,
    /// The node that it has promised, and the sequence.
    pub(super) promised: Option<(usize, u64)>,
}

impl Model {
    /// What a machine makes of an input; computed once.
    pub(super) fn outcome(&mut self, node: usize, machine: u16, cause: Cause) -> Outcome {
        let key = u64::from(machine) << 32 | cause.code();
        if let Some(outcome) = self.known.get(&key) {
            return *outcome;
        }
        let outcome = self.compute(node, machine, cause);
        self.known.insert(key, outcome);
        outcome
    }

    pub(super) fn compute(&mut self, node: usize, machine: u16, cause: Cause) -> Outcome {
        let mut lease = self.machines[usize::from(machine)].clone();
        let mut out = Effects::new();
        let input = match cause {
            Cause::Tick => {
                let oldest = BASE - u64::from(self.oldest());
                // A moment that has passed is as good as now, and a stamp too old to count as good as the oldest.
                lease.normalize(
                    Mono(BASE),
                    |until| until.0 = until.0.saturating_sub(1).max(BASE),
                    |stamp| stamp.0 = (stamp.0 - 1).max(oldest),
                    |_, _| {},
                );
                return self.quiet(lease);
            }
            Cause::Restart { term } => {
                // The record survives the process.
                let silent_until = lease.bound_until();
                let lease = self.started(node, term, silent_until);
                return self.quiet(lease);
            }
            Cause::Timer => Input::Timer,
            Cause::Abdicate => Input::Abdicate { successor: None },
            Cause::HandOver => Input::Abdicate { successor: Some(id((node + 1) % DIRECTORS)) },
            Cause::Ask { other } => Input::Ask(self.span(other)),
            Cause::View { term, leads } => {
                let leader = Some(id(node)).filter(|_| leads);
                Input::Raft(RaftView { term: term.into(), leader, settled: false })
            }
            Cause::Gate { candidate, term } => Input::Gate(GateRequest {
                ticket: 0,
                candidate: id(candidate.into()),
                term: term.into(),
                binding: true,
            }),
            Cause::Packet(packet) => {
                Input::Datagram { from: id(packet.from.into()), message: self.message(packet) }
            }
        };
        lease.step(Mono(BASE), input, &mut out);
        let mut outcome = Outcome { machine, ..Outcome::NOTHING };
        let mut sent = 0;
        for effect in &out {
            match *effect {
                Effect::Send { to, message } => {
                    if let Some(packet) = self.packet(node, to, message) {
                        outcome.sent[sent] = packet;
                        sent += 1;
                    }
                }
                Effect::Pass(_) => outcome.passed = true,
                Effect::StepDown { term } => {
                    outcome.steps_down = Some(u8::try_from(term).unwrap());
                }
                // Its Raft leads on, until another does or it steps down: each at any moment.
                Effect::HandOver { .. }
                | Effect::Drop(_)
                | Effect::Campaign
                | Effect::Prepare { .. }
                | Effect::Claim { .. }
                | Effect::Extend { .. }
                | Effect::Release { .. } => {}
            }
        }
        if matches!(cause, Cause::Gate { .. }) && !outcome.passed {
            // The machine as it was: the request counts as still under way.
            return outcome;
        }
        outcome.machine = self.number(lease);
        outcome
    }

    pub(super) fn quiet(&mut self, lease: Lease) -> Outcome {
        let machine = self.number(lease);
        Outcome { machine, ..Outcome::NOTHING }
    }

    pub(super) fn started(&self, node: usize, term: u8, silent_until: Mono) -> Lease {
        let span = self.span(false);
        let timing = Timing {
            span,
            adaptive: None,
            promise_max: span.promise.max(self.span(true).promise),
            release_margin: ticks(0),
            // Giving up is an action here; it need not be timed as well.
            patience: ticks(u64::MAX),
            stagger_first: ticks(0),
            stagger_step: ticks(0),
            stagger_witness: ticks(0),
            retry: ticks(0),
            relinquish_every: ticks(1),
            relinquish_times: 1,
        };
        let mut config = LeaseConfig::new(id(node), timing, term.into());
        config.faults = self.scope.faults;
        let mut lease = Lease::new(config, silent_until);
        let mut out = Effects::new();
        let eligible = node < DIRECTORS;
        let standing = Standing { eligible, rank: 0, witness: !eligible };
        let voters = (0..NODES).map(id).collect();
        lease.step(Mono(BASE), Input::Voters(voters), &mut out);
        lease.step(Mono(BASE), Input::Standing(standing), &mut out);
        lease
    }

    /// What a HOLD asks for: the scope's span, or its other one.
    fn span(&self, other: bool) -> Span {
        let (promise, lease) = match self.scope.other.filter(|_| other) {
            Some(other) => (other, other),
            None => (self.scope.promise, self.scope.lease),
        };
        Span { promise: ticks(promise), lease: ticks(lease), beat: ticks(1) }
    }

    /// The number of a machine, after moments and stamps were brought into the form in which states are compared.
    pub(super) fn number(&mut self, mut lease: Lease) -> u16 {
        let oldest = BASE - u64::from(self.oldest());
        lease.normalize(
            Mono(BASE),
            |until| until.0 = until.0.max(BASE),
            |stamp| stamp.0 = stamp.0.max(oldest),
            |_, _| {},
        );
        if let Some(number) = self.numbers.get(&lease) {
            return *number;
        }
        let number = u16::try_from(self.machines.len()).expect("few machines are distinct");
        let status = lease.status(Mono(BASE));
        let until = lease.lease_until().unwrap_or_default();
        let remaining = u8::try_from(until.0.saturating_sub(BASE)).unwrap();
        if remaining > 0 {
            self.tenures |=
                1 << (usize::try_from(status.epoch).unwrap() * NODES + index(lease.id()));
        }
        let promised = lease.promise().map(|promise| (index(promise.to), promise.seq));
        let asks_in = status.phase.map(|_| u8::try_from(status.epoch).unwrap());
        self.facts.push(Facts { remaining, seq: status.last_seq, asks_in, promised });
        self.machines.push(lease.clone());
        self.numbers.insert(lease, number);
        number
    }

    /// The age at which a stamp gives no lease any more.
    pub(super) fn oldest(&self) -> u8 {
        let Scope { promise, lease, other, faults, .. } = self.scope;
        let span = if faults.lease_outlives_promise { promise * 2 } else { lease };
        u8::try_from(span.max(other.unwrap_or(0))).unwrap()
    }

    /// A message under way. NACK and BUSY are left out: the one makes a holder give up, which it may do at any moment anyway, and the other is a
    /// matter of pace.
    fn packet(&self, node: usize, to: NodeId, message: Message) -> Option<Packet> {
        let from = u8::try_from(node).unwrap();
        let to = u8::try_from(to.0 - 1).unwrap();
        let small = |value: u64| u8::try_from(value).unwrap();
        let age = |stamp: Mono| small(BASE - stamp.0);
        let empty = Packet { from, to, ..Packet::NONE };
        match message {
            Message::Hold { term, seq, stamp, promise, .. } => {
                let (kind, term, seq, age) = (Kind::Hold, small(term), small(seq), age(stamp));
                let other = promise != self.span(false).promise;
                Some(Packet { kind, term, seq, age, other, ..empty })
            }
            Message::Ack { term, echo, .. } => {
                Some(Packet { kind: Kind::Ack, term: small(term), age: age(echo), ..empty })
            }
            Message::Relinquish { term, last_seq, .. } => {
                let (kind, term, seq) = (Kind::Relinquish, small(term), small(last_seq));
                Some(Packet { kind, term, seq, ..empty })
            }
            Message::Nack { .. } | Message::Busy { .. } => None,
        }
    }

    pub(super) fn message(&self, packet: Packet) -> Message {
        let (group, epoch, term) = (0, packet.term.into(), packet.term.into());
        let (seq, stamp) = (packet.seq.into(), Mono(BASE - u64::from(packet.age)));
        match packet.kind {
            Kind::Hold => {
                let promise = self.span(packet.other).promise;
                Message::Hold { group, epoch, term, seq, stamp, promise, hint: None }
            }
            Kind::Ack => {
                Message::Ack { group, epoch, term, seq, echo: stamp, applied: 0, eligible: false }
            }
            Kind::Relinquish => {
                let (successor, by) = (None, Speaker::Agent);
                Message::Relinquish { group, epoch, term, last_seq: seq, successor, by }
            }
            Kind::VoteRequest
            | Kind::ForcedVoteRequest
            | Kind::Grant
            | Kind::CampaignNow
            | Kind::None => unreachable!("{:?} is Raft's, not the machine's", packet.kind),
        }
    }
}

fn index(node: NodeId) -> usize {
    usize::try_from(node.0 - 1).unwrap()
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_nanos(ticks)
}

/// Node 0 has id 1.
pub(super) fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}
