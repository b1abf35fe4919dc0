//! A plan that is kept up to date is the plan that is made anew, and what it says has changed is what has.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::model::{Encapsulation, Listen};
use crate::plan::Extent;

/// One thing that happens to a fleet.
#[derive(Clone, Debug)]
enum Event {
    Weight(Index, Index, u32),
    AddRealServer(Index, u8),
    DropRealServer(Index, Index),
    AddService(u16, Index),
    DropService(Index),
    Reverse,
    Forward(Index, Option<Index>, u8),
    Persist(Index, u64),
    AddVip(Index, u8),
    Attach(Index, Attach),
    MinHealthy(Index, u32),
    Discover(Vec<u8>),
    Health(Index, Index, bool),
    Report(NodeId, Report),
    Leave(u8),
    Arrive(u8),
    Hold(bool),
    Entry,
}

#[derive(Clone, Debug)]
enum Report {
    Confirmed,
    Fault,
    Other(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let at = any::<Index>;
    // Two of these are nodes.
    let last = || prop::sample::select(vec![3_u8, 102, 50, 51, 52]);
    let node = prop::sample::select(vec![LVS_1, LVS_2, WEB_1]);
    let report = prop_oneof![
        3 => Just(Report::Confirmed),
        1 => Just(Report::Fault),
        1 => (0..3_u64).prop_map(Report::Other),
    ];
    prop_oneof![
        4 => (at(), at(), 0..4_u32).prop_map(|(pool, real, weight)| Event::Weight(pool, real, weight)),
        2 => (at(), last()).prop_map(|(pool, last)| Event::AddRealServer(pool, last)),
        2 => (at(), at()).prop_map(|(pool, real)| Event::DropRealServer(pool, real)),
        2 => (80..90_u16, at()).prop_map(|(port, vip)| Event::AddService(port, vip)),
        2 => at().prop_map(Event::DropService),
        1 => Just(Event::Reverse),
        1 => (at(), prop::option::of(at()), 0..3_u8)
            .prop_map(|(service, real, mode)| Event::Forward(service, real, mode)),
        1 => (at(), 0..2_u64).prop_map(|(service, timeout)| Event::Persist(service, timeout)),
        1 => (at(), 110..112_u8).prop_map(|(vip, last)| Event::AddVip(vip, last)),
        1 => (at(), prop::sample::select(&Attach::ALL[..]))
            .prop_map(|(vip, attach)| Event::Attach(vip, attach)),
        1 => (at(), 0..3_u32).prop_map(|(pool, least)| Event::MinHealthy(pool, least)),
        2 => prop::collection::vec(last(), 1..4).prop_map(Event::Discover),
        3 => (at(), at(), any::<bool>()).prop_map(|(pool, real, up)| Event::Health(pool, real, up)),
        4 => (node, report).prop_map(|(node, report)| Event::Report(node, report)),
        1 => prop::sample::select(vec![3_u8, 102]).prop_map(Event::Leave),
        1 => prop::sample::select(vec![3_u8, 102]).prop_map(Event::Arrive),
        2 => any::<bool>().prop_map(Event::Hold),
        1 => Just(Event::Entry),
    ]
}

/// A pool that a source fills, and three that are listed; the first has a node's real servers. One group that the kernel answers for, and one that
/// agents do, with a director among its real servers.
fn start() -> Document {
    let mut document = reference();
    document.vips.push(vip("mail", &[101], &[]));
    document.vips[1].vrrp.vrid = 52;
    document.vips[1].attach = Attach::Responder;
    for (name, last) in [("mail", 50), ("mixed", 102)] {
        let mut real_servers = vec![rs(last, 1), rs(51, 2)];
        for real_server in &mut real_servers {
            real_server.port = 81;
        }
        document.pools.push(pool(name, &real_servers));
    }
    document.pools.push(Pool { source: source(), ..pool("found", &[]) });
    for (port, vip, pool) in [(81, "web", "mail"), (81, "mail", "mixed"), (80, "mail", "found")] {
        let name = format!("{vip}-{port}");
        document.services.push(Service::new(&name, vip, port, pool));
    }
    document
}

fn source() -> PoolSource {
    PoolSource::Discovery(Discovery::File(FileSource {
        path: "/etc/lvsmesh/found".into(),
        interval: Duration::from_secs(5),
    }))
}

fn listed(pool: &mut Pool) -> Option<&mut Vec<RealServer>> {
    match &mut pool.source {
        PoolSource::Listed(listed) => Some(listed),
        PoolSource::Discovery(_) => None,
    }
}

impl Fleet3 {
    fn edit(&mut self, edit: impl FnOnce(&mut Document)) {
        let mut document = Document::clone(self.state.document());
        edit(&mut document);
        if document.services.iter().all(|service| document.vip(&service.vip).is_some()) {
            self.apply(document);
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Weight(pool, real, weight) => self.edit(|document| {
                let pool = pool.index(document.pools.len());
                if let Some(listed) = listed(&mut document.pools[pool])
                    && !listed.is_empty()
                {
                    let real = real.index(listed.len());
                    listed[real].weight = *weight;
                }
            }),
            Event::AddRealServer(pool, last) => self.edit(|document| {
                let pool = pool.index(document.pools.len());
                let port = if pool == 0 { 80 } else { 81 };
                if let Some(listed) = listed(&mut document.pools[pool])
                    && listed.iter().all(|real| real.address != ip(*last))
                {
                    listed.push(RealServer::new(ip(*last), port, 1));
                }
            }),
            Event::DropRealServer(pool, real) => self.edit(|document| {
                let pool = pool.index(document.pools.len());
                if let Some(listed) = listed(&mut document.pools[pool])
                    && !listed.is_empty()
                {
                    listed.remove(real.index(listed.len()));
                }
            }),
            Event::AddService(port, vip) => self.edit(|document| {
                let vip = vip.get(&document.vips).name.clone();
                let name = format!("{vip}-{port}");
                let listen = Listen::Port { protocol: crate::model::Protocol::Tcp, port: *port };
                let free = document.services.iter().all(|other| {
                    other.name != name && (&other.vip, &other.listen) != (&vip, &listen)
                });
                if free {
                    let pool = &document.pools[usize::from(*port) % document.pools.len()].name;
                    let service = Service::new(&name, &vip, *port, pool);
                    document.services.insert(document.services.len() / 2, service);
                }
            }),
            Event::DropService(service) => self.edit(|document| {
                if !document.services.is_empty() {
                    document.services.remove(service.index(document.services.len()));
                }
            }),
            Event::Reverse => self.edit(|document| {
                document.services.reverse();
                document.pools.rotate_left(1);
            }),
            Event::Forward(service, real, mode) => self.edit(|document| {
                let mode = match mode {
                    0 => Forwarding::Dr,
                    1 => Forwarding::Nat,
                    _ => Forwarding::Tunnel(Encapsulation::Ipip),
                };
                let Some(real) = real else {
                    if !document.services.is_empty() {
                        let service = service.index(document.services.len());
                        document.services[service].forwarding = mode;
                    }
                    return;
                };
                let pool = service.index(document.pools.len());
                if let Some(listed) = listed(&mut document.pools[pool])
                    && !listed.is_empty()
                {
                    let real = real.index(listed.len());
                    listed[real].forwarding = Some(mode);
                }
            }),
            Event::Persist(service, timeout) => self.edit(|document| {
                if !document.services.is_empty() {
                    let service = service.index(document.services.len());
                    let timeout = Duration::from_secs(*timeout);
                    document.services[service].persistence.timeout = timeout;
                }
            }),
            Event::AddVip(vip, last) => self.edit(|document| {
                let taken = document.vips.iter().any(|vip| vip.addresses.contains(&ip(*last)));
                let vip = vip.index(document.vips.len());
                if !taken {
                    document.vips[vip].addresses.push(ip(*last));
                }
            }),
            Event::Attach(vip, attach) => self.edit(|document| {
                let vip = vip.index(document.vips.len());
                document.vips[vip].attach = *attach;
            }),
            Event::MinHealthy(pool, least) => self.edit(|document| {
                let pool = pool.index(document.pools.len());
                document.pools[pool].min_healthy = *least;
            }),
            Event::Discover(lasts) => {
                let lasts: BTreeSet<u8> = lasts.iter().copied().collect();
                self.run(Command::Discovered(Discovered {
                    pool: "found".into(),
                    status: SourceStatus::Synced,
                    real_servers: lasts.into_iter().map(|last| rs(last, 1)).collect(),
                }));
            }
            Event::Health(pool, real, up) => {
                let document = Arc::clone(self.state.document());
                let pool = pool.get(&document.pools);
                let all = real_servers(&self.state, pool);
                if all.is_empty() {
                    return;
                }
                let real_server = real.get(all).socket_addr();
                let fault = (!up).then(|| "connection refused".to_owned());
                let pool = pool.name.clone();
                self.run(Command::Health(vec![HealthChange { pool, real_server, fault }]));
            }
            Event::Report(node, report) => {
                let own = place(&self.state, *node, false).real_server.digest();
                let (digest, fault) = match report {
                    Report::Confirmed => (own, None),
                    Report::Fault => (own, Some("arp_ignore is 0".to_owned())),
                    Report::Other(other) => (*other, None),
                };
                self.run(Command::Ready(Readiness { node: *node, digest, fault }));
            }
            Event::Leave(last) => {
                let known = self.state.members().find(|member| member.addresses == [ip(*last)]);
                if let Some(name) = known.map(|member| member.name.clone()) {
                    self.run(Command::Remove { name });
                }
            }
            Event::Arrive(last) => self.run(Command::Admit(match last {
                3 => candidate("web-1", 3, &[Role::RealServer]),
                _ => candidate("lvs-2", 102, &[Role::Director, Role::RealServer]),
            })),
            Event::Hold(_) => {}
            Event::Entry => {
                self.index += 1;
                self.state.skip(self.index);
            }
        }
    }
}

fn differing(one: &Table, other: &Table) -> BTreeSet<ServiceKey> {
    let keys = one.keys().chain(other.keys());
    keys.filter(|key| one.get(key) != other.get(key)).copied().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_kept_up_to_date_is_the_plan_made_anew(
        events in prop::collection::vec(event(), 1..40),
        ready in any::<bool>(),
    ) {
        let mut fleet = if ready { Fleet3::ready(start()) } else { Fleet3::new(start()) };
        // A node that is there again has another id.
        let mut placers: Vec<(NodeId, Placer)> =
            (1..8).map(|id| (NodeId(id), Placer::new(NodeId(id)))).collect();
        let mut holding = false;
        for (number, event) in events.iter().enumerate() {
            if let Event::Hold(hold) = event {
                holding = *hold;
            }
            fleet.happen(event);
            // Whoever is slow sees two changes as one.
            if number % 3 == 1 {
                continue;
            }
            let state = Arc::new(fleet.state.clone());
            for (node, placer) in &mut placers {
                let before = placer.plan();
                let change = placer.update(&state, holding);
                let (kept, anew) = (placer.plan(), place(&state, *node, holding));
                prop_assert_eq!(&*kept, &anew, "node {} after {:?}", node, event);
                if let Extent::Only(keys) = &change.services {
                    prop_assert_eq!(keys, &differing(&before.table, &anew.table), "{:?}", event);
                    prop_assert_eq!(change.revision, before.revision != anew.revision);
                    let rest = |plan: &NodePlan| NodePlan {
                        table: Table::new(),
                        revision: 0,
                        ..plan.clone()
                    };
                    prop_assert_eq!(change.others, rest(&before) != rest(&anew), "{:?}", event);
                } else {
                    prop_assert_eq!(&*before, &NodePlan::default(), "only the first time");
                }
            }
        }
    }
}

#[test]
fn one_weight_names_one_service() {
    let mut fleet = Fleet3::ready(start());
    let mut placer = Placer::new(LVS_1);
    placer.update(&Arc::new(fleet.state.clone()), false);
    fleet.happen(&Event::Entry);
    let change = placer.update(&Arc::new(fleet.state.clone()), false);
    assert!(change.is_none(), "{change:?}");
    fleet.edit(|document| listed(&mut document.pools[1]).unwrap()[0].weight = 9);
    let change = placer.update(&Arc::new(fleet.state.clone()), false);
    let key =
        ServiceKey::Address { protocol: crate::model::Protocol::Tcp, address: ip(100), port: 81 };
    let services = Extent::Only([key].into());
    assert_eq!(change, Change { services, others: false, revision: true });
}
