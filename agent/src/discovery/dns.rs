//! Real servers from DNS: SRV (RFC 2782) with the addresses of its targets, or A or AAAA with a port from the document.
//!
//! A snapshot is whole or none: one target whose address cannot be had fails it, because leaving that target out would take it from the pool.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use lvsmesh_core::model::{DnsRecord, DnsSource, RealServer};
use tokio::time::{sleep, timeout};

use super::Source;

/// For one question to one server.
const ANSWER: Duration = Duration::from_secs(2);

/// For a whole snapshot. Silence for that long is a failed answer.
const SNAPSHOT: Duration = Duration::from_secs(10);

/// A name and whom to ask about it.
pub(super) struct Dns {
    source: DnsSource,
    /// `None`: the next snapshot makes one.
    resolver: Option<TokioResolver>,
}

impl Dns {
    pub(super) fn new(source: &DnsSource) -> Self {
        Self { source: source.clone(), resolver: None }
    }

    async fn ask(&mut self) -> Result<Vec<RealServer>, String> {
        let name = absolute(&self.source.name)?;
        let resolver = match &mut self.resolver {
            Some(resolver) => resolver,
            none => none.insert(resolver(&self.source.servers)?),
        };
        let found = match self.source.record {
            DnsRecord::Srv => services(resolver, &name).await?,
            DnsRecord::A | DnsRecord::Aaaa => {
                let port = self.source.port.ok_or("port: A and AAAA records carry none")?;
                addresses(resolver, &name, self.source.record == DnsRecord::Aaaa)
                    .await?
                    .into_iter()
                    .map(|address| (SocketAddr::new(address, port), self.source.weight))
                    .collect()
            }
        };
        Ok(found
            .into_iter()
            .map(|(at, weight)| RealServer::new(at.ip(), at.port(), weight))
            .collect())
    }
}

impl Source for Dns {
    async fn due(&mut self) {
        sleep(self.source.interval).await;
    }

    async fn snapshot(&mut self) -> Result<Vec<RealServer>, String> {
        let answer = timeout(SNAPSHOT, self.ask())
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {SNAPSHOT:?}")));
        if answer.is_err() && self.source.servers.is_empty() {
            // /etc/resolv.conf may have changed.
            self.resolver = None;
        }
        answer.map_err(|fault| format!("{}: {fault}", self.source.name))
    }
}

fn absolute(name: &str) -> Result<Name, String> {
    // `from_ascii` takes `_web._tcp` as it is, which IDNA would not.
    let mut name = Name::from_ascii(name).map_err(|error| error.to_string())?;
    name.set_fqdn(true);
    Ok(name)
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, String> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| format!("/etc/resolv.conf: {error}"))?
    } else {
        let servers = servers.iter().map(name_server).collect();
        let config = ResolverConfig::from_parts(None, vec![], servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    // The interval says how often to ask; an answer from a cache is no answer.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = ANSWER;
    options.attempts = 1;
    // An answer that does not fit a datagram is asked for again over TCP.
    options.try_tcp_on_error = true;
    builder.build().map_err(|error| error.to_string())
}

fn name_server(at: &SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = at.port();
    }
    NameServerConfig::new(at.ip(), true, connections)
}

/// The records of one type; none if the server says that there are none.
async fn records(
    resolver: &TokioResolver,
    name: &Name,
    kind: RecordType,
) -> Result<Vec<RData>, String> {
    match resolver.lookup(name.clone(), kind).await {
        Ok(lookup) => Ok(lookup.answers().iter().map(|record| record.data.clone()).collect()),
        Err(error) if error.is_no_records_found() => Ok(vec![]),
        Err(error) => Err(explain(&error)),
    }
}

fn explain(error: &NetError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

async fn addresses(resolver: &TokioResolver, name: &Name, v6: bool) -> Result<Vec<IpAddr>, String> {
    let kind = if v6 { RecordType::AAAA } else { RecordType::A };
    let records = records(resolver, name, kind).await?;
    // A chain of CNAMEs may lead to them and is part of the answer.
    #[expect(clippy::wildcard_enum_match_arm, reason = "an open set: DNS record types")]
    let addresses = records.into_iter().filter_map(|data| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    });
    Ok(addresses.collect())
}

async fn services(
    resolver: &TokioResolver,
    name: &Name,
) -> Result<BTreeMap<SocketAddr, u32>, String> {
    let records = records(resolver, name, RecordType::SRV).await?;
    #[expect(clippy::wildcard_enum_match_arm, reason = "an open set: DNS record types")]
    let services = records.into_iter().filter_map(|data| match data {
        RData::SRV(service) => Some(service),
        _ => None,
    });
    let mut found = BTreeMap::new();
    for service in most_preferred(services.collect()) {
        let mut targets = addresses(resolver, &service.target, false).await?;
        if targets.is_empty() {
            targets = addresses(resolver, &service.target, true).await?;
        }
        if targets.is_empty() {
            return Err(format!("target {} has no address", service.target));
        }
        for address in targets {
            found.insert(SocketAddr::new(address, service.port), weight(service.weight));
        }
    }
    Ok(found)
}

/// RFC 2782: clients use the lowest priority number that answers, so the others are reserves, which a pool has no use for. A lone target `.`
/// says that there is no such service.
fn most_preferred(services: Vec<SRV>) -> Vec<SRV> {
    let lowest = services.iter().map(|service| service.priority).min();
    services
        .into_iter()
        .filter(|service| Some(service.priority) == lowest && !service.target.is_root())
        .collect()
}

/// RFC 2782 gives weight 0 a small chance; IPVS gives it none.
fn weight(srv: u16) -> u32 {
    u32::from(srv.max(1))
}
