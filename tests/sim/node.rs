//! One machine: its clock, its disk, and while its agent runs the lease machine, the Raft node and the replicated state.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lvsmesh_agent::raft::RaftStatus;
use lvsmesh_agent::raft::node::{Node, NodeEffect, NodeInput};
use lvsmesh_agent::raft::storage::{Disk, MemoryStore};
use lvsmesh_agent::standing::priority;
use lvsmesh_core::command::{Command, Outcome};
use lvsmesh_core::lease::{Effects, Faults, Input, Lease, LeaseConfig, RaftView, Standing, Timing};
use lvsmesh_core::model::NodeId;
use lvsmesh_core::placement;
use lvsmesh_core::state::State;
use lvsmesh_core::time::Mono;
use lvsmesh_proto::convert::{self, DecodeError};

use crate::world::{Time, Violation};

/// A clock that runs up to 2 % fast or slow, and that started at another moment than the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) offset: u64,
    /// Local nanoseconds for every million of true ones.
    pub(crate) rate: u64,
}

impl Clock {
    pub(crate) fn local(&self, now: Time) -> Mono {
        let local = u128::from(now) * u128::from(self.rate) / 1_000_000;
        Mono(self.offset + u64::try_from(local).unwrap())
    }

    /// The first true moment at which the clock shows that or more; `None` if it is too far away to come.
    pub(crate) fn when(&self, local: Mono) -> Option<Time> {
        let span = local.0.saturating_sub(self.offset);
        let time = (u128::from(span) * 1_000_000).div_ceil(u128::from(self.rate));
        u64::try_from(time).ok().filter(|_| local < Mono(u64::MAX))
    }
}

/// One machine.
pub(crate) struct Machine {
    pub(crate) id: NodeId,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    /// What the record of promises says; a power cut loses it.
    pub(crate) record: Option<Mono>,
    /// Grows with every start, so that what was meant for an earlier run is dropped.
    pub(crate) run: u64,
    pub(crate) agent: Option<Agent>,
    /// Machines of earlier runs: the addresses that they claimed are still on the interfaces, and count until their leases end.
    pub(crate) ghosts: Vec<Lease>,
    pub(crate) paused: bool,
    pub(crate) carrier: bool,
    /// What its lease machine asks for, and by when.
    pub(crate) timing: Timing,
    /// Leaves a rule out on purpose.
    pub(crate) faults: Faults,
    /// Likewise.
    pub(crate) forgets: Forgets,
}

/// What every disk forgets when its agent dies, against the rules of a log store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Forgets {
    /// Nothing that it said it had written.
    #[default]
    Nothing,
    /// Everything: it says that it has written and has not.
    Writes,
    /// The last entry.
    LastEntry,
}

/// What runs while the agent runs.
pub(crate) struct Agent {
    pub(crate) lease: Lease,
    /// Lent to each step; in a box, because it is large and steps are many.
    pub(crate) effects: Option<Box<Effects>>,
    pub(crate) raft: Node<MemoryStore>,
    pub(crate) state: State,
    /// Waits for the lease thread to wake up.
    pub(crate) lease_inbox: VecDeque<Input>,
    /// Waits for the raft thread to wake up.
    pub(crate) raft_inbox: VecDeque<NodeInput>,
    pub(crate) lease_awake: bool,
    pub(crate) raft_awake: bool,
    /// The raft thread is at its disk until then.
    pub(crate) busy_until: Time,
    /// The next timer that is under way.
    pub(crate) timer: Time,
    pub(crate) told: Told,
    pub(crate) entries_since_snapshot: u64,
}

/// What the lease machine was told last.
#[derive(Default)]
pub(crate) struct Told {
    voters: BTreeSet<NodeId>,
    /// Told when what Raft applied had been applied to the state.
    pub(crate) view: RaftView,
    pub(crate) standing: Standing,
    /// What it has taken in of that: its inputs wait until its thread wakes up.
    pub(crate) known: Standing,
}

/// What applying a log entry came to, for comparison between nodes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) outcome: Outcome,
    pub(crate) request: Option<u64>,
}

/// What a log entry asks for. Every node reads the same entries, and reading is most of what a fleet does here: what was read lately is remembered.
fn read(data: &[u8]) -> Result<Command, DecodeError> {
    const LATELY: usize = 256;
    thread_local! {
        static READ: RefCell<BTreeMap<Vec<u8>, Command>> = const { RefCell::new(BTreeMap::new()) };
    }
    READ.with_borrow_mut(|lately| {
        if let Some(command) = lately.get(data) {
            return Ok(command.clone());
        }
        let command = convert::decode_entry(data)?.command;
        if lately.len() >= LATELY {
            lately.clear();
        }
        lately.insert(data.to_vec(), command.clone());
        Ok(command)
    })
}

impl Machine {
    /// Starts the agent from what is on the disk. The effects are what the Raft node wants done first.
    pub(crate) fn start(&mut self, now: Time) -> Result<Vec<NodeEffect>, Violation> {
        self.run += 1;
        self.disk.hold_syncs(self.forgets == Forgets::Writes);
        let store = MemoryStore::open(&self.disk);
        let (raft, effects) = Node::new(store, 0).map_err(|error| Violation::store(&error))?;
        let mut config = LeaseConfig::new(self.id, self.timing, raft.view().term);
        config.faults = self.faults;
        let local = self.clock.local(now);
        let silent_until = self.record.unwrap_or_else(|| local.after(self.timing.promise_max));
        self.agent = Some(Agent {
            lease: Lease::new(config, silent_until),
            effects: None,
            raft,
            state: State::default(),
            lease_inbox: VecDeque::new(),
            raft_inbox: VecDeque::new(),
            lease_awake: false,
            raft_awake: false,
            busy_until: now,
            timer: Time::MAX,
            told: Told::default(),
            entries_since_snapshot: 0,
        });
        self.paused = false;
        Ok(effects)
    }

    /// The agent dies. What it claimed stays on the interfaces.
    pub(crate) fn kill(&mut self) {
        self.run += 1;
        self.disk.crash();
        match self.forgets {
            Forgets::Nothing | Forgets::Writes => {}
            Forgets::LastEntry => self.disk.forget_last_entry(),
        }
        if let Some(agent) = self.agent.take() {
            self.ghosts.push(agent.lease);
        }
    }

    /// The machine loses power: interfaces and records are gone, and its clock starts anew.
    pub(crate) fn cut_power(&mut self, offset: u64) {
        self.kill();
        self.ghosts.clear();
        self.record = None;
        self.clock.offset = offset;
    }

    /// Whether anything on this machine answers for the VIP.
    pub(crate) fn emits(&self, now: Time) -> bool {
        let local = self.clock.local(now);
        let running = self.agent.as_ref().map(|agent| &agent.lease);
        running.into_iter().chain(&self.ghosts).any(|lease| lease.may_emit(local))
    }
}

impl Agent {
    /// Queues what the lease machine has not been told of Raft yet.
    pub(crate) fn tell_lease(&mut self, status: &RaftStatus) {
        if self.told.voters != status.voters {
            self.told.voters.clone_from(&status.voters);
            self.lease_inbox.push_back(Input::Voters(status.voters.clone()));
        }
        let view = RaftView { term: status.term, leader: status.leader, settled: status.settled };
        if self.told.view != view {
            self.told.view = view;
            self.lease_inbox.push_back(Input::Raft(view));
        }
        self.lease_inbox.push_back(Input::Applied(status.applied));
    }

    /// Queues how this node may stand for election, if that changed.
    pub(crate) fn tell_standing(&mut self, id: NodeId, carrier: bool) {
        let (rank, witness) = placement::standing(&self.state, id);
        let eligible = !witness && carrier;
        let standing = Standing { eligible, rank, witness };
        if self.told.standing != standing {
            self.told.standing = standing;
            self.raft_inbox.push_back(NodeInput::SetPriority(priority(standing)));
            self.lease_inbox.push_back(Input::Standing(standing));
        }
    }

    /// Takes over a snapshot.
    pub(crate) fn restore(&mut self, data: &[u8]) -> Result<(), Violation> {
        let fault = |error| Violation::new(format!("a snapshot cannot be read: {error}"));
        self.state = convert::decode_snapshot(data).map_err(fault)?;
        self.entries_since_snapshot = 0;
        Ok(())
    }

    /// Applies a committed entry.
    pub(crate) fn apply(
        &mut self,
        committed: lvsmesh_agent::raft::node::Committed,
    ) -> Result<Applied, Violation> {
        let fault = |error| Violation::new(format!("an entry cannot be read: {error}"));
        let command = read(&committed.data).map_err(fault)?;
        let outcome = self.state.apply(committed.index, command);
        self.entries_since_snapshot += 1;
        let (index, term) = (committed.index, committed.term);
        Ok(Applied { index, term, data: committed.data, outcome, request: committed.request })
    }
}
