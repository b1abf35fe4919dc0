//! The thread on a real segment: a holder in one network namespace, a witness in another, a cable between them.

mod responder;
mod without;

use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use lvsmesh_core::arp::{BROADCAST, Operation, Packet, gratuitous};
use lvsmesh_core::lease::{GateRequest, Message, Profile, RaftView, Standing};
use lvsmesh_core::model::{Coexist, Garp, Peers};
use lvsmesh_core::time::Mono;
use lvsmesh_core::vrrp::{Advert, GROUP};
use lvsmesh_kernel::raw::{FrameListener, FrameSender, LinkTarget, VrrpSocket};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use tempfile::TempDir;

use super::*;
use crate::fixtures::{ip, vip};
use crate::raft::Verdict;

const PATIENCE: Duration = Duration::from_secs(20);
const OWN: NodeId = NodeId(1);
const THIEF: [u8; 6] = [2, 0, 0, 0, 0, 0x66];

fn ip_command(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What was seen on the cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Of a VIP by the last byte of its address, and where it says that is.
    Announcement {
        vip: u8,
        mac: [u8; 6],
    },
    /// Somebody asks for the VIP, who has no address.
    Question,
    /// To a question for the VIP.
    Answer,
    Advert {
        priority: u8,
    },
}

/// The other end of the cable.
struct Neighbour {
    seen: Receiver<Seen>,
    say: Sender<Say>,
}

/// What the other end is to do.
#[derive(Clone, Copy, Debug)]
enum Say {
    /// Advertise with that priority.
    Advert(u8),
    /// The same ten times a second, or no more.
    Keep(Option<u8>),
    /// Announce the VIP as its own, without having it.
    Announce,
    /// Ask by ARP who has the VIP.
    Ask,
}

impl Neighbour {
    /// Makes a namespace for this thread and one for the neighbour, with `eth0` here (.101) and `eth0` there (.3).
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let (tid_sent, tid) = channel();
        let (ready_sent, ready) = channel();
        let (cable_sent, cable) = channel::<()>();
        let (seen_sent, seen) = channel();
        let (say, said) = channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tid_sent.send(gettid()).unwrap();
            cable.recv().unwrap();
            ip_command("link set peer0 name eth0");
            ip_command("addr add 192.168.3.3/24 dev eth0");
            ip_command("link set eth0 up");
            let index = if_nametoindex("eth0").unwrap();
            let arp = FrameListener::arp(index).unwrap();
            let vrrp = VrrpSocket::open("eth0", index, Some([192, 168, 3, 3].into())).unwrap();
            ready_sent.send(()).unwrap();
            watch_cable(&arp, &vrrp, &seen_sent, &said);
        });
        let tid = tid.recv().unwrap();
        ip_command("link set lo up");
        ip_command("link add eth0 type veth peer name peer0");
        ip_command(&format!("link set peer0 netns {tid}"));
        ip_command("addr add 192.168.3.101/24 dev eth0");
        ip_command("link set eth0 up");
        cable_sent.send(()).unwrap();
        ready.recv_timeout(PATIENCE).unwrap();
        Self { seen, say }
    }

    /// Waits until this is seen.
    fn until(&self, wanted: Seen) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.seen.recv_timeout(left).unwrap_or_else(|_| panic!("{wanted:?} was not seen"))
                == wanted
            {
                return;
            }
        }
    }

    /// Waits for an announcement of which something holds.
    fn announced(&self, holds: impl Fn(u8, [u8; 6]) -> bool) -> u8 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let seen = self.seen.recv_timeout(left).expect("an announcement");
            if let Seen::Announcement { vip, mac } = seen
                && holds(vip, mac)
            {
                return vip;
            }
        }
    }

    /// Nothing at all for a while.
    fn silent(&self) {
        while self.seen.try_recv().is_ok() {}
        let heard = self.seen.recv_timeout(Duration::from_millis(1200));
        assert_eq!(heard, Err(RecvTimeoutError::Timeout));
    }
}

fn watch_cable(arp: &FrameListener, vrrp: &VrrpSocket, seen: &Sender<Seen>, said: &Receiver<Say>) {
    let own = std::net::Ipv4Addr::new(192, 168, 3, 3);
    let mut buffer = [0; 2048];
    let advertise = |priority| {
        let advert = Advert { priority, ..Advert::of(&vip()) };
        vrrp.send(&advert.encode(own, GROUP, vip().vrrp.checksum)).unwrap();
    };
    let (mut kept, mut last) = (None, Instant::now());
    loop {
        if let Some(priority) = kept
            && last.elapsed() >= Duration::from_millis(100)
        {
            last = Instant::now();
            advertise(priority);
        }
        match said.recv_timeout(Duration::from_millis(5)) {
            Ok(said @ (Say::Announce | Say::Ask)) => {
                let index = if_nametoindex("eth0").unwrap();
                let target = LinkTarget::new(index).unwrap();
                let vip = [192, 168, 3, 100].into();
                let question = Packet {
                    operation: Operation::Request,
                    sender_mac: [0x02, 0, 0, 0, 0, 3],
                    sender: own,
                    target_mac: [0; 6],
                    target: vip,
                };
                let frame = if matches!(said, Say::Ask) {
                    question.encode(BROADCAST)
                } else {
                    gratuitous(THIEF, vip)
                };
                FrameSender::open().unwrap().send(&target, &frame).unwrap();
            }
            Ok(Say::Keep(priority)) => kept = priority,
            Ok(Say::Advert(priority)) => advertise(priority),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Ok(Some(frame)) = arp.receive(&mut buffer) {
            let packet = Packet::decode(frame).unwrap();
            let [.., vip] = packet.target.octets();
            if packet.operation == Operation::Reply && IpAddr::V4(packet.sender) == ip(100) {
                let _ = seen.send(Seen::Answer);
            } else if packet.is_gratuitous() && vip >= 100 {
                let _ = seen.send(Seen::Announcement { vip, mac: packet.sender_mac });
            } else if packet.sender.is_unspecified() && vip == 100 {
                let _ = seen.send(Seen::Question);
            }
        }
        while let Ok(Some(packet)) = vrrp.receive(&mut buffer) {
            let advert =
                Advert::decode(packet.payload, packet.source, packet.destination).unwrap().advert;
            let _ = seen.send(Seen::Advert { priority: advert.priority });
        }
    }
}

/// The thread under test, with a stand-in for Raft that elects it.
struct Holder {
    _run_dir: TempDir,
    handle: LeaseHandle,
    thread: JoinHandle<()>,
    verdicts: Receiver<Verdict>,
}

impl Holder {
    fn start() -> Self {
        let run_dir = tempfile::tempdir().unwrap();
        let (inputs, receiver) = queue().unwrap();
        let (tell, verdicts) = channel();
        let config = LeaseThreadConfig {
            own: OWN,
            fleet: "blue".into(),
            term: 0,
            listen: "127.0.0.1:0".parse().unwrap(),
            key: LeaseKey { id: 1, secret: [7; 32] },
            timing: Profile::Relaxed.timing(),
            run_dir: run_dir.path().to_owned(),
            voted_before: false,
            realtime: false,
            gate: false,
            guard: None,
            inputs,
        };
        let tell = Box::new(move |verdict| {
            let _ = tell.send(verdict);
        });
        let (handle, thread) = thread::start(config, receiver, tell).unwrap();
        Self { _run_dir: run_dir, handle, thread, verdicts }
    }

    fn verdict(&self, wanted: Verdict) {
        loop {
            if self.verdicts.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {wanted:?}"))
                == wanted
            {
                return;
            }
        }
    }

    /// Waits until the tenure is this. The thread under test is no task, so there is nothing else to await.
    fn tenure(&self, wanted: Tenure) {
        let mut seen = self.handle.tenure.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let wait = async {
            tokio::time::timeout(PATIENCE, seen.wait_for(|now| *now == wanted)).await.is_ok()
        };
        assert!(runtime.block_on(wait), "{wanted:?}: {:?}", self.handle.tenure.borrow());
    }

    /// A lone voter: asks, elects itself, holds.
    fn elect(&self) {
        self.elect_for(vip());
    }

    /// The same, for this group.
    fn elect_for(&self, vip: Vip) {
        let inputs = &self.handle.inputs;
        inputs.order(Order::Vips(vec![vip]));
        inputs.send(Input::Voters([OWN].into()));
        inputs.send(Input::Standing(Standing { eligible: true, rank: 0, witness: false }));
        self.verdict(Verdict::Campaign);
        inputs.send(Input::Gate(GateRequest { ticket: 5, candidate: OWN, term: 1, binding: true }));
        self.verdict(Verdict::Pass(5));
        inputs.send(Input::Raft(RaftView { term: 1, leader: Some(OWN), settled: true }));
        self.tenure(Tenure::Preparing { epoch: 1 });
        assert!(!attached(), "not before the table stands");
        inputs.send(Input::TableReady { epoch: 1 });
        self.tenure(Tenure::Holding { epoch: 1 });
    }

    fn stop(self) {
        self.handle.inputs.order(Order::Stop);
        self.thread.join().unwrap();
        assert_eq!(*self.handle.tenure.borrow(), Tenure::None);
    }
}

/// Whether the VIP is on `eth0` of this thread's namespace.
fn attached() -> bool {
    ip_command("-o -4 addr show dev eth0").contains("192.168.3.100/32")
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_holder_attaches_advertises_announces_and_lets_go_with_a_goodbye() {
    let neighbour = Neighbour::new();
    let holder = Holder::start();
    holder.elect();
    wait_until("the VIP comes", attached);
    let shown = ip_command("-d -4 addr show dev eth0");
    assert!(shown.contains("valid_lft 2sec") || shown.contains("valid_lft 1sec"), "{shown}");
    neighbour.until(Seen::Advert { priority: 200 });
    neighbour.announced(|_, _| true);

    // Someone takes it off: it comes back by itself.
    ip_command("addr del 192.168.3.100/32 dev eth0");
    wait_until("the VIP comes back", attached);

    let counters = Arc::clone(&holder.handle.counters);
    holder.stop();
    neighbour.until(Seen::Advert { priority: 0 });
    assert!(!attached());
    neighbour.silent();
    assert_eq!((counters.claims.get(), counters.releases.get()), (1, 1));
    assert_eq!((counters.withheld.get(), counters.emission_errors.get()), (0, 0));
}

#[test]
fn a_deposed_holder_is_silent_at_once_and_says_no_goodbye() {
    let neighbour = Neighbour::new();
    let holder = Holder::start();
    holder.elect();
    neighbour.until(Seen::Advert { priority: 200 });
    let next = RaftView { term: 2, leader: Some(NodeId(2)), settled: false };
    holder.handle.inputs.send(Input::Raft(next));
    holder.tenure(Tenure::None);
    assert!(!attached());
    neighbour.silent();
    holder.stop();
}

#[test]
fn a_holder_keeps_silent_beside_a_higher_foreign_master_and_resumes_after_it() {
    let neighbour = Neighbour::new();
    let holder = Holder::start();
    holder.elect();
    neighbour.until(Seen::Advert { priority: 200 });

    neighbour.say.send(Say::Advert(250)).unwrap();
    wait_until("the VIP goes", || !attached());
    wait_until("an operator is told", || {
        holder.handle.outlook.borrow().foreign.iter().any(|foreign| foreign.yielding)
    });
    assert_eq!(*holder.handle.tenure.borrow(), Tenure::Holding { epoch: 1 }, "the lease stays");
    assert!(holder.handle.outlook.borrow().attached.is_empty());
    neighbour.silent();

    neighbour.say.send(Say::Advert(0)).unwrap();
    neighbour.until(Seen::Advert { priority: 200 });
    wait_until("the VIP is back", attached);

    // A lower one is answered at once, and then some.
    let before = holder.handle.counters.garps_sent.get();
    neighbour.say.send(Say::Advert(100)).unwrap();
    wait_until("it is answered", || holder.handle.counters.garps_sent.get() > before + 1);
    assert!(attached());
    holder.stop();
}

#[test]
fn a_new_hardware_address_is_in_the_next_announcement() {
    let neighbour = Neighbour::new();
    let holder = Holder::start();
    holder.elect();
    neighbour.announced(|vip, _| vip == 100);
    let moved = [2, 0, 0, 0, 0, 0x77];
    ip_command("link set eth0 address 02:00:00:00:00:77");
    // What was sent before that has arrived.
    std::thread::sleep(Duration::from_millis(50));
    while neighbour.seen.try_recv().is_ok() {}
    // It is read when it is sent: not even the first of the next announcements has the old one.
    neighbour.announced(|_, mac| {
        assert_eq!(mac, moved);
        true
    });
    wait_until("the VIP stays", attached);
    holder.stop();
}

#[test]
fn an_announcement_by_another_is_answered() {
    let neighbour = Neighbour::new();
    let holder = Holder::start();
    let once = Garp { repeat: 1, refresh: Duration::ZERO, ..Garp::default() };
    holder.elect_for(Vip { garp: once, ..vip() });
    neighbour.announced(|_, _| true);
    neighbour.say.send(Say::Announce).unwrap();
    neighbour.announced(|vip, mac| vip == 100 && mac != THIEF);
    assert!(attached());
    assert_eq!(holder.handle.counters.sightings.get(), 1);
    holder.stop();
}

#[test]
fn announcements_of_one_interface_keep_their_distance_and_leave_nobody_out() {
    let neighbour = Neighbour::new();
    let holder = Holder::start();
    let interval = Duration::from_millis(400);
    let mut group = vip();
    group.addresses.extend([ip(110), ip(120)]);
    group.garp = Garp { repeat: 1, refresh: Duration::ZERO, interval };
    holder.elect_for(group);
    let (mut vips, mut moments) = (Vec::new(), Vec::new());
    while vips.len() < 3 {
        vips.push(neighbour.announced(|_, _| true));
        moments.push(Instant::now());
    }
    assert_eq!(vips, [100, 110, 120]);
    // Whoever reads late sees them closer together than they were sent, but not all at once.
    assert!(moments[2] - moments[0] >= interval, "{moments:?}");
    holder.stop();
}

#[test]
fn a_lower_foreign_master_is_contested_by_adverts_before_anything_is_claimed() {
    let neighbour = Neighbour::new();
    let holder = Holder::start();
    let mut group = vip();
    group.vrrp.coexist = Coexist::Contest;
    holder.handle.inputs.order(Order::Vips(vec![group.clone()]));
    neighbour.say.send(Say::Keep(Some(100))).unwrap();
    wait_until("it is heard", || {
        holder.handle.outlook.borrow().foreign.iter().any(|foreign| foreign.priority == 100)
    });
    holder.elect_for(group);
    neighbour.until(Seen::Question);
    neighbour.until(Seen::Advert { priority: 200 });
    assert!(!attached(), "by adverts alone");
    assert_eq!(holder.handle.counters.garps_sent.get(), 0);
    // It falls silent, and that is that.
    neighbour.say.send(Say::Keep(None)).unwrap();
    neighbour.announced(|vip, _| vip == 100);
    wait_until("the VIP comes", attached);
    holder.stop();
}

#[test]
fn adverts_by_unicast_go_to_directors_as_they_come_and_to_nobody_without() {
    let neighbour = Neighbour::new();
    let holder = Holder::start();
    let mut group = vip();
    group.vrrp.peers = Peers::Unicast(vec![]);
    holder.elect_for(group);
    wait_until("the VIP comes", attached);
    wait_until("it is said that nobody hears it", || {
        holder.handle.outlook.borrow().faults.iter().any(|fault| fault.contains("go to nobody"))
    });
    while neighbour.seen.try_recv().is_ok() {}
    holder.handle.inputs.order(Order::Directors(vec![[ip(3)].into()]));
    neighbour.until(Seen::Advert { priority: 200 });
    assert_eq!(holder.handle.outlook.borrow().faults, Vec::<String>::new());
    holder.stop();
    neighbour.until(Seen::Advert { priority: 0 });
}

#[test]
fn a_master_that_was_there_first_is_yielded_to_whatever_its_priority() {
    let neighbour = Neighbour::new();
    let holder = Holder::start();
    holder.handle.inputs.order(Order::Vips(vec![vip()]));
    neighbour.say.send(Say::Keep(Some(1))).unwrap();
    wait_until("it is heard", || !holder.handle.outlook.borrow().foreign.is_empty());
    holder.elect();
    neighbour.silent();
    assert!(!attached());
    neighbour.say.send(Say::Keep(None)).unwrap();
    neighbour.say.send(Say::Advert(0)).unwrap();
    wait_until("the VIP comes", attached);
    holder.stop();
}

#[test]
fn vips_change_under_a_lease_without_taking_off_what_stays() {
    let _neighbour = Neighbour::new();
    let holder = Holder::start();
    holder.elect();
    let mut more = vip();
    more.addresses.push(ip(110));
    holder.handle.inputs.order(Order::Vips(vec![more]));
    let both = || {
        let shown = ip_command("-o -4 addr show dev eth0");
        shown.contains("192.168.3.100/32") && shown.contains("192.168.3.110/32")
    };
    wait_until("both are there", both);
    holder.handle.inputs.order(Order::Vips(vec![]));
    wait_until("none is", || !ip_command("-o -4 addr show dev eth0").contains("/32"));
    assert_eq!(
        *holder.handle.tenure.borrow(),
        Tenure::Holding { epoch: 1 },
        "a lease needs no VIP"
    );
    holder.stop();
}

#[test]
fn an_interface_that_is_missing_is_named_and_used_when_it_comes() {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
    ip_command("link set lo up");
    let holder = Holder::start();
    let inputs = &holder.handle.inputs;
    inputs.order(Order::Vips(vec![vip()]));
    wait_until("it is named", || {
        holder.handle.outlook.borrow().faults == ["vips/web: this machine has no interface eth0"]
    });
    ip_command("link add eth0 type veth peer name peer0");
    ip_command("addr add 192.168.3.101/24 dev eth0");
    ip_command("link set peer0 up");
    ip_command("link set eth0 up");
    inputs.order(Order::Refresh);
    wait_until("it is used", || holder.handle.outlook.borrow().faults.is_empty());
    holder.elect();
    wait_until("the VIP comes", attached);
    holder.stop();
}
