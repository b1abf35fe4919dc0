use std::sync::{Arc, Mutex};

use lvsmesh_core::model::{CheckKind, Document, RealServer};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::*;
use crate::fixtures::{TestFleet, document};

/// Applies what is proposed, as the log would; refuses while `refusing`.
#[derive(Clone)]
struct Log {
    fleet: Arc<Mutex<TestFleet>>,
    state: watch::Sender<Applied>,
    refusing: Arc<Mutex<bool>>,
}

impl Log {
    fn new(document: Document) -> Self {
        let fleet = TestFleet::with(document);
        let (state, _) = watch::channel(fleet.applied());
        Self { fleet: Arc::new(Mutex::new(fleet)), state, refusing: Arc::default() }
    }

    fn change(&self, change: impl FnOnce(&mut TestFleet)) {
        let mut fleet = self.fleet.lock().unwrap();
        change(&mut fleet);
        self.state.send_replace(fleet.applied());
    }

    /// Waits until the replicated verdict on a real server is that it is down, or up.
    async fn until(&self, real_server: SocketAddr, down: bool) -> Option<String> {
        let mut state = self.state.subscribe();
        let seen = state
            .wait_for(|applied| applied.state.health_fault("web", real_server).is_some() == down);
        let seen =
            timeout(Duration::from_secs(20), seen).await.expect("the verdict comes").unwrap();
        seen.state.health_fault("web", real_server).map(ToOwned::to_owned)
    }
}

impl Proposer for Log {
    async fn propose(&self, command: Command) -> Result<(), String> {
        if *self.refusing.lock().unwrap() {
            return Err("no".into());
        }
        self.change(|fleet| {
            fleet.run(command);
        });
        Ok(())
    }
}

fn probed(at: SocketAddr) -> Document {
    let mut document = document();
    document.pools[0].check = Some(model::Check {
        kind: CheckKind::Tcp,
        port: None,
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        retries: 1,
        delay_before_retry: Duration::from_millis(5),
    });
    let real_server = RealServer::new(at.ip(), at.port(), 1);
    document.pools[0].source = PoolSource::Listed(vec![real_server]);
    document
}

fn leads(settled: bool) -> RaftStatus {
    RaftStatus { settled, ..RaftStatus::default() }
}

/// A port of loopback where nobody listens, and its owner, who keeps others from it.
fn closed() -> (SocketAddr, std::net::TcpListener) {
    // Bound and connected elsewhere would be needed to keep it; a listener that is bound on another address of loopback shares the number.
    let listener = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (SocketAddr::from(([127, 0, 0, 3], port)), listener)
}

#[tokio::test]
async fn a_real_server_goes_down_and_comes_back_by_itself() {
    let (at, _owner) = closed();
    let log = Log::new(probed(at));
    let (_status, seen) = watch::channel(leads(true));
    let task = tokio::spawn(follow(log.clone(), log.state.subscribe(), seen));
    let fault = log.until(at, true).await.unwrap();
    assert_eq!(fault, format!("connecting to {at}: Connection refused (2 probes in a row)"));

    let _listener = TcpListener::bind(at).await.unwrap();
    log.until(at, false).await;
    task.abort();
}

#[tokio::test]
async fn a_follower_probes_nothing_and_a_deposed_leader_stops() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let log = Log::new(probed(at));
    let (status, seen) = watch::channel(leads(false));
    let task = tokio::spawn(follow(log.clone(), log.state.subscribe(), seen));
    // Five intervals without a probe.
    assert!(timeout(Duration::from_millis(100), listener.accept()).await.is_err());

    status.send_replace(leads(true));
    timeout(Duration::from_secs(20), listener.accept()).await.expect("a probe comes").unwrap();
    status.send_replace(leads(false));
    // Probes that were under way.
    while timeout(Duration::from_millis(100), listener.accept()).await.is_ok() {}
    task.abort();
}

#[tokio::test]
async fn a_new_leader_keeps_what_is_replicated_until_a_probe_decides() {
    let (at, _owner) = closed();
    let log = Log::new(probed(at));
    log.change(|fleet| {
        let fault = Some("from before".to_owned());
        fleet.run(Command::Health(vec![HealthChange {
            pool: "web".into(),
            real_server: at,
            fault,
        }]));
    });
    let (_status, seen) = watch::channel(leads(true));
    let task = tokio::spawn(follow(log.clone(), log.state.subscribe(), seen));
    sleep(Duration::from_millis(200)).await;
    assert_eq!(log.until(at, true).await.as_deref(), Some("from before"), "still down is no news");

    let _listener = TcpListener::bind(at).await.unwrap();
    log.until(at, false).await;
    task.abort();
}

#[tokio::test]
async fn a_verdict_that_was_not_taken_is_proposed_again() {
    let (at, _owner) = closed();
    let log = Log::new(probed(at));
    *log.refusing.lock().unwrap() = true;
    let (_status, seen) = watch::channel(leads(true));
    let task = tokio::spawn(follow(log.clone(), log.state.subscribe(), seen));
    sleep(Duration::from_millis(200)).await;
    *log.refusing.lock().unwrap() = false;
    log.until(at, true).await;
    task.abort();
}

#[tokio::test]
async fn a_silent_real_server_fails_at_its_deadline() {
    // A full backlog answers nothing: RFC 5737 addresses would leave this machine.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    let patience = Duration::from_millis(50);
    let mut kept = vec![];
    let fault = loop {
        match timeout(patience, tokio::net::TcpStream::connect(at)).await {
            Ok(connected) => kept.push(connected.unwrap()),
            Err(_) => break probe::tcp(at, patience).await.unwrap_err(),
        }
    };
    assert_eq!(fault, format!("connecting to {at}: no answer within 50ms"));
}

#[test]
fn settings_that_change_start_the_check_anew_and_others_do_not() {
    let at = SocketAddr::from(([192, 0, 2, 1], 80));
    let mut fleet = TestFleet::with(probed(at));
    let key = ("web".to_owned(), at);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let mut checks = Checks::new();
    checks.update(&fleet.state);
    assert_eq!(checks.start().len(), 1);
    checks.record(key.clone(), Ok(()));
    assert_eq!(checks.targets[&key].check.health(), Health::Up);

    let mut same = probed(at);
    same.pools[0].min_healthy = 1;
    fleet.apply(same);
    checks.update(&fleet.state);
    assert_eq!(checks.targets[&key].check.health(), Health::Up, "nothing about the check changed");

    let mut other = probed(at);
    other.pools[0].check.as_mut().unwrap().port = Some(81);
    fleet.apply(other);
    checks.update(&fleet.state);
    assert_eq!(checks.targets[&key].check.health(), Health::Unknown);
    let started = checks.start();
    assert_eq!(started[0].1.port(), 81);
    assert_eq!(checks.queue.len(), 0, "one probe at a time");

    let mut none = probed(at);
    none.pools[0].check = None;
    fleet.apply(none);
    checks.update(&fleet.state);
    checks.record(key, Err("late".into()));
    assert!(checks.targets.is_empty() && checks.queue.is_empty() && checks.pending.is_empty());
}
