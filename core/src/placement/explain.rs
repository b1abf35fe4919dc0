//! The same decisions in words.

use std::net::SocketAddr;

use super::{key, serving};
use crate::model::NodeName;
use crate::plan::ServiceKey;
use crate::state::State;

/// One service, as a status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Name.
    pub name: String,
    /// One for each address of the VIP group.
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
    /// In the forwarding table, for every address of the service.
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
    let mut views = Vec::new();
    for service in &document.services {
        let (Some(vip), Some(pool)) = (document.vip(&service.vip), document.pool(&service.pool))
        else {
            continue;
        };
        let mut real_servers: Vec<RealServerView> = Vec::new();
        for (index, &address) in vip.addresses.iter().enumerate() {
            for (place, verdict) in serving::assess(state, pool, address).into_iter().enumerate() {
                if index == 0 {
                    real_servers.push(RealServerView {
                        address: verdict.real_server.socket_addr(),
                        weight: verdict.real_server.weight,
                        node: verdict.node.map(|node| node.name.clone()),
                        serving: verdict.serving,
                        reason: verdict.reason,
                    });
                } else if let Some(view) = real_servers.get_mut(place)
                    && view.serving
                    && !verdict.serving
                {
                    view.serving = false;
                    view.reason = verdict.reason;
                }
            }
        }
        views.push(ServiceView {
            name: service.name.clone(),
            listens: vip.addresses.iter().map(|&address| key(service, address)).collect(),
            scheduler: service.scheduler.name(),
            real_servers,
        });
    }
    views
}
