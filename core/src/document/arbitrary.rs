//! Sound documents for property tests, of this crate and of others that include this file beside a `model` module.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::model::{
    Attach, Auth, Check, CheckKind, Checksum, Coexist, Discovery, DnsRecord, DnsSource, Document,
    Engine, Failback, FileSource, Fleet, Forwarding, Garp, Ipvs, Listen, Marking, NoQuorum, Peers,
    Persistence, Pool, PoolSource, PortRange, Protocol, RealServer, Scheduler, SchedulerFlag,
    Service, Vip, Vrrp, VrrpVersion,
};

/// Any document that keeps every rule.
pub(crate) fn document() -> impl Strategy<Value = Document> {
    let vips = proptest::collection::vec(vip(), 0..4);
    let pools = proptest::collection::vec((1..=u16::MAX).prop_flat_map(pool), 0..4);
    (vips, pools).prop_flat_map(|(vips, pools)| {
        let services = (0..vips.len().min(pools.len()) * 2)
            .map(|_| service(vips.len(), pools.len()))
            .collect::<Vec<_>>();
        let fleet = (name(), select(&NoQuorum::ALL[..]), failback());
        (Just(vips), Just(pools), services, fleet)
            .prop_map(|(vips, pools, services, fleet)| assemble(vips, pools, services, fleet))
    })
}

/// Makes names unique and references real.
fn assemble(
    mut vips: Vec<Vip>,
    pools: Vec<(u16, Pool)>,
    services: Vec<(usize, usize, Service)>,
    (fleet, no_quorum, failback): (String, NoQuorum, Failback),
) -> Document {
    for (index, vip) in (0u8..).zip(&mut vips) {
        vip.name = format!("{}-{index}", vip.name);
        vip.vrrp.vrid = vip.vrrp.vrid.wrapping_add(index).max(1);
        if no_quorum != NoQuorum::Strict {
            vip.vrrp.priority = vip.vrrp.priority.max(2);
        }
        vip.interface = format!("{}{index}", vip.interface);
        for (last, address) in (0u8..).zip(&mut vip.addresses) {
            *address = match address {
                IpAddr::V4(_) => IpAddr::from([192, 0, index, last]),
                IpAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, index.into(), last.into()]),
            };
        }
    }
    let (ports, mut pools): (Vec<_>, Vec<_>) = pools.into_iter().unzip();
    for (index, pool) in pools.iter_mut().enumerate() {
        pool.name = format!("{}-{index}", pool.name);
    }
    let mut kept: Vec<Service> = Vec::new();
    for (index, (vip, pool, mut service)) in services.into_iter().enumerate() {
        service.name = format!("{}-{index}", service.name);
        service.vip.clone_from(&vips[vip].name);
        service.pool.clone_from(&pools[pool].name);
        match &mut service.listen {
            Listen::Port { port, .. } => *port = ports[pool],
            Listen::Mark { mark, .. } => *mark += u32::try_from(index).unwrap(),
        }
        let listens = |one: &Service| (one.vip.clone(), one.listen.clone());
        if kept.iter().all(|other| listens(other) != listens(&service)) {
            kept.push(service);
        }
    }
    let fleet = Fleet { name: fleet, no_quorum, failback, ipvs: Ipvs::default() };
    Document { fleet, vips, pools, services: kept }
}

fn failback() -> impl Strategy<Value = Failback> {
    prop_oneof![
        Just(Failback::Never),
        (1_000..=86_400_000_u64).prop_map(|ms| Failback::Delayed(Duration::from_millis(ms))),
        Just(Failback::Immediate),
    ]
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9-]{1,20}"
}

fn vip() -> impl Strategy<Value = Vip> {
    let preference = proptest::collection::btree_set(name(), 0..4);
    (
        name(),
        proptest::collection::vec(select(&[ANY_V4, ANY_V6][..]), 1..=20),
        option::of(select(&[ANY_V4, ANY_V6][..])),
        "[a-z]{1,10}",
        preference.prop_map(|names| names.into_iter().collect()),
        (select(&Attach::ALL[..]), vrrp(), 0usize..3, garp(), arbiters()),
    )
        .prop_map(
            |(
                name,
                mut addresses,
                alone,
                interface,
                preference,
                (attach, mut vrrp, excluded, garp, arbiters),
            )| {
                if let Some(alone) = alone {
                    addresses.fill(alone);
                }
                let excluded = excluded.min(addresses.len() - 1);
                let named = &addresses[..addresses.len() - excluded];
                if let Peers::Unicast(listed) = &mut vrrp.peers {
                    let (v4, v6) = (IpAddr::from([198, 51, 100, 7]), "fd02::7".parse().unwrap());
                    listed.fill(if named.iter().all(IpAddr::is_ipv6) { v6 } else { v4 });
                }
                if named.iter().all(IpAddr::is_ipv6) {
                    vrrp.version = VrrpVersion::V3;
                    vrrp.auth = None;
                    vrrp.checksum = Checksum::Pseudo;
                    vrrp.advert_interval = vrrp.advert_interval.min(Duration::from_secs(40));
                }
                Vip {
                    name,
                    excluded,
                    addresses,
                    interface,
                    attach,
                    preference,
                    garp,
                    vrrp,
                    arbiters,
                }
            },
        )
}

fn arbiters() -> impl Strategy<Value = Vec<IpAddr>> {
    proptest::collection::btree_set(
        (1u8..=254).prop_map(|last| IpAddr::from([203, 0, 113, last])),
        0..=8,
    )
    .prop_map(|set| set.into_iter().collect())
}

/// Stands for an address until the groups have their places.
const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn vrrp() -> impl Strategy<Value = Vrrp> {
    let v2 = (1u64..=255, option::of("[ -~]{1,8}")).prop_map(|(seconds, pass)| {
        (VrrpVersion::V2, Duration::from_secs(seconds), pass.map(Auth::Pass), Checksum::Pseudo)
    });
    let v3 = (1u64..=4095, select(&Checksum::ALL[..])).prop_map(|(centis, checksum)| {
        (VrrpVersion::V3, Duration::from_millis(centis * 10), None, checksum)
    });
    let peers = option::of(0usize..2).prop_map(|listed| match listed {
        None => Peers::Multicast,
        Some(count) => Peers::Unicast(vec![ANY_V4; count]),
    });
    let coexist = select(&Coexist::ALL[..]);
    (1u8..=255, 1u8..=254, prop_oneof![v2, v3], peers, coexist).prop_map(
        |(vrid, priority, (version, advert_interval, auth, checksum), peers, coexist)| Vrrp {
            vrid,
            version,
            advert_interval,
            priority,
            auth,
            checksum,
            coexist,
            peers,
        },
    )
}

fn garp() -> impl Strategy<Value = Garp> {
    (1u8..=100, 0u64..=86_400, 0u64..=1000).prop_map(|(repeat, refresh, interval)| Garp {
        repeat,
        refresh: Duration::from_secs(refresh),
        interval: Duration::from_millis(interval),
    })
}

fn pool(port: u16) -> impl Strategy<Value = (u16, Pool)> {
    (name(), source(port), option::of(check()), 0u32..=65_535).prop_map(
        move |(name, source, check, min_healthy)| (port, Pool { name, source, check, min_healthy }),
    )
}

fn source(port: u16) -> impl Strategy<Value = PoolSource> {
    let settings = (0u32..=i32::MAX as u32, any::<[u32; 2]>(), option::of(Just(Forwarding::Dr)));
    let listed = proptest::collection::btree_map(any::<[u8; 2]>(), settings, 0..5);
    let listed = listed.prop_map(move |servers| {
        type Settings = (u32, [u32; 2], Option<Forwarding>);
        let server =
            |([third, fourth], (weight, [one, other], forwarding)): ([u8; 2], Settings)| {
                let address = if third % 4 == 0 {
                    IpAddr::from([0xfd01, 0, 0, 0, 0, 0, third.into(), fourth.into()])
                } else {
                    IpAddr::from([10, 1, third, fourth])
                };
                RealServer {
                    upper_threshold: one.max(other),
                    lower_threshold: one.min(other),
                    forwarding,
                    ..RealServer::new(address, port, weight)
                }
            };
        PoolSource::Listed(servers.into_iter().map(server).collect())
    });
    let file = ("/[a-z./ ]{0,20}", interval())
        .prop_map(|(path, interval)| Discovery::File(FileSource { path, interval }));
    let record = prop_oneof![
        Just((DnsRecord::Srv, None, 1)),
        (select(&[DnsRecord::A, DnsRecord::Aaaa][..]), 0u32..=65_535)
            .prop_map(move |(record, weight)| (record, Some(port), weight)),
    ];
    let server = (1u8..224, any::<[u8; 3]>(), 1u16..)
        .prop_map(|(a, [b, c, d], port)| SocketAddr::from(([a, b, c, d], port)));
    let servers = proptest::collection::btree_set(server, 0..3);
    let dns = ("([a-z0-9_-]{1,9}\\.){0,3}[a-z]{1,9}\\.?", record, servers, interval()).prop_map(
        |(name, (record, port, weight), servers, interval)| {
            let servers = servers.into_iter().collect();
            Discovery::Dns(DnsSource { name, record, port, weight, servers, interval })
        },
    );
    prop_oneof![2 => listed, 1 => file.prop_map(PoolSource::Discovery), 1 => dns.prop_map(PoolSource::Discovery)]
}

fn interval() -> impl Strategy<Value = Duration> {
    (100u64..=3_600_000).prop_map(Duration::from_millis)
}

fn check() -> impl Strategy<Value = Check> {
    (option::of(1u16..), interval(), 10u64..=60_000, 0u32..=100, 10u64..=3_600_000).prop_map(
        |(port, interval, timeout, retries, delay)| Check {
            kind: CheckKind::Tcp,
            port,
            interval,
            timeout: Duration::from_millis(timeout),
            retries,
            delay_before_retry: Duration::from_millis(delay),
        },
    )
}

fn service(vips: usize, pools: usize) -> impl Strategy<Value = (usize, usize, Service)> {
    let schedule = select(&Scheduler::ALL[..]).prop_flat_map(|scheduler| {
        let flags: Vec<_> =
            SchedulerFlag::ALL.into_iter().filter(|flag| flag.is_of(scheduler)).collect();
        let count = 0..=flags.len();
        (Just(scheduler), proptest::sample::subsequence(flags, count))
    });
    (0..vips, 0..pools, name(), listen(), schedule, any::<bool>(), persistence()).prop_map(
        |(vip, pool, name, listen, (scheduler, flags), one_packet, persistence)| {
            let datagrams =
                !matches!(listen, Listen::Port { protocol: Protocol::Tcp | Protocol::Sctp, .. });
            let service = Service {
                name,
                vip: String::new(),
                listen,
                scheduler,
                flags: flags.into_iter().collect(),
                one_packet: one_packet && datagrams,
                forwarding: Forwarding::Dr,
                gateway: None,
                persistence: Persistence {
                    engine: persistence.engine.filter(|_| datagrams),
                    ..persistence
                },
                pool: String::new(),
            };
            (vip, pool, service)
        },
    )
}

fn listen() -> impl Strategy<Value = Listen> {
    let port = select(&Protocol::ALL[..]).prop_map(|protocol| Listen::Port { protocol, port: 1 });
    // Ranges that are apart from one another.
    let range = |first: u16| (first..first + 100).prop_map(move |last| PortRange { first, last });
    let ports = prop_oneof![
        range(80).prop_map(|range| vec![range]),
        (range(80), range(8000)).prop_map(|(low, high)| vec![low, high]),
    ];
    let marking = (select(&Protocol::ALL[..]), ports)
        .prop_map(|(protocol, ports)| Marking { protocol, ports });
    let mark = option::of(marking).prop_map(|marking| Listen::Mark { mark: 1, marking });
    prop_oneof![3 => port, 1 => mark]
}

fn persistence() -> impl Strategy<Value = Persistence> {
    let on = (1u64..=31 * 24 * 3600, any::<u32>(), 1u8..=128, option::of(Just(Engine::Sip)));
    let on = on.prop_map(|(seconds, netmask, prefix, engine)| Persistence {
        timeout: Duration::from_secs(seconds),
        netmask: netmask.into(),
        prefix,
        engine,
    });
    prop_oneof![Just(Persistence::default()), on]
}
