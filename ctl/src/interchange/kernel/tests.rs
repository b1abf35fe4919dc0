use lvsmesh_core::document::check;

use super::*;
use crate::interchange::export::ipvsadm;

fn destination(address: &str, method: u32, weight: u32) -> v1::IpvsDestination {
    v1::IpvsDestination { address: address.into(), port: 80, method, weight, ..Default::default() }
}

fn service(protocol: u32, destinations: Vec<v1::IpvsDestination>) -> v1::IpvsService {
    v1::IpvsService {
        protocol,
        address: "192.168.3.100".into(),
        port: 80,
        scheduler: "wlc".into(),
        flags: ServiceSpec::PERSISTENT,
        timeout: 50,
        netmask: u32::MAX,
        destinations,
        ..Default::default()
    }
}

fn names() -> Names {
    Names { fleet: "f".into(), interface: Some("eth0".into()), vrid: Some(51) }
}

#[test]
fn a_live_table_becomes_the_document_that_asks_for_it() {
    let tunnelled = v1::IpvsDestination {
        tunnel_type: 1,
        tunnel_port: 6080,
        tunnel_flags: 1,
        upper_threshold: 9,
        ..destination("192.168.3.3", 2, 1)
    };
    let table = v1::ListIpvsResponse {
        node: "lvs-1".into(),
        services: vec![
            service(6, vec![destination("192.168.3.3", 3, 3), destination("192.168.3.102", 3, 0)]),
            service(17, vec![tunnelled]),
        ],
        ..Default::default()
    };
    let made = import(&table, &names());
    assert_eq!(check(&made.document), []);
    assert_eq!(
        ipvsadm::export(&made.document).text,
        "-A -t 192.168.3.100:80 -s wlc -p 50\n-a -t 192.168.3.100:80 -r 192.168.3.3:80 -g -w 3\n\
         -a -t 192.168.3.100:80 -r 192.168.3.102:80 -g -w 0\n-A -u 192.168.3.100:80 -s wlc -p 50\n\
         -a -u 192.168.3.100:80 -r 192.168.3.3:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum -x 9\n"
    );
    let text = made.report.text();
    assert!(text.contains("lvs-1:5  taken          -a -u 192.168.3.100:80"), "{text}");
    assert_eq!(made.document.vips[0].vrrp.vrid, 51);
}

#[test]
fn what_cannot_be_taken_is_said() {
    let mut strange = service(47, vec![]);
    strange.scheduler = "rr".into();
    let local =
        service(6, vec![destination("192.168.3.3", 1, 1), destination("192.168.3.4", 3, 1)]);
    let table = v1::ListIpvsResponse {
        node: "lvs-1".into(),
        services: vec![strange, local],
        ..Default::default()
    };
    let text = import(&table, &names()).report.text();
    assert!(text.contains("no protocol 47"), "{text}");
    assert!(text.contains("no forwarding method local"), "{text}");
}
