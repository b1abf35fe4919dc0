//! What the tasks of a leader share: knowing that this node leads, and a way to propose.

use std::future::Future;

use lvsmesh_core::command::Command;
use tokio::sync::watch;

use crate::raft::{RaftHandle, RaftStatus};

/// Where observations go.
pub(crate) trait Proposer: Clone + Send + Sync + 'static {
    /// Returns once the command is applied here, or cannot be expected to be.
    fn propose(&self, command: Command) -> impl Future<Output = Result<(), String>> + Send;
}

impl Proposer for RaftHandle {
    async fn propose(&self, command: Command) -> Result<(), String> {
        let outcome = Self::propose(self, command).await;
        outcome.map(|_| ()).map_err(|error| error.to_string())
    }
}

/// Waits until this node is a leader that has committed in its term. `false`: nobody will ever say so again.
pub(crate) async fn settled(status: &mut watch::Receiver<RaftStatus>) -> bool {
    status.wait_for(|status| status.settled).await.is_ok()
}

/// Waits until it no longer is.
pub(crate) async fn deposed(status: &mut watch::Receiver<RaftStatus>) {
    // An error: Raft is gone, and so is the leader.
    let _ = status.wait_for(|status| !status.settled).await.is_ok();
}
