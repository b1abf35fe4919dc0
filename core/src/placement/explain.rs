//! The same decisions in words.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Lookup, key, serving};
use crate::model::NodeName;
use crate::plan::ServiceKey;
use crate::state::State;

/// One service, as a status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Name.
    pub name: String,
    /// One for each address of the VIP group; for a firewall mark one for each of its IP versions.
    pub listens: Vec<ServiceKey>,
    /// The scheduler's name.
    pub scheduler: &'static str,
    /// All of the pool, in its order.
    pub real_servers: Vec<RealServerView>,
}

/// One real server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServerView {
    /// Where it answers.
    pub address: SocketAddr,
    /// As asked for.
    pub weight: u32,
    /// The node that it is; `None`: unmanaged.
    pub node: Option<NodeName>,
    /// In the forwarding table, for every address of the service that it can be behind.
    pub serving: bool,
    /// Why it does not serve, or serves although its check fails, in one line.
    pub reason: Option<String>,
}

impl ServiceView {
    /// Real servers that get new connections: in the table, with a weight.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.real_servers.iter().filter(|view| view.serving && view.weight > 0).count()
    }
}

/// For each service of the document in force, in its order: each real server, whether it serves, and why not.
#[must_use]
pub fn explain(state: &State) -> Vec<ServiceView> {
    let document = state.document();
    let mut lookup = Lookup::new(state);
    let mut views = Vec::new();
    for (index, service) in document.services.iter().enumerate() {
        let Some((vip, pool)) = lookup.names.parts(index, service) else { continue };
        let mut real_servers: Vec<RealServerView> = Vec::new();
        let mut places: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for address in vip.served() {
            for verdict in serving::assess(&mut lookup, service, pool, address) {
                let at = verdict.real_server.socket_addr();
                let known = places.get(&at).and_then(|&place| real_servers.get_mut(place));
                if let Some(view) = known {
                    if view.serving && !verdict.serving {
                        view.serving = false;
                        view.reason = verdict.reason;
                    }
                    continue;
                }
                places.insert(at, real_servers.len());
                real_servers.push(RealServerView {
                    address: at,
                    weight: verdict.real_server.weight,
                    node: verdict.node.map(|node| node.name.clone()),
                    serving: verdict.serving,
                    reason: verdict.reason,
                });
            }
        }
        // What no address can use is shown all the same.
        for (place, real_server) in super::real_servers(state, pool).iter().enumerate() {
            let at = real_server.socket_addr();
            if !places.contains_key(&at) {
                let version = if at.is_ipv6() { "IPv6" } else { "IPv4" };
                let view = RealServerView {
                    address: at,
                    weight: real_server.weight,
                    node: None,
                    serving: false,
                    reason: Some(format!(
                        "it is {version}, and no VIP of the service is; only a tunnel without connection synchronisation crosses"
                    )),
                };
                real_servers.insert(place.min(real_servers.len()), view);
            }
        }
        let mut listens: Vec<ServiceKey> = Vec::new();
        for key in vip.served().map(|address| key(service, address)) {
            if !listens.contains(&key) {
                listens.push(key);
            }
        }
        views.push(ServiceView {
            name: service.name.clone(),
            listens,
            scheduler: service.scheduler.name(),
            real_servers,
        });
    }
    views
}
