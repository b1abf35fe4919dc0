//! What only a leader does: keep Raft's configuration in step with the members. (Its other two duties, probing and discovery, have modules of
//! their own.)

use std::time::Duration;

use lvsmesh_core::membership::{self, Change};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::api::context::Context;
use crate::api::status::chain;
use crate::handover;
use crate::raft::RaftHandle;

/// After a refused change, and while a learner catches up without the status changing.
const RETRY: Duration = Duration::from_millis(500);

/// Runs until `shutdown` turns true.
pub async fn run(context: Context, mut shutdown: watch::Receiver<bool>) {
    let raft = context.raft.clone();
    let mut status = raft.status.clone();
    let mut applied = raft.state.clone();
    loop {
        // What changes from here on wakes the wait below.
        status.mark_unchanged();
        applied.mark_unchanged();
        let due = due(&raft);
        let done = match due {
            None => true,
            Some(change) => {
                tokio::select! {
                    biased;
                    _ = shutdown.wait_for(|stop| *stop) => return,
                    done = perform(&context, change) => done,
                }
            }
        };
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = sleep(RETRY), if !done => {}
            changed = status.changed(), if done => if changed.is_err() { return },
            changed = applied.changed(), if done => if changed.is_err() { return },
        }
    }
}

fn due(raft: &RaftHandle) -> Option<Change> {
    let status = raft.status.borrow().clone();
    // A leader that has committed nothing in its term may act on a configuration that is no longer in force.
    if !status.settled {
        return None;
    }
    let state = raft.state.borrow().state.clone();
    membership::next_change(state.members(), status.configuration())
}

async fn perform(context: &Context, change: Change) -> bool {
    tracing::info!(?change, "changing who votes");
    if let Change::HandOver(successor) = change {
        // Whoever is to go gives up the lease first.
        handover::stand_down(context, successor).await;
        return false;
    }
    match context.raft.change(change).await {
        Ok(()) => {
            // A learner more or less changes no majority.
            if !matches!(change, Change::AddLearner(_)) {
                sleep(context.pace.settle).await;
            }
            true
        }
        Err(error) => {
            tracing::warn!(?change, error = chain(&error), "the change was not made, trying again");
            false
        }
    }
}
