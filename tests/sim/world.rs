//! The simulated world: one true time, five machines, a network between them, and whatever goes wrong.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use lvsmesh_agent::raft::node::{NodeEffect, NodeInput};
use lvsmesh_agent::raft::storage::{Disk, Fault as DiskFault, StoreError};
use lvsmesh_core::lease::wire::{self, Header, MAX_LEN};
use lvsmesh_core::lease::{Effect, Faults, Input};
use lvsmesh_core::membership::{self, Configuration};
use lvsmesh_core::model::NodeId;
use lvsmesh_core::state::State;
use lvsmesh_core::time::Mono;
use lvsmesh_proto::convert;
use raft::eraftpb::Message;

use crate::check::Check;
use crate::faults::{self, Fault};
use crate::fleet;
use crate::network::{Network, Plane};
use crate::node::{Clock, Machine};
use crate::rng::Rng;

/// True time in nanoseconds since the simulation's start.
pub(crate) type Time = u64;

pub(crate) const MS: Time = 1_000_000;
pub(crate) const NODES: usize = 5;

/// Nothing goes wrong after this.
pub(crate) const HEALED: Time = 6_000 * MS;
/// Nobody changes anything after this.
const SETTLED: Time = 8_500 * MS;
/// The simulation's end: by then every node must have the newest revision, and somebody must hold.
pub(crate) const END: Time = 10_000 * MS;

const RAFT_TICK: Time = 10 * MS;
const SNAPSHOT_ENTRIES: u64 = 40;

/// What a simulated run is to show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Rules left out of the lease machines.
    pub(crate) faults: Faults,
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
    pub(crate) crashes: u64,
    /// Nanoseconds after healing until somebody held.
    pub(crate) recovery: Time,
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
    Membership,
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
    trace: bool,
    summary: Summary,
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
                faults: plan.faults,
            })
            .collect();
        Self {
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            rng,
            machines,
            network: Network::default(),
            check: Check::default(),
            broken: [0; NODES],
            backlog: vec![Vec::new(); NODES],
            sluggish: 0,
            requests: 0,
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
        self.schedule(100 * MS, Event::Membership);
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
            Event::Membership => self.membership(),
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
            | Event::Membership
            | Event::Fault(_)
            | Event::FaultEnds(_)
            | Event::Start { .. }
            | Event::Heal => None,
        }
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

    // ---- the lease thread ----

    fn lease_input(&mut self, node: usize, input: Input) {
        if let Some(agent) = self.machines[node].agent.as_mut() {
            agent.lease_inbox.push_back(input);
            self.wake_lease(node);
        }
    }

    fn wake_lease(&mut self, node: usize) {
        let delay = self.latency();
        let run = self.machines[node].run;
        let Some(agent) = self.machines[node].agent.as_mut() else { return };
        if !std::mem::replace(&mut agent.lease_awake, true) {
            self.schedule(self.now + delay, Event::LeaseWakes { node, run });
        }
    }

    /// How long a thread takes to be scheduled.
    fn latency(&mut self) -> Time {
        let late = if self.rng.permille(self.sluggish) { self.rng.of(0..40 * MS) } else { 0 };
        self.rng.of(MS / 100..MS / 4) + late
    }

    fn lease_wakes(&mut self, node: usize) -> Result<(), Violation> {
        let local = self.machines[node].clock.local(self.now);
        let agent = self.machines[node].agent.as_mut().expect("checked above");
        agent.lease_awake = false;
        let inputs = std::mem::take(&mut agent.lease_inbox);
        for input in inputs {
            let machine = &mut self.machines[node];
            let agent = machine.agent.as_mut().expect("only events kill");
            let mut effects = std::mem::take(&mut agent.effects);
            agent.lease.step(local, input, &mut effects);
            machine.record = Some(agent.lease.bound_until());
            for effect in &effects {
                self.perform(node, *effect)?;
            }
            let agent = self.machines[node].agent.as_mut().expect("only events kill");
            agent.effects = effects;
        }
        let machine = &mut self.machines[node];
        let agent = machine.agent.as_mut().expect("only events kill");
        let deadline = machine.clock.when(agent.lease.deadline());
        if let Some(at) = deadline.filter(|at| *at < agent.timer) {
            agent.timer = at;
            let run = machine.run;
            self.schedule(at, Event::Timer { node, run, at });
        }
        Ok(())
    }

    fn perform(&mut self, node: usize, effect: Effect) -> Result<(), Violation> {
        match effect {
            Effect::Send { to, message } => {
                let machine = &self.machines[node];
                let header = Header {
                    fleet: wire::fleet_hash("sim"),
                    key: 1,
                    sender: machine.id,
                    incarnation: machine.run,
                };
                let mut buffer = [0; MAX_LEN];
                let length = wire::encode(&header, &message, &mut buffer);
                let to = index(to);
                for at in self.network.send(self.now, Plane::Lease, node, to, &mut self.rng) {
                    let datagram = buffer[..length].to_vec();
                    self.schedule(at, Event::Datagram { to, datagram });
                }
            }
            Effect::Pass(ticket) => self.raft_input(node, NodeInput::Pass(ticket)),
            Effect::Drop(ticket) => self.raft_input(node, NodeInput::Drop(ticket)),
            Effect::Campaign => {
                self.note(node, || "campaigns".to_owned());
                self.raft_input(node, NodeInput::Campaign);
            }
            Effect::StepDown { term } => self.raft_input(node, NodeInput::StepDown { term }),
            Effect::Prepare { epoch } => {
                let slow = if self.rng.permille(50) { 100 * MS } else { 0 };
                let at = self.now + self.rng.of(MS / 10..10 * MS) + slow;
                let run = self.machines[node].run;
                self.schedule(at, Event::TableReady { node, run, epoch });
            }
            Effect::Claim { epoch, .. } => {
                self.note(node, || format!("claims, epoch {epoch}"));
                self.summary.claims += 1;
                let agent = self.machines[node].agent.as_ref().expect("it just stepped");
                if !agent.told.standing.eligible {
                    return Err(Violation(format!("node {} claims and may not hold", node + 1)));
                }
            }
            Effect::Extend { .. } => {}
            Effect::Release { epoch, why } => {
                self.note(node, || format!("releases, epoch {epoch}: {why:?}"));
            }
        }
        Ok(())
    }

    fn datagram(&mut self, to: usize, datagram: &[u8]) {
        let (header, message) = wire::decode(datagram).expect("the network does not damage bytes");
        self.lease_input(to, Input::Datagram { from: header.sender, message });
    }

    // ---- the raft thread ----

    fn raft_input(&mut self, node: usize, input: NodeInput) {
        if let Some(agent) = self.machines[node].agent.as_mut() {
            agent.raft_inbox.push_back(input);
            self.wake_raft(node);
        }
    }

    fn wake_raft(&mut self, node: usize) {
        let delay = self.latency();
        let run = self.machines[node].run;
        let Some(agent) = self.machines[node].agent.as_mut() else { return };
        let at = (self.now + delay).max(agent.busy_until);
        if !std::mem::replace(&mut agent.raft_awake, true) {
            self.schedule(at, Event::RaftWakes { node, run });
        }
    }

    fn raft_wakes(&mut self, node: usize) {
        let slow = if self.rng.permille(10) { self.rng.of(0..60 * MS) } else { 0 };
        let disk = self.rng.of(MS / 50..2 * MS) + slow;
        let (now, run) = (self.now, self.machines[node].run);
        let agent = self.machines[node].agent.as_mut().expect("checked above");
        if agent.busy_until > now {
            let at = agent.busy_until;
            self.schedule(at, Event::RaftWakes { node, run });
            return;
        }
        agent.raft_awake = false;
        let mut effects = Vec::new();
        for input in std::mem::take(&mut agent.raft_inbox) {
            agent.raft.feed(input, &mut effects);
        }
        if agent.raft.flush(&mut effects).is_err() {
            // The device failed, as a fault has told it to: the agent ends itself.
            self.kill(node);
            let back = now + self.rng.of(20 * MS..800 * MS);
            self.schedule(back, Event::Start { node });
            return;
        }
        if !effects.is_empty() {
            agent.busy_until = now + disk;
            self.schedule(now + disk, Event::Written { node, run, effects });
        }
    }

    fn carry_out(&mut self, node: usize, effects: Vec<NodeEffect>) -> Result<(), Violation> {
        for effect in effects {
            let machine = &mut self.machines[node];
            let (id, carrier) = (machine.id, machine.carrier);
            let Some(agent) = machine.agent.as_mut() else { return Ok(()) };
            match effect {
                NodeEffect::Send(message) => {
                    let to = index(NodeId(message.to));
                    match self.network.send(self.now, Plane::Raft, node, to, &mut self.rng).next() {
                        Some(at) => {
                            let message = Box::new(message);
                            self.schedule(at, Event::RaftMessage { to, message });
                        }
                        None => self.break_stream(node, to),
                    }
                }
                NodeEffect::Gate(request) => self.lease_input(node, Input::Gate(request)),
                NodeEffect::LeaderHeard => self.lease_input(node, Input::LeaderHeard),
                NodeEffect::Restore { data, .. } => {
                    agent.restore(&data)?;
                    self.check.restored(node, &agent.state)?;
                    agent.tell_standing(id, carrier);
                    self.wake_lease(node);
                }
                NodeEffect::Apply(committed) => {
                    let applied = agent.apply(committed)?;
                    self.check.applied(node, applied, &agent.state)?;
                    agent.tell_standing(id, carrier);
                    self.wake_lease(node);
                }
                NodeEffect::View(status) => {
                    if status.leading {
                        self.check.leads(node, status.term)?;
                    }
                    agent.tell_lease(&status);
                    self.wake_lease(node);
                }
                NodeEffect::SnapshotWanted => self.snapshot(node)?,
                NodeEffect::Configured { .. }
                | NodeEffect::Lost { .. }
                | NodeEffect::Refused { .. } => {}
            }
        }
        let due = |machine: &Machine| {
            let agent = machine.agent.as_ref();
            agent.is_some_and(|agent| agent.entries_since_snapshot >= SNAPSHOT_ENTRIES)
        };
        if due(&self.machines[node]) { self.snapshot(node) } else { Ok(()) }
    }

    fn snapshot(&mut self, node: usize) -> Result<(), Violation> {
        let keep = self.rng.of(0..30);
        let agent = self.machines[node].agent.as_mut().expect("its effects are being carried out");
        agent.entries_since_snapshot = 0;
        let (index, data) = (agent.raft.view().applied, convert::encode_snapshot(&agent.state));
        match agent.raft.step(NodeInput::Snapshot { index, data, keep }) {
            Ok(effects) => self.carry_out(node, effects),
            Err(_) => {
                self.kill(node);
                self.schedule(self.now + 100 * MS, Event::Start { node });
                Ok(())
            }
        }
    }

    // ---- operators and duties ----

    fn leaders(&self) -> Vec<usize> {
        let leads = |node: &usize| {
            let machine = &self.machines[*node];
            !machine.paused && machine.agent.as_ref().is_some_and(|agent| agent.raft.view().leading)
        };
        (0..NODES).filter(leads).collect()
    }

    fn change(&mut self) {
        let leaders = self.leaders();
        if !leaders.is_empty() {
            let node = leaders[self.rng.index(leaders.len())];
            self.requests += 1;
            let command = fleet::command(&mut self.rng, self.requests);
            let proposer = self.machines[node].run;
            let data = convert::encode_entry(&command, "", proposer, self.requests);
            self.raft_input(node, NodeInput::Propose { request: self.requests, data });
        }
        let next = self.now + self.rng.of(15 * MS..80 * MS);
        if next < SETTLED {
            self.schedule(next, Event::Change);
        }
    }

    /// What the leader does about members that Raft does not know yet.
    fn membership(&mut self) {
        for node in self.leaders() {
            let local = self.machines[node].clock.local(self.now);
            let agent = self.machines[node].agent.as_ref().expect("it leads");
            let (view, confirmed) = (agent.raft.view(), agent.lease.status(local).confirmed);
            let configuration = Configuration {
                voters: &view.voters,
                learners: &view.learners,
                leader: view.id,
                matched: &view.matched,
                commit: view.commit,
            };
            let change = membership::next_change(agent.state.members(), configuration);
            if let Some(change) = change.filter(|_| confirmed && view.settled) {
                self.note(node, || format!("{change:?}"));
                self.requests += 1;
                self.raft_input(node, NodeInput::Change { request: self.requests, change });
            }
        }
        self.schedule(self.now + 100 * MS, Event::Membership);
    }

    // ---- what goes wrong ----

    fn fault(&mut self, fault: Fault) -> Result<(), Violation> {
        self.note(fault.node(), || format!("{fault:?}"));
        match fault {
            Fault::Cut { .. } => self.cut(fault, true),
            Fault::Loss { permille } => self.network.loss += permille,
            Fault::Spikes { permille } => self.network.spikes += permille,
            Fault::Sluggish { permille } => self.sluggish += permille,
            Fault::Kill { node } => self.kill(node),
            Fault::PowerCut { node, offset } => {
                self.kill(node);
                self.machines[node].cut_power(offset);
            }
            Fault::Disk { node, synced } => {
                let fault = if synced { DiskFault::BeforeWrite } else { DiskFault::AtSync };
                self.machines[node].disk.fail(fault);
            }
            Fault::Pause { node } => self.machines[node].paused = true,
            Fault::Carrier { node } => self.carrier(node, false),
            Fault::Move { node, successor } => {
                let successor = Some(NodeId(successor as u64 + 1));
                self.lease_input(node, Input::Abdicate { successor });
            }
        }
        Ok(())
    }

    fn fault_ends(&mut self, fault: Fault) -> Result<(), Violation> {
        match fault {
            Fault::Cut { .. } => self.cut(fault, false),
            Fault::Loss { permille } => self.network.loss -= permille,
            Fault::Spikes { permille } => self.network.spikes -= permille,
            Fault::Sluggish { permille } => self.sluggish -= permille,
            Fault::Kill { node } | Fault::PowerCut { node, .. } => {
                if self.machines[node].agent.is_none() {
                    self.start(node)?;
                }
            }
            Fault::Pause { node } => self.resume(node),
            Fault::Carrier { node } => self.carrier(node, true),
            Fault::Disk { .. } | Fault::Move { .. } => {}
        }
        Ok(())
    }

    fn cut(&mut self, fault: Fault, on: bool) {
        let Fault::Cut { from, to, lease, raft } = fault else { return };
        for (a, b) in (0..NODES).flat_map(|a| (0..NODES).map(move |b| (a, b))) {
            if from & 1 << a > 0 && to & 1 << b > 0 {
                for (plane, affected) in [(Plane::Lease, lease), (Plane::Raft, raft)] {
                    if affected {
                        self.network.cut(plane, a, b, on);
                    }
                }
            }
        }
    }

    fn resume(&mut self, node: usize) {
        if std::mem::take(&mut self.machines[node].paused) {
            self.note(node, || "resumes".to_owned());
        }
        for event in std::mem::take(&mut self.backlog[node]) {
            self.schedule(self.now, event);
        }
    }

    fn carrier(&mut self, node: usize, carrier: bool) {
        let machine = &mut self.machines[node];
        machine.carrier = carrier;
        if let Some(agent) = machine.agent.as_mut() {
            agent.tell_standing(machine.id, carrier);
            self.wake_lease(node);
        }
    }

    /// Whatever is still broken is mended at once; faults that end later have ended, as the schedule has it.
    fn heal(&mut self) -> Result<(), Violation> {
        self.note(0, || "everything is mended".to_owned());
        for node in 0..NODES {
            self.resume(node);
            self.carrier(node, true);
            if self.machines[node].agent.is_none() {
                self.start(node)?;
            }
        }
        Ok(())
    }
}

/// The members' state of a machine whose agent runs.
pub(crate) fn state_of(machine: &Machine) -> Option<&State> {
    machine.agent.as_ref().map(|agent| &agent.state)
}

fn index(id: NodeId) -> usize {
    usize::try_from(id.0 - 1).unwrap()
}
