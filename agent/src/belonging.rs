//! Whether this machine is, or still is, the node that its data directory says.
//!
//! *In*: the applied state, and what the voters answer when they are greeted. *Out*: at most one [`Outcast`]; from then on this node asks for no
//! votes, casts none and takes no writes. Its kernel stays as it is (fail static) until `lvs-agent leave`.
//!
//! A node that was removed while it could not be reached hears of it from nobody: the leader no longer speaks to it. So a node that hears no leader
//! asks, and so does one to which a peer closes its streams. What it is told cannot become wrong later: ids are never used again, and a fleet's epoch only grows.

use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use lvsmesh_core::model::{Member, NodeId};
use lvsmesh_core::state::State;
use lvsmesh_proto::internal::v1::{GreetRequest, SelfRequest, Verdict};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

use crate::api::context::Context;
use crate::identity::Identity;
use crate::links::Links;
use crate::raft::{RaftHandle, RaftStatus};

/// How often a node that hears no leader asks. Longer than a learner of a large fleet may be without a heartbeat (one second).
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Nobody asks more nodes than this at once.
const MOST_ASKED: usize = 9;

/// Why a machine is no node of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcastKind {
    /// It was taken out, or admitted again under another id.
    Removed,
    /// Its disk is a copy of that of a node that runs elsewhere.
    Copy,
    /// The fleet was started anew from a survivor, without this node.
    Superseded,
}

/// That a machine is no node of the fleet, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcast {
    /// Why, in a word.
    pub kind: OutcastKind,
    /// Why, in one line.
    pub reason: String,
}

impl Outcast {
    /// The node has been taken out of the fleet.
    #[must_use]
    pub fn removed(id: NodeId, fleet: &str) -> Self {
        let reason = format!("node {id} was removed from fleet `{fleet}`");
        Self { kind: OutcastKind::Removed, reason }
    }

    /// The node itself answers at that address.
    #[must_use]
    pub fn copy(id: NodeId, original: SocketAddr) -> Self {
        let reason = format!(
            "node {id} runs at {original}; a second machine with its identity has a copy of its disk"
        );
        Self { kind: OutcastKind::Copy, reason }
    }

    /// The fleet goes on in a later epoch.
    #[must_use]
    pub fn superseded(id: NodeId, fleet: &str, epoch: u64, current: u64) -> Self {
        let reason = format!(
            "fleet `{fleet}` was started anew from a survivor: it is in epoch {current}, node {id} is of epoch {epoch}"
        );
        Self { kind: OutcastKind::Superseded, reason }
    }

    /// As it stands where a status names a node's part in Raft.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self.kind {
            OutcastKind::Removed => "removed",
            OutcastKind::Copy => "copy",
            OutcastKind::Superseded => "superseded",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self.kind {
            OutcastKind::Removed => {
                "the kernel there is left as it is: stop the agent, run `lvs-agent leave`, and `lvs-agent join ADDRESS` if the machine is to be a node again"
            }
            OutcastKind::Copy => {
                "stop the agent on the machine with the copy, run `lvs-agent leave` there, give it a name of its own in agent.toml, then `lvs-agent join ADDRESS`"
            }
            OutcastKind::Superseded => {
                "wipe and rejoin: stop the agent there, run `lvs-agent leave`, then `lvs-agent join ADDRESS` with the address of a node of the new epoch"
            }
        }
    }
}

impl fmt::Display for Outcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// What is known about it, shared by all parts of the agent.
#[derive(Clone, Debug)]
pub struct Belonging {
    known: Arc<watch::Sender<Option<Outcast>>>,
    raft: RaftHandle,
}

impl Belonging {
    /// A node that nobody has objected to.
    #[must_use]
    pub fn new(raft: RaftHandle) -> Self {
        Self { known: Arc::new(watch::Sender::new(None)), raft }
    }

    /// Why this machine is no node of the fleet; `None` while it is one, as far as it knows.
    #[must_use]
    pub fn outcast(&self) -> Option<Outcast> {
        self.known.borrow().clone()
    }

    /// Notes that it is none. The first reason stands.
    pub fn cast_out(&self, outcast: &Outcast) {
        let first = self.known.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert_with(|| outcast.clone());
            first
        });
        if first {
            self.raft.retire();
            tracing::error!(
                reason = outcast.reason,
                hint = outcast.hint(),
                "this machine is no node of the fleet: it asks for no votes and takes no writes, and leaves its kernel as it is"
            );
        }
    }
}

/// Asks whenever no leader is heard, until `shutdown` turns true or the answer is no.
pub async fn run(context: Context, mut shutdown: watch::Receiver<bool>) {
    let mut heard = None;
    let mut interval = tokio::time::interval(ASK_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while context.belonging.outcast().is_none() {
        let mut doubted = false;
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            // Not more often than streams are opened again, which has pauses.
            () = context.raft.doubted() => doubted = true,
            _ = interval.tick() => {}
        }
        let now = context.raft.leader_heard();
        // Between two ticks nothing is known about silence.
        let silent = !doubted && heard.replace(now).is_none_or(|before| before == now);
        if let Some(outcast) = by_own_log(&context) {
            context.belonging.cast_out(&outcast);
        } else if doubted || (silent && !leads(&context)) {
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => return,
                told = ask(&context) => if let Some(outcast) = told { context.belonging.cast_out(&outcast) },
            }
        }
    }
    // An error says that nobody can ask us to stop any more, which asks us to stop.
    drop(shutdown.wait_for(|stop| *stop).await);
}

fn leads(context: &Context) -> bool {
    let status = context.raft.status.borrow();
    status.leading && status.backed
}

/// Whether a node with that id was a member and is none, and no majority counts it any more. Until that it is needed, if only to agree to its own
/// removal.
#[must_use]
pub fn is_gone(state: &State, status: &RaftStatus, id: NodeId) -> bool {
    let counted = status.voters.contains(&id) || status.learners.contains(&id);
    id < state.next_id() && state.member(id).is_none() && !counted
}

fn by_own_log(context: &Context) -> Option<Outcast> {
    let id = context.identity.id;
    let state = context.raft.state.borrow().state.clone();
    is_gone(&state, &context.raft.status.borrow(), id)
        .then(|| Outcast::removed(id, &context.identity.fleet))
}

/// Greets the voters, all at once, and looks whether somebody else answers where this node should.
async fn ask(context: &Context) -> Option<Outcast> {
    let own = context.identity.id;
    let state = context.raft.state.borrow().state.clone();
    let voters = context.raft.status.borrow().voters.clone();
    // Before it is sent a snapshot, a node that has joined knows members but no configuration.
    let others = state.members().filter(|member| member.id != own);
    let asked: Vec<Member> = others
        .filter(|member| voters.is_empty() || voters.contains(&member.id))
        .take(MOST_ASKED)
        .cloned()
        .collect();
    let mut tasks = JoinSet::new();
    for member in asked {
        let context = context.clone();
        tasks.spawn(async move { greet(&context, &member).await });
    }
    if let Some(member) = state.member(own).cloned() {
        let context = context.clone();
        tasks.spawn(async move {
            let (identity, answer) = (&context.identity, context.pace.answer);
            original(&context.links, identity, context.incarnation, &member, answer).await
        });
    }
    let mut worst: Option<Outcast> = None;
    while let Some(told) = tasks.join_next().await {
        match told {
            // A copy of a node that was removed is both; it must hear that it is a copy.
            Ok(Some(outcast)) if outcast.kind == OutcastKind::Copy => worst = Some(outcast),
            Ok(outcast) => worst = worst.or(outcast),
            Err(error) => tracing::error!(%error, "greeting a node panicked"),
        }
    }
    worst
}

async fn greet(context: &Context, member: &Member) -> Option<Outcast> {
    let identity = &context.identity;
    let request = GreetRequest {
        fleet: identity.fleet.clone(),
        id: identity.id.0,
        incarnation: context.incarnation,
        epoch: identity.epoch,
    };
    let mut peer = context.links.peer(member.grpc);
    // A node that does not answer has no objection.
    let answer = timeout(context.pace.answer, peer.greet(request)).await.ok()?.ok()?.into_inner();
    let kind = match answer.verdict() {
        Verdict::Removed => OutcastKind::Removed,
        Verdict::Copy => OutcastKind::Copy,
        Verdict::Superseded => OutcastKind::Superseded,
        Verdict::Unspecified | Verdict::Member => return None,
    };
    Some(Outcast { kind, reason: format!("{}, says node `{}`", answer.reason, member.name) })
}

/// Before this node takes part in anything: whether another machine runs as this node, where the fleet reaches it. Matters most to a fleet of
/// one, whose copy nobody else could object to. Not asked where this machine has that address itself.
pub async fn precheck(
    links: &Links,
    identity: &Identity,
    incarnation: u64,
    state: &State,
    advertised: SocketAddr,
    patience: Duration,
) -> Option<Outcast> {
    let member = state.member(identity.id)?;
    if advertised == member.grpc && is_local(member.grpc) {
        return None;
    }
    original(links, identity, incarnation, member, patience).await
}

/// Whether this machine has an address: only then a socket can be bound to it.
fn is_local(address: SocketAddr) -> bool {
    UdpSocket::bind((address.ip(), 0)).is_ok()
}

/// Asks at this node's own place in the fleet who is there.
async fn original(
    links: &Links,
    identity: &Identity,
    incarnation: u64,
    member: &Member,
    patience: Duration,
) -> Option<Outcast> {
    let found = whoever_answers(links, member, patience).await?;
    (found != incarnation).then(|| Outcast::copy(identity.id, member.grpc))
}

/// The run of the agent that answers where a node should; `None` if nobody does, or it is not that node, or one that does not say.
pub(crate) async fn whoever_answers(
    links: &Links,
    member: &Member,
    patience: Duration,
) -> Option<u64> {
    let mut peer = links.peer(member.grpc);
    let answer = timeout(patience, peer.self_(SelfRequest {})).await.ok()?.ok()?.into_inner();
    let same = answer.status.is_some_and(|status| status.id == member.id.0);
    (same && answer.incarnation != 0).then_some(answer.incarnation)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lvsmesh_core::command::Command;

    use super::*;
    use crate::fixtures::{LVS_1, LVS_2, TestFleet, WEB_1};

    #[test]
    fn a_node_is_gone_once_it_is_no_member_and_no_majority_counts_it() {
        let mut fleet = TestFleet::new();
        let mut status =
            RaftStatus { voters: BTreeSet::from([LVS_1, LVS_2, WEB_1]), ..RaftStatus::default() };
        assert!(!is_gone(&fleet.state, &status, WEB_1), "it is a member");
        fleet.run(Command::Remove { name: "web-1".into() });
        assert!(!is_gone(&fleet.state, &status, WEB_1), "its vote still counts");
        status.voters.remove(&WEB_1);
        status.learners.insert(WEB_1);
        assert!(!is_gone(&fleet.state, &status, WEB_1), "it is still sent the log");
        status.learners.clear();
        assert!(is_gone(&fleet.state, &status, WEB_1));
        assert!(
            !is_gone(&fleet.state, &status, NodeId(4)),
            "an id that this node has not heard of yet"
        );
    }
}
