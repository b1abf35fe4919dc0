//! Probes of real servers, on the leader.
//!
//! *In*: the pools that ask for checks, and connections made or refused. *Out*: [`Command::Health`] with what changed, several changes at a time.
//! [`lvsmesh_core::check`] says when to probe and what a result means.

mod probe;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use lvsmesh_core::check::{Check, Health, Transition};
use lvsmesh_core::command::{Command, HealthChange};
use lvsmesh_core::model::{self, Pool, PoolSource};
use lvsmesh_core::state::State;
use lvsmesh_core::time::{Mono, nanos};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::leading::{Proposer, deposed, settled};
use crate::raft::{Applied, RaftHandle, RaftStatus};

/// First probes are this far apart, so that a new leader does not open thousands of connections at once.
const SPREAD: Duration = Duration::from_millis(5);

/// Verdicts are gathered for this long: real servers of one machine fail together.
const GATHER: Duration = Duration::from_millis(20);

/// After a proposal that was not accepted.
const AGAIN: Duration = Duration::from_millis(500);

/// A real server in a pool: the same one in two pools is probed by each, as each asks.
type Key = (String, SocketAddr);

/// Probes the pools that ask for it while this node is a settled leader, and proposes what changed, until `shutdown` turns true.
pub async fn run(raft: RaftHandle, mut shutdown: watch::Receiver<bool>) {
    let (state, status) = (raft.state.clone(), raft.status.clone());
    tokio::select! {
        biased;
        _ = shutdown.wait_for(|stop| *stop) => {}
        () = follow(raft, state, status) => {}
    }
}

async fn follow<P: Proposer>(
    proposer: P,
    state: watch::Receiver<Applied>,
    mut status: watch::Receiver<RaftStatus>,
) {
    while settled(&mut status).await {
        // A new leader knows what is replicated and nothing else: until a probe decides, that stands.
        let lead = lead(&proposer, state.clone());
        tokio::select! {
            biased;
            () = deposed(&mut status) => {}
            () = lead => return,
        }
    }
}

/// Probes. Returns when the state will never change again.
async fn lead<P: Proposer>(proposer: &P, mut state: watch::Receiver<Applied>) {
    let mut checks = Checks::new();
    let mut probes = JoinSet::new();
    let mut proposals = JoinSet::new();
    let mut flush_at = Instant::now();
    state.mark_changed();
    loop {
        let due = checks.deadline();
        let flush = !checks.pending.is_empty() && proposals.is_empty();
        tokio::select! {
            biased;
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
                checks.update(&state.borrow_and_update().state);
                flush_at = flush_at.max(Instant::now());
            }
            Some(proposed) = proposals.join_next() => match proposed {
                Ok(Ok(())) => flush_at = Instant::now() + GATHER,
                Ok(Err((error, sent))) => {
                    tracing::debug!(%error, "verdicts of probes were not taken");
                    checks.give_back(sent);
                    flush_at = Instant::now() + AGAIN;
                }
                Err(error) => tracing::error!(%error, "a proposal died"),
            },
            Some(probed) = probes.join_next() => match probed {
                Ok((key, result)) => {
                    if checks.pending.is_empty() {
                        flush_at = flush_at.max(Instant::now() + GATHER);
                    }
                    checks.record(key, result);
                }
                Err(error) => tracing::error!(%error, "a probe died"),
            },
            () = sleep_until(flush_at), if flush => {
                let sent = std::mem::take(&mut checks.pending);
                let proposer = proposer.clone();
                proposals.spawn(async move {
                    let changes = sent.iter().map(change).collect();
                    proposer.propose(Command::Health(changes)).await.map_err(|error| (error, sent))
                });
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                for (key, target, timeout) in checks.start() {
                    probes.spawn(async move { (key, probe::tcp(target, timeout).await) });
                }
            }
        }
    }
}

fn change(((pool, real_server), fault): (&Key, &Option<String>)) -> HealthChange {
    HealthChange { pool: pool.clone(), real_server: *real_server, fault: fault.clone() }
}

/// The checks of all real servers, and verdicts that are still to be proposed.
struct Checks {
    origin: Instant,
    targets: BTreeMap<Key, Target>,
    /// Targets by when their next probe is due.
    queue: BTreeSet<(Mono, Key)>,
    /// `None`: up.
    pending: BTreeMap<Key, Option<String>>,
}

struct Target {
    settings: model::Check,
    check: Check,
    /// Why it is down, as decided here.
    fault: Option<String>,
}

impl Checks {
    fn new() -> Self {
        Self {
            origin: Instant::now(),
            targets: BTreeMap::new(),
            queue: BTreeSet::new(),
            pending: BTreeMap::new(),
        }
    }

    fn now(&self) -> Mono {
        Mono(nanos(self.origin.elapsed()))
    }

    fn deadline(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| self.origin + Duration::from_nanos(due.0))
    }

    /// Takes what a state asks for. A check whose settings stay goes on where it was.
    fn update(&mut self, state: &State) {
        let now = self.now();
        let mut wanted: BTreeMap<Key, &model::Check> = BTreeMap::new();
        for pool in &state.document().pools {
            let Some(settings) = &pool.check else { continue };
            let targets = real_servers(state, pool);
            wanted.extend(targets.map(|target| ((pool.name.clone(), target), settings)));
        }
        self.targets.retain(|key, target| wanted.get(key) == Some(&&target.settings));
        self.queue.retain(|(_, key)| self.targets.contains_key(key));
        self.pending.retain(|key, _| self.targets.contains_key(key));

        let mut first = now;
        for (key, settings) in wanted {
            let replicated = state.health_fault(&key.0, key.1);
            if let Some(target) = self.targets.get(&key) {
                // Normally they agree. They do not if a verdict was about a document that was replaced on the way.
                let decided = match target.check.health() {
                    Health::Unknown => continue,
                    Health::Up => None,
                    Health::Down => target.fault.as_deref(),
                };
                if decided.is_some() != replicated.is_some() {
                    self.pending.insert(key, decided.map(ToOwned::to_owned));
                }
                continue;
            }
            let check = Check::new(settings.clone(), replicated.is_some(), first);
            self.queue.insert((first, key.clone()));
            let fault = replicated.map(ToOwned::to_owned);
            self.targets.insert(key, Target { settings: settings.clone(), check, fault });
            first = first.after(SPREAD);
        }
    }

    /// Takes every probe that is due.
    fn start(&mut self) -> Vec<(Key, SocketAddr, Duration)> {
        let now = self.now();
        let mut started = vec![];
        while let Some((due, key)) = self.queue.pop_first() {
            if due > now {
                self.queue.insert((due, key));
                break;
            }
            let Some(target) = self.targets.get_mut(&key) else { continue };
            target.check.start();
            let port = target.settings.port.unwrap_or(key.1.port());
            started.push((key.clone(), SocketAddr::new(key.1.ip(), port), target.check.timeout()));
        }
        started
    }

    fn record(&mut self, key: Key, result: Result<(), String>) {
        let now = self.now();
        // Gone meanwhile; or gone and back with other settings, and this is an answer to an earlier question.
        let Some(target) =
            self.targets.get_mut(&key).filter(|target| target.check.deadline().is_none())
        else {
            return;
        };
        let transition = target.check.record(result, now);
        if let Some(due) = target.check.deadline() {
            self.queue.insert((due, key.clone()));
        }
        let (pool, real_server) = (&key.0, key.1);
        match transition {
            None => {}
            Some(Transition::Up) => {
                tracing::info!(%pool, %real_server, "real server is up");
                target.fault = None;
                self.pending.insert(key, None);
            }
            Some(Transition::Down(fault)) => {
                tracing::warn!(%pool, %real_server, %fault, "real server is down");
                target.fault = Some(fault.clone());
                self.pending.insert(key, Some(fault));
            }
        }
    }

    /// What was not taken is to be proposed again, unless something newer is.
    fn give_back(&mut self, sent: BTreeMap<Key, Option<String>>) {
        for (key, fault) in sent {
            if self.targets.contains_key(&key) {
                self.pending.entry(key).or_insert(fault);
            }
        }
    }
}

fn real_servers<'a>(state: &'a State, pool: &'a Pool) -> impl Iterator<Item = SocketAddr> {
    let listed = match &pool.source {
        PoolSource::Listed(listed) => listed.as_slice(),
        PoolSource::Discovery(_) => {
            state.discovered(&pool.name).map_or(&[][..], |found| &found.real_servers)
        }
    };
    listed.iter().map(model::RealServer::socket_addr)
}
