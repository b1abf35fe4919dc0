//! The two threads of an agent: what the lease machine and the Raft node are given, and what is done about it.

use lvsmesh_agent::raft::node::{NodeEffect, NodeInput};
use lvsmesh_core::lease::wire::{self, Header, MAX_LEN};
use lvsmesh_core::lease::{Effect, Input};
use lvsmesh_core::model::NodeId;
use lvsmesh_proto::convert;

use super::{Event, MS, SNAPSHOT_ENTRIES, Time, Violation, World, index};
use crate::network::Plane;
use crate::node::Machine;

impl World {
    pub(super) fn lease_input(&mut self, node: usize, input: Input) {
        if let Some(agent) = self.machines[node].agent.as_mut() {
            agent.lease_inbox.push_back(input);
            self.wake_lease(node);
        }
    }

    pub(super) fn wake_lease(&mut self, node: usize) {
        let delay = self.latency();
        let run = self.machines[node].run;
        let Some(agent) = self.machines[node].agent.as_mut() else { return };
        if !std::mem::replace(&mut agent.lease_awake, true) {
            self.schedule(self.now + delay, Event::LeaseWakes { node, run });
        }
    }

    /// How long a thread takes to be scheduled.
    pub(super) fn latency(&mut self) -> Time {
        let late = if self.rng.permille(self.sluggish) { self.rng.of(0..40 * MS) } else { 0 };
        self.rng.of(MS / 100..MS / 4) + late
    }

    pub(super) fn lease_wakes(&mut self, node: usize) -> Result<(), Violation> {
        let local = self.machines[node].clock.local(self.now);
        let agent = self.machines[node].agent.as_mut().expect("checked above");
        agent.lease_awake = false;
        let inputs = std::mem::take(&mut agent.lease_inbox);
        for input in inputs {
            let machine = &mut self.machines[node];
            let agent = machine.agent.as_mut().expect("only events kill");
            let mut effects = agent.effects.take().unwrap_or_default();
            if let Input::Standing(standing) = &input {
                agent.told.known = *standing;
            }
            let before = agent.lease.span().promise;
            agent.lease.step(local, input, &mut effects);
            let now = agent.lease.span().promise;
            self.summary.longer += u64::from(now > before);
            self.summary.shorter += u64::from(now < before);
            machine.record = Some(agent.lease.bound_until());
            for effect in &*effects {
                self.perform(node, *effect)?;
            }
            let agent = self.machines[node].agent.as_mut().expect("only events kill");
            agent.effects = Some(effects);
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

    pub(super) fn perform(&mut self, node: usize, effect: Effect) -> Result<(), Violation> {
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
            Effect::HandOver { term, to } => {
                self.raft_input(node, NodeInput::HandOver { term, to });
            }
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
                if !agent.told.known.eligible {
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

    pub(super) fn datagram(&mut self, to: usize, datagram: &[u8]) {
        let (header, message) = wire::decode(datagram).expect("the network does not damage bytes");
        self.lease_input(to, Input::Datagram { from: header.sender, message });
    }

    pub(super) fn raft_input(&mut self, node: usize, input: NodeInput) {
        if let Some(agent) = self.machines[node].agent.as_mut() {
            agent.raft_inbox.push_back(input);
            self.wake_raft(node);
        }
    }

    pub(super) fn wake_raft(&mut self, node: usize) {
        let delay = self.latency();
        let run = self.machines[node].run;
        let Some(agent) = self.machines[node].agent.as_mut() else { return };
        let at = (self.now + delay).max(agent.busy_until);
        if !std::mem::replace(&mut agent.raft_awake, true) {
            self.schedule(at, Event::RaftWakes { node, run });
        }
    }

    pub(super) fn raft_wakes(&mut self, node: usize) {
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

    pub(super) fn carry_out(
        &mut self,
        node: usize,
        effects: Vec<NodeEffect>,
    ) -> Result<(), Violation> {
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

    pub(super) fn snapshot(&mut self, node: usize) -> Result<(), Violation> {
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
}
