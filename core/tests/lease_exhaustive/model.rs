//! Three nodes, a network and a reckless Raft.
//!
//! A state is small because the machines in it are numbered: distinct machines are few, whole states are many. All moments are kept relative
//! to one base, so that states which differ only in when they happen are the same state.

use std::collections::HashMap;
use std::time::Duration;

use lvsmesh_core::lease::wire::Speaker;
use lvsmesh_core::lease::{
    Effect, Effects, Faults, GateRequest, Input, Lease, LeaseConfig, Message, RaftView, Standing,
    Timing,
};
use lvsmesh_core::model::NodeId;
use lvsmesh_core::time::Mono;

use crate::search::Quick;

/// How much is searched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// P in ticks.
    pub promise: u64,
    /// L in ticks.
    pub lease: u64,
    /// Messages under way at once, at most; more are lost.
    pub messages: usize,
    /// Highest term.
    pub terms: u8,
    /// Crashes in all.
    pub crashes: u8,
    /// Whether a machine may learn arbitrarily late that its Raft won or lost.
    pub lagging_views: bool,
    /// Whether leaders order others to campaign, and nobody asks the gate about it.
    pub transfers_bypass_the_gate: bool,
    /// Rules left out.
    pub faults: Faults,
}

/// "Now" in every stored state.
const BASE: u64 = 100;
const DIRECTORS: usize = 2;
pub(crate) const NODES: usize = 3;
const SLOTS: usize = 4;

/// One state of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Number of each node's machine.
    machines: [u16; NODES],
    rafts: [Raft; NODES],
    /// Ticks for which the lease of a crashed run of the node still counts.
    ghosts: [u8; NODES],
    crashes: u8,
    /// Sorted; unused slots are `Packet::NONE`.
    packets: [Packet; SLOTS],
}

/// What a Raft needs in order to elect leaders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Raft {
    term: u8,
    /// Node number plus one; 0: none.
    voted: u8,
    /// Bit set of the grants of this term.
    grants: u8,
    leads: bool,
}

/// One message under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Packet {
    kind: Kind,
    from: u8,
    to: u8,
    term: u8,
    /// HOLD, RELINQUISH: sequence. Only the order among one sender's sequences matters.
    seq: u8,
    /// HOLD, ACK: ticks since the HOLD was sent.
    age: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Hold,
    Ack,
    Relinquish,
    VoteRequest,
    ForcedVoteRequest,
    Grant,
    CampaignNow,
    /// No packet; sorts last.
    None,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Hold,
        Self::Ack,
        Self::Relinquish,
        Self::VoteRequest,
        Self::ForcedVoteRequest,
        Self::Grant,
        Self::CampaignNow,
        Self::None,
    ];
}

impl Packet {
    const NONE: Self = Self { kind: Kind::None, from: 0, to: 0, term: 0, seq: 0, age: 0 };
}

/// A state in the form in which millions are kept.
pub(crate) type Packed = [u64; 3];

impl State {
    pub(crate) fn packed(&self) -> Packed {
        let fold =
            |bits: u32, fields: &[u64]| fields.iter().fold(0, |all, field| all << bits | field);
        let machines = self.machines.map(u64::from);
        let rafts = self.rafts.map(|raft| {
            let Raft { term, voted, grants, leads } = raft;
            fold(3, &[term.into(), voted.into(), grants.into(), leads.into()])
        });
        let ghosts = self.ghosts.map(u64::from);
        let packets = self.packets.map(|packet| u64::from(packet.packed()));
        [
            fold(16, &machines) << 16 | fold(4, &ghosts) << 4 | u64::from(self.crashes),
            fold(12, &rafts),
            fold(16, &packets),
        ]
    }

    #[allow(clippy::cast_possible_truncation, reason = "the masks keep what was put in")]
    pub(crate) fn unpacked(packed: Packed) -> Self {
        let field =
            |word: usize, shift: usize, bits: u32| (packed[word] >> shift) & ((1 << bits) - 1);
        let mut state = Self {
            machines: [0; NODES],
            rafts: [Raft::default(); NODES],
            ghosts: [0; NODES],
            crashes: field(0, 0, 4) as u8,
            packets: [Packet::NONE; SLOTS],
        };
        for node in 0..NODES {
            let back = NODES - 1 - node;
            state.machines[node] = field(0, 16 + 16 * back, 16) as u16;
            state.ghosts[node] = field(0, 4 + 4 * back, 4) as u8;
            let at = |part: usize| field(1, 12 * back + 3 * part, 3) as u8;
            state.rafts[node] = Raft { term: at(3), voted: at(2), grants: at(1), leads: at(0) > 0 };
        }
        for slot in 0..SLOTS {
            state.packets[slot] = Packet::unpacked(field(2, 16 * (SLOTS - 1 - slot), 16) as u16);
        }
        state
    }
}

impl Packet {
    fn packed(&self) -> u16 {
        let kind = Kind::ALL.iter().position(|kind| *kind == self.kind).unwrap();
        let fields = [self.from, self.to, self.term].map(u16::from);
        let small =
            fields.into_iter().fold(u16::try_from(kind).unwrap(), |all, field| all << 2 | field);
        small << 7 | u16::from(self.seq) << 4 | u16::from(self.age)
    }

    #[allow(clippy::cast_possible_truncation, reason = "the masks keep what was put in")]
    fn unpacked(packed: u16) -> Self {
        let at = |shift: u16, bits: u16| ((packed >> shift) & ((1 << bits) - 1)) as u8;
        let kind = Kind::ALL[usize::from(at(13, 3))];
        Self { kind, from: at(11, 2), to: at(9, 2), term: at(7, 2), seq: at(4, 3), age: at(0, 4) }
    }
}

/// One step of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Begin,
    Tick,
    Timer(u8),
    Campaign(u8),
    Abdicate(u8),
    Crash(u8),
    /// The machine learns its Raft's view.
    Tell(u8),
    /// A leader orders another director to campaign at once.
    Transfer(u8),
    /// The packet in that slot.
    Lose(u8),
    Deliver(u8),
}

/// What a machine is given, in a form that can be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cause {
    Timer,
    Packet(Packet),
    Gate { candidate: u8, term: u8 },
    View { term: u8, leads: bool },
    Abdicate,
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
        }
    }
}

/// What a machine makes of it.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    machine: u16,
    /// Unused slots are `Packet::NONE`, at the end.
    sent: [Packet; 6],
    passed: bool,
    steps_down: Option<u8>,
}

impl Outcome {
    const NOTHING: Self =
        Self { machine: 0, sent: [Packet::NONE; 6], passed: false, steps_down: None };
}

/// What is asked of a machine again and again.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// Ticks for which its lease still runs.
    remaining: u8,
    /// The sequence of its newest HOLD.
    seq: u64,
    /// The node that it has promised, and the sequence.
    promised: Option<(usize, u64)>,
}

/// The numbered machines, and what is known of them.
pub(crate) struct Model {
    scope: Scope,
    machines: Vec<Lease>,
    numbers: HashMap<Lease, u16, Quick>,
    facts: Vec<Facts>,
    tenures: usize,
    known: HashMap<u64, Outcome, Quick>,
}

impl Model {
    pub(crate) fn new(scope: Scope) -> Self {
        assert!(scope.messages <= SLOTS, "a state has room for {SLOTS} packets");
        Self {
            scope,
            machines: Vec::new(),
            numbers: HashMap::default(),
            facts: Vec::new(),
            tenures: 0,
            known: HashMap::default(),
        }
    }

    pub(crate) fn initial(&mut self) -> State {
        let mut machines = [0; NODES];
        for (node, number) in machines.iter_mut().enumerate() {
            let lease = self.started(node, 0, Mono(0));
            *number = self.number(lease);
        }
        State {
            machines,
            rafts: [Raft::default(); NODES],
            ghosts: [0; NODES],
            crashes: 0,
            packets: [Packet::NONE; SLOTS],
        }
    }

    /// How many nodes have a lease, and how many lead.
    pub(crate) fn holders_and_leaders(&self, state: &State) -> (usize, usize) {
        let holds = |node: usize| {
            state.ghosts[node] > 0 || self.facts[usize::from(state.machines[node])].remaining > 0
        };
        let leaders = state.rafts.iter().filter(|raft| raft.leads).count();
        ((0..NODES).filter(|node| holds(*node)).count(), leaders)
    }

    /// Machines and leases won, for the summary.
    pub(crate) fn machines(&self) -> usize {
        self.machines.len()
    }

    /// Distinct (node, term) in which a lease was won.
    pub(crate) fn tenures(&self) -> usize {
        self.tenures.count_ones() as usize
    }

    /// Calls back with every state that is one action away.
    pub(crate) fn successors(&mut self, state: &State, mut found: impl FnMut(Action, State)) {
        found(Action::Tick, self.tick(state));
        for node in 0..NODES {
            let number = u8::try_from(node).unwrap();
            let mut to = |action: Action, next: Option<State>| {
                if let Some(next) = next {
                    found(action, next);
                }
            };
            to(Action::Timer(number), self.input(state, node, Cause::Timer));
            to(Action::Campaign(number), self.campaign(state, node, false));
            to(Action::Abdicate(number), self.input(state, node, Cause::Abdicate));
            to(Action::Crash(number), self.crash(state, node));
            to(Action::Tell(number), self.tell(state, node));
            to(Action::Transfer(number), self.transfer(state, node));
        }
        for slot in 0..SLOTS {
            if state.packets[slot] == Packet::NONE {
                break;
            }
            let number = u8::try_from(slot).unwrap();
            let mut lost = *state;
            lost.packets[slot] = Packet::NONE;
            lost.packets.sort_unstable();
            if let Some(next) = self.deliver(&lost, state.packets[slot]) {
                found(Action::Deliver(number), next);
            }
            self.compact(&mut lost);
            found(Action::Lose(number), lost);
        }
    }

    /// Says in words what an action did to a state.
    pub(crate) fn describe(&self, state: &State, action: Action) -> String {
        match action {
            Action::Lose(slot) | Action::Deliver(slot) => {
                format!("{action:?}: {:?}", state.packets[usize::from(slot)])
            }
            Action::Begin
            | Action::Tick
            | Action::Timer(_)
            | Action::Campaign(_)
            | Action::Abdicate(_)
            | Action::Crash(_)
            | Action::Tell(_)
            | Action::Transfer(_) => format!("{action:?}"),
        }
    }

    // ---- actions ----

    fn tick(&mut self, state: &State) -> State {
        let mut next = *state;
        for node in 0..NODES {
            next.machines[node] = self.outcome(node, state.machines[node], Cause::Tick).machine;
            next.ghosts[node] = state.ghosts[node].saturating_sub(1);
        }
        let oldest = self.oldest();
        for packet in &mut next.packets {
            if matches!(packet.kind, Kind::Hold | Kind::Ack) {
                packet.age = (packet.age + 1).min(oldest);
            }
        }
        next.packets.sort_unstable();
        next
    }

    /// Gives one machine an input. `None` if nothing comes of it.
    fn input(&mut self, state: &State, node: usize, cause: Cause) -> Option<State> {
        let mut next = *state;
        self.feed(&mut next, node, cause)?;
        self.compact(&mut next);
        Some(next).filter(|next| next != state)
    }

    /// A node stands for election, unless its own gate says no. The gate would hold the step back and let it go later: that is the same as
    /// standing later.
    fn campaign(&mut self, state: &State, node: usize, forced: bool) -> Option<State> {
        let raft = state.rafts[node];
        if raft.leads || raft.term >= self.scope.terms {
            return None;
        }
        let mut next = *state;
        let (me, term) = (u8::try_from(node).unwrap(), raft.term + 1);
        if !forced {
            self.feed(&mut next, node, Cause::Gate { candidate: me, term })?;
        }
        next.rafts[node] = Raft { term, voted: me + 1, grants: 1 << node, leads: false };
        let kind = if forced { Kind::ForcedVoteRequest } else { Kind::VoteRequest };
        for to in (0..NODES).filter(|to| *to != node) {
            let to = u8::try_from(to).unwrap();
            self.send(&mut next, Packet { kind, to, from: me, term, ..Packet::NONE })?;
        }
        self.settle(&mut next, node)?;
        Some(next)
    }

    fn crash(&mut self, state: &State, node: usize) -> Option<State> {
        if state.crashes >= self.scope.crashes {
            return None;
        }
        let mut next = *state;
        next.crashes += 1;
        next.ghosts[node] =
            state.ghosts[node].max(self.facts[usize::from(state.machines[node])].remaining);
        next.rafts[node].leads = false;
        next.rafts[node].grants = 0;
        let cause = Cause::Restart { term: state.rafts[node].term };
        next.machines[node] = self.outcome(node, state.machines[node], cause).machine;
        self.compact(&mut next);
        Some(next)
    }

    fn tell(&mut self, state: &State, node: usize) -> Option<State> {
        if !self.scope.lagging_views {
            return None;
        }
        let Raft { term, leads, .. } = state.rafts[node];
        self.input(state, node, Cause::View { term, leads })
    }

    fn transfer(&mut self, state: &State, node: usize) -> Option<State> {
        if !self.scope.transfers_bypass_the_gate || !state.rafts[node].leads {
            return None;
        }
        let mut next = *state;
        let from = u8::try_from(node).unwrap();
        let to = if node == 0 { 1 } else { 0 };
        let term = state.rafts[node].term;
        self.send(&mut next, Packet { kind: Kind::CampaignNow, from, to, term, ..Packet::NONE })?;
        Some(next).filter(|next| next != state)
    }

    /// Delivers a packet that is no longer among those under way. `None` if its addressee takes no notice, or if its gate holds it back:
    /// the gate's letting it go later is the same as its arriving later.
    fn deliver(&mut self, state: &State, packet: Packet) -> Option<State> {
        let mut next = *state;
        let (from, node) = (usize::from(packet.from), usize::from(packet.to));
        let raft = &mut next.rafts[node];
        match packet.kind {
            Kind::Hold | Kind::Ack | Kind::Relinquish => {
                self.feed(&mut next, node, Cause::Packet(packet))?;
            }
            Kind::VoteRequest | Kind::ForcedVoteRequest => {
                let unspent = raft.voted == 0 || raft.voted == packet.from + 1;
                let fresh =
                    packet.term > raft.term || (packet.term == raft.term && !raft.leads && unspent);
                if !fresh {
                    return None;
                }
                let gate = Cause::Gate { candidate: packet.from, term: packet.term };
                if packet.kind == Kind::VoteRequest {
                    self.feed(&mut next, node, gate)?;
                }
                let (term, voted) = (packet.term, packet.from + 1);
                next.rafts[node] = Raft { term, voted, ..Raft::default() };
                let (from, to) = (packet.to, packet.from);
                self.send(&mut next, Packet { kind: Kind::Grant, from, to, term, ..Packet::NONE })?;
            }
            Kind::Grant => {
                if raft.term != packet.term || raft.leads || usize::from(raft.voted) != node + 1 {
                    return None;
                }
                raft.grants |= 1 << from;
                raft.leads = raft.grants.count_ones() >= 2;
            }
            Kind::CampaignNow => {
                if raft.term != packet.term {
                    return None;
                }
                next = self.campaign(&next, node, true)?;
            }
            Kind::None => return None,
        }
        self.settle(&mut next, node)?;
        Some(next)
    }

    // ---- machines ----

    /// Gives a machine an input and puts what it sends under way. `None` if there is no room for that, or if the input is a vote and the gate
    /// holds it back.
    fn feed(&mut self, state: &mut State, node: usize, cause: Cause) -> Option<()> {
        let outcome = self.outcome(node, state.machines[node], cause);
        if matches!(cause, Cause::Gate { .. }) && !outcome.passed {
            return None;
        }
        state.machines[node] = outcome.machine;
        for packet in outcome.sent.into_iter().take_while(|packet| *packet != Packet::NONE) {
            self.send(state, packet)?;
        }
        let raft = &mut state.rafts[node];
        if outcome.steps_down == Some(raft.term) && raft.leads {
            raft.leads = false;
            if !self.scope.lagging_views {
                let term = raft.term;
                self.feed(state, node, Cause::View { term, leads: false })?;
            }
        }
        Some(())
    }

    /// After a change of Raft: the machine is told, unless it is to learn it late.
    fn settle(&mut self, state: &mut State, node: usize) -> Option<()> {
        if !self.scope.lagging_views {
            let Raft { term, leads, .. } = state.rafts[node];
            self.feed(state, node, Cause::View { term, leads })?;
        }
        self.compact(state);
        Some(())
    }

    /// Puts a packet under way. `None` if there are too many: such an action waits until others have been delivered or lost.
    fn send(&self, state: &mut State, packet: Packet) -> Option<()> {
        let used = state.packets.iter().position(|slot| *slot == Packet::NONE).unwrap_or(SLOTS);
        if !state.packets[..used].contains(&packet) {
            *state.packets[..self.scope.messages].get_mut(used)? = packet;
            state.packets.sort_unstable();
        }
        Some(())
    }

    /// What a machine makes of an input; computed once.
    fn outcome(&mut self, node: usize, machine: u16, cause: Cause) -> Outcome {
        let key = u64::from(machine) << 32 | cause.code();
        if let Some(outcome) = self.known.get(&key) {
            return *outcome;
        }
        let outcome = self.compute(node, machine, cause);
        self.known.insert(key, outcome);
        outcome
    }

    fn compute(&mut self, node: usize, machine: u16, cause: Cause) -> Outcome {
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
                    if let Some(packet) = packet(node, to, message) {
                        outcome.sent[sent] = packet;
                        sent += 1;
                    }
                }
                Effect::Pass(_) => outcome.passed = true,
                Effect::StepDown { term } => {
                    outcome.steps_down = Some(u8::try_from(term).unwrap());
                }
                Effect::Drop(_)
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

    fn quiet(&mut self, lease: Lease) -> Outcome {
        let machine = self.number(lease);
        Outcome { machine, ..Outcome::NOTHING }
    }

    fn started(&self, node: usize, term: u8, silent_until: Mono) -> Lease {
        let ticks = |ticks: u64| Duration::from_nanos(ticks);
        let timing = Timing {
            promise: ticks(self.scope.promise),
            lease: ticks(self.scope.lease),
            beat: ticks(1),
            promise_max: ticks(self.scope.promise),
            release_margin: ticks(0),
            claim_slack: ticks(0),
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

    /// The number of a machine, after moments and stamps were brought into the form in which states are compared.
    fn number(&mut self, mut lease: Lease) -> u16 {
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
        self.facts.push(Facts { remaining, seq: status.last_seq, promised });
        self.machines.push(lease.clone());
        self.numbers.insert(lease, number);
        number
    }

    /// The age at which a stamp gives no lease any more.
    fn oldest(&self) -> u8 {
        let Scope { promise, lease, faults, .. } = self.scope;
        let span = if faults.lease_outlives_promise { promise * 2 } else { lease };
        u8::try_from(span).unwrap()
    }

    // ---- sequences ----

    /// Replaces every sender's sequences by their ranks among those that still occur: nothing but their order is ever looked at.
    fn compact(&mut self, state: &mut State) {
        for sender in 0..NODES {
            let mut seen = 0u64;
            for (node, machine) in state.machines.into_iter().enumerate() {
                let facts = &self.facts[usize::from(machine)];
                if node == sender {
                    seen |= 1 << facts.seq;
                }
                if let Some((to, seq)) = facts.promised
                    && to == sender
                {
                    seen |= 1 << seq;
                }
            }
            for packet in &state.packets {
                if usize::from(packet.from) == sender && packet.has_seq() {
                    seen |= 1 << packet.seq;
                }
            }
            let rank = |seq: u64| u64::from((seen & ((1 << seq) - 1)).count_ones());
            if seen & (seen + 1) == 0 {
                continue;
            }
            for number in &mut state.machines {
                let mut lease = self.machines[usize::from(*number)].clone();
                lease.normalize(
                    Mono(BASE),
                    |_| {},
                    |_| {},
                    |of, seq| {
                        if of == id(sender) {
                            *seq = rank(*seq);
                        }
                    },
                );
                *number = self.number(lease);
            }
            for packet in &mut state.packets {
                if usize::from(packet.from) == sender && packet.has_seq() {
                    packet.seq = u8::try_from(rank(packet.seq.into())).unwrap();
                }
            }
        }
        state.packets.sort_unstable();
    }

    fn message(&self, packet: Packet) -> Message {
        let (group, epoch, term) = (0, packet.term.into(), packet.term.into());
        let (seq, stamp) = (packet.seq.into(), Mono(BASE - u64::from(packet.age)));
        match packet.kind {
            Kind::Hold => {
                let promise = Duration::from_nanos(self.scope.promise);
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

impl Packet {
    fn has_seq(&self) -> bool {
        matches!(self.kind, Kind::Hold | Kind::Relinquish)
    }
}

/// A message under way. NACK and BUSY are left out: the one makes a holder give up, which it may do at any moment anyway, and the other is a
/// matter of pace.
fn packet(node: usize, to: NodeId, message: Message) -> Option<Packet> {
    let from = u8::try_from(node).unwrap();
    let to = u8::try_from(to.0 - 1).unwrap();
    let small = |value: u64| u8::try_from(value).unwrap();
    let age = |stamp: Mono| small(BASE - stamp.0);
    match message {
        Message::Hold { term, seq, stamp, .. } => {
            let (kind, term, seq, age) = (Kind::Hold, small(term), small(seq), age(stamp));
            Some(Packet { kind, from, to, term, seq, age })
        }
        Message::Ack { term, echo, .. } => {
            Some(Packet { kind: Kind::Ack, from, to, term: small(term), seq: 0, age: age(echo) })
        }
        Message::Relinquish { term, last_seq, .. } => {
            let (kind, term, seq) = (Kind::Relinquish, small(term), small(last_seq));
            Some(Packet { kind, from, to, term, seq, age: 0 })
        }
        Message::Nack { .. } | Message::Busy { .. } => None,
    }
}

fn index(node: NodeId) -> usize {
    usize::try_from(node.0 - 1).unwrap()
}

/// Node 0 has id 1.
fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}
