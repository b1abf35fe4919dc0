//! The agent answers for VIPs that the kernel has on `lo`: to whom, what, and when not.

use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr};

use lvsmesh_core::arp::Mac;
use lvsmesh_core::model::{Attach, VrrpVersion};
use lvsmesh_core::ndp::{self, Advertisement};
use lvsmesh_kernel::clock::raw_now;

use super::super::responder::{Answer, Responder};
use super::super::segment::resolve;
use super::without::policy;
use super::*;

const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 100);
const VIP6: &str = "fd00:3::64";
const ASKER: Mac = [0x02, 0, 0, 0, 0, 9];
const HERE: Mac = [0x02, 0, 0, 0, 0, 0x65];
/// Long enough for an answer that would come to have come.
const AWHILE: Duration = Duration::from_millis(300);

/// A machine beside the holder's that asks, with a packet socket, in a namespace of its own thread.
struct Asker {
    ask: Sender<Vec<u8>>,
    heard: Receiver<Vec<u8>>,
}

impl Asker {
    /// Makes a namespace for this thread, with the VIPs on a quiet `lo`, and one for the asker; `eth0` in both.
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let (tid_sent, tid) = channel();
        let (cable_sent, cable) = channel::<()>();
        let (ready_sent, ready) = channel();
        let (ask, asked) = channel::<Vec<u8>>();
        let (heard_sent, heard) = channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tid_sent.send(gettid()).unwrap();
            cable.recv().unwrap();
            ip_command("link set peer0 name eth0");
            ip_command("link set eth0 up");
            let index = if_nametoindex("eth0").unwrap();
            let listener = FrameListener::arp(index).unwrap();
            // All of IPv6, by the same means.
            let listener6 = nix::sys::socket::socket(
                nix::sys::socket::AddressFamily::Packet,
                nix::sys::socket::SockType::Raw,
                nix::sys::socket::SockFlag::SOCK_NONBLOCK,
                nix::sys::socket::SockProtocol::EthAll,
            )
            .unwrap();
            let (sender, target) = (FrameSender::open().unwrap(), LinkTarget::new(index).unwrap());
            ready_sent.send(()).unwrap();
            let mut buffer = [0; 2048];
            loop {
                match asked.recv_timeout(Duration::from_millis(2)) {
                    Ok(frame) => sender.send(&target, &frame).unwrap(),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                while let Ok(Some(frame)) = listener.receive(&mut buffer) {
                    drop(heard_sent.send(frame.to_vec()));
                }
                while let Ok(length) = nix::unistd::read(&listener6, &mut buffer) {
                    if buffer[12..14] == ndp::ETHERTYPE.to_be_bytes() {
                        drop(heard_sent.send(buffer[..length].to_vec()));
                    }
                }
            }
        });
        let tid = tid.recv().unwrap();
        for (name, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{name}"), value).unwrap();
        }
        ip_command("link set lo up");
        ip_command("addr add 192.168.3.100/32 dev lo scope host");
        ip_command(&format!("addr add {VIP6}/128 dev lo nodad"));
        ip_command("link add eth0 type veth peer name peer0");
        ip_command("link set eth0 address 02:00:00:00:00:65");
        ip_command(&format!("link set peer0 netns {tid}"));
        ip_command("addr add 192.168.3.101/24 dev eth0");
        ip_command("link set eth0 up");
        cable_sent.send(()).unwrap();
        ready.recv_timeout(PATIENCE).unwrap();
        Self { ask, heard }
    }

    fn request(&self, sender: Ipv4Addr, target: Ipv4Addr, to: Mac) {
        let packet = Packet {
            operation: Operation::Request,
            sender_mac: ASKER,
            sender,
            target_mac: [0; 6],
            target,
        };
        self.ask.send(packet.encode(to).to_vec()).unwrap();
    }

    /// Who has the VIP? As from .9, to everybody.
    fn who_has(&self, target: Ipv4Addr) {
        self.request(Ipv4Addr::new(192, 168, 3, 9), target, BROADCAST);
    }

    /// The next ARP reply about `sender` within `span`.
    fn reply(&self, sender: Ipv4Addr, span: Duration) -> Option<Packet> {
        let deadline = Instant::now() + span;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = self.heard.recv_timeout(left).ok()?;
            if let Ok(packet) = Packet::decode(&frame)
                && packet.operation == Operation::Reply
                && packet.sender == sender
            {
                return Some(packet);
            }
        }
    }

    /// The next neighbour advertisement about `target` that answers something.
    fn advertisement(&self, target: Ipv6Addr, solicited: bool, span: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + span;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = self.heard.recv_timeout(left).ok()?;
            if let Ok(said) = Advertisement::decode(&frame)
                && (said.target, said.solicited) == (target, solicited)
            {
                return Some(frame);
            }
        }
    }

    fn nobody_answers(&self) {
        while self.heard.try_recv().is_ok() {}
        self.who_has(VIP);
        assert_eq!(self.reply(VIP, AWHILE), None);
        // Not for want of a cable: the machine's own address is answered for, by its kernel.
        let own = Ipv4Addr::new(192, 168, 3, 101);
        self.who_has(own);
        assert!(self.reply(own, PATIENCE).is_some());
    }
}

fn responder() -> Vip {
    Vip { attach: Attach::Responder, ..vip() }
}

#[test]
fn a_holder_answers_for_a_vip_that_is_on_no_interface() {
    let asker = Asker::new();
    let holder = Holder::start();
    asker.nobody_answers();
    holder.elect_for(responder());
    assert!(!attached(), "nothing is added to the interface");
    let outlook = holder.handle.outlook.borrow().clone();
    assert_eq!((outlook.answering, outlook.attached), ([ip(100)].into(), [].into()));

    asker.who_has(VIP);
    let reply = asker.reply(VIP, PATIENCE).expect("the holder answers");
    assert_eq!((reply.sender_mac, reply.target_mac), (HERE, ASKER));
    assert_eq!(reply.target, Ipv4Addr::new(192, 168, 3, 9));
    // A machine that wants to use the address learns that it is taken (RFC 5227 section 2.1.1).
    asker.request(Ipv4Addr::UNSPECIFIED, VIP, BROADCAST);
    let reply = asker.reply(VIP, PATIENCE).expect("a probe is answered");
    assert_eq!((reply.sender_mac, reply.target), (HERE, Ipv4Addr::UNSPECIFIED));
    // One that knows the holder asks it alone; one that asks another machine gets no answer from this one, which hears it all the same.
    asker.request(Ipv4Addr::new(192, 168, 3, 9), VIP, HERE);
    assert!(asker.reply(VIP, PATIENCE).is_some(), "asked alone");
    ip_command("link set eth0 promisc on");
    asker.request(Ipv4Addr::new(192, 168, 3, 9), VIP, [0x02, 0, 0, 0, 0, 0x66]);
    assert_eq!(asker.reply(VIP, AWHILE), None, "another was asked");
    // Nor does one that says where it is itself.
    asker.request(VIP, VIP, BROADCAST);
    assert_eq!(asker.reply(VIP, AWHILE), None, "an announcement is no question");

    let counters = Arc::clone(&holder.handle.counters);
    assert_eq!(counters.answers_sent.get(), 3);
    assert_eq!((counters.address_refreshes.get(), counters.emission_errors.get()), (0, 0));
    holder.stop();
    asker.nobody_answers();
    assert_eq!(counters.answers_sent.get(), 3);
}

#[test]
fn a_stranger_is_not_answered_for_however_much_the_kernel_lets_through() {
    let asker = Asker::new();
    // More than a filter of the kernel's takes.
    let more = (1..=1500).map(|n: u16| Ipv4Addr::from(0x0a00_0000 + u32::from(n)).into());
    let group = Vip { addresses: more.chain([VIP.into()]).collect(), ..responder() };
    let vips = group.addresses.iter().copied().collect();
    let interface = resolve(&group, &vips, Policy::Strict).unwrap();
    let responder = Responder::open(&group, &interface).unwrap().unwrap();
    responder.listen().unwrap();
    asker.who_has(Ipv4Addr::new(192, 168, 3, 77));
    asker.who_has(VIP);
    let answer = || responder.next(&mut 10).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let first = loop {
        match answer() {
            Some(answer) => break answer,
            None => assert!(Instant::now() < deadline, "nothing was heard"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let Answer::Arp(frame) = first else { panic!("it was asked by ARP") };
    assert_eq!(Packet::decode(&frame).unwrap().sender, VIP);
    assert!(answer().is_none());
}

#[test]
fn an_answer_names_the_hardware_address_of_that_moment() {
    let asker = Asker::new();
    let holder = Holder::start();
    holder.elect_for(responder());
    let new: Mac = [0x02, 0, 0, 0, 0, 0x77];
    ip_command("link set eth0 address 02:00:00:00:00:77");
    asker.who_has(VIP);
    assert_eq!(asker.reply(VIP, PATIENCE).map(|reply| reply.sender_mac), Some(new));
    holder.stop();
}

#[test]
fn a_deposed_holder_answers_nothing_that_was_asked_before_or_after() {
    let asker = Asker::new();
    let holder = Holder::start();
    holder.elect_for(responder());
    asker.who_has(VIP);
    assert!(asker.reply(VIP, PATIENCE).is_some());
    let next = RaftView { term: 2, leader: Some(NodeId(2)), settled: false };
    holder.handle.inputs.send(Input::Raft(next));
    holder.tenure(Tenure::None);
    assert!(holder.handle.outlook.borrow().answering.is_empty());
    asker.nobody_answers();
    holder.stop();
}

/// The end of a lease that nobody renews, and when the holder let go.
fn runs_out(vip: Vip, word: Policy) -> (Mono, Mono) {
    let _neighbour = Neighbour::new();
    let holder = Holder::start();
    holder.handle.inputs.order(policy(word));
    holder.elect_for(vip);
    holder.handle.inputs.send(Input::Voters([OWN, NodeId(2)].into()));
    let counters = Arc::clone(&holder.handle.counters);
    let until = Cell::new(Mono(0));
    wait_until("the lease runs out", || {
        let now = counters.lease_until.get();
        until.set(until.get().max(now));
        now == Mono(0)
    });
    let seen = raw_now();
    holder.stop();
    (until.get(), seen)
}

#[test]
fn a_lease_is_let_go_before_its_end_only_where_something_is_to_be_done_by_then() {
    let (until, seen) = runs_out(responder(), Policy::Strict);
    assert!(seen >= until, "it let go {:?} too early", until.remaining(seen));
    // Addresses have to be taken away, and who goes on without a lease must not be late. Both begin 10 ms before; a busy machine may show it late.
    let address = || Vip { attach: Attach::Address, ..vip() };
    for (vip, word) in [(address(), Policy::Strict), (responder(), Policy::Sticky)] {
        let early = || {
            let (until, seen) = runs_out(vip.clone(), word);
            seen < until
        };
        assert!((0..10).any(|_| early()), "{:?}, {word:?}: not before the end", vip.attach);
    }
}

#[test]
fn a_holder_that_yields_to_a_foreign_master_answers_nothing() {
    let neighbour = Neighbour::new();
    let holder = Holder::start();
    holder.elect_for(responder());
    neighbour.until(Seen::Advert { priority: 200 });
    assert_eq!(holder.handle.outlook.borrow().answering, [ip(100)].into());
    neighbour.say.send(Say::Advert(250)).unwrap();
    wait_until("it is silent", || holder.handle.outlook.borrow().answering.is_empty());
    neighbour.say.send(Say::Ask).unwrap();
    neighbour.silent();
    assert_eq!(holder.handle.counters.answers_sent.get(), 0);
    neighbour.say.send(Say::Advert(0)).unwrap();
    neighbour.until(Seen::Advert { priority: 200 });
    neighbour.say.send(Say::Ask).unwrap();
    wait_until("it answers again", || holder.handle.counters.answers_sent.get() > 0);
    holder.stop();
}

#[test]
fn neighbour_solicitations_are_answered() {
    let asker = Asker::new();
    let target: Ipv6Addr = VIP6.parse().unwrap();
    let holder = Holder::start();
    let mut group = responder();
    group.addresses = vec![ip(100), target.into()];
    group.vrrp.version = VrrpVersion::V3;
    let solicit = |source: Ipv6Addr, destination: Ipv6Addr| {
        let frame = ndp::solicitation(ASKER, source, destination, target);
        asker.ask.send(frame.to_vec()).unwrap();
    };
    let from: Ipv6Addr = "fd00:3::9".parse().unwrap();
    let everybody = ndp::solicited_node(target);
    solicit(from, everybody);
    assert_eq!(
        asker.advertisement(target, true, AWHILE),
        None,
        "nobody holds, the kernel is quiet"
    );

    holder.elect_for(group);
    solicit(from, everybody);
    let answer = asker.advertisement(target, true, PATIENCE).expect("the holder answers");
    assert_eq!(answer[..6], ASKER);
    assert_eq!(Advertisement::decode(&answer).unwrap().mac, HERE);
    // Told apart from announcements by going to everybody while only announcements are due later.
    let before = holder.handle.counters.answers_sent.get();
    solicit(Ipv6Addr::UNSPECIFIED, everybody);
    wait_until("a test for duplicates is answered", || {
        holder.handle.counters.answers_sent.get() == before + 1
    });
    assert!(asker.advertisement(target, false, PATIENCE).is_some());
    let groups = std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
    let joined =
        |line: &str| line.contains("eth0") && line.contains("ff0200000000000000000001ff000064");
    assert!(groups.lines().any(joined), "switches that look forward the question: {groups}");
    holder.stop();
}

/// A change of how the VIP is attached, under a lease: the interface has it exactly while the kernel is to answer.
#[test]
fn the_way_to_attach_can_be_changed_while_holding() {
    let _asker = Asker::new();
    let holder = Holder::start();
    holder.elect_for(responder());
    let inputs = &holder.handle.inputs;
    inputs.order(Order::Vips(vec![vip()]));
    wait_until("the kernel has it", attached);
    wait_until("the agent does not answer", || {
        let outlook = holder.handle.outlook.borrow();
        outlook.answering.is_empty() && outlook.attached == [ip(100)].into()
    });
    inputs.order(Order::Vips(vec![responder()]));
    wait_until("the kernel does not have it", || !attached());
    wait_until("the agent answers", || {
        let outlook = holder.handle.outlook.borrow();
        outlook.attached.is_empty() && outlook.answering == [ip(100)].into()
    });
    holder.stop();
}

/// However many ask, the thread does what is due: the lease is renewed, and adverts go out.
#[test]
fn a_flood_of_questions_keeps_the_thread_from_nothing() {
    let asker = Asker::new();
    let holder = Holder::start();
    holder.elect_for(responder());
    let counters = Arc::clone(&holder.handle.counters);
    let until = Instant::now() + Duration::from_secs(3);
    let before = counters.adverts_sent.get();
    while Instant::now() < until {
        for _ in 0..50 {
            asker.who_has(VIP);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(*holder.handle.tenure.borrow(), Tenure::Holding { epoch: 1 });
    assert!(counters.adverts_sent.get() >= before + 2);
    assert_eq!(counters.releases.get(), 0);
    assert!(counters.answers_sent.get() > 100, "{}", counters.answers_sent.get());
    holder.stop();
}
