//! The reference deployment, for tests: directors `lvs-1` (.101) and `lvs-2` (.102), real servers `lvs-2` and `web-1` (.3), VIP .100 on `eth0`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lvsmesh_core::command::{Apply, Candidate, Command, Outcome, Readiness};
use lvsmesh_core::model::{
    Attach, Checksum, Coexist, Document, Fleet, NodeId, Pool, PoolSource, RealServer, Role,
    Service, Vip, Vrrp, VrrpVersion,
};
use lvsmesh_core::placement::place;
use lvsmesh_core::state::State;
use lvsmesh_kernel::address::Link;

use crate::raft::Applied;
use crate::reconcile::Links;

/// A pure director.
pub(crate) const LVS_1: NodeId = NodeId(1);
/// Director and real server.
pub(crate) const LVS_2: NodeId = NodeId(2);
/// A real server.
pub(crate) const WEB_1: NodeId = NodeId(3);

pub(crate) fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 168, 3, last])
}

pub(crate) fn vip() -> Vip {
    Vip {
        name: "web".into(),
        addresses: vec![ip(100)],
        interface: "eth0".into(),
        excluded: 0,
        attach: Attach::Address,
        garp: lvsmesh_core::model::Garp::default(),
        arbiters: Vec::new(),
        preference: vec!["lvs-1".into()],
        vrrp: Vrrp {
            vrid: 51,
            version: VrrpVersion::V2,
            advert_interval: Duration::from_secs(1),
            priority: 200,
            auth: None,
            checksum: Checksum::Pseudo,
            coexist: Coexist::Yield,
            peers: lvsmesh_core::model::Peers::Multicast,
        },
    }
}

pub(crate) fn document() -> Document {
    let real_server = |last| RealServer::new(ip(last), 80, 3);
    Document {
        fleet: Fleet { name: "blue".into(), ..Fleet::default() },
        vips: vec![vip()],
        pools: vec![Pool {
            name: "web".into(),
            source: PoolSource::Listed(vec![real_server(3), real_server(102)]),
            check: None,
            min_healthy: 0,
        }],
        services: vec![Service::new("web", "web", 80, "web")],
    }
}

/// A state that tests change by commands, as the log does.
#[derive(Debug)]
pub(crate) struct TestFleet {
    pub(crate) state: State,
}

impl TestFleet {
    /// The reference deployment with every node ready.
    pub(crate) fn new() -> Self {
        Self::with(document())
    }

    pub(crate) fn with(document: Document) -> Self {
        let candidate = |name: &str, last, roles: &[Role]| Candidate {
            name: name.into(),
            roles: roles.iter().copied().collect(),
            addresses: vec![ip(last)],
            grpc: SocketAddr::new(ip(last), 7400),
            lease: SocketAddr::new(ip(last), 7401),
        };
        let first = candidate("lvs-1", 101, &[Role::Director]);
        let mut fleet = Self { state: State::init("blue", first) };
        fleet.run(Command::Admit(candidate("lvs-2", 102, &[Role::Director, Role::RealServer])));
        fleet.run(Command::Admit(candidate("web-1", 3, &[Role::RealServer])));
        fleet.apply(document);
        for node in [LVS_2, WEB_1] {
            let digest = place(&fleet.state, node, false).real_server.digest();
            fleet.run(Command::Ready(Readiness { node, digest, fault: None }));
        }
        fleet
    }

    pub(crate) fn run(&mut self, command: Command) -> Outcome {
        let outcome = self.state.apply(self.state.applied() + 1, command);
        assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
        outcome
    }

    pub(crate) fn apply(&mut self, document: Document) {
        self.run(Command::Apply(Apply {
            document,
            expected_revision: None,
            author: "test".into(),
            message: String::new(),
            unix_ms: 0,
        }));
    }

    pub(crate) fn applied(&self) -> Applied {
        Applied { state: Arc::new(self.state.clone()), traceparent: String::new() }
    }
}

/// `eth0`, up.
pub(crate) fn links() -> Links {
    let link = Link {
        index: 2,
        name: "eth0".into(),
        mac: Some([2, 0, 0, 0, 0, 1]),
        up: true,
        carrier: true,
        operational: true,
    };
    BTreeMap::from([(link.name.clone(), link)])
}
