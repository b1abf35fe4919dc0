//! Every command of ipvsadm that makes something, once by ipvsadm in one namespace and once by this code in another: what ipvsadm then
//! lists is the same, byte for byte.

use std::net::SocketAddr;
use std::sync::mpsc;

use lvsmesh_core::model::{Encapsulation, Protocol, TunnelChecksum};
use lvsmesh_core::plan::{Action, Destination, Method, ServiceKey, ServiceSpec};
use lvsmesh_kernel::ipvs::{Ipvs, SyncDaemon, SyncRole, Timeouts};

use crate::ipvs::{routed, spec, tcp};
use crate::ipvsadm::ipvsadm;
use crate::{at, done, namespace};

const SERVICES: [&str; 9] = [
    "-A -t 10.9.0.100:80 -s wlc -p 300",
    "-A -u 10.9.0.100:53 -s rr -o",
    "-A -t 10.9.0.101:443 -s mh -b mh-fallback,mh-port",
    "-A -t 10.9.0.102:443 -s sh -b sh-fallback,sh-port",
    "-A -u 10.9.0.103:5060 -s rr -p 60 --pe sip -o",
    "-A -f 7 -s wrr -p 60 -M 255.255.255.0",
    "-A -f 8 -6 -s rr",
    "-A -t [2001:db8::1]:80 -s rr -p 100 -M 64",
    "-A --sctp-service 10.9.0.104:5000 -s rr",
];
const DESTINATIONS: [&str; 8] = [
    "-a -t 10.9.0.100:80 -r 10.9.0.3:80 -g -w 5 -x 1000 -y 800",
    "-a -t 10.9.0.100:80 -r 10.9.0.2:80 -g -w 1",
    "-a -t 10.9.0.100:80 -r 10.9.0.4:8080 -m -w 0",
    "-a -t 10.9.0.100:80 -r 10.9.0.5 -i",
    "-a -t 10.9.0.100:80 -r 10.9.0.6 -i --tun-type gue --tun-port 6080 --tun-remcsum",
    "-a -t 10.9.0.100:80 -r 10.9.0.7 -i --tun-type gre --tun-csum",
    "-a -f 7 -r 10.9.0.8 -g",
    "-a -t [2001:db8::1]:80 -r [2001:db8::7]:80 -g",
];
const CONFIGURATION: [&str; 3] = [
    "--set 901 121 301",
    "--start-daemon master --mcast-interface lo --syncid 5",
    "--start-daemon backup --mcast-interface lo --syncid 5 --mcast-group 224.0.0.82 --mcast-port 8849 --mcast-ttl 3 --sync-maxlen 1400",
];

const LISTINGS: [&str; 11] = [
    "-Ln",
    "-Ln --stats",
    "-Ln --rate",
    "-Ln --stats --exact",
    "-Ln --thresholds",
    "-Ln --persistent-conn",
    "-Ln --tun-info",
    "-Ln --timeout",
    "-Ln --daemon",
    "-Sn",
    "-Lnc",
];

/// What ipvsadm prints of everything.
fn listed() -> Vec<(&'static str, String)> {
    LISTINGS.iter().map(|command| (*command, run(command))).collect()
}

fn run(command: &str) -> String {
    ipvsadm(&command.split(' ').collect::<Vec<_>>())
}

/// Runs `make` in a namespace of its own and returns what ipvsadm lists there.
fn after<F: Future<Output = ()>>(
    make: impl FnOnce() -> F + Send + 'static,
) -> Vec<(&'static str, String)> {
    let (sender, receiver) = mpsc::channel();
    namespace::run(move || async move {
        make().await;
        sender.send(listed()).unwrap();
    });
    receiver.recv().unwrap()
}

#[test]
fn ipvs_what_we_program_is_what_ipvsadms_own_commands_program() {
    let theirs = after(|| async {
        for command in SERVICES.iter().chain(&DESTINATIONS).chain(&CONFIGURATION) {
            run(command);
        }
    });
    let ours = after(|| async {
        let mut ipvs = Ipvs::open().await.unwrap();
        for action in services().into_iter().chain(destinations()) {
            let outcome = ipvs.perform(&action).await;
            done(&action, outcome);
        }
        configure(&mut ipvs).await;
    });
    for ((command, theirs), (_, ours)) in theirs.iter().zip(&ours) {
        assert_eq!(ours, theirs, "ipvsadm {command}");
    }
    let table = &ours[0].1;
    assert_eq!(table.lines().count(), 3 + SERVICES.len() + DESTINATIONS.len(), "{table}");
}

/// The same as [`SERVICES`].
fn services() -> Vec<Action> {
    let persistent = |timeout, netmask, scheduler| ServiceSpec {
        flags: ServiceSpec::PERSISTENT,
        timeout,
        netmask,
        ..spec(scheduler)
    };
    let flags = |flags, scheduler| ServiceSpec { flags, ..spec(scheduler) };
    let sip = ServiceSpec {
        flags: ServiceSpec::PERSISTENT | ServiceSpec::ONE_PACKET,
        timeout: 60,
        engine: Some("sip".into()),
        ..spec("rr")
    };
    let mark = |mark, ipv6| ServiceKey::Mark { ipv6, mark };
    let of = |protocol, text: &str| {
        let at: SocketAddr = at(text);
        ServiceKey::Address { protocol, address: at.ip(), port: at.port() }
    };
    [
        (tcp("10.9.0.100:80"), persistent(300, u32::MAX, "wlc")),
        (of(Protocol::Udp, "10.9.0.100:53"), flags(ServiceSpec::ONE_PACKET, "rr")),
        (tcp("10.9.0.101:443"), flags(0x18, "mh")),
        (tcp("10.9.0.102:443"), flags(0x18, "sh")),
        (of(Protocol::Udp, "10.9.0.103:5060"), sip),
        (mark(7, false), persistent(60, 0xffff_ff00, "wrr")),
        (mark(8, true), ServiceSpec { netmask: 128, ..spec("rr") }),
        (tcp("[2001:db8::1]:80"), persistent(100, 64, "rr")),
        (of(Protocol::Sctp, "10.9.0.104:5000"), spec("rr")),
    ]
    .into_iter()
    .map(|(key, spec)| Action::AddService(key, spec))
    .collect()
}

/// The same as [`DESTINATIONS`].
fn destinations() -> Vec<Action> {
    let web = tcp("10.9.0.100:80");
    let tunnel = |kind| Destination { method: Method::Tunnel(kind), ..routed(1) };
    let gue = Encapsulation::Gue { port: 6080, checksum: TunnelChecksum::Remcsum };
    let gre = Encapsulation::Gre { checksum: TunnelChecksum::Csum };
    [
        (web, "10.9.0.3:80", Destination { upper: 1000, lower: 800, ..routed(5) }),
        (web, "10.9.0.2:80", routed(1)),
        (web, "10.9.0.4:8080", Destination { method: Method::Masq, ..routed(0) }),
        (web, "10.9.0.5:80", tunnel(Encapsulation::Ipip)),
        (web, "10.9.0.6:80", tunnel(gue)),
        (web, "10.9.0.7:80", tunnel(gre)),
        (ServiceKey::Mark { ipv6: false, mark: 7 }, "10.9.0.8:0", routed(1)),
        (tcp("[2001:db8::1]:80"), "[2001:db8::7]:80", routed(1)),
    ]
    .into_iter()
    .map(|(key, real, settings)| Action::AddDestination(key, at(real), settings))
    .collect()
}

/// The same as [`CONFIGURATION`].
async fn configure(ipvs: &mut Ipvs) {
    ipvs.set_timeouts(Timeouts { tcp: 901, tcp_fin: 121, udp: 301 }).await.unwrap();
    let master = SyncDaemon {
        role: SyncRole::Master,
        interface: "lo".into(),
        sync_id: 5,
        max_length: 0,
        group: None,
        port: 0,
        ttl: 0,
    };
    let backup = SyncDaemon {
        role: SyncRole::Backup,
        max_length: 1400,
        group: Some([224, 0, 0, 82].into()),
        port: 8849,
        ttl: 3,
        ..master.clone()
    };
    ipvs.start_daemon(&master).await.unwrap();
    ipvs.start_daemon(&backup).await.unwrap();
}
