//! IPVS services and destinations, as listings show them and a restore takes them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lvsmesh_core::model::{Encapsulation, Protocol, TunnelChecksum};
use lvsmesh_core::plan::{Destination, Method, ServiceKey, ServiceSpec, VirtualService};

use crate::v1;

/// A service or destination that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Impossible {
    /// `port`, `destinations[2].address`.
    pub field: String,
    /// With the value and the limit.
    pub reason: String,
}

impl From<&ServiceKey> for v1::IpvsService {
    /// The identity alone.
    fn from(key: &ServiceKey) -> Self {
        match *key {
            ServiceKey::Address { protocol, address, port } => Self {
                protocol: u32::from(protocol.number()),
                address: address.to_string(),
                port: u32::from(port),
                ipv6: address.is_ipv6(),
                ..Self::default()
            },
            ServiceKey::Mark { ipv6, mark } => Self { mark, ipv6, ..Self::default() },
        }
    }
}

impl From<(&ServiceKey, &VirtualService)> for v1::IpvsService {
    /// Without counters; whose it is stays open.
    fn from((key, service): (&ServiceKey, &VirtualService)) -> Self {
        Self {
            scheduler: service.spec.scheduler.clone(),
            flags: service.spec.flags,
            timeout: service.spec.timeout,
            netmask: service.spec.netmask,
            engine: service.spec.engine.clone().unwrap_or_default(),
            destinations: service.destinations.iter().map(Into::into).collect(),
            ..key.into()
        }
    }
}

impl From<(&SocketAddr, &Destination)> for v1::IpvsDestination {
    /// Without counters.
    fn from((real, settings): (&SocketAddr, &Destination)) -> Self {
        let (tunnel_type, tunnel_port, checksum) = match settings.method {
            Method::Tunnel(Encapsulation::Gue { port, checksum }) => (1, port, checksum),
            Method::Tunnel(Encapsulation::Gre { checksum }) => (2, 0, checksum),
            Method::Tunnel(Encapsulation::Ipip)
            | Method::Masq
            | Method::Local
            | Method::Route
            | Method::Bypass => (0, 0, TunnelChecksum::None),
        };
        Self {
            address: real.ip().to_string(),
            port: u32::from(real.port()),
            method: match settings.method {
                Method::Masq => 0,
                Method::Local => 1,
                Method::Tunnel(_) => 2,
                Method::Route => 3,
                Method::Bypass => 4,
            },
            tunnel_type,
            tunnel_port: u32::from(tunnel_port),
            tunnel_flags: match checksum {
                TunnelChecksum::None => 0,
                TunnelChecksum::Csum => 1,
                TunnelChecksum::Remcsum => 2,
            },
            weight: settings.weight,
            upper_threshold: settings.upper,
            lower_threshold: settings.lower,
            ..Self::default()
        }
    }
}

impl TryFrom<&v1::IpvsService> for ServiceKey {
    type Error = Impossible;

    /// Reads the identity alone.
    fn try_from(wire: &v1::IpvsService) -> Result<Self, Impossible> {
        if wire.mark != 0 {
            return match (wire.protocol, wire.address.as_str(), wire.port) {
                (0, "", 0) => Ok(Self::Mark { ipv6: wire.ipv6, mark: wire.mark }),
                _ => Err(impossible("mark", "a service has a mark or an address, not both")),
            };
        }
        let protocol = match wire.protocol {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            132 => Protocol::Sctp,
            other => {
                let reason = format!("{other} is none of 6 (TCP), 17 (UDP) and 132 (SCTP)");
                return Err(impossible("protocol", &reason));
            }
        };
        let address = ip("address", &wire.address)?;
        if address.is_ipv6() != wire.ipv6 {
            let reason = format!("{} does not go with the family of {address}", wire.ipv6);
            return Err(impossible("ipv6", &reason));
        }
        Ok(Self::Address { protocol, address, port: port("port", wire.port)? })
    }
}

impl TryFrom<&v1::IpvsService> for VirtualService {
    type Error = Impossible;

    /// Reads settings and destinations. What the kernel has its own limits for (weights, thresholds, names) is left to it.
    fn try_from(wire: &v1::IpvsService) -> Result<Self, Impossible> {
        const KNOWN: u32 = ServiceSpec::PERSISTENT | ServiceSpec::ONE_PACKET | 0x8 | 0x10 | 0x20;

        if wire.flags & !KNOWN != 0 {
            let reason = format!("{:#x} has bits beyond {KNOWN:#x}", wire.flags);
            return Err(impossible("flags", &reason));
        }
        if wire.scheduler.is_empty() {
            return Err(impossible("scheduler", "it is empty"));
        }
        let mut destinations = BTreeMap::new();
        for (number, destination) in wire.destinations.iter().enumerate() {
            let (real, settings) = read_destination(destination).map_err(|error| Impossible {
                field: format!("destinations[{number}].{}", error.field),
                ..error
            })?;
            if destinations.insert(real, settings).is_some() {
                let reason = format!("{real} comes twice");
                return Err(impossible(&format!("destinations[{number}]"), &reason));
            }
        }
        Ok(Self {
            spec: ServiceSpec {
                scheduler: wire.scheduler.clone(),
                flags: wire.flags,
                timeout: wire.timeout,
                netmask: wire.netmask,
                engine: (!wire.engine.is_empty()).then(|| wire.engine.clone()),
            },
            destinations,
        })
    }
}

fn read_destination(wire: &v1::IpvsDestination) -> Result<(SocketAddr, Destination), Impossible> {
    let real = SocketAddr::new(ip("address", &wire.address)?, port("port", wire.port)?);
    let method = match wire.method {
        0 => Method::Masq,
        1 => Method::Local,
        2 => Method::Tunnel(encapsulation(wire)?),
        3 => Method::Route,
        4 => Method::Bypass,
        other => return Err(impossible("method", &format!("{other} is above 4"))),
    };
    let settings = Destination {
        weight: wire.weight,
        method,
        upper: wire.upper_threshold,
        lower: wire.lower_threshold,
    };
    Ok((real, settings))
}

fn encapsulation(wire: &v1::IpvsDestination) -> Result<Encapsulation, Impossible> {
    let checksum = match wire.tunnel_flags {
        0 => TunnelChecksum::None,
        1 => TunnelChecksum::Csum,
        2 => TunnelChecksum::Remcsum,
        other => return Err(impossible("tunnel_flags", &format!("{other} is above 2"))),
    };
    match (wire.tunnel_type, checksum) {
        (0, _) => Ok(Encapsulation::Ipip),
        (1, checksum) => {
            Ok(Encapsulation::Gue { port: port("tunnel_port", wire.tunnel_port)?, checksum })
        }
        (2, TunnelChecksum::Remcsum) => {
            Err(impossible("tunnel_flags", "a gre tunnel has no remote checksum offload"))
        }
        (2, checksum) => Ok(Encapsulation::Gre { checksum }),
        (other, _) => Err(impossible("tunnel_type", &format!("{other} is above 2"))),
    }
}

fn ip(field: &str, text: &str) -> Result<IpAddr, Impossible> {
    text.parse().map_err(|_| impossible(field, &format!("`{text}` is not an IP address")))
}

fn port(field: &str, number: u32) -> Result<u16, Impossible> {
    u16::try_from(number)
        .map_err(|_| impossible(field, &format!("{number} is above the limit of 65535")))
}

fn impossible(field: &str, reason: &str) -> Impossible {
    Impossible { field: field.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> (ServiceKey, VirtualService) {
        let key = ServiceKey::Address {
            protocol: Protocol::Tcp,
            address: "2001:db8::1".parse().unwrap(),
            port: 80,
        };
        let spec = ServiceSpec {
            scheduler: "mh".into(),
            flags: ServiceSpec::PERSISTENT | 0x18,
            timeout: 50,
            netmask: 64,
            engine: Some("sip".into()),
        };
        let real = |last: u16| SocketAddr::new([0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into(), 8080);
        let tunnels = [
            Encapsulation::Ipip,
            Encapsulation::Gue { port: 6080, checksum: TunnelChecksum::Remcsum },
            Encapsulation::Gue { port: 65_535, checksum: TunnelChecksum::None },
            Encapsulation::Gre { checksum: TunnelChecksum::Csum },
        ];
        let methods = [Method::Masq, Method::Local, Method::Route, Method::Bypass]
            .into_iter()
            .chain(tunnels.map(Method::Tunnel));
        let destinations = (1..).zip(methods).map(|(number, method)| {
            let settings =
                Destination { weight: u32::from(number), method, upper: 1000, lower: 800 };
            (real(number), settings)
        });
        (key, VirtualService { spec, destinations: destinations.collect() })
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        let (key, service) = web();
        let mark = ServiceKey::Mark { ipv6: true, mark: 7 };
        let plain = VirtualService {
            spec: ServiceSpec { engine: None, flags: 0, ..service.spec.clone() },
            destinations: BTreeMap::new(),
        };
        for (key, service) in [(key, service), (mark, plain)] {
            let wire = v1::IpvsService::from((&key, &service));
            assert_eq!(ServiceKey::try_from(&wire), Ok(key));
            assert_eq!(VirtualService::try_from(&wire), Ok(service));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_field() {
        let (key, service) = web();
        let whole = v1::IpvsService::from((&key, &service));
        let with = |change: fn(&mut v1::IpvsService)| {
            let mut wire = whole.clone();
            change(&mut wire);
            let read = ServiceKey::try_from(&wire).and_then(|_| VirtualService::try_from(&wire));
            read.map(drop).unwrap_err().to_string()
        };
        #[rustfmt::skip]
        let cases = [
            (with(|s| s.mark = 7),                          "mark: a service has a mark or an address, not both"),
            (with(|s| s.protocol = 1),                      "protocol: 1 is none of 6 (TCP), 17 (UDP) and 132 (SCTP)"),
            (with(|s| s.address = "web".into()),            "address: `web` is not an IP address"),
            (with(|s| s.ipv6 = false),                      "ipv6: false does not go with the family of 2001:db8::1"),
            (with(|s| s.port = 65_536),                     "port: 65536 is above the limit of 65535"),
            (with(|s| s.flags = 0x40),                      "flags: 0x40 has bits beyond 0x3d"),
            (with(|s| s.scheduler.clear()),                 "scheduler: it is empty"),
            (with(|s| s.destinations[2].port = 65_536),     "destinations[2].port: 65536 is above the limit of 65535"),
            (with(|s| s.destinations[0].address.clear()),   "destinations[0].address: `` is not an IP address"),
            (with(|s| s.destinations[1].method = 5),        "destinations[1].method: 5 is above 4"),
            (with(|s| s.destinations[4].tunnel_type = 3),   "destinations[4].tunnel_type: 3 is above 2"),
            (with(|s| s.destinations[4].tunnel_flags = 3),  "destinations[4].tunnel_flags: 3 is above 2"),
            (with(|s| s.destinations[5].tunnel_port = 65_536), "destinations[5].tunnel_port: 65536 is above the limit of 65535"),
            (with(|s| s.destinations[7].tunnel_flags = 2),  "destinations[7].tunnel_flags: a gre tunnel has no remote checksum offload"),
            (with(|s| s.destinations[1] = s.destinations[0].clone()), "destinations[1]: [2001:db8::1]:8080 comes twice"),
        ];
        for (error, expected) in cases {
            assert_eq!(error, expected);
        }
    }
}
