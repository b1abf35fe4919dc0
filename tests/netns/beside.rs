//! Beside a real keepalived that was there first, and one that comes later: either version, either family, by multicast and by unicast.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lvsmesh_tests::document::{CLIENT, Document, LVS_1, LVS_2, RS_1, VIP, VIP_V6};
use lvsmesh_tests::fleet::{Fleet, Options};
use lvsmesh_tests::lab::v6;
use lvsmesh_tests::peers::{Instance, Keepalived};
use lvsmesh_tests::probe::ArpProber;
use lvsmesh_tests::{Lab, eventually, link, pace};

const PEER: (&str, Ipv4Addr) = ("peer", Ipv4Addr::new(192, 168, 3, 104));

/// What the fleet and keepalived say alike.
struct Case {
    version: u8,
    ipv6: bool,
    unicast: bool,
    /// The document's, and keepalived's.
    interval: (&'static str, &'static str),
}

impl Case {
    fn vip(&self) -> IpAddr {
        if self.ipv6 { VIP_V6.into() } else { VIP.into() }
    }

    fn address(&self, of: Ipv4Addr) -> IpAddr {
        if self.ipv6 { v6(of).into() } else { of.into() }
    }

    fn instance(&self) -> Instance {
        let directors = [LVS_1, LVS_2].map(|(_, address)| self.address(address));
        Instance {
            unicast: self.unicast.then(|| (self.address(PEER.1), directors.to_vec())),
            ..Instance::backup(self.version, self.interval.1, &[self.vip()])
        }
    }

    fn document(&self) -> Document {
        let peers = if self.unicast {
            // Of the members only IPv4 addresses are known here.
            let mut listed = vec![self.address(PEER.1)];
            if self.ipv6 {
                listed.extend([LVS_1, LVS_2].map(|(_, address)| self.address(address)));
            }
            let listed: Vec<_> = listed.iter().map(|address| format!("'{address}'")).collect();
            format!(", peers: unicast, unicast_peers: [{}]", listed.join(", "))
        } else {
            String::new()
        };
        Document {
            addresses: format!("'{}'", self.vip()),
            vrrp_version: self.version,
            advert_interval: self.interval.0,
            vrrp: format!(", coexist: contest{peers}"),
            ..Document::vip_alone()
        }
    }

    /// keepalived has the VIP; the fleet, of higher priority, takes it, and nobody is asked twice; then keepalived comes anew, and stays backup.
    fn both_orders(&self) {
        let machines = [LVS_1, LVS_2, RS_1, CLIENT, PEER];
        let lab = if self.ipv6 { Lab::dual_stack(&machines) } else { Lab::new(&machines) };
        let fleet = Fleet::start_on(lab, &Options::default());
        let first = Keepalived::start(&fleet.lab, fleet.lab.node(PEER.0), &[self.instance()]);
        first.enters("MASTER", Duration::from_secs(20));
        let capture = fleet.lab.capture();
        let asking = ArpProber::start(fleet.client(), self.vip(), Duration::from_millis(10));

        fleet.apply(&self.document());
        eventually("the fleet has the VIP", Duration::from_secs(30), || {
            (fleet.having(self.vip()).len() == 1).then_some(())
        });
        first.enters("BACKUP", Duration::from_secs(10));
        let peer = &fleet.lab.node(PEER.0).namespace;
        assert!(!link::has_address(peer, "eth0", self.vip()), "{}", first.output());
        // Longer than three adverts and its skew: had it not understood one of them, it would have taken over.
        pace::throughout("keepalived stays BACKUP", Duration::from_secs(5), || {
            let states = first.states();
            (states.last().map(String::as_str) != Some("BACKUP")).then(|| first.output())
        });
        eventually("the new holder is asked and answers", Duration::from_secs(10), || {
            let (node, count) = capture.answering(self.vip()).pop()?;
            (node != PEER.0 && count > 10).then_some(())
        });
        first.stop();

        let second = Keepalived::start(&fleet.lab, fleet.lab.node(PEER.0), &[self.instance()]);
        second.enters("BACKUP", Duration::from_secs(20));
        pace::throughout("keepalived stays BACKUP", Duration::from_secs(5), || {
            (second.states() != ["BACKUP"]).then(|| second.output())
        });
        drop(asking);
        assert_eq!(capture.answered_twice(self.vip()), [], "two machines answered one question");
        assert_eq!(fleet.having(self.vip()).len(), 1);
    }
}

const SECOND: (&str, &str) = ("1s", "1");
const FAST: (&str, &str) = ("300ms", "0.3");

#[test]
fn keepalived_of_version_2_gives_way_and_stays_backup() {
    Case { version: 2, ipv6: false, unicast: false, interval: SECOND }.both_orders();
}

#[test]
fn keepalived_of_version_3_gives_way_and_stays_backup() {
    Case { version: 3, ipv6: false, unicast: false, interval: FAST }.both_orders();
}

#[test]
fn keepalived_over_ipv6_gives_way_and_stays_backup() {
    Case { version: 3, ipv6: true, unicast: false, interval: FAST }.both_orders();
}

#[test]
fn keepalived_of_version_2_by_unicast_gives_way_and_stays_backup() {
    Case { version: 2, ipv6: false, unicast: true, interval: SECOND }.both_orders();
}

#[test]
fn keepalived_of_version_3_by_unicast_gives_way_and_stays_backup() {
    Case { version: 3, ipv6: false, unicast: true, interval: FAST }.both_orders();
}

#[test]
fn keepalived_over_ipv6_by_unicast_gives_way_and_stays_backup() {
    Case { version: 3, ipv6: true, unicast: true, interval: FAST }.both_orders();
}
