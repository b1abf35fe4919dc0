use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use lvsmesh_core::model::{
    Check, Document, Encapsulation, Forwarding, Listen, Peers, Pool, PoolSource, RealServer,
    Service, TunnelChecksum, Vip,
};
use proptest::prelude::*;

use super::*;
use crate::interchange::arbitrary;
use crate::interchange::assemble::Names;
use crate::interchange::keepalived::{Files, Source, Text, import};

struct Alone;

impl Files for Alone {
    fn matching(&self, _: &Path, pattern: &str) -> Result<Vec<Text>, String> {
        Err(format!("`{pattern}` is not here"))
    }
}

/// Documents with every kind of forwarding, real servers listed. Of IPv4: neither form has one service for two families, so that a group of
/// both comes back as two services.
fn documents() -> impl Strategy<Value = Document> {
    arbitrary::document().prop_map(|mut document| {
        for vip in &mut document.vips {
            let excluded = vip.addresses[vip.advertised().len()..].iter();
            vip.excluded = excluded.filter(|address| address.is_ipv4()).count();
            vip.addresses.retain(IpAddr::is_ipv4);
            vip.excluded = vip.excluded.min(vip.addresses.len().saturating_sub(1));
            if let Peers::Unicast(listed) = &mut vip.vrrp.peers {
                listed.fill("198.51.100.7".parse().unwrap());
            }
        }
        document.vips.retain(|vip| !vip.addresses.is_empty());
        for pool in &mut document.pools {
            if let PoolSource::Listed(listed) = &mut pool.source {
                listed.retain(|it| it.address.is_ipv4());
            }
        }
        let vips: BTreeSet<String> = document.vips.iter().map(|vip| vip.name.clone()).collect();
        document.services.retain(|service| vips.contains(&service.vip));
        let kinds = [
            Forwarding::Dr,
            Forwarding::Nat,
            Forwarding::Tunnel(Encapsulation::Ipip),
            Forwarding::Tunnel(Encapsulation::Gue {
                port: 6080,
                checksum: TunnelChecksum::Remcsum,
            }),
            Forwarding::Tunnel(Encapsulation::Gre { checksum: TunnelChecksum::Csum }),
        ];
        for (index, service) in document.services.iter_mut().enumerate() {
            service.forwarding = kinds[index % kinds.len()];
        }
        // ipvsadm reads thresholds as signed numbers.
        for pool in &mut document.pools {
            if let PoolSource::Listed(listed) = &mut pool.source {
                for it in listed {
                    it.upper_threshold /= 2;
                    it.lower_threshold /= 2;
                }
            }
        }
        let listed = |name: &str, document: &Document| {
            document.pool(name).is_some_and(|pool| match &pool.source {
                PoolSource::Listed(listed) => !listed.is_empty(),
                PoolSource::Discovery(_) => false,
            })
        };
        let copy = document.clone();
        document.services.retain(|service| listed(&service.pool, &copy));
        // A mark has no address: rules that have nothing else make no VIP group for it.
        if document.services.iter().all(|service| matches!(service.listen, Listen::Mark { .. })) {
            document.services.clear();
        }
        document
    })
}

/// What a service is, whatever its objects are called: its addresses, settings and pool.
type Meaning = (BTreeSet<IpAddr>, String, Service, Vec<RealServer>, Option<Check>);

fn meanings(document: &Document) -> Vec<Meaning> {
    let mut all: Vec<Meaning> = document
        .services
        .iter()
        .map(|service| {
            let vip = document.vip(&service.vip).unwrap();
            let Pool { source, check, .. } = document.pool(&service.pool).unwrap();
            let PoolSource::Listed(listed) = source else { panic!("listed above") };
            let mut listed = listed.clone();
            for real_server in &mut listed {
                real_server.forwarding =
                    real_server.forwarding.filter(|own| *own != service.forwarding);
            }
            let mut check = check.clone();
            if let Some(check) = &mut check {
                check.port = check.port.filter(|port| listed.iter().any(|it| it.port != *port));
            }
            // A mark belongs to any group.
            let (addresses, interface) = match service.listen {
                Listen::Port { .. } => {
                    (vip.addresses.iter().copied().collect(), vip.interface.clone())
                }
                Listen::Mark { .. } => (BTreeSet::new(), String::new()),
            };
            let mut service = Service {
                name: String::new(),
                vip: String::new(),
                pool: String::new(),
                ..service.clone()
            };
            service.persistence.prefix = 128;
            // The export says that somebody else has to mark.
            if let Listen::Mark { marking, .. } = &mut service.listen {
                *marking = None;
            }
            (addresses, interface, service, listed, check)
        })
        .collect();
    all.sort_by_key(|(addresses, _, service, ..)| (addresses.clone(), service.listen.clone()));
    all
}

/// Groups without names, priorities, preferences, arbiters and ways to attach, which one director's file does not have.
fn groups(document: &Document) -> Vec<Vip> {
    let bare = |vip: &Vip| {
        let mut vip = Vip { name: String::new(), preference: Vec::new(), ..vip.clone() };
        vip.vrrp.priority = 0;
        vip.vrrp.checksum = lvsmesh_core::model::Checksum::default();
        // It has no word for the one, and one pace for all groups.
        vip.vrrp.coexist = lvsmesh_core::model::Coexist::default();
        vip.garp.interval = std::time::Duration::ZERO;
        vip.attach = lvsmesh_core::model::Attach::default();
        // keepalived asks nobody.
        vip.arbiters.clear();
        vip
    };
    document.vips.iter().map(bare).collect()
}

fn read_back(text: &str) -> Document {
    let text = Text {
        name: "k".into(),
        path: "k".into(),
        identity: "k".into(),
        text: text.to_owned(),
        complaint: None,
    };
    let names = Names { fleet: "f".into(), interface: None, vrid: None };
    let made = import(&[Source { name: None, text }], &Alone, None, &names);
    assert!(!made.report.has_loss(), "{}", made.report.text());
    made.document
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_document_comes_back_from_keepalived(document in documents()) {
        let text = keepalived::export(&document, None).text;
        let back = read_back(&text);
        prop_assert_eq!(meanings(&back), meanings(&document), "{}", text);
        prop_assert_eq!(groups(&back), groups(&document), "{}", text);
    }

    #[test]
    fn a_table_comes_back_from_ipvsadm(document in documents()) {
        let text = ipvsadm::export(&document).text;
        let names = Names { fleet: "f".into(), interface: Some("eth0".into()), vrid: None };
        let back = crate::interchange::ipvsadm::import("rules", &text, &names);
        let wanted = ipvsadm::table(&document);
        prop_assert!(!back.report.has_loss(), "{}\n{}", text, back.report.text());
        prop_assert_eq!(ipvsadm::table(&back.document), wanted);
    }
}

#[test]
fn two_directors_files_differ_in_name_and_priority() {
    let mut document = Document::default();
    document.fleet.name = "f".into();
    document.vips.push(reference_vip());
    let of = |node: &str| keepalived::export(&document, Some(node)).text;
    insta::assert_snapshot!("keepalived_of_lvs_1", of("lvs-1"));
    let second = of("lvs-2").replace("router_id lvs-2", "router_id lvs-1");
    assert_eq!(second.replace("priority 99", "priority 100"), of("lvs-1"));
}

fn reference_vip() -> Vip {
    let vrrp = lvsmesh_core::model::Vrrp {
        vrid: 51,
        version: lvsmesh_core::model::VrrpVersion::V2,
        advert_interval: std::time::Duration::from_secs(1),
        priority: 100,
        auth: Some(lvsmesh_core::model::Auth::Pass("a \"b#".into())),
        checksum: lvsmesh_core::model::Checksum::default(),
        coexist: lvsmesh_core::model::Coexist::default(),
        peers: Peers::Multicast,
    };
    Vip {
        name: "web".into(),
        addresses: vec!["192.168.3.100".parse().unwrap()],
        interface: "eth0".into(),
        excluded: 0,
        attach: lvsmesh_core::model::Attach::default(),
        garp: lvsmesh_core::model::Garp::default(),
        arbiters: Vec::new(),
        preference: vec!["lvs-1".into(), "lvs-2".into()],
        vrrp,
    }
}

#[test]
fn what_keepalived_cannot_say_is_said() {
    let mut document = Document::default();
    document.vips.push(reference_vip());
    document.pools.push(Pool {
        name: "web".into(),
        source: PoolSource::Listed(vec![RealServer::new("10.0.0.1".parse().unwrap(), 80, 1)]),
        check: None,
        min_healthy: 2,
    });
    document.services.push(Service::new("web", "web", 80, "web"));
    let exported = keepalived::export(&document, None);
    assert_eq!(exported.notes, ["pool web: keepalived has no min_healthy"]);
    assert!(exported.text.contains("# pool web: keepalived has no min_healthy"));
    let table = ipvsadm::table(&document);
    let destinations: Vec<SocketAddr> =
        table.values().flat_map(|service| service.destinations.keys().copied()).collect();
    assert_eq!(destinations, [SocketAddr::from(([10, 0, 0, 1], 80))]);
}
