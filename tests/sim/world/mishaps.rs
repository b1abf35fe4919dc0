//! What operators and leaders do, and what goes wrong.

use lvsmesh_agent::raft::node::NodeInput;
use lvsmesh_agent::raft::storage::Fault as DiskFault;
use lvsmesh_core::lease::Input;
use lvsmesh_core::membership::{self, Change};
use lvsmesh_core::model::NodeId;
use lvsmesh_proto::convert;

use super::{Event, MS, NODES, SETTLED, Violation, World};
use crate::faults::Fault;
use crate::fleet;
use crate::network::Plane;

impl World {
    pub(super) fn leaders(&self) -> Vec<usize> {
        let leads = |node: &usize| {
            let machine = &self.machines[*node];
            !machine.paused && machine.agent.as_ref().is_some_and(|agent| agent.raft.view().leading)
        };
        (0..NODES).filter(leads).collect()
    }

    pub(super) fn change(&mut self) {
        let leaders = self.leaders();
        if !leaders.is_empty() {
            let node = leaders[self.rng.index(leaders.len())];
            self.requests += 1;
            let command = fleet::command(&mut self.rng, self.requests);
            let proposer = self.machines[node].run;
            let data = convert::encode_entry(&command, "", proposer, self.requests);
            self.check.begins(self.requests);
            self.raft_input(node, NodeInput::Propose { request: self.requests, data });
        }
        let next = self.now + self.rng.of(15 * MS..80 * MS) * self.calm;
        if next < SETTLED {
            self.schedule(next, Event::Change);
        }
    }

    /// Clients read, at every node that would answer: one that leads, has applied an entry of its own term and has a lease.
    pub(super) fn read(&mut self) -> Result<(), Violation> {
        for node in self.leaders() {
            let machine = &self.machines[node];
            let agent = machine.agent.as_ref().expect("it leads");
            let local = machine.clock.local(self.now);
            let vouched = agent.lease.lease_until().is_some_and(|until| until > local);
            let settled = agent.told.view.settled && agent.told.view.leader == Some(machine.id);
            if settled && (vouched || self.unvouched) {
                self.check.read(node, agent.state.applied())?;
            }
        }
        let next = self.now + self.rng.of(5 * MS..40 * MS);
        self.schedule(next, Event::Read);
        Ok(())
    }

    /// What the leader does about members that Raft does not know yet.
    pub(super) fn membership(&mut self) {
        for node in self.leaders() {
            let local = self.machines[node].clock.local(self.now);
            let agent = self.machines[node].agent.as_ref().expect("it leads");
            let (view, confirmed) = (agent.raft.view(), agent.lease.status(local).confirmed);
            let change = membership::next_change(agent.state.members(), view.configuration());
            if let Some(change) = change.filter(|_| confirmed && view.settled) {
                self.note(node, || format!("{change:?}"));
                self.requests += 1;
                if let Change::HandOver(to) = change {
                    self.lease_input(node, Input::Abdicate { successor: Some(to) });
                } else {
                    self.raft_input(node, NodeInput::Change { request: self.requests, change });
                }
            }
        }
        self.schedule(self.now + 100 * MS, Event::Membership);
    }

    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), Violation> {
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

    pub(super) fn fault_ends(&mut self, fault: Fault) -> Result<(), Violation> {
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

    pub(super) fn cut(&mut self, fault: Fault, on: bool) {
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

    pub(super) fn resume(&mut self, node: usize) {
        if std::mem::take(&mut self.machines[node].paused) {
            self.note(node, || "resumes".to_owned());
        }
        for event in std::mem::take(&mut self.backlog[node]) {
            self.schedule(self.now, event);
        }
    }

    pub(super) fn carrier(&mut self, node: usize, carrier: bool) {
        let machine = &mut self.machines[node];
        machine.carrier = carrier;
        if let Some(agent) = machine.agent.as_mut() {
            agent.tell_standing(machine.id, carrier);
            self.wake_lease(node);
        }
    }

    /// Whatever is still broken is mended at once; faults that end later have ended, as the schedule has it.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
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
