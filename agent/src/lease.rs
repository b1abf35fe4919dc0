//! The lease thread: a plain OS thread that alone emits ARP, gratuitous ARP and adverts, and alone adds and removes VIPs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;

use lvsmesh_core::lease::Input;
use lvsmesh_core::model::{NodeId, Vip};
use nix::sys::eventfd::{EfdFlags, EventFd};
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

/// What can be put into the lease thread's queue.
#[derive(Clone, Debug)]
pub enum Order {
    /// An input of the machine.
    Input(Input),
    /// The VIP groups to hold under a lease, from the applied state.
    Vips(Vec<Vip>),
    /// Where the lease sockets of the members listen.
    Peers(BTreeMap<NodeId, SocketAddr>),
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
