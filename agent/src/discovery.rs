//! Sources of real servers, on the leader.
//!
//! *In*: the pools that ask for discovery, and what their sources say. *Out*: [`Command::Discovered`], only when something differs from what is
//! replicated. [`lvsmesh_core::discovery`] decides what an answer means; a source only fetches it.

mod dns;
mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use lvsmesh_core::command::Command;
use lvsmesh_core::discovery::digest;
use lvsmesh_core::model::{Discovery, PoolSource, RealServer};
use lvsmesh_core::state::State;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use self::dns::Dns;
use self::file::File;
use crate::leading::{Proposer, deposed, settled};
use crate::raft::{Applied, RaftHandle, RaftStatus};

/// After a proposal that was not accepted. The source is asked again by then: its answer may be another one.
const AGAIN: Duration = Duration::from_millis(500);

/// Something that knows which real servers there are.
///
/// Always the full set, never a difference: whoever missed an answer is right again at the next one.
pub(crate) trait Source: Send {
    /// Waits until it is time for another snapshot: an interval has passed, or the source has said that it changed. Cancel safe.
    fn due(&mut self) -> impl Future<Output = ()> + Send;

    /// The full set as of now, or why it cannot be had, in one line that is the same for the same trouble. Ends by itself within seconds.
    /// Cancel safe.
    fn snapshot(&mut self) -> impl Future<Output = Result<Vec<RealServer>, String>> + Send;
}

/// Runs the sources that pools ask for while this node is a settled leader, and proposes what changed, until `shutdown` turns true.
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
        // Dropping it aborts every source.
        let lead = lead(&proposer, state.clone());
        tokio::select! {
            biased;
            () = deposed(&mut status) => {}
            () = lead => return,
        }
    }
}

/// Keeps one task for each pool that asks for discovery. Returns when the state will never change again.
async fn lead<P: Proposer>(proposer: &P, mut state: watch::Receiver<Applied>) {
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<String, (Discovery, AbortHandle)> = BTreeMap::new();
    state.mark_changed();
    while state.changed().await.is_ok() {
        let wanted = sources(&state.borrow_and_update().state);
        running.retain(|pool, (source, task)| {
            let stays = wanted.get(pool) == Some(source);
            if !stays {
                task.abort();
            }
            stays
        });
        for (pool, source) in wanted {
            if running.contains_key(&pool) {
                continue;
            }
            let (proposer, state, name) = (proposer.clone(), state.clone(), pool.clone());
            let asked = source.clone();
            let task = tasks.spawn(async move {
                match &asked {
                    Discovery::File(source) => {
                        watch_one(File::new(source), &name, &proposer, &state).await;
                    }
                    Discovery::Dns(source) => {
                        watch_one(Dns::new(source), &name, &proposer, &state).await;
                    }
                }
            });
            running.insert(pool, (source, task));
        }
        // Aborted tasks are only collected.
        while tasks.try_join_next().is_some() {}
    }
}

fn sources(state: &State) -> BTreeMap<String, Discovery> {
    let pools = state.document().pools.iter();
    let asking = pools.filter_map(|pool| match &pool.source {
        PoolSource::Discovery(source) => Some((pool.name.clone(), source.clone())),
        PoolSource::Listed(_) => None,
    });
    asking.collect()
}

async fn watch_one<S: Source, P: Proposer>(
    mut source: S,
    pool: &str,
    proposer: &P,
    state: &watch::Receiver<Applied>,
) {
    loop {
        let answer = source.snapshot().await;
        let last = state.borrow().state.discovered(pool).cloned();
        let now = digest(pool, answer, last.as_ref());
        if last.as_ref() != Some(&now) {
            tracing::info!(%pool, status = ?now.status, real_servers = now.real_servers.len(), "a source has news");
            if let Err(error) = proposer.propose(Command::Discovered(now)).await {
                tracing::debug!(%pool, %error, "what a source said was not taken");
                sleep(AGAIN).await;
                continue;
            }
        }
        source.due().await;
    }
}
