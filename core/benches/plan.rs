//! How long the pure planner takes over a large table: `cargo bench -p lvsmesh-core`. It reports and judges nothing.
//!
//! 2,277 services with 37,205 real servers, once as machines that lvsmesh does not manage, once as those of a hundred nodes that have confirmed
//! their side. Each line is the median of five.
#![expect(clippy::print_stdout, reason = "a benchmark reports")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvsmesh_core::command::{Apply, Candidate, Command, Outcome, Readiness};
use lvsmesh_core::model::{
    Attach, Checksum, Coexist, Document, Fleet, NodeId, Pool, PoolSource, RealServer, Role,
    Service, Vip, Vrrp, VrrpVersion,
};
use lvsmesh_core::placement::{Placer, explain, place};
use lvsmesh_core::plan::{Extent, Observed, Owned, diff, diff_within};
use lvsmesh_core::state::{State, changes};

const SERVICES: u16 = 2277;
const REAL_SERVERS: u32 = 37_205;
const NODES: u32 = 100;
const RUNS: usize = 5;

fn main() {
    for managed in [false, true] {
        let kind = if managed { "a hundred nodes" } else { "unmanaged" };
        println!("{SERVICES} services, {REAL_SERVERS} real servers, {kind}");
        bench(managed);
    }
}

fn bench(managed: bool) {
    let document = document(managed);
    let changed = with_weight(&document);
    let mut state = state(managed);
    apply(&mut state, document.clone());
    if managed {
        for node in 2..=u64::from(NODES) + 1 {
            let node = NodeId(node);
            let digest = place(&state, node, false).real_server.digest();
            let index = state.applied() + 1;
            state.apply(index, Command::Ready(Readiness { node, digest, fault: None }));
        }
    }
    let director = NodeId(1);
    let plan = place(&state, director, false);
    let real_servers: usize = plan.table.values().map(|service| service.destinations.len()).sum();
    assert_eq!((plan.table.len(), real_servers), (SERVICES.into(), REAL_SERVERS as usize));

    let empty = Observed { table: Some([].into()), ..Observed::default() };
    let full = Observed { table: Some(plan.table.clone()), ..Observed::default() };
    let owned = Owned { services: plan.table.keys().copied().collect(), ..Owned::default() };
    time("place the table", || place(&state, director, false));
    time("compare with an empty kernel", || diff(&empty, &plan, &Owned::default()).ops.len());
    time("compare with a kernel that has it", || diff(&full, &plan, &owned).ops.len());
    time("place and compare", || diff(&empty, &place(&state, director, false), &owned).ops.len());
    time("what differs, in words", || changes(&document, &changed));
    time("apply a document with one weight changed", || {
        let mut state = state.clone();
        apply(&mut state, changed.clone());
        state
    });
    time("explain for the status", || explain(&state).len());
    let before = Arc::new(state.clone());
    apply(&mut state, changed);
    let after = Arc::new(state);
    let mut placer = Placer::new(director);
    placer.update(&before, false);
    // There and back again: each run follows two changes.
    let mut extent = Extent::NONE;
    time("place two changes of one weight, one by one", || {
        extent = placer.update(&after, false).services;
        placer.update(&before, false)
    });
    placer.update(&after, false);
    let plan = placer.plan();
    time("compare what one weight touches", || {
        diff_within(&extent, &full, &plan, &owned).ops.len()
    });
    assert_eq!(diff(&full, &plan, &owned).ops.len(), 1, "one weight is one operation");
    assert_eq!(diff_within(&extent, &full, &plan, &owned).ops.len(), 1);
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is there to look at the clock")]
fn time<T>(what: &str, mut work: impl FnMut() -> T) {
    let mut took: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            drop(std::hint::black_box(work()));
            started.elapsed()
        })
        .collect();
    took.sort_unstable();
    println!("  {what:<44} {:>8.2} ms", took[RUNS / 2].as_secs_f64() * 1000.0);
}

fn state(managed: bool) -> State {
    let candidate = |name: String, address: IpAddr, role| Candidate {
        name,
        roles: BTreeSet::from([role]),
        addresses: vec![address],
        grpc: SocketAddr::new(address, 7400),
        lease: SocketAddr::new(address, 7401),
    };
    let director = candidate("lvs-1".into(), Ipv4Addr::new(192, 0, 2, 1).into(), Role::Director);
    let mut state = State::init("bench", director);
    for node in 0..if managed { NODES } else { 0 } {
        let candidate = candidate(format!("web-{node}"), address(node), Role::RealServer);
        let index = state.applied() + 1;
        state.apply(index, Command::Admit(candidate));
    }
    state
}

fn apply(state: &mut State, document: Document) {
    let apply = Apply {
        document,
        expected_revision: None,
        author: "bench".into(),
        message: String::new(),
        unix_ms: 0,
    };
    let index = state.applied() + 1;
    let outcome = state.apply(index, Command::Apply(apply));
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
}

fn address(at: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + at).into()
}

/// Every service has a pool of its own, of 16 or 17 real servers.
fn document(managed: bool) -> Document {
    let vip = Vip {
        name: "web".into(),
        addresses: vec![Ipv4Addr::new(192, 0, 2, 100).into()],
        interface: "eth0".into(),
        excluded: 0,
        attach: Attach::Address,
        garp: lvsmesh_core::model::Garp::default(),
        arbiters: Vec::new(),
        preference: vec![],
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
    };
    let mut pools = vec![];
    let mut services = vec![];
    let mut given = 0;
    for at in 0..SERVICES {
        let upto = REAL_SERVERS * (u32::from(at) + 1) / u32::from(SERVICES);
        let name = format!("s{at}");
        let port = 1000 + at;
        let listed = (given..upto)
            .map(|at| RealServer::new(address(if managed { at % NODES } else { at }), port, 1));
        pools.push(Pool {
            name: name.clone(),
            source: PoolSource::Listed(listed.collect()),
            check: None,
            min_healthy: 0,
        });
        services.push(Service::new(&name, "web", port, &name));
        given = upto;
    }
    let fleet = Fleet { name: "bench".into(), ..Fleet::default() };
    Document { fleet, vips: vec![vip], pools, services }
}

fn with_weight(document: &Document) -> Document {
    let mut changed = document.clone();
    if let PoolSource::Listed(listed) = &mut changed.pools[1000].source {
        listed[3].weight = 7;
    }
    changed
}
