//! The way back from a lost majority, on the machine of a survivor whose agent does not run.
//!
//! *In*: identity and log. *Out*: what is in them; or a fleet of this one node, in a new epoch.
//!
//! What the log has is taken as it is, entries included that no majority is known to have confirmed: one that was confirmed cannot be told from one
//! that was not, and to lose the former would be worse. What other machines had and this one did not is lost.
//!
//! Nodes of the old epoch are no nodes of the new fleet, even where they come back as a majority: their messages are refused with "wipe and
//! rejoin", and their lease datagrams are sealed with a key that the new fleet does not know.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lvsmesh_core::model::{Member, NodeId};
use lvsmesh_core::state::{DEPARTED, Inconsistent, State};
use lvsmesh_proto::convert::{self, DecodeError};
use raft::eraftpb::{ConfState, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, Storage as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::api::status::chain;
use crate::bootstrap::log_path;
use crate::config::Config;
use crate::identity::{Identity, IdentityError, random_key};
use crate::lease::LeaseKey;
use crate::raft::storage::{Batch, LogStore, RedbStore, StoreError};

/// What a new epoch adds to the term: more elections than an old one can have held since the survivor last heard of them.
const TERM_STEP: u64 = 1000;
/// Another agent that has not accepted a connection by then does not run, or cannot be reached.
const PROBE: Duration = Duration::from_secs(1);

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The agent runs.
    #[error("an agent runs on {}", dir.display())]
    Running {
        /// The data directory.
        dir: PathBuf,
    },
    /// An entry of the log, or its snapshot.
    #[error("entry {index} of the log cannot be read by this version of lvs-agent")]
    Entry {
        /// Its index.
        index: u64,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// It never had the fleet's state.
    #[error(
        "this node joined but was never sent the fleet's state: there is nothing to go on from"
    )]
    Empty,
    /// It is no member any more.
    #[error("node {id} was removed from the fleet: it cannot go on as that fleet")]
    Removed {
        /// This node.
        id: NodeId,
    },
    /// Another name than this fleet's or node's was repeated.
    #[error("{option} {given}: this is {actual}")]
    Mistaken {
        /// `--fleet`, `--survivor`.
        option: &'static str,
        /// As given.
        given: String,
        /// What it is.
        actual: String,
    },
    /// Other voters answer.
    #[error("voters of this fleet still answer: {}", .0.iter().map(|(name, at)| format!("{name} ({at})")).collect::<Vec<_>>().join(", "))]
    Alive(Vec<(String, SocketAddr)>),
    /// The state that would be the new fleet's cannot be.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
    /// No random numbers.
    #[error("the kernel gives no random numbers for the lease key")]
    Random(#[source] std::io::Error),
}

impl RecoverError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Identity(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Running { .. } => Some("stop it first: `systemctl stop lvs-agent`".to_owned()),
            Self::Entry { .. } => Some("a newer version wrote it: use that one".to_owned()),
            Self::Empty | Self::Removed { .. } => {
                Some("choose another survivor; `lvs-agent recover inspect` shows what each has".to_owned())
            }
            Self::Mistaken { .. } => Some("`lvs-agent recover inspect` shows both names".to_owned()),
            Self::Alive(_) => Some(
                "with a majority of them nothing is lost and nothing is to be forced; otherwise stop them (`systemctl stop lvs-agent`): they are to be wiped and to rejoin".to_owned(),
            ),
            Self::Inconsistent(_) | Self::Random(_) => None,
        }
    }
}

/// What a node that does not run has on its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Who it is.
    pub node: String,
    /// Its id.
    pub id: NodeId,
    /// Its fleet.
    pub fleet: String,
    /// Its fleet's epoch.
    pub epoch: u64,
    /// Raft's current term.
    pub term: u64,
    /// Term and index of the last entry: the survivor with the highest has the most.
    pub last: (u64, u64),
    /// Newest entry that is known to be committed.
    pub commit: u64,
    /// The revision in force as of `commit`, and as of the last entry.
    pub revisions: (u64, u64),
    /// Raft's voters.
    pub voters: Vec<u64>,
    /// The members as of the last entry.
    pub members: Vec<Member>,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, id, fleet, epoch, term, last, commit, revisions, voters, members } = self;
        let unconfirmed = last.1.saturating_sub(*commit);
        writeln!(f, "fleet      {fleet}, epoch {epoch}")?;
        writeln!(f, "node       {node} (id {id})")?;
        writeln!(
            f,
            "log        ends with term {} entry {}; the survivor with the highest has the most",
            last.0, last.1
        )?;
        writeln!(
            f,
            "confirmed  up to entry {commit}; {unconfirmed} after it that a majority may or may not have"
        )?;
        writeln!(f, "revision   {}, with the unconfirmed entries {}", revisions.0, revisions.1)?;
        writeln!(f, "term       {term}")?;
        for member in members {
            let votes = if voters.contains(&member.id.0) { "voter" } else { "learner" };
            writeln!(
                f,
                "member     {} (id {}, {votes}) at {}",
                member.name, member.id, member.grpc
            )?;
        }
        Ok(())
    }
}

/// What was made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// The new epoch.
    pub epoch: u64,
    /// The revision in force.
    pub revision: u64,
    /// Entries that were taken over unconfirmed.
    pub unconfirmed: u64,
    /// Names of the nodes that are members no more.
    pub left_behind: Vec<String>,
}

/// A disk that was read.
struct Disk {
    identity: Identity,
    store: RedbStore,
    state: State,
    findings: Findings,
}

impl Disk {
    fn read(config: &Config) -> Result<Self, RecoverError> {
        let identity = Identity::load(&config.data_dir, &config.name)?;
        // It is locked from here on: no agent can be started meanwhile.
        let store = RedbStore::open(&log_path(&config.data_dir)).map_err(|error| match error {
            StoreError::InUse { .. } => RecoverError::Running { dir: config.data_dir.clone() },
            error @ (StoreError::Io { .. }
            | StoreError::Damaged { .. }
            | StoreError::Vacant { .. }
            | StoreError::Occupied { .. }
            | StoreError::GivenUp { .. }) => error.into(),
        })?;
        let raft = store.initial_state().map_err(unreadable)?;
        let HardState { term, commit, .. } = raft.hard_state;
        let snapshot = store.stored_snapshot()?.ok_or(RecoverError::Empty)?;
        let floor = snapshot.get_metadata().index;
        if raft.conf_state.voters.is_empty() || floor == 0 {
            return Err(RecoverError::Empty);
        }
        let mut state = convert::decode_snapshot(&snapshot.data)
            .map_err(|source| RecoverError::Entry { index: floor, source })?;
        let last = store.last_index().map_err(unreadable)?;
        let mut confirmed = state.revision();
        let mut next = floor + 1;
        while next <= last {
            let context = GetEntriesContext::empty(false);
            let entries = store.entries(next, last + 1, None, context).map_err(unreadable)?;
            for entry in entries {
                let index = entry.index;
                next = index + 1;
                if entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty() {
                    let entry = convert::decode_entry(&entry.data)
                        .map_err(|source| RecoverError::Entry { index, source })?;
                    state.apply(index, entry.command);
                } else if index > state.applied() {
                    state.skip(index);
                }
                if index <= commit {
                    confirmed = state.revision();
                }
            }
        }
        let findings = Findings {
            node: identity.name.clone(),
            id: identity.id,
            fleet: identity.fleet.clone(),
            epoch: identity.epoch,
            term,
            last: (store.term(last).map_err(unreadable)?, last),
            commit,
            revisions: (confirmed, state.revision()),
            voters: raft.conf_state.voters,
            members: state.members().cloned().collect(),
        };
        Ok(Self { identity, store, state, findings })
    }
}

fn unreadable(error: raft::Error) -> RecoverError {
    crate::raft::node::unreadable(error).into()
}

/// Says what is on this machine's disk. Changes nothing.
///
/// # Errors
///
/// If an agent runs here, there is no identity, or the log cannot be read.
pub fn inspect(config: &Config) -> Result<Findings, RecoverError> {
    Disk::read(config).map(|disk| disk.findings)
}

/// Makes this machine the only node of its fleet, in a new epoch: its log becomes a snapshot of everything that it has, its configuration itself.
///
/// The names of fleet and node are asked for again because nothing takes this back.
///
/// # Errors
///
/// If an agent runs here, another voter of the fleet still answers, the names are others, or this node has nothing to go on from. Nothing was
/// changed then. If the disk fails on the way, run it again.
pub async fn force_new_fleet(
    config: &Config,
    fleet: &str,
    survivor: &str,
) -> Result<Forced, RecoverError> {
    let Disk { mut identity, mut store, state, findings } = Disk::read(config)?;
    for (option, given, actual) in
        [("--fleet", fleet, &identity.fleet), ("--survivor", survivor, &identity.name)]
    {
        if given != actual {
            let (given, actual) = (given.to_owned(), actual.clone());
            return Err(RecoverError::Mistaken { option, given, actual });
        }
    }
    if state.member(identity.id).is_none() {
        return Err(RecoverError::Removed { id: identity.id });
    }
    let alive = alive(&findings).await;
    if !alive.is_empty() {
        return Err(RecoverError::Alive(alive));
    }
    let index = findings.last.1 + 1;
    let alone = alone(state, identity.id, index)?;
    let left_behind =
        findings.members.iter().filter(|member| member.id != identity.id).map(|m| m.name.clone());
    let forced = Forced {
        epoch: identity.epoch + 1,
        revision: alone.revision(),
        unconfirmed: findings.last.1.saturating_sub(findings.commit),
        left_behind: left_behind.collect(),
    };

    // The epoch first: a single voter of the old one would still be believed by the others.
    let LeaseKey { secret, .. } = random_key().map_err(RecoverError::Random)?;
    identity.lease_key = LeaseKey { id: identity.lease_key.id.wrapping_add(1), secret };
    identity.epoch = forced.epoch;
    identity.store(&config.data_dir)?;

    let term = findings.term + TERM_STEP;
    let mut snapshot = Snapshot { data: convert::encode_snapshot(&alone), ..Snapshot::default() };
    let meta = snapshot.mut_metadata();
    meta.index = index;
    meta.term = term;
    meta.set_conf_state(ConfState { voters: vec![identity.id.0], ..ConfState::default() });
    store.write(&Batch {
        snapshot: Some(snapshot),
        hard_state: Some(HardState { term, vote: 0, commit: index }),
        ..Batch::default()
    })?;
    Ok(forced)
}

/// The state with this node as its only member, as of the entry `index`.
fn alone(mut state: State, own: NodeId, index: u64) -> Result<State, Inconsistent> {
    state.skip(index);
    let mut parts = state.parts();
    let (kept, gone) = parts.members.into_iter().partition(|member| member.id == own);
    parts.members = kept;
    parts.departed.extend::<Vec<Member>>(gone);
    let excess = parts.departed.len().saturating_sub(DEPARTED);
    parts.departed.drain(..excess);
    parts.readiness.retain(|readiness| readiness.node == own);
    State::from_parts(parts)
}

/// Other voters that accept connections. Learners go on as they are, and hear of the new epoch when they ask.
async fn alive(findings: &Findings) -> Vec<(String, SocketAddr)> {
    let mut probes = JoinSet::new();
    let votes = |member: &&Member| findings.voters.contains(&member.id.0);
    for member in findings.members.iter().filter(votes).filter(|member| member.id != findings.id) {
        let (name, address) = (member.name.clone(), member.grpc);
        probes.spawn(async move {
            let connected = tokio::time::timeout(PROBE, TcpStream::connect(address)).await;
            matches!(connected, Ok(Ok(_))).then_some((name, address))
        });
    }
    let mut alive = Vec::new();
    while let Some(probed) = probes.join_next().await {
        match probed {
            Ok(found) => alive.extend(found),
            Err(error) => tracing::error!(error = chain(&error), "a probe panicked"),
        }
    }
    alive.sort();
    alive
}

#[cfg(test)]
mod tests;
