use lvsmesh_core::model::RealServer;

use super::*;

fn entry(address: &str, port: u16, origin: usize, real_server: &str) -> Entry {
    let real_server = RealServer::new(real_server.parse().unwrap(), port, 1);
    Entry {
        address: Some(address.parse().unwrap()),
        service: Service::new("", "", port, ""),
        pool: Pool {
            name: String::new(),
            source: PoolSource::Listed(vec![real_server]),
            check: None,
            min_healthy: 0,
        },
        origin,
        listen: origin,
        real_servers: vec![origin + 1],
    }
}

fn assembled(entries: Vec<Entry>) -> (Document, Fates, Report) {
    let draft = Draft { fleet: lvsmesh_core::model::Fleet::default(), groups: Vec::new(), entries };
    let names = Names { fleet: "f".into(), interface: Some("eth0".into()), vrid: Some(255) };
    let (mut fates, mut report) = (Fates::default(), Report::default());
    let document = assemble(draft, &names, &mut fates, &mut report);
    (document, fates, report)
}

#[test]
fn paths_of_faults_name_objects() {
    #[rustfmt::skip]
    let cases = [
        ("vips[2].vrrp.vrid",               Some(Target::Vip(2))),
        ("vips[2].addresses",               Some(Target::Vip(2))),
        ("vips[2].addresses[1]",            Some(Target::Address(2, 1))),
        ("pools[0].real_servers[3].port",   Some(Target::RealServer(0, 3))),
        ("pools[0].real_servers",           Some(Target::Pool(0))),
        ("pools[0].check.interval",         Some(Target::Pool(0))),
        ("services[1].port",                Some(Target::Service(1))),
        ("fleet.name",                      None),
        ("",                                None),
    ];
    for (path, expected) in cases {
        assert_eq!(target(path), expected, "{path}");
    }
}

#[test]
fn many_addresses_become_groups_that_adverts_can_name() {
    let entries =
        (1..=50).map(|last| entry(&format!("10.0.0.{last}"), 80, 10, "10.1.0.1")).collect();
    let (document, _, report) = assembled(entries);
    assert_eq!(check(&document), [], "{}", report.text());
    let groups: Vec<_> =
        document.vips.iter().map(|vip| (vip.addresses.len(), vip.vrrp.vrid)).collect();
    assert_eq!(groups, [(20, 255), (20, 1), (10, 2)]);
    assert_eq!((document.services.len(), document.pools.len()), (3, 1));
}

#[test]
fn what_the_rules_refuse_is_left_out_and_said() {
    let good = entry("10.0.0.1", 80, 10, "10.1.0.1");
    let loopback = entry("127.0.0.1", 80, 20, "10.1.0.1");
    let broadcast = entry("10.0.0.1", 81, 30, "255.255.255.255");
    let (document, fates, report) = assembled(vec![good, loopback, broadcast]);
    assert_eq!(check(&document), [], "{}", report.text());
    let addresses: Vec<_> = document.vips.iter().flat_map(|vip| &vip.addresses).collect();
    assert_eq!(addresses, [&IpAddr::from([10, 0, 0, 1])]);
    assert!(document.services.iter().any(|service| service.name == "imported-80"));
    let why = |id: usize| fates.get(id).map(|(_, note)| note.to_owned()).unwrap_or_default();
    assert!(why(20).contains("127.0.0.1 is a loopback address"), "{}", why(20));
    assert!(why(31).contains("255.255.255.255"), "{}", why(31));
    assert_eq!(why(10), "");
}
