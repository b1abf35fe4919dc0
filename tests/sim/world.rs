//! The simulated world: one true time, five machines, a network between them, and whatever goes wrong.

mod mishaps;
mod moves;
mod threads;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use lvsmesh_agent::raft::node::{NodeEffect, NodeInput};
use lvsmesh_agent::raft::storage::{Disk, StoreError};
use lvsmesh_core::lease::{Adaptive, Faults, Input, Profile, Span, Timing};
use lvsmesh_core::model::NodeId;
use lvsmesh_core::state::State;
use lvsmesh_core::time::Mono;
use raft::eraftpb::Message;

use crate::check::Check;
use crate::faults::{self, Fault};
use crate::fleet;
use crate::network::Network;
use crate::node::{Clock, Forgets, Machine};
use crate::rng::Rng;
use moves::Journey;

/// True time in nanoseconds since the simulation's start.
pub(crate) type Time = u64;

pub(crate) const MS: Time = 1_000_000;
pub(crate) const NODES: usize = 5;

/// Nothing goes wrong after this. What takes longest to mend by itself is a snapshot whose confirmation was lost: after five seconds the leader
/// sends another.
pub(crate) const HEALED: Time = 4_500 * MS;
/// Nobody changes anything after this.
const SETTLED: Time = 8_500 * MS;
/// The simulation's end: by then every node must have the newest revision, and somebody must hold.
pub(crate) const END: Time = 10_000 * MS;

/// Operators begin to move the VIPs there and back. All that was broken is mended by then, and what still catches up is not asked to hold.
const MOVES: Time = 6_500 * MS;

const RAFT_TICK: Time = 10 * MS;
const SNAPSHOT_ENTRIES: u64 = 40;

/// What a simulated run is to show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Rules left out of the lease machines.
    pub(crate) faults: Faults,
    /// Rules that the disks break.
    pub(crate) forgets: Forgets,
    /// Leaders answer reads without a lease.
    pub(crate) unvouched: bool,
    /// Prints what happens.
    pub(crate) trace: bool,
}

/// A claim that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation(String);

impl Violation {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    pub(crate) fn store(error: &StoreError) -> Self {
        Self(format!("a store cannot be opened: {error}"))
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) events: u64,
    pub(crate) claims: u64,
    pub(crate) terms: u64,
    pub(crate) entries: u64,
    /// Reads that were answered.
    pub(crate) reads: u64,
    pub(crate) crashes: u64,
    /// Nanoseconds after healing until somebody held.
    pub(crate) recovery: Time,
    /// Planned moves, once all was mended.
    pub(crate) moves: u64,
    /// Those that ended with another director than the one that was named.
    pub(crate) diverted: u64,
    /// Nanoseconds that the slowest of them took.
    pub(crate) slowest_move: Time,
    /// Times that a node came to ask for longer promises, and for shorter ones.
    pub(crate) longer: u64,
    pub(crate) shorter: u64,
    /// A number that any difference between two runs changes.
    pub(crate) digest: u64,
}

#[derive(Clone, Debug)]
enum Event {
    Datagram {
        to: usize,
        datagram: Vec<u8>,
    },
    RaftMessage {
        to: usize,
        message: Box<Message>,
    },
    /// A stream between two nodes broke, and its sender notices.
    Broken {
        from: usize,
        to: usize,
    },
    LeaseWakes {
        node: usize,
        run: u64,
    },
    RaftWakes {
        node: usize,
        run: u64,
    },
    Timer {
        node: usize,
        run: u64,
        at: Time,
    },
    Tick {
        node: usize,
        run: u64,
    },
    /// The raft thread is back from its disk.
    Written {
        node: usize,
        run: u64,
        effects: Vec<NodeEffect>,
    },
    TableReady {
        node: usize,
        run: u64,
        epoch: u64,
    },
    Change,
    Read,
    /// A node is to ask for promises of another length.
    Ask,
    Membership,
    Move,
    Fault(Fault),
    FaultEnds(Fault),
    Start {
        node: usize,
    },
    Heal,
}

/// The world at a moment.
pub(crate) struct World {
    now: Time,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: BTreeMap<u64, Event>,
    sequence: u64,
    rng: Rng,
    pub(crate) machines: Vec<Machine>,
    network: Network,
    check: Check,
    /// Streams that broke without their senders' knowing yet, as bits of the receivers.
    broken: [u8; NODES],
    /// What reaches a paused machine waits here.
    backlog: Vec<Vec<Event>>,
    /// Threads are this much slower to wake up, in thousandths of the time.
    sluggish: u64,
    requests: u64,
    /// How many times rarer changes are than in a busy fleet. Where little changes, nodes that were cut off can be elected all the same.
    calm: u64,
    journey: Journey,
    unvouched: bool,
    trace: bool,
    summary: Summary,
}

/// Every third fleet chooses its promises by itself, and in a hurry, so that they grow longer and shorter within ten seconds. Besides, its nodes are told to
/// ask for any length, by [`Event::Ask`].
fn timing(seed: u64) -> Timing {
    let limits = Adaptive {
        floor: Duration::from_millis(100),
        ceiling: Duration::from_millis(600),
        quiet: Duration::from_millis(150),
    };
    let adaptive = Some(limits).filter(|_| seed.is_multiple_of(3));
    // As with addresses on interfaces, and as without.
    let release_margin = if seed.is_multiple_of(2) { 10 * MS } else { 0 };
    let release_margin = Duration::from_nanos(release_margin);
    Timing { adaptive, release_margin, ..Profile::Default.timing() }
}

/// Runs a seed to its end.
pub(crate) fn run(plan: Plan) -> Result<Summary, Violation> {
    let mut world = World::new(plan);
    world.begin()?;
    let result = world.run();
    result.map_err(|Violation(what)| Violation(format!("after {} ms: {what}", world.now / MS)))
}

impl World {
    fn new(plan: Plan) -> Self {
        let mut rng = Rng::new(plan.seed);
        let machines = (0..NODES)
            .map(|node| Machine {
                id: NodeId(node as u64 + 1),
                clock: Clock {
                    offset: rng.of(10_000_000_000..1_000_000_000_000),
                    rate: rng.of(980_000..1_020_001),
                },
                disk: Disk::default(),
                record: Some(Mono(0)),
                run: 0,
                agent: None,
                ghosts: Vec::new(),
                paused: false,
                carrier: true,
                timing: timing(plan.seed),
                faults: plan.faults,
                forgets: plan.forgets,
            })
            .collect();
        Self {
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            machines,
            network: Network::default(),
            check: Check::default(),
            broken: [0; NODES],
            backlog: vec![Vec::new(); NODES],
            sluggish: 0,
            requests: 0,
            calm: if rng.permille(500) { 20 } else { 1 },
            rng,
            journey: Journey::default(),
            unvouched: plan.unvouched,
            trace: plan.trace,
            summary: Summary::default(),
        }
    }

    fn begin(&mut self) -> Result<(), Violation> {
        let state = fleet::members(&mut self.rng);
        let disks: Vec<Disk> = self.machines.iter().map(|machine| machine.disk.clone()).collect();
        let grown = self.rng.permille(700);
        fleet::found(&disks, &state, grown);
        for node in 0..NODES {
            self.start(node)?;
        }
        for (at, fault, until) in faults::schedule(&mut self.rng) {
            self.schedule(at, Event::Fault(fault));
            self.schedule(until, Event::FaultEnds(fault));
        }
        self.schedule(HEALED, Event::Heal);
        self.schedule(50 * MS, Event::Change);
        self.schedule(60 * MS, Event::Read);
        if self.machines.iter().any(|machine| machine.timing.adaptive.is_some()) {
            self.schedule(70 * MS, Event::Ask);
        }
        self.schedule(100 * MS, Event::Membership);
        self.schedule(MOVES, Event::Move);
        Ok(())
    }

    fn run(&mut self) -> Result<Summary, Violation> {
        while let Some(Reverse((time, sequence))) = self.queue.pop() {
            if time > END {
                break;
            }
            self.now = time;
            let event = self.events.remove(&sequence).expect("every queued event is kept");
            self.summary.events += 1;
            self.happen(event)?;
            self.look()?;
        }
        self.now = END;
        self.check.at_the_end(&self.machines, END)?;
        self.summary.terms = self.check.terms();
        self.summary.entries = self.check.entries();
        self.summary.reads = self.check.reads();
        Ok(self.summary)
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at.max(self.now), self.sequence)));
        self.events.insert(self.sequence, event);
    }

    fn note(&self, node: usize, what: impl FnOnce() -> String) {
        if self.trace {
            let (ms, us) = (self.now / MS, self.now % MS / 1000);
            println!("{ms:>6}.{us:03} node {}: {}", node + 1, what());
        }
    }

    /// The claims that must hold at every moment.
    fn look(&mut self) -> Result<(), Violation> {
        let emitting: Vec<usize> =
            (0..NODES).filter(|node| self.machines[*node].emits(self.now)).collect();
        if let [first, second, ..] = emitting[..] {
            let what = format!("nodes {} and {} may both emit", first + 1, second + 1);
            return Err(Violation(what));
        }
        if self.now >= HEALED && self.summary.recovery == 0 && !emitting.is_empty() {
            self.summary.recovery = self.now - HEALED + 1;
        }
        self.under_way()?;
        let seen = emitting.first().map_or(0, |node| *node as u64 + 1);
        let digest = (self.summary.digest ^ seen).wrapping_mul(0x0100_0000_01b3);
        self.summary.digest = digest ^ self.now;
        Ok(())
    }

    // ---- events ----

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        if let Event::RaftMessage { to, message } = &event
            && self.machines[*to].agent.is_none()
        {
            self.break_stream(index(NodeId(message.from)), *to);
        }
        if let Some((node, run)) = self.addressee(&event) {
            if self.machines[node].agent.is_none()
                || run.is_some_and(|run| run != self.machines[node].run)
            {
                return Ok(());
            }
            if self.machines[node].paused {
                self.backlog[node].push(event);
                return Ok(());
            }
        }
        match event {
            Event::Datagram { to, datagram } => self.datagram(to, &datagram),
            Event::RaftMessage { to, message } => {
                self.raft_input(to, NodeInput::Message(message));
            }
            Event::Broken { from, to } => {
                self.broken[from] &= !(1 << to);
                self.raft_input(from, NodeInput::Unreachable(self.machines[to].id));
            }
            Event::LeaseWakes { node, .. } => self.lease_wakes(node)?,
            Event::RaftWakes { node, .. } => self.raft_wakes(node),
            Event::Timer { node, at, .. } => {
                let agent = self.machines[node].agent.as_mut().expect("checked above");
                if agent.timer == at {
                    agent.timer = Time::MAX;
                }
                self.lease_input(node, Input::Timer);
            }
            Event::Tick { node, run } => {
                self.schedule(self.now + RAFT_TICK, Event::Tick { node, run });
                self.raft_input(node, NodeInput::Tick);
            }
            Event::Written { node, effects, .. } => self.carry_out(node, effects)?,
            Event::TableReady { node, epoch, .. } => {
                self.lease_input(node, Input::TableReady { epoch });
            }
            Event::Change => self.change(),
            Event::Read => self.read()?,
            Event::Ask => self.ask(),
            Event::Membership => self.membership(),
            Event::Move => self.planned_move(),
            Event::Fault(fault) => self.fault(fault)?,
            Event::FaultEnds(fault) => self.fault_ends(fault)?,
            Event::Start { node } => {
                if self.machines[node].agent.is_none() {
                    self.start(node)?;
                }
            }
            Event::Heal => self.heal()?,
        }
        Ok(())
    }

    /// Whose event it is, and of which run; `None` for the world's own.
    fn addressee(&self, event: &Event) -> Option<(usize, Option<u64>)> {
        match event {
            Event::Datagram { to, .. } | Event::RaftMessage { to, .. } => Some((*to, None)),
            Event::LeaseWakes { node, run }
            | Event::RaftWakes { node, run }
            | Event::Timer { node, run, .. }
            | Event::Tick { node, run }
            | Event::Written { node, run, .. }
            | Event::TableReady { node, run, .. } => Some((*node, Some(*run))),
            // A stream's end is noticed by whoever runs by then.
            Event::Broken { .. }
            | Event::Change
            | Event::Read
            | Event::Ask
            | Event::Membership
            | Event::Move
            | Event::Fault(_)
            | Event::FaultEnds(_)
            | Event::Start { .. }
            | Event::Heal => None,
        }
    }

    fn ask(&mut self) {
        let node = self.rng.index(NODES);
        let promise = Duration::from_millis(self.rng.of(60..600));
        self.lease_input(node, Input::Ask(Span::of(promise)));
        let next = self.now + self.rng.of(10 * MS..200 * MS);
        self.schedule(next, Event::Ask);
    }

    fn start(&mut self, node: usize) -> Result<(), Violation> {
        let effects = self.machines[node].start(self.now)?;
        self.note(node, || "agent started".to_owned());
        let run = self.machines[node].run;
        let first = self.now + self.rng.of(0..RAFT_TICK);
        self.schedule(first, Event::Tick { node, run });
        self.check.restarted(node);
        self.carry_out(node, effects)?;
        let machine = &mut self.machines[node];
        let status = machine.agent.as_ref().expect("just started").raft.view().clone();
        let agent = machine.agent.as_mut().expect("just started");
        agent.tell_lease(&status);
        agent.tell_standing(machine.id, machine.carrier);
        self.wake_lease(node);
        Ok(())
    }

    fn kill(&mut self, node: usize) {
        if self.machines[node].agent.is_some() {
            self.note(node, || "agent killed".to_owned());
            self.summary.crashes += 1;
            self.machines[node].kill();
            self.backlog[node].clear();
            for peer in (0..NODES).filter(|peer| *peer != node) {
                self.break_stream(peer, node);
            }
        }
    }

    /// Raft's messages travel in streams: one that is lost means that the stream is gone, which its sender learns a little later.
    fn break_stream(&mut self, from: usize, to: usize) {
        if self.broken[from] & 1 << to == 0 {
            self.broken[from] |= 1 << to;
            let at = self.now + self.rng.of(5 * MS..200 * MS);
            self.schedule(at, Event::Broken { from, to });
        }
    }
}

/// The members' state of a machine whose agent runs.
pub(crate) fn state_of(machine: &Machine) -> Option<&State> {
    machine.agent.as_ref().map(|agent| &agent.state)
}

fn index(id: NodeId) -> usize {
    usize::try_from(id.0 - 1).unwrap()
}
