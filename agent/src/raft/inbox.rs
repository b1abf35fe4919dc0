//! The raft thread's queue.
//!
//! Unbounded but for peers' messages: verdicts must not be lost, and whoever proposes waits for the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;

use lvsmesh_core::command::Outcome;
use lvsmesh_core::membership::Change;
use lvsmesh_core::model::NodeId;
use raft::eraftpb::Message;
use tokio::sync::oneshot;

use super::{ProposeError, Verdict};

/// More messages of peers than this are not queued. They are sent again, and by then this thread has perhaps caught up.
const MOST_MESSAGES: usize = 4096;

/// What can be put into the queue.
#[derive(Debug)]
pub(super) enum Order {
    Messages(Vec<Message>),
    Verdict(Verdict),
    Propose { request: u64, data: Vec<u8>, reply: oneshot::Sender<Result<Outcome, ProposeError>> },
    Change { request: u64, change: Change, reply: oneshot::Sender<Result<(), ProposeError>> },
    Priority(i64),
    Unreachable(NodeId),
    Retire,
    Stop,
}

/// The sending end.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    queue: mpsc::Sender<Order>,
    waiting: Arc<AtomicUsize>,
    proposer: u64,
    requests: Arc<AtomicU64>,
}

/// The raft thread's end.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) queue: mpsc::Receiver<Order>,
    waiting: Arc<AtomicUsize>,
}

/// Makes a queue. The proposer's number marks this process' entries in the log.
pub(super) fn inbox(proposer: u64) -> (Inbox, Outlet) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let inbox =
        Inbox { queue: sender, waiting: Arc::clone(&waiting), proposer, requests: Arc::default() };
    (inbox, Outlet { queue: receiver, waiting })
}

impl Inbox {
    /// Queues an order. Never blocks. Once the thread has ended the order is dropped, and with it the sender of its answer.
    pub(super) fn put(&self, order: Order) {
        // The one who waits for an answer sees its sender dropped.
        drop(self.queue.send(order));
    }

    pub(super) fn put_messages(&self, messages: Vec<Message>) {
        let count = messages.len();
        if self.waiting.fetch_add(count, Ordering::Relaxed) + count > MOST_MESSAGES {
            self.waiting.fetch_sub(count, Ordering::Relaxed);
            tracing::debug!(count, "raft thread is behind, messages dropped");
            return;
        }
        self.put(Order::Messages(messages));
    }

    /// Who proposes, and the number of a new request.
    pub(super) fn next_request(&self) -> (u64, u64) {
        (self.proposer, self.requests.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl Outlet {
    /// Messages were taken out.
    pub(super) fn took(&self, messages: usize) {
        self.waiting.fetch_sub(messages, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_messages_is_dropped_and_verdicts_never_are() {
        let (inbox, outlet) = inbox(1);
        for _ in 0..MOST_MESSAGES + 10 {
            inbox.put_messages(vec![Message::default()]);
        }
        inbox.put(Order::Verdict(Verdict::Campaign));
        assert_eq!(outlet.queue.try_iter().count(), MOST_MESSAGES + 1);
        outlet.took(MOST_MESSAGES);
        inbox.put_messages(vec![Message::default()]);
        assert_eq!(outlet.queue.try_iter().count(), 1);
    }
}
