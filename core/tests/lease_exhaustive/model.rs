//! Three nodes, a network and a reckless Raft.
//!
//! A state is small because the machines in it are numbered: distinct machines are few, whole states are many. All moments are kept relative
//! to one base, so that states which differ only in when they happen are the same state.

mod machines;
mod state;

use std::collections::HashMap;

use lvsmesh_core::lease::{Faults, Lease};
use lvsmesh_core::time::Mono;

use self::machines::{Cause, Facts, Outcome, id};
pub(crate) use self::state::{Action, Packed, State};
use self::state::{Kind, Packet, Raft};
use crate::search::Quick;

/// How much is searched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// P in ticks.
    pub promise: u64,
    /// L in ticks.
    pub lease: u64,
    /// P and L in ticks of another span, which a leader may ask for instead at any moment, and back.
    pub other: Option<u64>,
    /// Messages under way at once, at most; more are lost.
    pub messages: usize,
    /// Highest term.
    pub terms: u8,
    /// Crashes in all.
    pub crashes: u8,
    /// Whether a crash may be one after which a guard relinquishes.
    pub guarded: bool,
    /// Whether that guard does so although the agent goes on.
    pub guards_spare_the_agent: bool,
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
            let asks = self.facts[usize::from(state.machines[node])].asks_in.is_some();
            for other in
                self.scope.other.filter(|_| asks).map(|_| [false, true]).into_iter().flatten()
            {
                to(Action::Ask(number, other), self.input(state, node, Cause::Ask { other }));
            }
            to(Action::Campaign(number), self.campaign(state, node, false));
            to(Action::Abdicate(number), self.input(state, node, Cause::Abdicate));
            to(Action::HandOver(number), self.input(state, node, Cause::HandOver));
            to(Action::StepDown(number), self.step_down(state, node));
            to(Action::Crash(number), self.crash(state, node));
            to(Action::Guarded(number), self.guarded(state, node));
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
            | Action::Ask(..)
            | Action::Campaign(_)
            | Action::Abdicate(_)
            | Action::HandOver(_)
            | Action::StepDown(_)
            | Action::Crash(_)
            | Action::Guarded(_)
            | Action::Tell(_)
            | Action::Transfer(_) => format!("{action:?}"),
        }
    }

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

    fn step_down(&mut self, state: &State, node: usize) -> Option<State> {
        let mut next = *state;
        if !std::mem::take(&mut next.rafts[node].leads) {
            return None;
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

    /// A node's agent dies and its guard, which ends it first if it only stands still, takes away what it answered with, and then relinquishes for
    /// it: what it says may arrive at any later moment, long after the node's next agent has begun.
    fn guarded(&mut self, state: &State, node: usize) -> Option<State> {
        if !self.scope.guarded {
            return None;
        }
        let facts = self.facts[usize::from(state.machines[node])];
        let mut next = self.crash(state, node)?;
        if !self.scope.guards_spare_the_agent {
            next.ghosts[node] = 0;
        }
        if let Some(term) = facts.asks_in {
            let (kind, from) = (Kind::Relinquish, u8::try_from(node).unwrap());
            let seq = u8::try_from(facts.seq).unwrap();
            for to in (0..NODES).filter(|to| *to != node) {
                let to = u8::try_from(to).unwrap();
                // Where there is no room for both, one is lost.
                let _lost =
                    self.send(&mut next, Packet { kind, from, to, term, seq, ..Packet::NONE });
            }
        }
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
}
