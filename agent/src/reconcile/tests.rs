mod crash;
mod scale;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lvsmesh_core::model::{Attach, Document, NodeId, Protocol, Scheduler};
use lvsmesh_core::plan::{Address, Owned, ServiceSpec, Sysctl, VirtualService};
use lvsmesh_kernel::Errno;
use lvsmesh_kernel::fake::{FakeKernel, FakeState};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::fixtures::{LVS_1, LVS_2, TestFleet, WEB_1, document, ip, links};
use crate::lease::{Favoured, Outlook, queue};

const HOLDING: Tenure = Tenure::Holding { epoch: 7 };

/// A change made behind the agent's back.
type Undo = fn(&mut FakeState);

struct Machine {
    directory: TempDir,
    kernel: FakeKernel,
    fleet: TestFleet,
    own: NodeId,
    rounds: Rounds<FakeKernel>,
}

impl Machine {
    fn new(own: NodeId) -> Self {
        Self::with(own, FakeKernel::new(&["eth0"]))
    }

    fn with(own: NodeId, kernel: FakeKernel) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rounds = rounds(own, &kernel, directory.path());
        Self { directory, kernel, fleet: TestFleet::new(), own, rounds }
    }

    async fn round(&mut self, tenure: Tenure) -> NodeReport {
        self.looking(tenure, Look::Part).await
    }

    async fn looking(&mut self, tenure: Tenure, look: Look) -> NodeReport {
        self.rounds.run(&self.fleet.applied(), tenure, &links(), look).await;
        self.rounds.report().clone()
    }

    /// Another process on the same machine.
    fn restart(&mut self) {
        self.rounds = rounds(self.own, &self.kernel, self.directory.path());
    }

    /// What was performed since this was last asked.
    fn performed(&self) -> Vec<String> {
        self.kernel.state().performed.drain(..).map(|action| action.to_string()).collect()
    }

    fn recorded(&self) -> Owned {
        OwnerRecord::below(self.directory.path()).load().unwrap()
    }
}

fn rounds(own: NodeId, kernel: &FakeKernel, directory: &Path) -> Rounds<FakeKernel> {
    Rounds::new(own, kernel.clone(), OwnerRecord::below(directory), None).unwrap()
}

fn web() -> ServiceKey {
    ServiceKey::Address { protocol: Protocol::Tcp, address: ip(100), port: 80 }
}

fn foreign() -> (ServiceKey, VirtualService) {
    let key = ServiceKey::Address { protocol: Protocol::Udp, address: ip(9), port: 53 };
    let spec = ServiceSpec {
        scheduler: "rr".into(),
        flags: 0,
        timeout: 0,
        netmask: u32::MAX,
        engine: None,
    };
    (key, VirtualService { spec, destinations: BTreeMap::new() })
}

#[tokio::test]
async fn a_machine_is_brought_to_its_plan_and_reports_it() {
    let mut director = Machine::new(LVS_1);
    let report = director.round(Tenure::None).await;
    assert!(report.converged, "{report:?}");
    assert_eq!((report.revision, report.operations), (1, 3));
    assert_eq!(report.ineligible, None);
    assert_eq!(report.warnings, [""; 0]);

    let mut real_server = Machine::new(WEB_1);
    let report = real_server.round(Tenure::None).await;
    assert!(report.converged, "{report:?}");
    assert_eq!(report.real_server_fault, None);
    assert_eq!(report.ineligible.as_deref(), Some("this node is no director"));
    let side = lvsmesh_core::placement::place(&real_server.fleet.state, WEB_1, false).real_server;
    assert_eq!(report.digest, side.digest());
    let performed = real_server.performed();
    assert_eq!(performed.last().map(String::as_str), Some("add address 192.168.3.100 to lo"));
    assert!(performed.len() > 1 && performed[0].starts_with("set net/ipv4/conf/"), "{performed:?}");
}

#[tokio::test]
async fn a_restart_performs_nothing() {
    for own in [LVS_1, LVS_2, WEB_1] {
        let mut machine = Machine::new(own);
        machine.round(Tenure::None).await;
        machine.performed();
        machine.restart();
        let report = machine.round(Tenure::None).await;
        assert_eq!(machine.performed(), [""; 0], "{own}");
        assert_eq!((report.operations, report.drift_repaired), (0, 0), "{own}");
        assert!(report.converged);
    }
}

#[tokio::test]
async fn what_others_undo_is_repaired_and_reported_as_drift() {
    #[rustfmt::skip]
    let cases: [(NodeId, Undo, u64, &str); 4] = [
        (LVS_1, |kernel| kernel.table.as_mut().unwrap().clear(), 3, "add real server 192.168.3.102:80 to"),
        (LVS_1, |kernel| kernel.table.as_mut().unwrap().get_mut(&web()).unwrap().spec.scheduler = "rr".into(), 1, "set service"),
        (WEB_1, |kernel| kernel.addresses.retain(|address| address.address != ip(100)), 1, "add address 192.168.3.100 to lo"),
        (WEB_1, |kernel| { kernel.sysctls.insert(Sysctl("net/ipv4/conf/all/arp_ignore".into()), 0); }, 1, "set net/ipv4/conf/all/arp_ignore to 1"),
    ];
    for (own, undo, changes, line) in cases {
        let mut machine = Machine::new(own);
        assert_eq!(machine.round(Tenure::None).await.drift_repaired, 0);
        machine.performed();
        undo(&mut machine.kernel.state());
        let report = machine.round(Tenure::None).await;
        assert!(report.converged, "{line}");
        assert_eq!(report.drift_repaired, changes, "{line}");
        assert!(report.last_drift.starts_with(line), "{}", report.last_drift);
        assert_eq!(machine.performed().len() as u64, changes, "{line}");
        assert_eq!(machine.round(Tenure::None).await.drift_repaired, changes, "counted once");
    }
}

#[tokio::test]
async fn a_change_of_the_plan_is_no_drift() {
    let mut machine = Machine::new(LVS_1);
    machine.round(Tenure::None).await;
    let mut changed = document();
    changed.services[0].scheduler = Scheduler::Rr;
    machine.fleet.apply(changed);
    let report = machine.round(Tenure::None).await;
    assert_eq!((report.revision, report.operations, report.drift_repaired), (2, 4, 0));
}

#[tokio::test]
async fn what_an_operator_made_is_left_alone_and_shown() {
    let mut machine = Machine::new(LVS_1);
    let (key, service) = foreign();
    machine.kernel.state().table.as_mut().unwrap().insert(key, service.clone());
    let report = machine.round(Tenure::None).await;
    assert!(report.converged);
    assert_eq!(report.foreign, [key]);
    assert_eq!(machine.kernel.state().table.as_ref().unwrap()[&key], service);
    assert!(!machine.recorded().services.contains(&key));
}

#[tokio::test]
async fn one_bad_object_does_not_stop_the_others() {
    let mut two = document();
    two.services.push(lvsmesh_core::model::Service {
        listen: lvsmesh_core::model::Listen::Port { protocol: Protocol::Udp, port: 80 },
        ..lvsmesh_core::model::Service::new("other", "web", 80, "web")
    });
    let mut machine = Machine::new(LVS_1);
    machine.fleet = TestFleet::with(two);
    machine.kernel.fail(1, Errno::ENOENT);
    let report = machine.round(Tenure::None).await;
    assert!(!report.converged);
    let warning = report.warnings.iter().find(|line| line.contains("192.168.3.100:80")).unwrap();
    assert!(warning.contains("add service"), "{warning}");
    let table = machine.kernel.state().table.clone().unwrap();
    assert_eq!(table.len(), 1, "the other service is there");
    assert_eq!(table.values().next().unwrap().destinations.len(), 2, "with its real servers");

    let report = machine.round(Tenure::None).await;
    assert!(report.converged, "the next round tries again");
    assert_eq!(report.drift_repaired, 0, "and does not call that drift");
    assert_eq!(report.warnings, [""; 0]);
}

#[tokio::test]
async fn a_vip_is_not_put_on_lo_where_arp_would_answer_for_it() {
    let mut machine = Machine::new(WEB_1);
    machine.kernel.fail(1, Errno::EROFS);
    let report = machine.round(Tenure::None).await;
    let fault = report.real_server_fault.unwrap();
    assert!(fault.contains("arp_"), "{fault}");
    assert!(!machine.performed().iter().any(|action| action.starts_with("add address")));
    assert_eq!(machine.round(Tenure::None).await.real_server_fault, None);
}

#[tokio::test]
async fn the_record_is_on_the_disk_before_the_first_operation() {
    let mut machine = Machine::new(LVS_2);
    // Without its directory the record cannot be written.
    let gone = machine.directory.path().join("gone");
    machine.rounds = rounds(LVS_2, &machine.kernel, &gone);
    let report = machine.round(HOLDING).await;
    assert!(!report.converged);
    assert_eq!(machine.performed(), [""; 0], "nothing is touched that is not recorded");
    assert!(report.warnings[0].contains("owned.json"), "{:?}", report.warnings);

    std::fs::create_dir(&gone).unwrap();
    // Every operation fails from here on, so what is on the disk was there before them.
    machine.kernel.state().table = None;
    let fail = machine.kernel.clone();
    fail.fail(1, Errno::EPERM);
    machine.round(HOLDING).await;
    let owned = OwnerRecord::below(&gone).load().unwrap();
    assert!(owned.addresses.contains(&("lo".to_owned(), ip(100))), "{owned:?}");
    assert_eq!(owned.sysctls.len(), 4, "with what each sysctl was: {owned:?}");
}

#[tokio::test]
async fn a_dual_role_node_has_a_table_only_while_it_holds() {
    let mut machine = Machine::new(LVS_2);
    machine.round(Tenure::None).await;
    assert_eq!(machine.kernel.state().table.as_ref().unwrap().len(), 0);
    assert!(!machine.rounds.stands(&machine.fleet.applied()));

    machine.performed();
    machine.round(Tenure::Preparing { epoch: 7 }).await;
    assert!(machine.rounds.stands(&machine.fleet.applied()));
    assert_eq!(machine.kernel.state().table.as_ref().unwrap().len(), 1);
    assert!(!machine.rounds.must_clear(HOLDING));
    assert!(machine.rounds.must_clear(Tenure::None));

    machine.performed();
    let report = machine.round(Tenure::None).await;
    assert_eq!(machine.performed(), ["remove service tcp 192.168.3.100:80"]);
    assert!(
        machine
            .kernel
            .state()
            .addresses
            .iter()
            .any(|a| a.interface == "lo" && a.address == ip(100))
    );
    assert_eq!(report.drift_repaired, 0);
    assert!(!machine.rounds.must_clear(Tenure::None));
}

#[tokio::test]
async fn a_kernel_without_ipvs_is_said_plainly_and_makes_a_director_ineligible() {
    let mut director = Machine::with(LVS_1, FakeKernel::new(&["eth0"]).without_ipvs());
    let report = director.round(Tenure::None).await;
    assert!(!report.converged);
    let why = report.ineligible.unwrap();
    assert!(why.contains("IPVS") && why.contains("modprobe"), "{why}");

    let mut floating = document();
    floating.services.clear();
    director.fleet = TestFleet::with(floating);
    let report = director.round(Tenure::None).await;
    assert!(report.converged, "VIPs without services need no IPVS");
    assert_eq!(report.ineligible, None);

    let mut real_server = Machine::with(WEB_1, FakeKernel::new(&["eth0"]).without_ipvs());
    let report = real_server.round(Tenure::None).await;
    assert!(report.converged && report.real_server_fault.is_none(), "a real server needs none");
}

#[tokio::test]
async fn a_director_without_a_usable_interface_is_ineligible_and_says_which() {
    let mut machine = Machine::new(LVS_1);
    let applied = machine.fleet.applied();
    let mut seen = links();
    let eth0 = seen.get_mut("eth0").unwrap();
    eth0.carrier = false;
    machine.rounds.run(&applied, Tenure::None, &seen, Look::Part).await;
    assert_eq!(
        machine.rounds.report().ineligible.as_deref(),
        Some("vips/web: interface eth0 has no carrier")
    );
    machine.rounds.run(&applied, Tenure::None, &Links::new(), Look::Part).await;
    assert_eq!(
        machine.rounds.report().ineligible.as_deref(),
        Some("vips/web: this machine has no interface eth0")
    );
}

#[tokio::test]
async fn one_unanswered_question_does_not_make_a_holder_ineligible() {
    let mut machine = Machine::new(LVS_1);
    machine.round(HOLDING).await;
    machine.kernel.state().fail_observation = Some(Errno::ENOBUFS);
    let report = machine.round(HOLDING).await;
    assert!(!report.converged);
    assert_eq!(report.ineligible, None);
    assert!(machine.round(HOLDING).await.converged);
}

#[tokio::test]
async fn a_node_that_is_no_member_touches_nothing() {
    let mut machine = Machine::new(LVS_1);
    machine.round(Tenure::None).await;
    machine.performed();
    machine.rounds.run(&Applied::default(), Tenure::None, &links(), Look::Part).await;
    let report = machine.rounds.report();
    assert!(report.ineligible.is_some() && report.real_server_fault.is_some() && !report.converged);
    assert_eq!(machine.performed(), [""; 0]);
}

#[tokio::test]
async fn leaving_undoes_everything_of_ours_and_nothing_else() {
    let mut machine = Machine::new(LVS_2);
    let (key, service) = foreign();
    let before = {
        let mut kernel = machine.kernel.state();
        kernel.table.as_mut().unwrap().insert(key, service);
        kernel.sysctls.insert(Sysctl("net/ipv4/conf/all/arp_announce".into()), 1);
        kernel.addresses.insert(Address {
            interface: "eth0".into(),
            address: ip(102),
            prefix: 24,
            marked: false,
        });
        (kernel.table.clone(), kernel.addresses.clone(), kernel.sysctls.clone())
    };
    machine.round(HOLDING).await;

    let record = OwnerRecord::below(machine.directory.path());
    let failures = teardown(&mut machine.kernel, &record).await.unwrap();
    assert_eq!(failures, [""; 0]);
    let kernel = machine.kernel.state();
    assert_eq!((kernel.table.clone(), kernel.addresses.clone(), kernel.sysctls.clone()), before);
    assert_eq!(record.load().unwrap(), Owned::default());
}

#[tokio::test]
async fn what_leaving_could_not_undo_stays_in_the_record() {
    let mut machine = Machine::new(LVS_1);
    machine.round(Tenure::None).await;
    let record = OwnerRecord::below(machine.directory.path());
    machine.kernel.fail(1, Errno::EPERM);
    let failures = teardown(&mut machine.kernel, &record).await.unwrap();
    assert!(failures[0].contains("remove service"), "{failures:?}");
    assert_eq!(record.load().unwrap().services.len(), 1);
    assert_eq!(teardown(&mut machine.kernel, &record).await.unwrap(), [""; 0]);
    assert_eq!(record.load().unwrap(), Owned::default());
}

/// The loop, with every channel in the test's hands.
struct Loop {
    _directory: TempDir,
    kernel: FakeKernel,
    orders: std::sync::mpsc::Receiver<Order>,
    applied: watch::Sender<Applied>,
    tenure: watch::Sender<Tenure>,
    outlook: watch::Sender<Outlook>,
    _links: watch::Sender<Links>,
    news: mpsc::Sender<Event>,
    report: watch::Receiver<NodeReport>,
    shutdown: watch::Sender<bool>,
    task: JoinHandle<Result<(), OwnedError>>,
}

impl Loop {
    fn start(own: NodeId) -> Self {
        Self::with(own, document())
    }

    fn with(own: NodeId, document: Document) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kernel = FakeKernel::new(&["eth0"]);
        let (inputs, receiver) = queue().unwrap();
        let (applied, applied_seen) = watch::channel(TestFleet::with(document).applied());
        let (tenure, tenure_seen) = watch::channel(Tenure::None);
        let (outlook, outlook_seen) = watch::channel(Outlook::default());
        let (links, links_seen) = watch::channel(links());
        let (news, news_seen) = mpsc::channel(NEWS);
        let (report, report_seen) = watch::channel(NodeReport::default());
        let (shutdown, shutdown_seen) = watch::channel(false);
        let reconciler = Reconciler {
            own,
            kernel: kernel.clone(),
            record: OwnerRecord::below(directory.path()),
            applied: applied_seen,
            links: links_seen,
            news: news_seen,
            lease: LeaseHandle {
                inputs,
                tenure: tenure_seen,
                outlook: outlook_seen,
                counters: Arc::default(),
                favoured: Favoured::default(),
            },
            guard: None,
            report,
        };
        Self {
            _directory: directory,
            kernel,
            orders: receiver.queue,
            applied,
            tenure,
            outlook,
            _links: links,
            news,
            report: report_seen,
            shutdown,
            task: tokio::spawn(run(reconciler, shutdown_seen)),
        }
    }

    async fn until(&mut self, what: &str, mut holds: impl FnMut(&NodeReport) -> bool) {
        timeout(Duration::from_secs(20), self.report.wait_for(|report| holds(report)))
            .await
            .expect(what)
            .unwrap();
    }

    /// Waits for an order of that kind.
    async fn order(&self, wanted: impl Fn(&Order) -> bool) {
        let wait = async {
            loop {
                match self.orders.try_recv() {
                    Ok(order) if wanted(&order) => return,
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        timeout(Duration::from_secs(20), wait).await.expect("the order comes");
    }
}

#[tokio::test]
async fn the_loop_follows_the_state_and_the_tenure_and_clears_up_at_the_end() {
    let mut fixture = Loop::start(LVS_2);
    fixture.until("the first round", |report| report.converged).await;
    fixture.tenure.send_replace(Tenure::Preparing { epoch: 9 });
    fixture.order(|order| matches!(order, Order::Input(Input::TableReady { epoch: 9 }))).await;
    assert_eq!(fixture.kernel.state().table.as_ref().unwrap().len(), 1, "the table came first");
    fixture.tenure.send_replace(Tenure::Holding { epoch: 9 });

    let mut fleet = TestFleet::new();
    let mut changed = document();
    changed.services[0].scheduler = Scheduler::Rr;
    fleet.apply(changed);
    fixture.applied.send_replace(fleet.applied());
    fixture.until("the second revision", |report| report.converged && report.revision == 2).await;

    // The lease thread ends first.
    fixture.tenure.send_replace(Tenure::None);
    fixture.shutdown.send_replace(true);
    fixture.task.await.unwrap().unwrap();
    assert_eq!(fixture.kernel.state().table.as_ref().unwrap().len(), 0);
}

#[tokio::test]
async fn stopping_a_pure_director_leaves_its_table() {
    let mut fixture = Loop::start(LVS_1);
    fixture.until("the first round", |report| report.converged).await;
    fixture.shutdown.send_replace(true);
    fixture.task.await.unwrap().unwrap();
    assert_eq!(fixture.kernel.state().table.as_ref().unwrap().len(), 1);
}

/// Only a director that has its VIPs on `lo`, quietly, may come to answer for them.
#[tokio::test]
async fn a_director_whose_agent_answers_is_eligible_once_its_vips_are_on_lo() {
    let mut responder = document();
    responder.vips[0].attach = Attach::Responder;
    let mut fixture = Loop::with(LVS_1, responder);
    fixture.until("the first round", |report| report.converged).await;
    assert_eq!(fixture.report.borrow().ineligible, None);
    let on_lo = |fixture: &Loop| {
        let state = fixture.kernel.state();
        state.addresses.iter().any(|seen| seen.interface == "lo" && seen.address == ip(100))
    };
    assert!(on_lo(&fixture));
    assert!(fixture.report.borrow().vips_attached.is_empty(), "it does not hold");

    fixture.outlook.send_modify(|outlook| {
        outlook.answering.insert(ip(100));
    });
    fixture.until("it is said who answers", |report| report.vips_attached == [ip(100)]).await;

    // Taken off a network card, where it was not ours; and off `lo`, where it was.
    let gone =
        |interface: &str| Event::AddressGone { interface: interface.into(), address: ip(100) };
    fixture.news.send(gone("eth0")).await.unwrap();
    fixture.kernel.state().addresses.retain(|seen| seen.address != ip(100));
    fixture.news.send(gone("lo")).await.unwrap();
    fixture.until("it is put back", |report| report.drift_repaired == 1).await;
    assert!(on_lo(&fixture));

    let name = Sysctl("net/ipv4/conf/all/arp_ignore".into());
    fixture.kernel.state().sysctls.remove(&name);
    fixture.until("it may no longer hold", |report| report.ineligible.is_some()).await;
    let why = fixture.report.borrow().ineligible.clone().unwrap();
    assert_eq!(why, "net/ipv4/conf/all/arp_ignore cannot be read");
}

#[tokio::test]
async fn a_vip_taken_off_a_holders_interface_is_drift_and_asked_back_at_once() {
    let mut fixture = Loop::start(LVS_1);
    fixture.until("the first round", |report| report.converged).await;
    let gone = Event::AddressGone { interface: "eth0".into(), address: ip(100) };

    fixture.outlook.send_modify(|outlook| {
        outlook.attached.insert(ip(100));
    });
    fixture.news.send(gone.clone()).await.unwrap();
    fixture.order(|order| matches!(order, Order::Refresh)).await;
    fixture.until("the drift", |report| report.drift_repaired == 1).await;
    assert_eq!(fixture.report.borrow().last_drift, "VIP 192.168.3.100 was taken off eth0");

    // The lease thread's own removal: it says so first.
    fixture.outlook.send_modify(|outlook| outlook.attached.clear());
    fixture.news.send(gone).await.unwrap();
    let taken = async {
        while fixture.news.capacity() < NEWS {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), taken).await.expect("the news is read");
    fixture.outlook.send_modify(|outlook| outlook.faults.push("marker".into()));
    fixture.until("a round after it", |report| report.warnings == ["marker"]).await;
    assert_eq!(fixture.report.borrow().drift_repaired, 1);
}
