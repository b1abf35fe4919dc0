use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};
use lvsmesh_core::command::SourceStatus;
use lvsmesh_core::model::{DnsRecord, DnsSource, Document, FileSource};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::*;
use crate::fixtures::{TestFleet, document};

/// Applies what is proposed, as the log would.
#[derive(Clone)]
struct Log {
    fleet: Arc<Mutex<TestFleet>>,
    state: watch::Sender<Applied>,
    proposed: Arc<Mutex<usize>>,
}

impl Log {
    fn new(document: Document) -> Self {
        let fleet = TestFleet::with(document);
        let (state, _) = watch::channel(fleet.applied());
        Self { fleet: Arc::new(Mutex::new(fleet)), state, proposed: Arc::default() }
    }

    fn change(&self, change: impl FnOnce(&mut TestFleet)) {
        let mut fleet = self.fleet.lock().unwrap();
        change(&mut fleet);
        self.state.send_replace(fleet.applied());
    }

    /// Waits for this set under a status of this kind.
    async fn until(&self, kind: &str, ports: &[u16]) {
        let mut state = self.state.subscribe();
        let seen = state.wait_for(|applied| {
            applied.state.discovered("web").is_some_and(|found| {
                let status = match found.status {
                    SourceStatus::Synced => "synced",
                    SourceStatus::Stale(_) => "stale",
                    SourceStatus::Lost(_) => "lost",
                };
                status == kind
                    && found.real_servers.iter().map(|rs| rs.port).eq(ports.iter().copied())
            })
        });
        let outcome = timeout(Duration::from_secs(20), seen).await.map(|_| ());
        assert!(
            outcome.is_ok(),
            "{kind} {ports:?}: {:?}",
            self.state.borrow().state.discovered("web")
        );
    }
}

impl Proposer for Log {
    async fn propose(&self, command: Command) -> Result<(), String> {
        *self.proposed.lock().unwrap() += 1;
        self.change(|fleet| {
            fleet.run(command);
        });
        Ok(())
    }
}

fn found_by(source: Discovery) -> Document {
    let mut document = document();
    document.pools[0].source = PoolSource::Discovery(source);
    document
}

fn file(path: &std::path::Path) -> Discovery {
    let path = path.to_str().unwrap().to_owned();
    Discovery::File(FileSource { path, interval: Duration::from_millis(100) })
}

fn leads() -> RaftStatus {
    RaftStatus { settled: true, ..RaftStatus::default() }
}

#[tokio::test]
async fn a_pool_follows_its_file_and_outlives_what_is_wrong_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.json");
    let put = |text: &str| std::fs::write(&path, text).unwrap();
    let log = Log::new(found_by(file(&path)));
    let (_status, seen) = watch::channel(leads());
    let task = tokio::spawn(follow(log.clone(), log.state.subscribe(), seen));

    log.until("lost", &[]).await;
    put(r#"[{"targets": ["10.0.0.1:80"]}]"#);
    log.until("synced", &[80]).await;
    put(r#"[{"targets": ["10.0.0.1:80", "10.0.0.1:81"]}]"#);
    log.until("synced", &[80, 81]).await;
    put("[{");
    log.until("stale", &[80, 81]).await;
    put("[]");
    put("[]");
    log.until("stale", &[80, 81]).await;
    std::fs::remove_file(&path).unwrap();
    log.until("stale", &[80, 81]).await;
    put(r#"[{"targets": ["10.0.0.1:81"]}]"#);
    log.until("synced", &[81]).await;

    let proposed = *log.proposed.lock().unwrap();
    sleep(Duration::from_millis(350)).await;
    assert_eq!(*log.proposed.lock().unwrap(), proposed, "an answer that is known is not proposed");
    task.abort();
}

#[tokio::test]
async fn another_source_takes_over_when_the_document_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one.json"), directory.path().join("two.json"));
    std::fs::write(&one, r#"[{"targets": ["10.0.0.1:80"]}]"#).unwrap();
    std::fs::write(&two, r#"[{"targets": ["10.0.0.1:81"]}]"#).unwrap();
    let log = Log::new(found_by(file(&one)));
    let (status, seen) = watch::channel(leads());
    let task = tokio::spawn(follow(log.clone(), log.state.subscribe(), seen));
    log.until("synced", &[80]).await;
    log.change(|fleet| fleet.apply(found_by(file(&two))));
    log.until("synced", &[81]).await;

    status.send_replace(RaftStatus::default());
    std::fs::write(&two, r#"[{"targets": ["10.0.0.1:82"]}]"#).unwrap();
    sleep(Duration::from_millis(350)).await;
    assert_eq!(
        log.state.borrow().state.discovered("web").unwrap().real_servers[0].port,
        81,
        "no longer the leader"
    );
    status.send_replace(leads());
    log.until("synced", &[82]).await;
    task.abort();
}

/// A name server on loopback: answers questions from a list, says that other names do not exist, and is silent while the list is absent.
struct NameServer {
    at: SocketAddr,
    records: Arc<Mutex<Option<Vec<Record>>>>,
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let records: Arc<Mutex<Option<Vec<Record>>>> = Arc::default();
        let (at, known) = (socket.local_addr().unwrap(), Arc::clone(&records));
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                let Some(records) = known.lock().unwrap().clone() else { continue };
                let query = asked.queries[0].clone();
                let mut answer =
                    Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
                for record in &records {
                    if record.name == *query.name() && record.record_type() == query.query_type() {
                        answer.add_answer(record.clone());
                    }
                }
                if !records.iter().any(|record| record.name == *query.name()) {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                answer.add_query(query);
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        Self { at, records }
    }

    fn set(&self, records: Vec<Record>) {
        *self.records.lock().unwrap() = Some(records);
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Record {
    let data = RData::SRV(SRV::new(priority, weight, port, name(target)));
    Record::from_rdata(name("_web._tcp.example."), 60, data)
}

fn a(owner: &str, last: u8) -> Record {
    Record::from_rdata(name(owner), 60, RData::A(A::new(10, 0, 0, last)))
}

fn dns(at: SocketAddr, record: DnsRecord, asked: &str) -> DnsSource {
    DnsSource {
        name: asked.into(),
        record,
        port: (record != DnsRecord::Srv).then_some(80),
        weight: 2,
        servers: vec![at],
        interval: Duration::from_millis(100),
    }
}

fn shown(found: Result<Vec<RealServer>, String>) -> Vec<String> {
    found.unwrap().iter().map(|rs| format!("{} {}", rs.socket_addr(), rs.weight)).collect()
}

#[tokio::test]
async fn srv_gives_ports_and_weights_and_the_addresses_of_its_targets() {
    let server = NameServer::start().await;
    let mut source = Dns::new(&dns(server.at, DnsRecord::Srv, "_web._tcp.example"));
    server.set(vec![
        srv(10, 3, 80, "one.example."),
        srv(10, 0, 81, "two.example."),
        srv(20, 5, 82, "reserve.example."),
        a("one.example.", 1),
        a("one.example.", 2),
        a("two.example.", 3),
        a("reserve.example.", 4),
    ]);
    assert_eq!(shown(source.snapshot().await), ["10.0.0.1:80 3", "10.0.0.2:80 3", "10.0.0.3:81 1"]);

    server.set(vec![
        srv(10, 3, 80, "one.example."),
        srv(10, 3, 80, "gone.example."),
        a("one.example.", 1),
    ]);
    let fault = source.snapshot().await.unwrap_err();
    assert_eq!(fault, "_web._tcp.example: target gone.example. has no address");

    server.set(vec![srv(0, 0, 0, ".")]);
    assert_eq!(shown(source.snapshot().await), [""; 0], "RFC 2782: no such service");
}

#[tokio::test]
async fn a_records_get_the_documents_port_and_weight_and_nothing_is_cached() {
    let server = NameServer::start().await;
    let mut source = Dns::new(&dns(server.at, DnsRecord::A, "web.example"));
    server.set(vec![a("web.example.", 2), a("web.example.", 1)]);
    assert_eq!(shown(source.snapshot().await), ["10.0.0.1:80 2", "10.0.0.2:80 2"]);
    server.set(vec![a("web.example.", 3)]);
    assert_eq!(shown(source.snapshot().await), ["10.0.0.3:80 2"]);
    server.set(vec![]);
    assert_eq!(
        shown(source.snapshot().await),
        [""; 0],
        "a name that does not exist is an empty answer"
    );
}

#[tokio::test]
async fn a_silent_name_server_is_a_failed_answer_within_seconds() {
    let server = NameServer::start().await;
    let mut source = Dns::new(&dns(server.at, DnsRecord::A, "web.example"));
    let fault = timeout(Duration::from_secs(15), source.snapshot()).await.unwrap().unwrap_err();
    assert!(fault.starts_with("web.example: "), "{fault}");
    server.set(vec![a("web.example.", 3)]);
    assert_eq!(shown(source.snapshot().await), ["10.0.0.3:80 2"], "and it recovers");
}

#[tokio::test]
async fn a_pool_follows_its_name() {
    let server = NameServer::start().await;
    server.set(vec![srv(0, 1, 80, "one.example."), a("one.example.", 1)]);
    let source = Discovery::Dns(dns(server.at, DnsRecord::Srv, "_web._tcp.example."));
    let log = Log::new(found_by(source));
    let (_status, seen) = watch::channel(leads());
    let task = tokio::spawn(follow(log.clone(), log.state.subscribe(), seen));
    log.until("synced", &[80]).await;
    server.set(vec![srv(0, 1, 81, "one.example."), a("one.example.", 1)]);
    log.until("synced", &[81]).await;
    server.set(vec![]);
    log.until("stale", &[81]).await;
    task.abort();
}
