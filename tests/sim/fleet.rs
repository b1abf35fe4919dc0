//! The fleet that a seed starts with, and the changes that its operators make.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use lvsmesh_agent::raft::storage::{Disk, FIRST_INDEX, FIRST_TERM, LogStore, MemoryStore};
use lvsmesh_core::command::{Apply, Candidate, Command, HealthChange};
use lvsmesh_core::membership;
use lvsmesh_core::model::{
    Attach, Checksum, Coexist, Document, Fleet, NodeId, Persistence, Pool, PoolSource, RealServer,
    Role, Scheduler, Service, Vip, Vrrp, VrrpVersion,
};
use lvsmesh_core::state::State;
use lvsmesh_proto::convert;
use raft::eraftpb::{ConfState, Snapshot};

use crate::rng::Rng;
use crate::world::NODES;

const FLEET: &str = "sim";

fn address(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(node + 1).unwrap()))
}

fn candidate(node: usize, roles: &[Role]) -> Candidate {
    Candidate {
        name: format!("node-{}", node + 1),
        roles: roles.iter().copied().collect(),
        addresses: vec![address(node)],
        grpc: SocketAddr::new(address(node), 7400),
        lease: SocketAddr::new(address(node), 7401),
    }
}

/// Two to five directors, the rest real servers, one of them both.
pub(crate) fn members(rng: &mut Rng) -> State {
    let directors = rng.index(4) + 2;
    let roles = |node: usize| -> &[Role] {
        if node + 1 == directors {
            &[Role::Director, Role::RealServer]
        } else if node < directors {
            &[Role::Director]
        } else {
            &[Role::RealServer]
        }
    };
    let mut state = State::init(FLEET, candidate(0, roles(0)));
    // The floor's state is made outside the log; only its members count.
    for node in 1..NODES {
        state.apply(node as u64, Command::Admit(candidate(node, roles(node))));
    }
    let parts = lvsmesh_core::state::Parts { applied: FIRST_INDEX, ..state.parts() };
    State::from_parts(parts).unwrap()
}

/// Writes the logs from which a fleet starts: all nodes in place, or the first alone and the others with nothing.
pub(crate) fn found(disks: &[Disk], state: &State, grown: bool) {
    let voters = membership::voters(state.members());
    let learners = state.members().map(|member| member.id).filter(|id| !voters.contains(id));
    let conf = if grown {
        ConfState {
            voters: voters.iter().map(|id| id.0).collect(),
            learners: learners.map(|id| id.0).collect(),
            ..ConfState::default()
        }
    } else {
        ConfState { voters: vec![1], ..ConfState::default() }
    };
    let mut floor = Snapshot { data: convert::encode_snapshot(state), ..Snapshot::default() };
    let meta = floor.mut_metadata();
    (meta.index, meta.term) = (FIRST_INDEX, FIRST_TERM);
    meta.set_conf_state(conf);
    for (node, disk) in disks.iter().enumerate() {
        let from = Some(&floor).filter(|_| grown || node == 0);
        MemoryStore::open(disk).install(NodeId(node as u64 + 1), from).unwrap();
    }
}

/// A change that an operator or a probe asks for.
pub(crate) fn command(rng: &mut Rng, request: u64) -> Command {
    if rng.permille(300) {
        let fault = rng.permille(500).then(|| "connection refused".to_owned());
        let real_server = SocketAddr::new(address(rng.index(NODES)), 80);
        return Command::Health(vec![HealthChange { pool: "web".to_owned(), real_server, fault }]);
    }
    Command::Apply(Apply {
        document: document(rng),
        expected_revision: None,
        author: "operator/sim".to_owned(),
        message: String::new(),
        unix_ms: request,
    })
}

fn document(rng: &mut Rng) -> Document {
    let real_servers = (0..NODES)
        .filter(|_| rng.permille(700))
        .map(|node| RealServer::new(address(node), 80, 1))
        .collect();
    let preference =
        (0..NODES).filter(|_| rng.permille(200)).map(|node| format!("node-{}", node + 1)).collect();
    Document {
        fleet: Fleet { name: FLEET.to_owned(), ..Fleet::default() },
        vips: vec![Vip {
            name: "main".to_owned(),
            addresses: vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100))],
            interface: "eth0".to_owned(),
            excluded: 0,
            attach: Attach::Address,
            garp: lvsmesh_core::model::Garp::default(),
            arbiters: Vec::new(),
            preference,
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
        }],
        pools: vec![Pool {
            name: "web".to_owned(),
            source: PoolSource::Listed(real_servers),
            check: None,
            min_healthy: 0,
        }],
        services: vec![Service {
            scheduler: if rng.permille(500) { Scheduler::Rr } else { Scheduler::Wlc },
            persistence: Persistence {
                timeout: Duration::from_secs(rng.of(0..60)),
                ..Persistence::default()
            },
            ..Service::new("web", "main", 80, "web")
        }],
    }
}
