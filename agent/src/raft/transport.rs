//! Raft's messages to peers: one client-streaming call to each, opened before there is anything to say.
//!
//! An idle stream that is dead is noticed only when something is sent on it, and that something would then be lost: a request for a vote, when a
//! leader has died. So streams are opened at once, kept alive by HTTP/2 pings, and opened again when they end.
//!
//! Each peer has a queue of `QUEUE` messages. What does not fit is dropped; Raft sends again what matters.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lvsmesh_core::model::NodeId;
use lvsmesh_core::state::State;
use lvsmesh_proto::internal::v1::RaftBatch;
use lvsmesh_proto::internal::v1::peer_client::PeerClient;
use prost011::Message as _;
use raft::eraftpb::Message;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::{Outbound, RaftHandle, RaftStatus};
use crate::api::status;
use crate::tls::Connector;

/// Messages that wait for one peer.
const QUEUE: usize = 512;
/// Batches that wait for the connection.
const BATCHES: usize = 4;
/// Messages of one batch, and bytes after which no more are added to it.
const BATCH_MESSAGES: usize = 64;
const BATCH_BYTES: usize = 1 << 20;
/// The largest batch, which one snapshot can fill. The receiving side must allow as much.
pub const MAX_BATCH_BYTES: usize = 64 << 20;
/// Waits between attempts to open a stream: doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_millis(500);
/// A stream that stood for this long was fine; the next attempt comes at once.
const STABLE: Duration = Duration::from_secs(5);

type Queues = Arc<Mutex<BTreeMap<NodeId, mpsc::Sender<Vec<u8>>>>>;

/// The raft thread's end: finds the peer's queue, never blocks.
#[derive(Clone, Debug)]
pub struct Outbox {
    queues: Queues,
}

/// Who sends: what every batch says of its sender.
#[derive(Clone, Debug)]
pub struct Origin {
    /// This node.
    pub own: NodeId,
    /// Its fleet's name.
    pub fleet: String,
    /// Which run of its agent this is.
    pub incarnation: u64,
    /// The fleet's epoch, as this node knows it.
    pub epoch: u64,
}

/// Keeps a stream to every other member.
#[derive(Debug)]
pub struct Transport {
    origin: Origin,
    connector: Connector,
    queues: Queues,
}

/// One peer's stream.
#[derive(Debug)]
struct Link {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// Makes both ends. Nothing is sent before [`Transport::run`].
#[must_use]
pub fn transport(origin: Origin, connector: Connector) -> (Outbox, Transport) {
    let queues = Queues::default();
    let outbox = Outbox { queues: Arc::clone(&queues) };
    (outbox, Transport { origin, connector, queues })
}

impl Outbound for Outbox {
    fn send(&mut self, messages: Vec<Message>) {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        for message in messages {
            let to = message.to;
            let Some(queue) = queues.get(&NodeId(to)) else { continue };
            if queue.try_send(message.encode_to_vec()).is_err() {
                tracing::debug!(to, "raft message dropped: queue is full");
            }
        }
    }
}

impl Transport {
    /// Follows the members of the applied state until `shutdown` turns true.
    pub async fn run(self, raft: RaftHandle, mut shutdown: watch::Receiver<bool>) {
        let mut links: BTreeMap<NodeId, Link> = BTreeMap::new();
        let (mut state, mut status) = (raft.state.clone(), raft.status.clone());
        loop {
            let members =
                self.reached(&state.borrow_and_update().state, &status.borrow_and_update());
            self.follow(&members, &mut links, &raft);
            tokio::select! {
                biased;
                // An error says that nobody can ask us to stop any more, which asks us to stop.
                _ = shutdown.wait_for(|stop| *stop) => break,
                changed = state.changed() => if changed.is_err() { break },
                changed = status.changed() => if changed.is_err() { break },
            }
        }
        self.follow(&BTreeMap::new(), &mut links, &raft);
    }

    /// The members, and who was one and still counts: a voter cannot be removed without its own vote where two are the majority.
    fn reached(&self, state: &State, status: &RaftStatus) -> BTreeMap<NodeId, SocketAddr> {
        let counts = |id: &NodeId| status.voters.contains(id) || status.learners.contains(id);
        state
            .departed()
            .filter(|member| counts(&member.id))
            .chain(state.members())
            .filter(|member| member.id != self.origin.own)
            .map(|member| (member.id, member.grpc))
            .collect()
    }

    /// Opens streams to new members and ends those to members that are gone or have moved.
    fn follow(
        &self,
        members: &BTreeMap<NodeId, SocketAddr>,
        links: &mut BTreeMap<NodeId, Link>,
        raft: &RaftHandle,
    ) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|peer, link| {
            let stays = members.get(peer) == Some(&link.address);
            if !stays {
                queues.remove(peer);
                link.task.abort();
            }
            stays
        });
        for (peer, address) in members {
            links.entry(*peer).or_insert_with(|| {
                let (sender, queue) = mpsc::channel(QUEUE);
                queues.insert(*peer, sender);
                let stream = Stream {
                    origin: self.origin.clone(),
                    peer: *peer,
                    channel: self.connector.channel(*address),
                    queue,
                    raft: raft.clone(),
                };
                Link { address: *address, task: tokio::spawn(stream.run()) }
            });
        }
    }
}

struct Stream {
    origin: Origin,
    peer: NodeId,
    channel: Channel,
    queue: mpsc::Receiver<Vec<u8>>,
    raft: RaftHandle,
}

impl Stream {
    /// Opens the stream again whenever it ends; is aborted when the peer is gone.
    async fn run(mut self) {
        let mut retry = FIRST_RETRY;
        loop {
            let started = tokio::time::Instant::now();
            let Some(reason) = self.once().await else { return };
            tracing::debug!(peer = %self.peer, reason, "raft stream ended");
            self.raft.unreachable(self.peer);
            if started.elapsed() >= STABLE {
                retry = FIRST_RETRY;
            }
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    /// Sends until the stream ends, and says why; `None` if nothing will ever be sent again.
    async fn once(&mut self) -> Option<String> {
        let (batches, outgoing) = mpsc::channel::<RaftBatch>(BATCHES);
        // The peer looks up who speaks before there is anything urgent to say. An empty queue takes it.
        drop(batches.try_send(self.batch(Vec::new())));
        let mut client = PeerClient::new(self.channel.clone())
            .max_encoding_message_size(MAX_BATCH_BYTES + (1 << 20));
        let call = client.raft(ReceiverStream::new(outgoing));
        tokio::pin!(call);
        loop {
            tokio::select! {
                biased;
                ended = &mut call => {
                    return Some(match ended {
                        Ok(_) => "closed by the peer".to_owned(),
                        Err(status) => self.refused(&status),
                    });
                }
                // Cancel safe: a permit that is not used is given back, and `batch` is awaited alone.
                permit = batches.reserve() => {
                    let Ok(permit) = permit else { return Some("connection lost".to_owned()) };
                    let batch = tokio::select! {
                        biased;
                        ended = &mut call => {
                            return Some(match ended {
                                Ok(_) => "closed by the peer".to_owned(),
                                Err(status) => self.refused(&status),
                            });
                        }
                        // Cancel safe: only the first message is awaited.
                        batch = next_batch(&mut self.queue) => batch?,
                    };
                    permit.send(self.batch(batch));
                }
            }
        }
    }

    /// Why the peer ended the stream, in its words.
    fn refused(&self, status: &Status) -> String {
        if status::reason(status) == Some(status::NO_MEMBER) {
            self.raft.doubt();
        }
        status.message().to_owned()
    }

    fn batch(&self, messages: Vec<Vec<u8>>) -> RaftBatch {
        RaftBatch {
            fleet: self.origin.fleet.clone(),
            from: self.origin.own.0,
            to: self.peer.0,
            messages,
            incarnation: self.origin.incarnation,
            epoch: self.origin.epoch,
        }
    }
}

/// Waits for a message, and takes along what else is there.
async fn next_batch(queue: &mut mpsc::Receiver<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let first = queue.recv().await?;
    let mut bytes = first.len();
    let mut batch = vec![first];
    while batch.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
        let Ok(message) = queue.try_recv() else { break };
        bytes += message.len();
        batch.push(message);
    }
    Some(batch)
}
