//! Four machines on one network, and the plans that make a service of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use lvsmesh_core::command::{Apply, Candidate, Command, Outcome, Readiness};
use lvsmesh_core::model::{
    Attach, Checksum, Coexist, Document, Encapsulation, Fleet, Forwarding, Listen, Marking, NodeId,
    Pool, PoolSource, PortRange, Protocol, RealServer, Role, Scheduler, Service, Vip, Vrrp,
    VrrpVersion,
};
use lvsmesh_core::placement::{NodePlan, place};
use lvsmesh_core::plan::address::{director_fault, real_server_fault};
use lvsmesh_core::plan::{
    Action, Observed, Owned, ServiceKey, ServiceSpec, Sysctl, diff, teardown,
};
use lvsmesh_core::state::State;
use lvsmesh_core::{arp, ndp};
use lvsmesh_kernel::raw::QuestionSocket;
use lvsmesh_kernel::{Errno, Kernel as _, Linux, Scope, chain};
use lvsmesh_tests::lab::Node;
use lvsmesh_tests::{Lab, link, scaled};
use nix::net::if_::if_nametoindex;

/// Where the service is.
const PORT: u16 = 80;
/// Where real servers answer what was translated.
const TRANSLATED: u16 = 8080;
const GUE: u16 = 6080;
const NAMES: [&str; 4] = ["client", "director", "rs-1", "rs-2"];

pub(super) fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, last).into()
}

pub(super) fn v6(last: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, last.into()).into()
}

/// A way of forwarding, and the IP versions of VIP and real servers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    mode: &'static str,
    vip_ipv6: bool,
    real_ipv6: bool,
    attach: Attach,
}

impl Way {
    pub(super) const fn new(mode: &'static str, vip_ipv6: bool, real_ipv6: bool) -> Self {
        Self { mode, vip_ipv6, real_ipv6, attach: Attach::Address }
    }

    /// The same, with VIPs on the directors' `lo`, for which not the kernel answers.
    pub(super) const fn answered(self) -> Self {
        Self { attach: Attach::Responder, ..self }
    }

    pub(super) fn name(self) -> String {
        let version = |ipv6| if ipv6 { "IPv6" } else { "IPv4" };
        let (vip, real) = (version(self.vip_ipv6), version(self.real_ipv6));
        format!("{} {vip} over {real}, {}", self.mode, self.attach.name())
    }

    pub(super) fn forwarding(self) -> Forwarding {
        let checksum = super::checksum(self.real_ipv6);
        match self.mode {
            "dr" => Forwarding::Dr,
            "nat" => Forwarding::Nat,
            "ipip" => Forwarding::Tunnel(Encapsulation::Ipip),
            "gue" => Forwarding::Tunnel(Encapsulation::Gue { port: GUE, checksum }),
            "gre" => Forwarding::Tunnel(Encapsulation::Gre { checksum }),
            other => panic!("no way of forwarding is called {other}"),
        }
    }

    fn vip(self) -> IpAddr {
        if self.vip_ipv6 { v6(100) } else { v4(100) }
    }

    fn gateway(self) -> IpAddr {
        if self.vip_ipv6 { v6(200) } else { v4(200) }
    }

    fn real_port(self) -> u16 {
        if self.forwarding() == Forwarding::Nat { TRANSLATED } else { PORT }
    }
}

/// The machines, the fleet's state, and what each machine's record says.
pub(super) struct Site {
    pub(super) lab: Lab,
    pub(super) state: State,
    way: Way,
    /// Ports that the director marks; none: the service is at a port and has no mark.
    marked: Vec<PortRange>,
    /// Numbers in the lab of the real servers, in the pool's order.
    real_servers: [usize; 2],
    owned: BTreeMap<usize, Owned>,
    /// Machines that answer for the VIPs.
    answering: Mutex<BTreeMap<usize, Answering>>,
    index: u64,
}

impl Site {
    /// A director and two real servers that are nothing else.
    pub(super) fn new(way: Way) -> Self {
        let site =
            Self::build(way, [&[Role::Director], &[Role::RealServer], &[Role::RealServer]], [2, 3]);
        site.claim(1);
        site
    }

    /// Machines 1 to 3 with these roles.
    pub(super) fn build(way: Way, roles: [&[Role]; 3], real_servers: [usize; 2]) -> Self {
        let addresses = [9, 1, 11, 12];
        let machines: Vec<(&str, Ipv4Addr)> = NAMES
            .iter()
            .zip(addresses)
            .map(|(name, last)| (*name, Ipv4Addr::new(10, 77, 0, last)))
            .collect();
        let lab = Lab::new(&machines);
        for (node, last) in lab.nodes().iter().zip(addresses) {
            enable_ipv6(node, last);
        }
        let candidate = |number: usize, roles: &[Role]| Candidate {
            name: NAMES[number].into(),
            roles: roles.iter().copied().collect(),
            addresses: vec![v4(addresses[number]), v6(addresses[number])],
            grpc: SocketAddr::new(v4(addresses[number]), 7400),
            lease: SocketAddr::new(v4(addresses[number]), 7401),
        };
        let state = State::init("modes", candidate(1, roles[0]));
        let owned = BTreeMap::new();
        let answering = Mutex::default();
        let mut site =
            Self { lab, state, way, marked: vec![], real_servers, owned, answering, index: 0 };
        site.run(Command::Admit(candidate(2, roles[1])));
        site.run(Command::Admit(candidate(3, roles[2])));
        for number in [1, 2, 3] {
            let node = site.node(number);
            // The worst case for tunnels: reverse-path checks on everywhere.
            for (name, value) in [("all/rp_filter", 1), ("default/rp_filter", 1)] {
                write(node, &format!("net/ipv4/conf/{name}"), value);
            }
            serve(node, PORT);
            serve(node, TRANSLATED);
        }
        site
    }

    /// Makes the service one of a firewall mark that the director gives to packets for the ports on which real servers listen.
    pub(super) fn mark(&mut self) {
        self.marked = [PORT, TRANSLATED].map(|port| PortRange { first: port, last: port }).into();
    }

    fn run(&mut self, command: Command) {
        self.index += 1;
        let outcome = self.state.apply(self.index, command);
        assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    }

    pub(super) fn node(&self, number: usize) -> &Node {
        self.lab.node(NAMES[number])
    }

    /// Puts the VIPs onto that machine's interface, or has it answer for them, as its lease thread would.
    pub(super) fn claim(&self, number: usize) {
        if self.way.attach == Attach::Responder {
            let answering = Answering::start(self.node(number), self.vips());
            self.answering.lock().expect("nobody panics with it").insert(number, answering);
            return;
        }
        self.perform(number, |address| Action::AddAddress { interface: "eth0".into(), address });
    }

    /// Takes them off, or has it answer no more.
    pub(super) fn release(&self, number: usize) {
        if self.way.attach == Attach::Responder {
            self.answering.lock().expect("nobody panics with it").remove(&number);
            return;
        }
        self.perform(number, |address| Action::RemoveAddress { interface: "eth0".into(), address });
    }

    fn perform(&self, number: usize, action: fn(IpAddr) -> Action) {
        let vips = self.vips();
        inside(self.node(number), async |kernel| {
            for action in vips.map(action) {
                let outcome = kernel.perform(&action).await;
                outcome.unwrap_or_else(|error| panic!("{action}: {}", chain(&error)));
            }
        });
    }

    fn vips(&self) -> [IpAddr; 2] {
        [self.way.vip(), self.way.gateway()]
    }

    /// The schedulers that this kernel has, found out by asking for each.
    pub(super) fn schedulers(&self) -> Vec<Scheduler> {
        inside(self.node(1), async |kernel| {
            let key = ServiceKey::Address { protocol: Protocol::Tcp, address: v4(77), port: 7 };
            let mut offered = Vec::new();
            for scheduler in Scheduler::ALL {
                let spec = ServiceSpec {
                    scheduler: scheduler.name().into(),
                    flags: 0,
                    timeout: 0,
                    netmask: u32::MAX,
                    engine: None,
                };
                match kernel.perform(&Action::AddService(key, spec)).await {
                    Ok(()) => {
                        kernel.perform(&Action::RemoveService(key)).await.expect("it is there");
                        offered.push(scheduler);
                    }
                    Err(error) => assert_eq!(error.errno(), Some(Errno::ENOENT), "{error}"),
                }
            }
            offered
        })
    }

    fn document(&self, scheduler: Scheduler, weights: [u32; 2]) -> Document {
        let way = self.way;
        let vip = |name: &str, vrid, address| Vip {
            name: name.into(),
            addresses: vec![address],
            interface: "eth0".into(),
            excluded: 0,
            attach: way.attach,
            garp: lvsmesh_core::model::Garp::default(),
            arbiters: Vec::new(),
            preference: vec![],
            vrrp: Vrrp {
                vrid,
                version: VrrpVersion::V3,
                advert_interval: Duration::from_secs(1),
                priority: 200,
                auth: None,
                checksum: Checksum::Pseudo,
                coexist: Coexist::Yield,
                peers: lvsmesh_core::model::Peers::Multicast,
            },
        };
        let last = [9, 1, 11, 12];
        let real_servers = self.real_servers.iter().zip(weights).map(|(&number, weight)| {
            let address = if way.real_ipv6 { v6(last[number]) } else { v4(last[number]) };
            let port = if self.marked.is_empty() { way.real_port() } else { 0 };
            RealServer::new(address, port, weight)
        });
        let pool = Pool {
            name: "web".into(),
            source: PoolSource::Listed(real_servers.collect()),
            check: None,
            min_healthy: 0,
        };
        let listen = match self.marked.as_slice() {
            [] => Listen::Port { protocol: Protocol::Tcp, port: PORT },
            ports => {
                let marking = Marking { protocol: Protocol::Tcp, ports: ports.to_vec() };
                Listen::Mark { mark: 7, marking: Some(marking) }
            }
        };
        let service = Service {
            listen,
            scheduler,
            forwarding: way.forwarding(),
            gateway: (way.forwarding() == Forwarding::Nat).then(|| "inside".into()),
            ..Service::new("web", "web", PORT, "web")
        };
        Document {
            fleet: Fleet { name: "modes".into(), ..Fleet::default() },
            vips: vec![vip("web", 51, way.vip()), vip("inside", 52, way.gateway())],
            pools: vec![pool],
            services: vec![service],
        }
    }

    /// Gives the fleet its document and carries out every machine's plan, machine 1 holding.
    pub(super) fn apply(&mut self, scheduler: Scheduler, weights: [u32; 2]) {
        self.want(scheduler, weights);
        for number in [2, 3, 1] {
            self.reconcile(number, number == 1);
        }
        // Directors forward to those that have confirmed.
        self.reconcile(1, true);
        let ready = lvsmesh_core::placement::explain(&self.state);
        assert!(ready.iter().all(|service| service.ready() == 2), "{ready:#?}");
    }

    pub(super) fn want(&mut self, scheduler: Scheduler, weights: [u32; 2]) {
        let document = self.document(scheduler, weights);
        self.run(Command::Apply(Apply {
            document,
            expected_revision: None,
            author: "operator/ann".into(),
            message: String::new(),
            unix_ms: 0,
        }));
    }

    fn plan(&self, number: usize, holding: bool) -> NodePlan {
        place(&self.state, id(number), holding)
    }

    /// Does what an agent's rounds do: observe, plan, perform, read back, report; a second time if the first has made something possible.
    pub(super) fn reconcile(&mut self, number: usize, holding: bool) {
        let plan = self.plan(number, holding);
        let mut owned = self.owned.remove(&number).unwrap_or_default();
        let member = self.state.member(id(number)).expect("it was admitted");
        let (director, real_server) = (member.is_director(), member.is_real_server());
        let after = inside(self.node(number), async |kernel| {
            let scope = Scope::of(director, &plan, &owned);
            for _ in 0..2 {
                let observed = kernel.observe(&scope).await;
                let observed = observed.unwrap_or_else(|e| panic!("{}", chain(&e)));
                let work = diff(&observed, &plan, &owned);
                for op in &work.ops {
                    let outcome = kernel.perform(&op.action).await;
                    outcome.unwrap_or_else(|e| {
                        panic!("{}: {}: {:?}", op.action, chain(&e), e.hint());
                    });
                }
                owned = work.settled;
            }
            let after = kernel.observe(&scope).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
            let left = diff(&after, &plan, &owned);
            assert_eq!((left.ops, left.withheld), (vec![], vec![]), "it is read back as planned");
            after
        });
        self.owned.insert(number, owned);
        assert_eq!(director_fault(&after, &plan.director), None, "{} may hold", NAMES[number]);
        if real_server {
            let fault = real_server_fault(&after, &plan.real_server);
            assert_eq!(fault, None, "{} is ready", NAMES[number]);
            let digest = plan.real_server.digest();
            self.run(Command::Ready(Readiness { node: id(number), digest, fault: None }));
        }
    }

    /// Undoes everything on every machine, as `lvs-agent leave` does.
    pub(super) fn leave(&mut self) {
        for (number, owned) in std::mem::take(&mut self.owned) {
            inside(self.node(number), async |kernel| {
                let scope = Scope::of(true, &NodePlan::default(), &owned);
                let observed = kernel.observe(&scope).await.expect("it can be read");
                let work = teardown(
                    &Observed { addresses: without_claims(&observed), ..observed },
                    &owned,
                );
                for op in &work.ops {
                    let outcome = kernel.perform(&op.action).await;
                    outcome.unwrap_or_else(|e| panic!("{}: {}", op.action, chain(&e)));
                }
                assert_eq!(work.settled, Owned::default());
            });
        }
    }

    /// Everything that a plan for this site could touch, on every machine.
    pub(super) fn observe_all(&self) -> Vec<Observed> {
        let sysctls = [
            "net/ipv4/ip_forward",
            "net/ipv4/conf/all/send_redirects",
            "net/ipv4/conf/eth0/send_redirects",
            "net/ipv4/conf/all/arp_ignore",
            "net/ipv4/conf/all/arp_announce",
            "net/ipv4/conf/lo/arp_ignore",
            "net/ipv4/conf/lo/arp_announce",
            "net/ipv4/conf/all/rp_filter",
            "net/ipv6/conf/all/forwarding",
        ];
        let scope = Scope {
            ipvs: true,
            sysctls: sysctls.iter().map(|name| Sysctl((*name).into())).collect(),
            paths: true,
            gue: true,
            marks: true,
            ..Scope::default()
        };
        let observe = |number| {
            inside(self.node(number), async |kernel| {
                let mut seen =
                    kernel.observe(&scope).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
                // Whether the module is loaded is no matter of a namespace's.
                seen.paths.ports.get_or_insert_default();
                seen
            })
        };
        [1, 2, 3].into_iter().map(observe).collect()
    }

    /// Connects to the service again and again; returns which real servers answered, by their place in the pool.
    pub(super) fn answers(&self, count: usize, open: bool) -> io::Result<Vec<usize>> {
        self.answers_at(&vec![PORT; count], open)
    }

    /// The same, of one port after another.
    pub(super) fn answers_at(&self, ports: &[u16], open: bool) -> io::Result<Vec<usize>> {
        let vip = self.way.vip();
        let names = self.client(move || {
            let mut kept = Vec::new();
            let mut names = Vec::new();
            for port in ports {
                let (name, connection) = ask(SocketAddr::new(vip, *port))?;
                names.push(name);
                if open {
                    kept.push(connection);
                }
            }
            Ok::<_, io::Error>(names)
        })?;
        Ok(names
            .iter()
            .map(|name| {
                let place = self.real_servers.iter().position(|&number| NAMES[number] == *name);
                place.unwrap_or_else(|| panic!("{name} answered, which is no real server"))
            })
            .collect())
    }

    /// What the machines' kernels counted: where packets went, and where they got lost.
    pub(super) fn counters(&self) -> String {
        let mut text = String::new();
        for (number, name) in NAMES.iter().enumerate() {
            let lines = self.node(number).namespace.inside(|| {
                let read = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
                let devices = read("dev").unwrap_or_default();
                let snmp = read("snmp6").unwrap_or_default();
                let counted = snmp.lines().filter(|line| !line.ends_with("\t0"));
                devices.lines().skip(2).chain(counted).map(str::to_owned).collect::<Vec<_>>()
            });
            text += &format!("--- {name}\n{}\n", lines.join("\n"));
        }
        text
    }

    fn client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.node(0).namespace.inside(work)
    }
}

/// Answers ARP requests and neighbour solicitations for the VIPs on `eth0` of a machine, until it is dropped.
struct Answering {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Answering {
    fn start(node: &Node, vips: [IpAddr; 2]) -> Self {
        let (mut v4, mut v6) = (vec![], vec![]);
        for vip in vips {
            match vip {
                IpAddr::V4(vip) => v4.push(vip),
                IpAddr::V6(vip) => v6.push(vip),
            }
        }
        let groups: BTreeSet<Ipv6Addr> = v6.iter().copied().map(ndp::solicited_node).collect();
        let (arp, ndp) = node.namespace.inside(|| {
            let index = if_nametoindex("eth0").expect("every machine has one");
            let arp = QuestionSocket::arp(index, &v4).unwrap_or_else(|e| panic!("{}", chain(&e)));
            let ndp = QuestionSocket::ndp(index, &v6, &groups);
            (arp, ndp.unwrap_or_else(|e| panic!("{}", chain(&e))))
        });
        for socket in [&arp, &ndp] {
            socket.listen().expect("a filter is attached");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while !stopped.load(Ordering::Relaxed) {
                while let Ok(Some(frame)) = arp.receive(&mut buffer) {
                    let mac = arp.hardware_address().expect("it has one").expect("of Ethernet");
                    let asked = arp::Packet::decode(frame).expect("the kernel passes nothing else");
                    if let Some(answer) = asked.answer(mac) {
                        arp.send(&answer).expect("eth0 is up");
                    }
                }
                while let Ok(Some(frame)) = ndp.receive(&mut buffer) {
                    let mac = ndp.hardware_address().expect("it has one").expect("of Ethernet");
                    let asked = ndp::Solicitation::decode(frame).expect("a right one");
                    ndp.send(&asked.answer(mac, true)).expect("eth0 is up");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn id(number: usize) -> NodeId {
    NodeId(number as u64)
}

/// The addresses without those that the test itself has claimed.
fn without_claims(observed: &Observed) -> BTreeSet<lvsmesh_core::plan::Address> {
    observed.addresses.iter().filter(|address| address.interface != "eth0").cloned().collect()
}

/// Runs requests to a machine's kernel.
fn inside<T: Send, F>(node: &Node, work: F) -> T
where
    F: AsyncFnOnce(&mut Linux) -> T + Send,
{
    node.namespace.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime needs only descriptors");
        runtime.block_on(async {
            let mut kernel = Linux::open().unwrap_or_else(|error| panic!("{}", chain(&error)));
            work(&mut kernel).await
        })
    })
}

fn write(node: &Node, name: &str, value: i64) {
    node.namespace.inside(|| {
        std::fs::write(format!("/proc/sys/{name}"), value.to_string())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    });
}

/// Gives a machine an IPv6 address at once, without the wait for another one that might have it.
fn enable_ipv6(node: &Node, last: u8) {
    for interface in ["all", "default", "eth0"] {
        write(node, &format!("net/ipv6/conf/{interface}/accept_dad"), 0);
    }
    for interface in ["default", "all", "lo", "eth0"] {
        write(node, &format!("net/ipv6/conf/{interface}/disable_ipv6"), 0);
    }
    let address = v6(last);
    link::request(&node.namespace, "add an IPv6 address", async |handle| {
        use futures_util::TryStreamExt as _;
        let eth0 = handle.link().get().match_name("eth0".to_owned()).execute().try_next().await?;
        let index = eth0.map(|link| link.header.index).ok_or(rtnetlink::Error::RequestFailed)?;
        handle.address().add(index, address, 64).execute().await
    });
}

/// Tells everybody who connects the machine's name, and keeps the connection until the other end closes it.
fn serve(node: &Node, port: u16) {
    let listener = node
        .namespace
        .inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))
        .unwrap_or_else(|error| panic!("listen on port {port} of {}: {error}", node.name));
    let name = node.name.clone();
    // Ends with the test program: what it holds is a descriptor.
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let name = name.clone();
            std::thread::spawn(move || {
                use std::io::Write as _;
                if writeln!(connection, "{name}").is_ok() {
                    let _ended = connection.read(&mut [0; 1]);
                }
            });
        }
    });
}

/// The name of the machine that answered, and the connection.
fn ask(to: SocketAddr) -> io::Result<(String, TcpStream)> {
    let patience = scaled(Duration::from_secs(2));
    let mut connection = TcpStream::connect_timeout(&to, patience)?;
    connection.set_read_timeout(Some(patience))?;
    let mut name = Vec::new();
    let mut byte = [0];
    loop {
        connection.read_exact(&mut byte)?;
        if byte == *b"\n" {
            break;
        }
        name.extend(byte);
    }
    Ok((String::from_utf8_lossy(&name).into_owned(), connection))
}
