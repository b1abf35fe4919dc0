//! The example that `deploy/` ships is a document, and says what it is meant to say.

use std::net::IpAddr;
use std::time::Duration;

use lvsmesh_core::document::{Value, decode, encode};
use lvsmesh_core::model::{
    Attach, Auth, Check, CheckKind, Checksum, Coexist, Document, Failback, Fleet, Ipvs, NoQuorum,
    Persistence, Pool, PoolSource, RealServer, Service, Vip, Vrrp, VrrpVersion,
};
use lvsmesh_proto::v1;

const REFERENCE: &str = include_str!("../../deploy/examples/reference.yaml");

#[test]
fn the_reference_deployment_is_a_document() {
    let parsed: serde_json::Value = serde_saphyr::from_str(REFERENCE).unwrap();
    let document = decode(&tree(&parsed));
    assert_eq!(document, Ok(reference()));

    let document = document.unwrap();
    assert_eq!(Document::try_from(v1::Document::from(&document)), Ok(document.clone()));
    assert_eq!(decode(&encode(&document)), Ok(document));
}

#[test]
fn every_example_is_a_document() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let parsed: serde_json::Value =
            serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let document = decode(&tree(&parsed));
        let document = document.unwrap_or_else(|faults| panic!("{}: {faults:?}", path.display()));
        assert_eq!(Document::try_from(v1::Document::from(&document)), Ok(document));
        seen += 1;
    }
    assert!(seen >= 4, "{seen} in {}", directory.display());
}

fn reference() -> Document {
    let seconds = Duration::from_secs;
    let server = |last| RealServer::new(IpAddr::from([192, 168, 3, last]), 80, 3);
    Document {
        fleet: Fleet {
            name: "reference".into(),
            no_quorum: NoQuorum::Strict,
            failback: Failback::Never,
            ipvs: Ipvs::default(),
        },
        vips: vec![Vip {
            name: "web".into(),
            addresses: vec![IpAddr::from([192, 168, 3, 100])],
            interface: "eth0".into(),
            excluded: 0,
            attach: Attach::Responder,
            garp: lvsmesh_core::model::Garp::default(),
            arbiters: Vec::new(),
            preference: vec!["lvs-1".into(), "lvs-2".into()],
            vrrp: Vrrp {
                vrid: 51,
                version: VrrpVersion::V2,
                advert_interval: seconds(1),
                priority: 100,
                auth: Some(Auth::Pass("1111".into())),
                checksum: Checksum::Pseudo,
                coexist: Coexist::Yield,
                peers: lvsmesh_core::model::Peers::Multicast,
            },
        }],
        pools: vec![Pool {
            name: "web".into(),
            source: PoolSource::Listed(vec![server(3), server(102)]),
            check: Some(Check {
                kind: CheckKind::Tcp,
                port: None,
                interval: seconds(6),
                timeout: seconds(3),
                retries: 3,
                delay_before_retry: seconds(3),
            }),
            min_healthy: 0,
        }],
        services: vec![Service {
            persistence: Persistence { timeout: seconds(50), ..Persistence::default() },
            ..Service::new("web", "web", 80, "web")
        }],
    }
}

/// A parsed file as the tree that core reads.
fn tree(parsed: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match parsed {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => {
            let whole = number.as_i64().expect("the example has whole numbers only");
            Value::Integer(whole.into())
        }
        Json::String(text) => text.as_str().into(),
        Json::Array(values) => Value::List(values.iter().map(tree).collect()),
        Json::Object(entries) => {
            Value::Map(entries.iter().map(|(key, value)| (key.clone(), tree(value))).collect())
        }
    }
}
