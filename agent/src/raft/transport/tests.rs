//! Streams over loopback, against a server that does no more than the agent's own.

use std::collections::BTreeSet;

use lvsmesh_core::command::{Candidate, Command};
use lvsmesh_core::lease::Input;
use lvsmesh_core::membership::Change;
use lvsmesh_core::model::Role;
use lvsmesh_proto::internal::v1 as wire;
use lvsmesh_proto::internal::v1::peer_server::{Peer, PeerServer};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use super::super::driver::{self, Compaction};
use super::super::storage::{Disk, MemoryStore};
use super::super::{Verdict, start};
use super::*;
use crate::lease::{self, Order};

/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Hands batches to a node's raft thread, and notes who sent them.
#[derive(Clone)]
struct Sink {
    raft: RaftHandle,
    batches: mpsc::UnboundedSender<(String, u64, u64)>,
}

#[tonic::async_trait]
impl Peer for Sink {
    async fn raft(
        &self,
        request: Request<Streaming<RaftBatch>>,
    ) -> Result<Response<wire::RaftClosed>, Status> {
        let mut batches = request.into_inner();
        while let Some(batch) = batches.message().await? {
            let sent = (batch.fleet, batch.from, batch.to);
            self.raft
                .deliver(NodeId(batch.from), &batch.messages)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            drop(self.batches.send(sent));
        }
        Ok(Response::new(wire::RaftClosed {}))
    }

    async fn join(
        &self,
        _: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn report(
        &self,
        _: Request<wire::ReportRequest>,
    ) -> Result<Response<wire::ReportResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn self_(
        &self,
        _: Request<wire::SelfRequest>,
    ) -> Result<Response<wire::SelfResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn greet(
        &self,
        _: Request<wire::GreetRequest>,
    ) -> Result<Response<wire::GreetResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn announce(
        &self,
        _: Request<wire::AnnounceRequest>,
    ) -> Result<Response<wire::AnnounceResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn compare(
        &self,
        _: Request<wire::CompareRequest>,
    ) -> Result<Response<wire::CompareResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

fn origin(own: NodeId) -> Origin {
    Origin { own, fleet: "test".to_owned(), incarnation: own.0, epoch: 0 }
}

/// One agent's Raft: thread, streams and server.
struct Host {
    raft: RaftHandle,
    outbox: Outbox,
    sink: Sink,
    batches: mpsc::UnboundedReceiver<(String, u64, u64)>,
    address: SocketAddr,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    stop: watch::Sender<bool>,
    transport: JoinHandle<()>,
}

impl Host {
    /// The first node of a fleet.
    fn found(listener: TcpListener) -> Self {
        let mut store = MemoryStore::open(&Disk::default());
        let first = candidate("n1", listener.local_addr().unwrap());
        start::found_in(&mut store, "test", first).unwrap();
        Self::start(store, NodeId(1), listener)
    }

    /// The second.
    fn join(listener: TcpListener, first: &Self) -> Self {
        let mut store = MemoryStore::open(&Disk::default());
        let members = first.raft.state.borrow().state.members().cloned().collect();
        let seed = start::seed("test", members).unwrap();
        start::join_in(&mut store, NodeId(2), &seed).unwrap();
        Self::start(store, NodeId(2), listener)
    }

    fn start(store: MemoryStore, own: NodeId, listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let (outbox, transport) = transport(origin(own), Connector::insecure());
        let (inputs, orders) = lease::queue().unwrap();
        let (raft, _thread) =
            driver::spawn(store, 0, Compaction::default(), inputs, outbox.clone()).unwrap();
        let lease = raft.clone();
        std::thread::spawn(move || {
            while let Ok(Order::Input(input)) = orders.queue.recv() {
                if let Input::Gate(request) = input {
                    lease.verdict(Verdict::Pass(request.ticket));
                }
            }
        });
        let (sender, batches) = mpsc::unbounded_channel();
        let sink = Sink { raft: raft.clone(), batches: sender };
        let (stop, stopped) = watch::channel(false);
        let transport = tokio::spawn(transport.run(raft.clone(), stopped));
        let mut host = Self { raft, outbox, sink, batches, address, server: None, stop, transport };
        host.serve(listener);
        host
    }

    fn serve(&mut self, listener: TcpListener) {
        let (stop, stopped) = oneshot::channel();
        let service = PeerServer::new(self.sink.clone());
        let served = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move {
            tokio::select! {
                served = served => served.unwrap(),
                _ = stopped => {}
            }
        });
        self.server = Some((stop, task));
    }

    /// Ends the server and every connection to it.
    async fn unplug(&mut self) {
        let (stop, task) = self.server.take().unwrap();
        stop.send(()).unwrap();
        task.await.unwrap();
    }

    async fn batch(&mut self) -> (String, u64, u64) {
        tokio::time::timeout(PATIENCE, self.batches.recv()).await.unwrap().unwrap()
    }

    async fn until(&self, what: &str, holds: impl FnMut(&RaftStatus) -> bool) {
        let mut status = self.raft.status.clone();
        let found = tokio::time::timeout(PATIENCE, status.wait_for(holds)).await;
        assert!(matches!(found, Ok(Ok(_))), "{what}: {:?}", self.raft.status.borrow());
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.transport.await.unwrap();
        assert!(self.outbox.queues.lock().unwrap().is_empty());
        self.raft.shutdown();
    }
}

fn candidate(name: &str, grpc: SocketAddr) -> Candidate {
    Candidate {
        name: name.to_owned(),
        roles: BTreeSet::from([Role::Director]),
        addresses: vec![grpc.ip()],
        grpc,
        lease: grpc,
    }
}

async fn listen(address: &str) -> TcpListener {
    TcpListener::bind(address).await.unwrap()
}

#[tokio::test]
async fn nodes_replicate_over_streams_that_come_back_after_an_outage() {
    let (one_listens, two_listens) = (listen("127.0.0.1:0").await, listen("127.0.0.1:0").await);
    let mut one = Host::found(one_listens);
    one.raft.verdict(Verdict::Campaign);
    one.until("elected", |status| status.settled).await;
    let two_address = two_listens.local_addr().unwrap();
    one.raft.propose(Command::Admit(candidate("n2", two_address))).await.unwrap();
    let mut two = Host::join(two_listens, &one);
    one.raft.change(Change::AddLearner(NodeId(2))).await.unwrap();
    one.until("caught up", |status| status.matched.get(&NodeId(2)) == Some(&status.commit)).await;
    assert_eq!(two.batch().await, ("test".to_owned(), 1, 2));
    assert_eq!(one.batch().await, ("test".to_owned(), 2, 1));

    two.unplug().await;
    while two.batches.try_recv().is_ok() {}
    one.raft.propose(Command::Remove { name: "n9".into() }).await.unwrap();
    let again = listen(&two.address.to_string()).await;
    two.serve(again);
    one.until("caught up again", |status| status.matched.get(&NodeId(2)) == Some(&status.commit))
        .await;
    assert_eq!(two.batch().await, ("test".to_owned(), 1, 2));
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn a_peer_that_does_not_answer_costs_a_bounded_queue_and_no_time() {
    // It accepts no connection beyond the kernel's backlog, and never speaks HTTP/2.
    let silent = listen("127.0.0.1:0").await;
    let address = silent.local_addr().unwrap();
    let mut one = Host::found(listen("127.0.0.1:0").await);
    one.raft.verdict(Verdict::Campaign);
    one.until("elected", |status| status.settled).await;
    one.raft.propose(Command::Admit(candidate("n2", address))).await.unwrap();
    let mut attempts = 0;
    while one.outbox.queues.lock().unwrap().is_empty() {
        // The streams follow the state that was published before the proposal was answered.
        tokio::task::yield_now().await;
        attempts += 1;
        assert!(attempts < 100_000, "no stream for the new member");
    }
    let message = || Message { to: 2, from: 1, ..Message::default() };
    one.outbox.send((0..3 * QUEUE).map(|_| message()).collect());
    let left = one.outbox.queues.lock().unwrap()[&NodeId(2)].capacity();
    assert_eq!(left, 0);
    one.end().await;
}

#[tokio::test]
async fn what_waits_together_travels_together_up_to_a_limit() {
    let (sender, mut queue) = mpsc::channel(QUEUE);
    for _ in 0..BATCH_MESSAGES + 1 {
        sender.try_send(vec![1]).unwrap();
    }
    sender.try_send(vec![0; BATCH_BYTES]).unwrap();
    sender.try_send(vec![2]).unwrap();
    assert_eq!(next_batch(&mut queue).await.unwrap().len(), BATCH_MESSAGES);
    assert_eq!(next_batch(&mut queue).await.unwrap().len(), 2);
    assert_eq!(next_batch(&mut queue).await.unwrap(), [vec![2]]);
    drop(sender);
    assert_eq!(next_batch(&mut queue).await, None);
}
