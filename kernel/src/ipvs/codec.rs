//! The core's nouns as attributes of the generic netlink family `IPVS`, and back. Pure.
//!
//! Numbers and layouts: <linux/ip_vs.h>, and net/netfilter/ipvs/ip_vs_ctl.c (`ip_vs_genl_fill_service`, `ip_vs_genl_parse_service`,
//! `ip_vs_genl_fill_dest`, `ip_vs_genl_parse_dest`), Linux 6.1. Integers are in host order unless said otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lvsmesh_core::model::{Encapsulation, Protocol, TunnelChecksum};
use lvsmesh_core::plan::{Counters, Destination, Method, ServiceKey, ServiceSpec};

use super::{Info, Statistics};

pub(super) mod config;
mod statistics;

#[cfg(test)]
mod tests;

/// Attributes of one level as they are sent: `struct nlattr` of <linux/netlink.h> (length, type), the value, padding up to a multiple of four.
///
/// Written and read here rather than by a library that keeps each as an object of its own: a table of ten thousand real servers is half a million
/// attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

// IPVS_CMD_ATTR_*
const CMD_ATTR_SERVICE: u16 = 1;
const CMD_ATTR_DEST: u16 = 2;

// IPVS_SVC_ATTR_*
const SVC_AF: u16 = 1;
const SVC_PROTOCOL: u16 = 2;
const SVC_ADDR: u16 = 3;
const SVC_PORT: u16 = 4;
const SVC_FWMARK: u16 = 5;
const SVC_SCHED_NAME: u16 = 6;
const SVC_FLAGS: u16 = 7;
const SVC_TIMEOUT: u16 = 8;
const SVC_NETMASK: u16 = 9;
const SVC_STATS: u16 = 10;
const SVC_PE_NAME: u16 = 11;
const SVC_STATS64: u16 = 12;

// IPVS_DEST_ATTR_*
const DEST_ADDR: u16 = 1;
const DEST_PORT: u16 = 2;
const DEST_FWD_METHOD: u16 = 3;
const DEST_WEIGHT: u16 = 4;
const DEST_U_THRESH: u16 = 5;
const DEST_L_THRESH: u16 = 6;
const DEST_ACTIVE_CONNS: u16 = 7;
const DEST_INACT_CONNS: u16 = 8;
const DEST_PERSIST_CONNS: u16 = 9;
const DEST_STATS: u16 = 10;
const DEST_ADDR_FAMILY: u16 = 11;
const DEST_STATS64: u16 = 12;
const DEST_TUN_TYPE: u16 = 13;
const DEST_TUN_PORT: u16 = 14;
const DEST_TUN_FLAGS: u16 = 15;

// IPVS_INFO_ATTR_*
const INFO_VERSION: u16 = 1;
const INFO_CONN_TAB_SIZE: u16 = 2;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// `IP_VS_SVC_F_HASHED`: the kernel's own, set on every service that is in its table.
const HASHED: u32 = 0x2;
// IP_VS_CONN_F_TUNNEL_TYPE_*: `enum` of <linux/ip_vs.h>.
const TUNNEL_IPIP: u8 = 0;
const TUNNEL_GUE: u8 = 1;
const TUNNEL_GRE: u8 = 2;
// IP_VS_TUNNEL_ENCAP_FLAG_*
const TUNNEL_CSUM: u16 = 0x1;
const TUNNEL_REMCSUM: u16 = 0x2;

/// `IP_VS_CONN_F_FWD_MASK`.
const FORWARDING_MASK: u32 = 0x7;

/// An answer that does not say what it must: which attribute, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) String);

/// What a request about a service carries: its identity, and its settings if it is to have them.
pub(super) fn encode_service(key: ServiceKey, spec: Option<&ServiceSpec>) -> Attributes {
    let mut inner = Vec::new();
    match key {
        ServiceKey::Address { protocol, address, port } => {
            inner.push(attribute(SVC_AF, &family(address.is_ipv6()).to_ne_bytes()));
            inner.push(attribute(SVC_PROTOCOL, &u16::from(protocol.number()).to_ne_bytes()));
            inner.push(attribute(SVC_ADDR, &nf_inet_addr(address)));
            inner.push(attribute(SVC_PORT, &port.to_be_bytes()));
        }
        ServiceKey::Mark { ipv6, mark } => {
            inner.push(attribute(SVC_AF, &family(ipv6).to_ne_bytes()));
            inner.push(attribute(SVC_FWMARK, &mark.to_ne_bytes()));
        }
    }
    if let Some(spec) = spec {
        // struct ip_vs_flags: values, and which of them count. All do: an edit must also clear what is not wanted.
        let mut flags = [0; 8];
        flags[..4].copy_from_slice(&(spec.flags & !HASHED).to_ne_bytes());
        flags[4..].copy_from_slice(&(!HASHED).to_ne_bytes());

        inner.push(attribute(SVC_SCHED_NAME, &text(&spec.scheduler)));
        if let Some(engine) = &spec.engine {
            inner.push(attribute(SVC_PE_NAME, &text(engine)));
        }
        inner.push(attribute(SVC_FLAGS, &flags));
        inner.push(attribute(SVC_TIMEOUT, &spec.timeout.to_ne_bytes()));
        inner.push(attribute(SVC_NETMASK, &encode_netmask(key, spec.netmask)));
    }
    [nest(CMD_ATTR_SERVICE, inner)].into_iter().collect()
}

/// What a request about a destination carries: its service's identity, its own, and its settings if it is to have them.
pub(super) fn encode_destination(
    key: ServiceKey,
    real: SocketAddr,
    settings: Option<&Destination>,
) -> Attributes {
    let mut inner = vec![
        attribute(DEST_ADDR, &nf_inet_addr(real.ip())),
        attribute(DEST_PORT, &real.port().to_be_bytes()),
        attribute(DEST_ADDR_FAMILY, &family(real.is_ipv6()).to_ne_bytes()),
    ];
    if let Some(settings) = settings {
        inner.push(attribute(DEST_FWD_METHOD, &encode_method(settings.method).to_ne_bytes()));
        inner.push(attribute(DEST_WEIGHT, &settings.weight.to_ne_bytes()));
        inner.push(attribute(DEST_U_THRESH, &settings.upper.to_ne_bytes()));
        inner.push(attribute(DEST_L_THRESH, &settings.lower.to_ne_bytes()));
        if let Method::Tunnel(encapsulation) = settings.method {
            let (kind, port, checksum) = match encapsulation {
                Encapsulation::Ipip => (TUNNEL_IPIP, 0, TunnelChecksum::None),
                Encapsulation::Gue { port, checksum } => (TUNNEL_GUE, port, checksum),
                Encapsulation::Gre { checksum } => (TUNNEL_GRE, 0, checksum),
            };
            let flags = match checksum {
                TunnelChecksum::None => 0,
                TunnelChecksum::Csum => TUNNEL_CSUM,
                TunnelChecksum::Remcsum => TUNNEL_REMCSUM,
            };
            inner.push(attribute(DEST_TUN_TYPE, &[kind]));
            inner.push(attribute(DEST_TUN_PORT, &port.to_be_bytes()));
            inner.push(attribute(DEST_TUN_FLAGS, &flags.to_ne_bytes()));
        }
    }
    [encode_service(key, None), nest(CMD_ATTR_DEST, inner)].into_iter().collect()
}

/// Reads a service out of an answer. `None`: of a protocol that [`ServiceKey`] does not know, which neither ipvsadm nor keepalived makes.
pub(super) fn decode_service(
    answer: &Attributes,
) -> Result<Option<(ServiceKey, ServiceSpec, Statistics)>, Malformed> {
    let service = Fields::nested(answer, CMD_ATTR_SERVICE, "IPVS_CMD_ATTR_SERVICE")?;
    let ipv6 = is_ipv6(service.u16(SVC_AF, "IPVS_SVC_ATTR_AF")?)?;

    let key = if let Some(bytes) = service.get(SVC_FWMARK) {
        ServiceKey::Mark { ipv6, mark: u32::from_ne_bytes(sized(bytes, "IPVS_SVC_ATTR_FWMARK")?) }
    } else {
        let protocol = match service.u16(SVC_PROTOCOL, "IPVS_SVC_ATTR_PROTOCOL")? {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            132 => Protocol::Sctp,
            _ => return Ok(None),
        };
        let address = service.require(SVC_ADDR, "IPVS_SVC_ATTR_ADDR")?;
        ServiceKey::Address {
            protocol,
            address: decode_address(ipv6, address, "IPVS_SVC_ATTR_ADDR")?,
            port: service.port(SVC_PORT, "IPVS_SVC_ATTR_PORT")?,
        }
    };

    let flags: [u8; 8] =
        sized(service.require(SVC_FLAGS, "IPVS_SVC_ATTR_FLAGS")?, "IPVS_SVC_ATTR_FLAGS")?;
    let [a, b, c, d, ..] = flags;
    let netmask: [u8; 4] =
        sized(service.require(SVC_NETMASK, "IPVS_SVC_ATTR_NETMASK")?, "IPVS_SVC_ATTR_NETMASK")?;
    let spec = ServiceSpec {
        scheduler: service.text(SVC_SCHED_NAME, "IPVS_SVC_ATTR_SCHED_NAME")?,
        flags: u32::from_ne_bytes([a, b, c, d]) & !HASHED,
        timeout: service.u32(SVC_TIMEOUT, "IPVS_SVC_ATTR_TIMEOUT")?,
        netmask: if ipv6 { u32::from_ne_bytes(netmask) } else { u32::from_be_bytes(netmask) },
        engine: match service.get(SVC_PE_NAME) {
            Some(_) => Some(service.text(SVC_PE_NAME, "IPVS_SVC_ATTR_PE_NAME")?),
            None => None,
        },
    };
    let statistics = statistics::decode(
        &service,
        [(SVC_STATS64, "IPVS_SVC_ATTR_STATS64"), (SVC_STATS, "IPVS_SVC_ATTR_STATS")],
    )?;
    Ok(Some((key, spec, statistics)))
}

/// Reads a destination of the service `key` out of an answer.
pub(super) fn decode_destination(
    key: ServiceKey,
    answer: &Attributes,
) -> Result<(SocketAddr, Destination, Counters, Statistics), Malformed> {
    let fields = Fields::nested(answer, CMD_ATTR_DEST, "IPVS_CMD_ATTR_DEST")?;
    let ipv6 = match fields.get(DEST_ADDR_FAMILY) {
        Some(bytes) => is_ipv6(u16::from_ne_bytes(sized(bytes, "IPVS_DEST_ATTR_ADDR_FAMILY")?))?,
        // Before Linux 3.18 a destination was of its service's family.
        None => match key {
            ServiceKey::Address { address, .. } => address.is_ipv6(),
            ServiceKey::Mark { ipv6, .. } => ipv6,
        },
    };
    let address = fields.require(DEST_ADDR, "IPVS_DEST_ATTR_ADDR")?;
    let real = SocketAddr::new(
        decode_address(ipv6, address, "IPVS_DEST_ATTR_ADDR")?,
        fields.port(DEST_PORT, "IPVS_DEST_ATTR_PORT")?,
    );
    let settings = Destination {
        weight: fields.u32(DEST_WEIGHT, "IPVS_DEST_ATTR_WEIGHT")?,
        method: decode_method(&fields)?,
        upper: fields.u32(DEST_U_THRESH, "IPVS_DEST_ATTR_U_THRESH")?,
        lower: fields.u32(DEST_L_THRESH, "IPVS_DEST_ATTR_L_THRESH")?,
    };
    let statistics = statistics::decode(
        &fields,
        [(DEST_STATS64, "IPVS_DEST_ATTR_STATS64"), (DEST_STATS, "IPVS_DEST_ATTR_STATS")],
    )?;
    let counters = Counters {
        active: fields.u32(DEST_ACTIVE_CONNS, "IPVS_DEST_ATTR_ACTIVE_CONNS")?,
        inactive: fields.u32(DEST_INACT_CONNS, "IPVS_DEST_ATTR_INACT_CONNS")?,
        persistent: fields.u32(DEST_PERSIST_CONNS, "IPVS_DEST_ATTR_PERSIST_CONNS")?,
        connections: statistics.connections,
    };
    Ok((real, settings, counters, statistics))
}

/// Reads the answer to `IPVS_CMD_GET_INFO`.
pub(super) fn decode_info(answer: &Attributes) -> Result<Info, Malformed> {
    let fields = Fields::parse(answer.as_bytes(), "the answer")?;
    let [_, major, minor, patch] =
        fields.u32(INFO_VERSION, "IPVS_INFO_ATTR_VERSION")?.to_be_bytes();
    Ok(Info {
        version: (major, minor, patch),
        connection_table_size: fields.u32(INFO_CONN_TAB_SIZE, "IPVS_INFO_ATTR_CONN_TAB_SIZE")?,
    })
}

fn encode_method(method: Method) -> u32 {
    match method {
        Method::Masq => 0,
        Method::Local => 1,
        Method::Tunnel(_) => 2,
        Method::Route => 3,
        Method::Bypass => 4,
    }
}

fn decode_method(destination: &Fields) -> Result<Method, Malformed> {
    let flags = destination.u32(DEST_FWD_METHOD, "IPVS_DEST_ATTR_FWD_METHOD")?;
    match flags & FORWARDING_MASK {
        0 => Ok(Method::Masq),
        1 => Ok(Method::Local),
        2 => decode_encapsulation(destination).map(Method::Tunnel),
        3 => Ok(Method::Route),
        4 => Ok(Method::Bypass),
        other => Err(Malformed(format!("IPVS_DEST_ATTR_FWD_METHOD is {other}, above 4"))),
    }
}

/// What a tunnel puts packets into; kernels before 5.2 know IP in IP alone and say nothing.
fn decode_encapsulation(destination: &Fields) -> Result<Encapsulation, Malformed> {
    let Some(kind) = destination.get(DEST_TUN_TYPE) else { return Ok(Encapsulation::Ipip) };
    let [kind] = sized(kind, "IPVS_DEST_ATTR_TUN_TYPE")?;
    let checksum = match destination.get(DEST_TUN_FLAGS) {
        None => TunnelChecksum::None,
        Some(bytes) => match u16::from_ne_bytes(sized(bytes, "IPVS_DEST_ATTR_TUN_FLAGS")?) {
            flags if flags & TUNNEL_REMCSUM != 0 => TunnelChecksum::Remcsum,
            flags if flags & TUNNEL_CSUM != 0 => TunnelChecksum::Csum,
            _ => TunnelChecksum::None,
        },
    };
    match kind {
        TUNNEL_IPIP => Ok(Encapsulation::Ipip),
        TUNNEL_GUE => {
            let port = destination.port(DEST_TUN_PORT, "IPVS_DEST_ATTR_TUN_PORT")?;
            Ok(Encapsulation::Gue { port, checksum })
        }
        TUNNEL_GRE => Ok(Encapsulation::Gre { checksum }),
        other => Err(Malformed(format!("IPVS_DEST_ATTR_TUN_TYPE is {other}, above 2"))),
    }
}

/// An IPv4 mask is in network order; an IPv6 prefix length, in the same attribute, in host order.
fn encode_netmask(key: ServiceKey, netmask: u32) -> [u8; 4] {
    let ipv6 = match key {
        ServiceKey::Address { address, .. } => address.is_ipv6(),
        ServiceKey::Mark { ipv6, .. } => ipv6,
    };
    if ipv6 { netmask.to_ne_bytes() } else { netmask.to_be_bytes() }
}

fn family(ipv6: bool) -> u16 {
    if ipv6 { AF_INET6 } else { AF_INET }
}

fn is_ipv6(family: u16) -> Result<bool, Malformed> {
    match family {
        AF_INET => Ok(false),
        AF_INET6 => Ok(true),
        other => Err(Malformed(format!("address family {other} is neither IPv4 nor IPv6"))),
    }
}

/// `union nf_inet_addr`: 16 bytes, of which IPv4 uses the first four.
fn nf_inet_addr(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn decode_address(ipv6: bool, bytes: &[u8], name: &str) -> Result<IpAddr, Malformed> {
    let bytes: [u8; 16] = sized(bytes, name)?;
    let [a, b, c, d, ..] = bytes;
    Ok(if ipv6 { Ipv6Addr::from(bytes).into() } else { Ipv4Addr::new(a, b, c, d).into() })
}

/// A string with its terminating zero (`NLA_NUL_STRING`).
fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// Length and type of an attribute.
const ATTRIBUTE_HEADER: usize = 4;
/// `NLA_F_NESTED`: the value is made of attributes.
const NESTED: u16 = 0x8000;
/// `NLA_TYPE_MASK`: the type without its two flags.
const TYPE_MASK: u16 = 0x3fff;

pub(super) fn attribute(kind: u16, value: &[u8]) -> Attributes {
    let length = ATTRIBUTE_HEADER + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    let stated = u16::try_from(length).expect("no value that is sent has 64 KiB");
    bytes.extend_from_slice(&stated.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(length.next_multiple_of(4), 0);
    Attributes(bytes)
}

fn nest(kind: u16, inner: Vec<Attributes>) -> Attributes {
    attribute(kind | NESTED, inner.into_iter().collect::<Attributes>().as_bytes())
}

impl Attributes {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Attributes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl FromIterator<Self> for Attributes {
    fn from_iter<I: IntoIterator<Item = Self>>(parts: I) -> Self {
        let mut all = Vec::new();
        for Self(mut part) in parts {
            if all.is_empty() {
                all = part;
            } else {
                all.append(&mut part);
            }
        }
        Self(all)
    }
}

fn sized<const N: usize>(bytes: &[u8], name: &str) -> Result<[u8; N], Malformed> {
    bytes
        .try_into()
        .map_err(|_| Malformed(format!("{name} has {} bytes instead of {N}", bytes.len())))
}

/// Attributes of one level, for reading.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Checks that the bytes are attributes, one after another.
    pub(super) fn parse(bytes: &'a [u8], name: &str) -> Result<Self, Malformed> {
        let mut walk = Walk(bytes);
        while walk.next().is_some() {}
        match walk.0.len() {
            0 => Ok(Self(bytes)),
            left => Err(Malformed(format!(
                "{name}: its last {left} of {} bytes are not an attribute",
                bytes.len()
            ))),
        }
    }

    /// The attributes inside one of `outer`.
    fn nested(outer: &'a Attributes, kind: u16, name: &str) -> Result<Self, Malformed> {
        let outer = Self::parse(outer.as_bytes(), "the answer")?;
        Self::parse(outer.require(kind, name)?, name)
    }

    pub(super) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        Walk(self.0).find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    fn require(&self, kind: u16, name: &str) -> Result<&'a [u8], Malformed> {
        self.get(kind).ok_or_else(|| Malformed(format!("{name} is missing")))
    }

    pub(super) fn u16(&self, kind: u16, name: &str) -> Result<u16, Malformed> {
        Ok(u16::from_ne_bytes(sized(self.require(kind, name)?, name)?))
    }

    fn u32(&self, kind: u16, name: &str) -> Result<u32, Malformed> {
        Ok(u32::from_ne_bytes(sized(self.require(kind, name)?, name)?))
    }

    /// Ports are in network order.
    fn port(&self, kind: u16, name: &str) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(sized(self.require(kind, name)?, name)?))
    }

    fn text(&self, kind: u16, name: &str) -> Result<String, Malformed> {
        let bytes = self.require(kind, name)?;
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        match std::str::from_utf8(text) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Malformed(format!("{name} is not text: {bytes:02x?}"))),
        }
    }
}

/// Goes through attributes: type and value of each. What is left when it ends is no attribute.
struct Walk<'a>(&'a [u8]);

impl<'a> Iterator for Walk<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1, ..] = *self.0 else { return None };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(ATTRIBUTE_HEADER..length)?;
        // The last one may come without its padding.
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & TYPE_MASK, value))
    }
}
