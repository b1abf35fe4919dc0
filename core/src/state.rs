//! The replicated state, and its only writer.
//!
//! *In*: committed commands, in the log's order. *Out*: the same state on every node, and the answer that the proposer gets.

mod changes;
mod step;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

pub use changes::changes;
pub(crate) use step::Step;

use crate::command::{
    Apply, Candidate, Command, Discovered, HealthChange, Outcome, Readiness, Rejection,
    RevisionSummary, SourceStatus,
};
use crate::model::{Discovery, Document, Member, NodeId, Pool, PoolSource, RealServer};

/// How many revisions are remembered, with their documents.
pub const HISTORY: usize = 200;

/// How many nodes that are no members any more are remembered.
pub const DEPARTED: usize = 16;

/// Everything that the fleet has agreed on.
///
/// Documents are shared, so that a copy costs what the fleet's size asks for and not 200 documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    applied: u64,
    fleet: String,
    /// Oldest first; the last one is in force. Empty until the first document.
    history: VecDeque<Arc<Revision>>,
    /// The document in force, also where `history` is empty.
    document: Arc<Document>,
    members: BTreeMap<NodeId, Member>,
    /// Oldest first.
    departed: VecDeque<Member>,
    next_id: u64,
    /// Of members only.
    readiness: BTreeMap<NodeId, Readiness>,
    /// Why a real server is down; only of pools with a check, and of real servers that such a pool has.
    health: BTreeMap<(String, SocketAddr), String>,
    /// Only of pools with a source.
    discovered: BTreeMap<String, Discovered>,
    /// How the document in force differs from the one before it, if this state has seen both.
    step: Step,
}

/// One revision that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Who, when, why and what.
    pub summary: RevisionSummary,
    /// The whole desired state as of then.
    pub document: Arc<Document>,
}

/// A [`State`] taken apart, for snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Index of the last applied entry.
    pub applied: u64,
    /// Name of the fleet.
    pub fleet: String,
    /// Oldest first, the last one in force; consecutive, at most [`HISTORY`].
    pub history: Vec<Arc<Revision>>,
    /// By rising id.
    pub members: Vec<Member>,
    /// Nodes that were members, the last to go last; at most [`DEPARTED`].
    pub departed: Vec<Member>,
    /// The id that the next node gets; above every id that was ever given.
    pub next_id: u64,
    /// By rising id.
    pub readiness: Vec<Readiness>,
    /// Real servers that are down, by pool and address; each has its fault.
    pub health: Vec<HealthChange>,
    /// By pool.
    pub discovered: Vec<Discovered>,
}

/// A snapshot that no sequence of commands can have led to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistent {
    /// Revisions are not consecutive, or more than are kept.
    #[error("history: revision {found} where {expected} belongs")]
    History {
        /// What the one before it, or the limit, asks for.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A node's id or name is there twice, or the id is one that was not given yet.
    #[error("members: node {id} (`{name}`) is there twice or not admitted yet")]
    Member {
        /// Its id.
        id: NodeId,
        /// Its name.
        name: String,
    },
    /// An observation is about something that is not there.
    #[error("{what}: not part of this state")]
    Stray {
        /// `readiness of node 7`, `health of pool web`.
        what: String,
    },
}

impl Default for State {
    /// Before anything: no fleet, no members, no document; the first node to be admitted gets id 1.
    fn default() -> Self {
        Self {
            applied: 0,
            fleet: String::new(),
            history: VecDeque::new(),
            document: Arc::default(),
            members: BTreeMap::new(),
            departed: VecDeque::new(),
            next_id: 1,
            readiness: BTreeMap::new(),
            health: BTreeMap::new(),
            discovered: BTreeMap::new(),
            step: Step::default(),
        }
    }
}

impl State {
    /// The state that a fleet starts from: its name and its first node, which has id 1. No entry is applied yet.
    #[must_use]
    pub fn init(fleet: impl Into<String>, first: Candidate) -> Self {
        let mut state = Self { fleet: fleet.into(), ..Self::default() };
        state.admit(first);
        state
    }

    /// Applies one committed entry. Total and deterministic: it depends on nothing but the state and the command.
    ///
    /// # Panics
    ///
    /// If `index` does not come after the last applied one: the log is then broken, and going on would make nodes disagree. Gaps are
    /// legal, because entries that carry no command are not applied here.
    pub fn apply(&mut self, index: u64, command: Command) -> Outcome {
        self.skip(index);
        match command {
            Command::Apply(apply) => self.replace(apply).unwrap_or_else(Outcome::Rejected),
            Command::Admit(candidate) => Outcome::Admitted { id: self.admit(candidate) },
            Command::Remove { name } => self.remove(name).unwrap_or_else(Outcome::Rejected),
            Command::Ready(readiness) => self.note_readiness(readiness),
            Command::Health(changes) => self.note_health(changes),
            Command::Discovered(discovered) => self.note_discovered(discovered),
        }
    }

    /// Records that an entry without a command (Raft's own) was applied.
    ///
    /// # Panics
    ///
    /// As [`Self::apply`].
    pub fn skip(&mut self, index: u64) {
        assert!(index > self.applied, "entry {index} came after entry {}", self.applied);
        self.applied = index;
    }

    /// Index of the last applied entry; 0 before the first.
    #[must_use]
    pub const fn applied(&self) -> u64 {
        self.applied
    }

    /// Name of the fleet, as given when it was started.
    #[must_use]
    pub fn fleet(&self) -> &str {
        &self.fleet
    }

    /// Number of the document in force; 0 before the first.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.history.back().map_or(0, |last| last.summary.revision)
    }

    /// The document in force; an empty one before the first.
    #[must_use]
    pub const fn document(&self) -> &Arc<Document> {
        &self.document
    }

    /// The last [`HISTORY`] revisions, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Revision> + ExactSizeIterator {
        self.history.iter().map(|revision| &**revision)
    }

    /// One revision, if it is still remembered.
    #[must_use]
    pub fn at(&self, revision: u64) -> Option<&Revision> {
        self.history().find(|kept| kept.summary.revision == revision)
    }

    /// All members, by rising id.
    pub fn members(&self) -> impl DoubleEndedIterator<Item = &Member> + ExactSizeIterator {
        self.members.values()
    }

    /// The member with that id.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// The member of that name.
    #[must_use]
    pub fn member_by_name(&self, name: &str) -> Option<&Member> {
        self.members().find(|member| member.name == name)
    }

    /// The id that the next node gets; above every id that was ever given.
    #[must_use]
    pub const fn next_id(&self) -> NodeId {
        NodeId(self.next_id)
    }

    /// The last [`DEPARTED`] nodes that ceased to be members, the last to go last. Until Raft's configuration has forgotten such a node, its
    /// vote counts, and it must be reached: of two voters neither can take the other's vote without it.
    pub fn departed(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.departed.iter()
    }

    /// What the node last said about its realserver side; `None` if it never did.
    #[must_use]
    pub fn readiness(&self, id: NodeId) -> Option<&Readiness> {
        self.readiness.get(&id)
    }

    /// Why the leader's probes hold a real server for down; `None` if it is up or unknown.
    #[must_use]
    pub fn health_fault(&self, pool: &str, real_server: SocketAddr) -> Option<&str> {
        self.health.get(&(pool.to_owned(), real_server)).map(String::as_str)
    }

    /// What the pool's source said last; `None` if the pool has no source, or it said nothing yet.
    #[must_use]
    pub fn discovered(&self, pool: &str) -> Option<&Discovered> {
        self.discovered.get(pool)
    }

    /// How the document in force differs from the one before it.
    pub(crate) const fn step(&self) -> &Step {
        &self.step
    }

    /// What sources said last, by pool.
    pub(crate) fn discoveries(&self) -> impl Iterator<Item = (&str, &Discovered)> {
        self.discovered.iter().map(|(pool, discovered)| (pool.as_str(), discovered))
    }

    /// Real servers that are down, by pool and address, and why.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (&str, SocketAddr, &str)> {
        self.health.iter().map(|((pool, at), fault)| (pool.as_str(), *at, fault.as_str()))
    }

    /// What nodes last said about their realserver sides, by id.
    pub(crate) fn reports(&self) -> impl Iterator<Item = &Readiness> {
        self.readiness.values()
    }

    /// Takes the state apart.
    #[must_use]
    pub fn parts(&self) -> Parts {
        Parts {
            applied: self.applied,
            fleet: self.fleet.clone(),
            history: self.history.iter().cloned().collect(),
            members: self.members.values().cloned().collect(),
            departed: self.departed.iter().cloned().collect(),
            next_id: self.next_id,
            readiness: self.readiness.values().cloned().collect(),
            health: self
                .health
                .iter()
                .map(|((pool, real_server), fault)| HealthChange {
                    pool: pool.clone(),
                    real_server: *real_server,
                    fault: Some(fault.clone()),
                })
                .collect(),
            discovered: self.discovered.values().cloned().collect(),
        }
    }

    /// Puts a state together again.
    ///
    /// # Errors
    ///
    /// If no sequence of commands leads to such a state.
    pub fn from_parts(parts: Parts) -> Result<Self, Inconsistent> {
        let mut state = Self { applied: parts.applied, fleet: parts.fleet, ..Self::default() };
        state.next_id = parts.next_id.max(1);

        for revision in parts.history {
            let found = revision.summary.revision;
            let expected =
                state.history.back().map_or(found.max(1), |last| last.summary.revision + 1);
            if found != expected || state.history.len() == HISTORY {
                return Err(Inconsistent::History { expected, found });
            }
            state.document = Arc::clone(&revision.document);
            state.history.push_back(revision);
        }
        for member in parts.members {
            let (id, name) = (member.id, member.name.clone());
            let known = state.member_by_name(&name).is_some() || state.member(id).is_some();
            if known || id.0 == 0 || id.0 >= state.next_id {
                return Err(Inconsistent::Member { id, name });
            }
            state.members.insert(id, member);
        }

        for member in parts.departed {
            let (id, name) = (member.id, member.name.clone());
            let wrong = state.member(id).is_some() || id.0 == 0 || id.0 >= state.next_id;
            if wrong || state.departed.len() == DEPARTED {
                return Err(Inconsistent::Member { id, name });
            }
            state.departed.push_back(member);
        }

        for discovered in parts.discovered {
            let pool = discovered.pool.clone();
            state.note_discovered(discovered);
            if state.discovered(&pool).is_none() {
                return Err(Inconsistent::Stray { what: format!("discovery of pool {pool}") });
            }
        }
        for readiness in parts.readiness {
            let id = readiness.node;
            state.note_readiness(readiness);
            if state.readiness(id).is_none() {
                return Err(Inconsistent::Stray { what: format!("readiness of node {id}") });
            }
        }
        for change in parts.health {
            let (pool, real_server) = (change.pool.clone(), change.real_server);
            state.note_health(vec![change]);
            if state.health_fault(&pool, real_server).is_none() {
                let what = format!("health of {real_server} in pool {pool}");
                return Err(Inconsistent::Stray { what });
            }
        }
        Ok(state)
    }

    fn replace(&mut self, apply: Apply) -> Result<Outcome, Rejection> {
        let actual = self.revision();
        if apply.document.fleet.name != self.fleet {
            let given = apply.document.fleet.name;
            return Err(Rejection::OtherFleet { actual: self.fleet.clone(), given });
        }
        // Before the revision is looked at: whoever repeats a call whose answer was lost gets what the first one would have said.
        if actual > 0 && apply.document == *self.document {
            return Ok(Outcome::Unchanged { revision: actual });
        }
        if let Some(expected) = apply.expected_revision.filter(|&expected| expected != actual) {
            let since = self
                .history()
                .filter(|revision| revision.summary.revision > expected)
                .map(|revision| revision.summary.clone())
                .collect();
            return Err(Rejection::Stale { expected, actual, since });
        }

        let revision = actual + 1;
        let document = Arc::new(apply.document);
        let summary = RevisionSummary {
            revision,
            author: apply.author,
            unix_ms: apply.unix_ms,
            message: apply.message,
            changes: changes(&self.document, &document),
        };
        self.step = Step::between(&self.document, &document);
        let before = std::mem::replace(&mut self.document, Arc::clone(&document));
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(Arc::new(Revision { summary, document }));
        self.forget_sources(&before);
        self.forget_health();
        Ok(Outcome::Applied { revision })
    }

    fn admit(&mut self, candidate: Candidate) -> NodeId {
        if let Some(old) = self.member_by_name(&candidate.name).map(|member| member.id) {
            self.depart(old);
        }
        let id = NodeId(self.next_id);
        self.next_id += 1;
        let Candidate { name, roles, addresses, grpc, lease } = candidate;
        self.members.insert(id, Member { id, name, roles, addresses, grpc, lease });
        id
    }

    fn remove(&mut self, name: String) -> Result<Outcome, Rejection> {
        let Some(id) = self.member_by_name(&name).map(|member| member.id) else {
            return Err(Rejection::UnknownNode { name });
        };
        // Either role can vote, so the last member is the last voter.
        if self.members.len() == 1 {
            return Err(Rejection::LastVoter { name });
        }
        self.depart(id);
        Ok(Outcome::Removed { id })
    }

    fn depart(&mut self, id: NodeId) {
        self.readiness.remove(&id);
        if let Some(member) = self.members.remove(&id) {
            if self.departed.len() == DEPARTED {
                self.departed.pop_front();
            }
            self.departed.push_back(member);
        }
    }

    fn note_readiness(&mut self, readiness: Readiness) -> Outcome {
        // A node that was removed meanwhile has nothing to say.
        if self.members.contains_key(&readiness.node) {
            self.readiness.insert(readiness.node, readiness);
        }
        Outcome::Noted
    }

    fn note_health(&mut self, changes: Vec<HealthChange>) -> Outcome {
        for HealthChange { pool, real_server, fault } in changes {
            match fault {
                Some(fault) if self.probes(&pool, real_server) => {
                    self.health.insert((pool, real_server), fault);
                }
                // A probe's verdict may be committed after the document that ends the probing.
                Some(_) | None => {
                    self.health.remove(&(pool, real_server));
                }
            }
        }
        Outcome::Noted
    }

    fn note_discovered(&mut self, discovered: Discovered) -> Outcome {
        if self.document.pool(&discovered.pool).is_some_and(|pool| source(pool).is_some()) {
            self.discovered.insert(discovered.pool.clone(), discovered);
            self.forget_health();
        }
        Outcome::Noted
    }

    /// Drops what sources said of pools that no longer have one. Where a pool asks another question than before, the old answer stands,
    /// marked as such, until there is a new one: a typing error in a source's name does not empty a pool that serves.
    fn forget_sources(&mut self, before: &Document) {
        let document = Arc::clone(&self.document);
        self.discovered.retain(|name, discovered| {
            let Some(asked) = document.pool(name).and_then(source) else { return false };
            let same =
                before.pool(name).and_then(source).is_some_and(|old| same_question(old, asked));
            if !same && !discovered.real_servers.is_empty() {
                let why = "the source is another one and has not answered yet";
                discovered.status = SourceStatus::Stale(why.to_owned());
            }
            same || !discovered.real_servers.is_empty()
        });
    }

    /// Drops verdicts about real servers that nobody probes any more.
    fn forget_health(&mut self) {
        let mut health = std::mem::take(&mut self.health);
        let down: BTreeSet<&str> = health.keys().map(|(pool, _)| pool.as_str()).collect();
        let probed: BTreeSet<(String, SocketAddr)> = self
            .document
            .pools
            .iter()
            .filter(|pool| pool.check.is_some() && down.contains(pool.name.as_str()))
            .flat_map(|pool| {
                let listed = self.listed(pool).iter().map(RealServer::socket_addr);
                listed.map(|real_server| (pool.name.clone(), real_server))
            })
            .collect();
        health.retain(|key, _| probed.contains(key));
        self.health = health;
    }

    /// Whether the pool has a check and that real server.
    fn probes(&self, pool: &str, real_server: SocketAddr) -> bool {
        let Some(pool) = self.document.pool(pool).filter(|pool| pool.check.is_some()) else {
            return false;
        };
        self.listed(pool).iter().any(|listed| listed.socket_addr() == real_server)
    }

    /// The pool's real servers: as listed, or as its source said last.
    fn listed<'a>(&'a self, pool: &'a Pool) -> &'a [RealServer] {
        match &pool.source {
            PoolSource::Listed(listed) => listed,
            PoolSource::Discovery(_) => {
                self.discovered(&pool.name).map_or(&[], |found| &found.real_servers)
            }
        }
    }
}

/// The pool's source, if it has one.
const fn source(pool: &Pool) -> Option<&Discovery> {
    match &pool.source {
        PoolSource::Listed(_) => None,
        PoolSource::Discovery(discovery) => Some(discovery),
    }
}

/// Whether two sources are asked for the same thing, be it at another interval or through other servers.
fn same_question(one: &Discovery, other: &Discovery) -> bool {
    match (one, other) {
        (Discovery::File(one), Discovery::File(other)) => one.path == other.path,
        (Discovery::Dns(one), Discovery::Dns(other)) => {
            (&one.name, one.record, one.port, one.weight)
                == (&other.name, other.record, other.port, other.weight)
        }
        (Discovery::File(_), Discovery::Dns(_)) | (Discovery::Dns(_), Discovery::File(_)) => false,
    }
}

#[cfg(test)]
mod tests;
