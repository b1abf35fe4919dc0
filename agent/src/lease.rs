//! The lease thread: a plain OS thread that alone emits ARP, gratuitous ARP and adverts, and alone adds and removes VIPs.

use tokio::sync::watch;

/// What the rest of the agent sees of the lease thread.
#[derive(Clone, Debug)]
pub struct LeaseHandle {
    /// Feeds the machine.
    pub inputs: LeaseInputs,
    /// Whether this node holds, or is about to.
    pub tenure: watch::Receiver<Tenure>,
}

/// Whether this node holds the VIPs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tenure {
    /// It does not.
    #[default]
    None,
    /// The lease is won; the table must stand before the VIP is claimed.
    Preparing {
        /// Raft term of the tenure.
        epoch: u64,
    },
    /// It holds.
    Holding {
        /// Raft term of the tenure.
        epoch: u64,
    },
}

/// The way into the lease thread: unbounded, because its senders are bounded (raft's own messages, one task each), and waking.
#[derive(Clone, Debug)]
pub struct LeaseInputs {}
