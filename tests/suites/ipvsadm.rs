//! What ipvsadm makes of what this code wrote, and this code of what ipvsadm wrote: an implementation that shares nothing with ours.

use std::process::Command;

use lvsmesh_core::model::{Encapsulation, TunnelChecksum};
use lvsmesh_core::plan::{Action, Destination, Method, ServiceKey, ServiceSpec};

use crate::ipvs::{kinds_of_service, linux_with_ipvs, routed, spec, table, tcp};
use crate::{at, namespace, perform};

/// The same table in ipvsadm's own words, as `ipvsadm -Sn` of ipvsadm 1.31 prints it.
const SAVED: &str = "\
-A -t 192.0.2.100:80 -s rr
-a -t 192.0.2.100:80 -r 198.51.100.1:80 -g -w 3
-a -t 192.0.2.100:80 -r 198.51.100.2:8080 -m -w 0
-a -t 192.0.2.100:80 -r 198.51.100.3:80 -i -w 1 --tun-type ipip
-A -t 192.0.2.100:81 -s rr
-A -t 192.0.2.101:0 -s wlc -p 50
-A -t 192.0.2.101:80 -s wlc -p 50
-A -t 192.0.2.101:81 -s wlc -p 50 -M 255.255.255.0
-A -t 192.0.2.103:443 -s mh -b mh-fallback,mh-port
-A -u 192.0.2.100:80 -s rr
-A -u 192.0.2.102:53 -s rr -o
-A -u 192.0.2.104:5060 -s rr -p 60 --pe sip -o
-A --sctp-service 192.0.2.100:80 -s rr
-A -t [2001:db8::100]:80 -s rr
-a -t [2001:db8::100]:80 -r [2001:db8::1]:80 -g -w 2
-A -u [2001:db8::100]:443 -s rr -p 100 -M 64
-A -f 7 -s rr
-a -f 7 -r 198.51.100.1:0 -g -w 2
-A -f 7 -6 -s rr
-A -f 2147483647 -s wlc -p 50
";

#[test]
fn ipvs_what_we_write_ipvsadm_reads() {
    namespace::run(|| async {
        let mut kernel = linux_with_ipvs().await;
        perform(&mut kernel, reference()).await;
        assert_eq!(lines(&ipvsadm(&["-Sn"])), lines(SAVED));
    });
}

#[test]
fn ipvs_what_ipvsadm_writes_we_read() {
    namespace::run(|| async {
        let mut ours = linux_with_ipvs().await;
        perform(&mut ours, reference()).await;
        let written_by_us = table(&mut ours).await;
        ipvsadm(&["-C"]);
        assert!(table(&mut ours).await.is_empty(), "ipvsadm -C is seen");

        for line in SAVED.lines() {
            ipvsadm(&line.split(' ').collect::<Vec<_>>());
        }
        assert_eq!(table(&mut ours).await, written_by_us);
    });
}

#[test]
fn ipvs_thresholds_and_weights_are_listed_by_ipvsadm() {
    namespace::run(|| async {
        let mut kernel = linux_with_ipvs().await;
        let key = tcp("192.0.2.100:80");
        let limited = Destination { upper: 1000, lower: 800, ..routed(5) };
        perform(
            &mut kernel,
            [
                Action::AddService(key, spec("wlc")),
                Action::AddDestination(key, at("198.51.100.1:80"), limited),
            ],
        )
        .await;
        // -S leaves thresholds out (ipvsadm 1.31), so the listing has to show them.
        assert_eq!(
            ipvsadm(&["-Ln", "--thresholds"]).lines().skip(3).map(words).collect::<Vec<_>>(),
            ["TCP 192.0.2.100:80 wlc", "-> 198.51.100.1:80 1000 800 0 0"]
        );
        assert_eq!(
            ipvsadm(&["-Ln"]).lines().skip(3).map(words).collect::<Vec<_>>(),
            ["TCP 192.0.2.100:80 wlc", "-> 198.51.100.1:80 Route 5 0 0"]
        );
    });
}

#[test]
fn ipvs_tunnels_of_every_kind_are_read_as_what_they_are() {
    namespace::run(|| async {
        ipvsadm(&["-A", "-t", "192.0.2.100:80", "-s", "rr"]);
        for line in [
            "-a -t 192.0.2.100:80 -r 198.51.100.1:80 -i --tun-type gue --tun-port 6080 --tun-remcsum",
            "-a -t 192.0.2.100:80 -r 198.51.100.2:80 -i --tun-type gre --tun-csum",
        ] {
            ipvsadm(&line.split(' ').collect::<Vec<_>>());
        }
        let mut kernel = linux_with_ipvs().await;
        let service = table(&mut kernel).await.remove(&tcp("192.0.2.100:80")).unwrap();
        let tunnel = |kind| Destination { method: Method::Tunnel(kind), ..routed(1) };
        let gue = Encapsulation::Gue { port: 6080, checksum: TunnelChecksum::Remcsum };
        let gre = Encapsulation::Gre { checksum: TunnelChecksum::Csum };
        let expected = [(at("198.51.100.1:80"), tunnel(gue)), (at("198.51.100.2:80"), tunnel(gre))];
        assert_eq!(service.destinations, expected.into_iter().collect());
    });
}

/// The table of [`SAVED`].
fn reference() -> Vec<Action> {
    let mut actions: Vec<Action> = kinds_of_service()
        .into_iter()
        .map(|(_, key, spec): (_, ServiceKey, ServiceSpec)| Action::AddService(key, spec))
        .collect();
    let v4 = tcp("192.0.2.100:80");
    let mark = ServiceKey::Mark { ipv6: false, mark: 7 };
    actions.extend([
        Action::AddDestination(v4, at("198.51.100.1:80"), routed(3)),
        Action::AddDestination(
            v4,
            at("198.51.100.2:8080"),
            Destination { method: Method::Masq, ..routed(0) },
        ),
        Action::AddDestination(
            v4,
            at("198.51.100.3:80"),
            Destination { method: Method::Tunnel(Encapsulation::Ipip), ..routed(1) },
        ),
        Action::AddDestination(tcp("[2001:db8::100]:80"), at("[2001:db8::1]:80"), routed(2)),
        Action::AddDestination(mark, at("198.51.100.1:0"), routed(2)),
    ]);
    actions
}

/// Runs ipvsadm in the namespace of this thread, which a child process inherits.
#[track_caller]
pub(crate) fn ipvsadm(arguments: &[&str]) -> String {
    let output = Command::new("ipvsadm").args(arguments).output().expect("ipvsadm is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ipvsadm {arguments:?}: {}: {errors}", output.status);
    String::from_utf8(output.stdout).expect("ipvsadm prints ASCII")
}

/// Lines in an order of their own: a destination's line names its service, so none loses its place.
fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    lines
}

/// A line with its columns one blank apart.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
