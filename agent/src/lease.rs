//! The lease thread: a plain OS thread that alone emits ARP, neighbour advertisements and adverts, and alone adds VIPs to interfaces and removes them.

mod clock;
mod counters;
mod gate;
mod group;
mod heard;
mod promise;
mod realtime;
mod responder;
mod schedule;
mod seal;
mod segment;
#[cfg(test)]
mod tests;
mod thread;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use lvsmesh_core::lease::{Input, Timing};
use lvsmesh_core::model::{NodeId, Vip};
use lvsmesh_core::vrrp::fallback::Policy;
use lvsmesh_kernel::clock::raw_now;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::watch;

pub use counters::Counters;
pub use gate::remove_gates;
pub use heard::Reason;
pub use realtime::{Demotion, Favoured};
pub use seal::LeaseKey;
pub(crate) use seal::Seal;

use crate::guard::Guard;
use crate::raft::RaftHandle;

/// What the lease thread needs to start.
#[derive(Debug)]
pub struct LeaseThreadConfig {
    /// This node.
    pub own: NodeId,
    /// The fleet's name.
    pub fleet: String,
    /// Raft's durable term when the agent started.
    pub term: u64,
    /// Where its UDP socket listens.
    pub listen: SocketAddr,
    /// The fleet's key.
    pub key: LeaseKey,
    /// From the section `beat`.
    pub timing: Timing,
    /// Where the promise record lives; must exist and must not outlive a boot (`/run/lvsmesh`).
    pub run_dir: PathBuf,
    /// The data directory has voted before: without a promise record of this boot the thread is then silent for as long as any promise lasts.
    pub voted_before: bool,
    /// Ask for `SCHED_RR` and locked memory; without permission the thread says so once and runs without.
    pub realtime: bool,
    /// Have the kernel itself stop what is said after the lease's end, where it can.
    pub gate: bool,
    /// Cleans up after this process; `None` only where nothing is ever held.
    pub guard: Option<Guard>,
    /// The sending end of the queue that the thread reads.
    pub inputs: LeaseInputs,
}

/// Why the lease thread could not start.
#[derive(Debug, thiserror::Error)]
pub enum LeaseStartError {
    /// The UDP socket.
    #[error("opening the lease socket on {address} failed")]
    Bind {
        /// `listen.lease`.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The promise record.
    #[error("opening the promise record {} failed", path.display())]
    Promise {
        /// The record.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Clocks, netlink socket or thread.
    #[error("starting the lease thread failed: {what}")]
    System {
        /// Which.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// A foreign VRRP master, heard on a VIP's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Name of the VIP group.
    pub vip: String,
    /// Its address.
    pub source: IpAddr,
    /// Its priority.
    pub priority: u8,
    /// This node holds the lease and keeps silent for it.
    pub yielding: bool,
}

/// What the lease thread knows that an operator should.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Why it could not claim, one line each: a VIP's interface that is missing or down, IPv6 that is switched off there.
    pub faults: Vec<String>,
    /// Why it could claim nothing at all: of every group one.
    pub unusable: Option<String>,
    /// Foreign masters that are heard now.
    pub foreign: Vec<Foreign>,
    /// VIPs that the thread has put on their interfaces. One is taken out of here *before* it is taken off.
    pub attached: BTreeSet<IpAddr>,
    /// VIPs for which the thread answers ARP and neighbour solicitations in the kernel's place.
    pub answering: BTreeSet<IpAddr>,
    /// Groups that are claimed, or would be, behind a deadline in the packet path.
    pub gated: BTreeSet<String>,
    /// Why others are not, once each.
    pub gate_faults: BTreeSet<String>,
    /// This node holds without a lease, all groups or some.
    pub unleased: Option<Unleased>,
}

/// Starts the thread. It ends after [`Order::Stop`], when it has given up what it held.
///
/// # Errors
///
/// If a socket, the promise record or the thread cannot be had.
pub fn spawn(
    config: LeaseThreadConfig,
    receiver: LeaseReceiver,
    raft: RaftHandle,
) -> Result<(LeaseHandle, JoinHandle<()>), LeaseStartError> {
    thread::spawn(config, receiver, raft)
}

/// What the rest of the agent sees of the lease thread.
#[derive(Clone, Debug)]
pub struct LeaseHandle {
    /// Feeds the machine.
    pub inputs: LeaseInputs,
    /// Whether this node holds, or is about to.
    pub tenure: watch::Receiver<Tenure>,
    /// What stands in the way, and who else is on the wire.
    pub outlook: watch::Receiver<Outlook>,
    /// Counters since the agent started.
    pub counters: Arc<Counters>,
    /// The thread, once it has real-time priority.
    pub favoured: Favoured,
}

impl LeaseHandle {
    /// How long the lease still runs, for people to see: it may be renewed or given up at any moment. Zero without a lease.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.counters.lease_until.get().remaining(raw_now())
    }
}

/// What this node may do without a quorum, and who else may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithoutQuorum {
    /// The fleet's policy, with `auto` resolved.
    pub policy: Policy,
    /// This node's position among the directors, the most preferred first.
    pub rank: u8,
    /// The other directors that vote.
    pub directors: BTreeSet<NodeId>,
}

/// How a node holds that has no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unleased {
    /// It held when the quorum was lost.
    Sticky,
    /// It took what nobody held.
    Vrrp,
}

impl Unleased {
    /// The policy's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sticky => Policy::Sticky.name(),
            Self::Vrrp => Policy::Vrrp.name(),
        }
    }
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

/// What can be put into the lease thread's queue.
#[derive(Clone, Debug)]
pub enum Order {
    /// An input of the machine.
    Input(Input),
    /// The VIP groups to hold under a lease, from the applied state.
    Vips(Vec<Vip>),
    /// Where the lease sockets of the members listen.
    Peers(BTreeMap<NodeId, SocketAddr>),
    /// The members' addresses: an advert from one of these is no foreign one.
    Members(BTreeSet<IpAddr>),
    /// The addresses of each other director: adverts by unicast go there.
    Directors(Vec<BTreeSet<IpAddr>>),
    /// What is done without a quorum.
    WithoutQuorum(WithoutQuorum),
    /// The gate is before that interface, or why it is not.
    Gate {
        /// Index of the interface.
        ifindex: u32,
        /// Why not, in one line.
        outcome: Result<(), String>,
    },
    /// Someone took a VIP off its interface, or a link changed: if this node holds, put everything back at once.
    Refresh,
    /// Give up what is held and end the thread.
    Stop,
}

/// The way into the lease thread. The queue is unbounded: its senders are the raft thread and one task each of a few kinds, and the thread
/// empties it at every wake-up.
#[derive(Clone, Debug)]
pub struct LeaseInputs {
    queue: mpsc::Sender<Order>,
    wake: Arc<EventFd>,
}

/// The lease thread's end of its queue.
#[derive(Debug)]
pub struct LeaseReceiver {
    /// What was sent.
    pub queue: mpsc::Receiver<Order>,
    /// Readable when something was sent; a non-blocking read resets it.
    pub wake: Arc<EventFd>,
}

/// Makes the queue of a lease thread that is still to be started.
///
/// # Errors
///
/// If the process is out of file descriptors.
pub fn queue() -> std::io::Result<(LeaseInputs, LeaseReceiver)> {
    let (sender, receiver) = mpsc::channel();
    let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
    Ok((
        LeaseInputs { queue: sender, wake: Arc::clone(&wake) },
        LeaseReceiver { queue: receiver, wake },
    ))
}

impl LeaseInputs {
    /// Queues an input of the machine and wakes the thread. Never blocks; does nothing once the thread has ended.
    pub fn send(&self, input: Input) {
        self.order(Order::Input(input));
    }

    /// Queues any order and wakes the thread. Never blocks; does nothing once the thread has ended.
    pub fn order(&self, order: Order) {
        if self.queue.send(order).is_ok() {
            // Only a counter overflow (2^64 - 2 unread wake-ups) can fail it, and then the thread is awake.
            let _ = self.wake.write(1);
        }
    }
}
