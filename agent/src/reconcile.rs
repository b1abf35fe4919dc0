//! The loop that makes this machine's kernel match its plan: wake, observe, plan, record, perform, report.

use lvsmesh_core::plan::ServiceKey;

/// What the last round found; published after every round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// The revision that the round worked for.
    pub revision: u64,
    /// The kernel matched the plan when it was read back.
    pub converged: bool,
    /// Digest of the realserver side that was checked.
    pub digest: u64,
    /// `None`: the realserver side is in place and was read back. Otherwise why not, in one line.
    pub real_server_fault: Option<String>,
    /// Why this node cannot become holder, in one line; `None`: it can.
    pub ineligible: Option<String>,
    /// Services in the kernel that are not ours.
    pub foreign: Vec<ServiceKey>,
    /// VIP addresses of the document that are on a VIP's interface here.
    pub vips_attached: Vec<std::net::IpAddr>,
    /// What else an operator should know, one line each.
    pub warnings: Vec<String>,
    /// Kernel operations performed since the agent started, without the lease's own.
    pub operations: u64,
    /// Changes to what is ours that others made, repaired since the agent started.
    pub drift_repaired: u64,
    /// The last one, in one line.
    pub last_drift: String,
}
