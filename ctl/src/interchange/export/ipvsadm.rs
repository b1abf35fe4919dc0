//! A document becomes rules for `ipvsadm -R`, in the form of `ipvsadm -Sn`.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use lvsmesh_core::command::{Apply, Candidate, Command};
use lvsmesh_core::model::{
    Document, Encapsulation, NodeId, PoolSource, Protocol, Role, SchedulerFlag, TunnelChecksum,
};
use lvsmesh_core::placement::place;
use lvsmesh_core::plan::{Destination, Method, ServiceKey, ServiceSpec, Table};
use lvsmesh_core::state::State;

use super::Exported;
use crate::interchange::table::{each_client, is_ipv6};

/// The rules of the table that a director which holds every VIP has, with every real server well.
pub(crate) fn export(document: &Document) -> Exported {
    let notes = document
        .pools
        .iter()
        .filter(|pool| matches!(pool.source, PoolSource::Discovery(_)))
        .map(|pool| format!("pool {}: its real servers are found, and not in the rules", pool.name))
        .collect();
    Exported { text: rules(&table(document)), notes }
}

/// What the planner makes of the document for a director that is no real server of it.
pub(crate) fn table(document: &Document) -> Table {
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let director = Candidate {
        name: "director".to_owned(),
        roles: BTreeSet::from([Role::Director]),
        addresses: vec![nowhere.ip()],
        grpc: nowhere,
        lease: nowhere,
    };
    let mut state = State::init(document.fleet.name.clone(), director);
    // Whatever it answers, the state's document is what the planner looks at; one that is refused gives an empty table.
    let _outcome = state.apply(
        1,
        Command::Apply(Apply {
            document: document.clone(),
            expected_revision: None,
            author: String::new(),
            message: String::new(),
            unix_ms: 0,
        }),
    );
    place(&state, NodeId(1), true).table
}

/// The rules that make a table.
pub(crate) fn rules(table: &Table) -> String {
    let mut text = String::new();
    for (&key, service) in table {
        text += &format!("-A {}{}\n", selector(key), settings(key, &service.spec));
        for (at, destination) in &service.destinations {
            text += &format!("-a {} -r {at}{}\n", selector(key), forwarding(destination));
        }
    }
    text
}

fn selector(key: ServiceKey) -> String {
    match key {
        ServiceKey::Address { protocol, address, port } => {
            let option = match protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            format!("{option} {}", SocketAddr::new(address, port))
        }
        ServiceKey::Mark { ipv6, mark } => {
            format!("-f {mark}{}", if ipv6 { " -6" } else { "" })
        }
    }
}

fn settings(key: ServiceKey, spec: &ServiceSpec) -> String {
    let mut text = format!(" -s {}", spec.scheduler);
    if spec.flags & ServiceSpec::PERSISTENT != 0 {
        text += &format!(" -p {}", spec.timeout);
        let ipv6 = is_ipv6(key);
        if spec.netmask != each_client(ipv6) {
            text += &if ipv6 {
                format!(" -M {}", spec.netmask)
            } else {
                format!(" -M {}", Ipv4Addr::from(spec.netmask))
            };
        }
    }
    if let Some(engine) = &spec.engine {
        text += &format!(" --pe {engine}");
    }
    if spec.flags & ServiceSpec::ONE_PACKET != 0 {
        text += " -o";
    }
    let flags: Vec<&str> = SchedulerFlag::ALL
        .into_iter()
        .filter(|flag| spec.flags & flag.bit() != 0 && is_called(*flag, &spec.scheduler))
        .map(SchedulerFlag::name)
        .collect();
    if !flags.is_empty() {
        text += &format!(" -b {}", flags.join(","));
    }
    text
}

/// Whether that is what the scheduler of that name calls the flag's bit.
fn is_called(flag: SchedulerFlag, scheduler: &str) -> bool {
    let known = lvsmesh_core::model::Scheduler::ALL;
    known.into_iter().any(|known| known.name() == scheduler && flag.is_of(known))
}

fn forwarding(destination: &Destination) -> String {
    let Destination { weight, method, upper, lower } = destination;
    let mut text = match method {
        Method::Masq => " -m".to_owned(),
        Method::Tunnel(encapsulation) => format!(" -i{}", tunnel(*encapsulation)),
        Method::Route | Method::Local | Method::Bypass => " -g".to_owned(),
    };
    text += &format!(" -w {weight}");
    // What `ipvsadm -S` forgets.
    if *upper != 0 {
        text += &format!(" -x {upper}");
    }
    if *lower != 0 {
        text += &format!(" -y {lower}");
    }
    text
}

fn tunnel(encapsulation: Encapsulation) -> String {
    let option = |checksum: TunnelChecksum| match checksum {
        TunnelChecksum::None => " --tun-nocsum",
        TunnelChecksum::Csum => " --tun-csum",
        TunnelChecksum::Remcsum => " --tun-remcsum",
    };
    match encapsulation {
        Encapsulation::Ipip => String::new(),
        Encapsulation::Gue { port, checksum } => {
            format!(" --tun-type gue --tun-port {port}{}", option(checksum))
        }
        Encapsulation::Gre { checksum } => format!(" --tun-type gre{}", option(checksum)),
    }
}
