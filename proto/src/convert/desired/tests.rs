use std::collections::BTreeSet;

use lvsmesh_core::document::schema;
use lvsmesh_core::model;
use proptest::prelude::*;
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

use super::*;
use crate::convert::arbitrary;

proptest! {
    #[test]
    fn a_document_survives_the_wire(document in arbitrary::document()) {
        let bytes = v1::Document::from(&document).encode_to_vec();
        let wire = v1::Document::decode(&*bytes).unwrap();
        prop_assert_eq!(committed(&wire), Ok(document.clone()));
        prop_assert_eq!(Document::try_from(wire), Ok(document));
    }
}

/// The smallest document that serves something, as a client that knows nothing of defaults would send it.
fn small() -> v1::Document {
    v1::Document {
        fleet: Some(v1::Fleet { name: "blue".into(), ..Default::default() }),
        vips: vec![v1::Vip {
            name: "web".into(),
            addresses: vec!["192.0.2.100".into()],
            interface: "eth0".into(),
            vrrp: Some(v1::Vrrp { vrid: 51, ..Default::default() }),
            ..Default::default()
        }],
        pools: vec![v1::Pool {
            name: "web".into(),
            real_servers: vec![v1::RealServer {
                address: "10.0.0.3".into(),
                port: Some(80),
                ..Default::default()
            }],
            check: Some(v1::Check { kind: v1::CheckKind::Tcp.into(), ..Default::default() }),
            ..Default::default()
        }],
        services: vec![v1::Service {
            name: "web".into(),
            vip: "web".into(),
            port: Some(80),
            pool: "web".into(),
            ..Default::default()
        }],
    }
}

#[test]
fn zero_is_the_default_where_the_contract_says_so() {
    let document = Document::try_from(small()).unwrap();
    let (vip, service) = (&document.vips[0], &document.services[0]);
    assert_eq!((vip.vrrp.priority, vip.vrrp.advert_interval.as_secs()), (200, 1));
    assert_eq!(vip.vrrp.version, model::VrrpVersion::V2);
    let tcp = Listen::Port { protocol: Protocol::Tcp, port: 80 };
    assert_eq!((service.scheduler, &service.listen), (Scheduler::Wlc, &tcp));
    let check = document.pools[0].check.as_ref().unwrap();
    assert_eq!((check.interval.as_secs(), check.timeout.as_secs(), check.retries), (6, 3, 3));
    let PoolSource::Listed(listed) = &document.pools[0].source else { panic!("not listed") };
    assert_eq!(listed[0].weight, 1);
}

#[test]
fn every_fault_has_the_path_of_the_document() {
    let mut wire = small();
    wire.vips[0].vrrp.as_mut().unwrap().vrid = 300;
    wire.pools[0].real_servers[0].port = None;
    wire.pools[0].check.as_mut().unwrap().kind = 0;
    wire.pools.push(v1::Pool {
        name: "found".into(),
        discovery: Some(v1::Discovery { source: None }),
        ..Default::default()
    });
    wire.services[0].scheduler = 99;
    wire.services[0].persistence_ms = 1500;
    let Refused(faults) = Document::try_from(wire).unwrap_err();
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        faults,
        [
            "vips[0].vrrp.vrid: 300 is outside 1 to 255",
            "pools[0].real_servers[0].port: is missing",
            "pools[0].check.kind: is missing",
            "pools[1].discovery: a pool has exactly one source; name either `file` or `dns`",
            "services[0].scheduler: expected a scheduler, found the number 99",
            "services[0].persistence: 1500ms is not in whole seconds; the kernel counts seconds",
        ]
    );
}

#[test]
fn an_empty_message_is_refused() {
    let Refused(faults) = Document::try_from(v1::Document::default()).unwrap_err();
    assert_eq!(faults[0].to_string(), "fleet: is missing");
}

fn desired() -> FileDescriptorProto {
    let set = FileDescriptorSet::decode(crate::DESCRIPTORS).unwrap();
    set.file.into_iter().find(|file| file.name() == "lvsmesh/v1/desired.proto").unwrap()
}

#[test]
fn the_documents_keys_are_the_messages_fields() {
    let file = desired();
    let messages: BTreeSet<_> = file.message_type.iter().map(DescriptorProto::name).collect();
    let objects: BTreeSet<_> = schema::ALL.iter().map(|object| object.name).collect();
    assert_eq!(objects, messages);

    for object in schema::ALL {
        let message = file.message_type.iter().find(|message| message.name() == object.name);
        let bare = |name: &str| name.strip_suffix("_ms").unwrap_or(name).to_owned();
        let fields: Vec<_> =
            message.unwrap().field.iter().map(|field| bare(field.name())).collect();
        assert_eq!(object.keys, fields, "{}", object.name);
        assert!(object.planned.iter().all(|planned| !object.keys.contains(planned)));
    }
}

#[test]
fn every_word_of_the_contract_is_taken_or_refused_by_name() {
    type Put = fn(&mut v1::Document, i32);
    fn dns(wire: &mut v1::Document, source: v1::DnsSource) {
        let source = Some(v1::discovery::Source::Dns(source));
        wire.pools[0].real_servers.clear();
        wire.pools[0].discovery = Some(v1::Discovery { source });
    }
    #[rustfmt::skip]
    let fields: [(&str, Put); 17] = [
        ("NoQuorum",   |d, n| d.fleet.as_mut().unwrap().no_quorum = n),
        ("Failback",   |d, n| d.fleet.as_mut().unwrap().failback = n),
        ("Attach",     |d, n| d.vips[0].attach = n),
        ("Checksum",   |d, n| { let v = d.vips[0].vrrp.as_mut().unwrap(); v.version = 3; v.checksum = n; }),
        ("Coexist",    |d, n| d.vips[0].vrrp.as_mut().unwrap().coexist = n),
        ("Peers",      |d, n| d.vips[0].vrrp.as_mut().unwrap().peers = n),
        ("DnsRecord",  |d, n| dns(d, v1::DnsSource {
                                  name: "web.example".into(), record: n, port: if n == 1 { 0 } else { 80 }, ..Default::default() })),
        ("CheckKind",  |d, n| d.pools[0].check.as_mut().unwrap().kind = n),
        ("Protocol",   |d, n| d.services[0].protocol = n),
        ("Scheduler",  |d, n| d.services[0].scheduler = n),
        ("Forwarding", |d, n| d.services[0].forwarding = n),
        ("Connections",       |d, n| d.fleet.as_mut().unwrap().ipvs.get_or_insert_default().connections = n),
        ("SysctlProfile",     |d, n| d.fleet.as_mut().unwrap().ipvs.get_or_insert_default().sysctls.get_or_insert_default().profile = n),
        ("SchedulerFlag",     |d, n| {
            d.services[0].scheduler = if n < 3 { 8 } else if n < 5 { 9 } else { 1 };
            d.services[0].flags = vec![n];
        }),
        ("PersistenceEngine", |d, n| {
            d.services[0].protocol = 2;
            d.services[0].persistence_ms = 1000;
            d.services[0].persistence_engine = n;
        }),
        ("TunnelKind",        |d, n| {
            d.services[0].forwarding = 3;
            d.services[0].tunnel = Some(v1::Tunnel { kind: n, port: if n == 2 { 6080 } else { 0 }, checksum: 0 });
        }),
        ("TunnelChecksum",    |d, n| {
            d.services[0].forwarding = 3;
            d.services[0].tunnel = Some(v1::Tunnel { kind: 2, port: 6080, checksum: n });
        }),
    ];
    let file = desired();
    let enums: BTreeSet<_> = file.enum_type.iter().map(|kind| kind.name().to_owned()).collect();
    assert_eq!(enums, fields.iter().map(|(name, _)| (*name).to_owned()).collect());

    for (name, put) in fields {
        let kind = file.enum_type.iter().find(|kind| kind.name() == name).unwrap();
        let mut taken = Vec::new();
        for value in kind.value.iter().filter(|value| value.number() != 0) {
            let mut wire = small();
            put(&mut wire, value.number());
            match Document::try_from(&wire) {
                Ok(document) => {
                    assert_eq!(
                        Document::try_from(v1::Document::from(&document)),
                        Ok(document.clone())
                    );
                    assert!(!taken.contains(&document), "{} is read as another", value.name());
                    taken.push(document);
                }
                Err(Refused(faults)) => {
                    let [fault] = &faults[..] else { panic!("{}: {faults:?}", value.name()) };
                    assert!(fault.message.contains("is not supported yet"), "{fault}");
                }
            }
        }
        assert!(!taken.is_empty(), "{name}: every word is refused");
    }
}
