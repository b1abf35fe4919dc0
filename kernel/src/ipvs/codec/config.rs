//! Timeouts and daemons (`ip_vs_genl_set_config`, `ip_vs_genl_new_daemon`, `ip_vs_genl_fill_daemon` in net/netfilter/ipvs/ip_vs_ctl.c).

use std::net::IpAddr;

use super::{
    Attributes, Fields, Malformed, attribute, decode_address, nest, nf_inet_addr, sized, text,
};
use crate::ipvs::{SyncDaemon, SyncRole, Timeouts};

// IPVS_CMD_ATTR_*
const CMD_ATTR_DAEMON: u16 = 3;
const CMD_ATTR_TIMEOUT_TCP: u16 = 4;
const CMD_ATTR_TIMEOUT_TCP_FIN: u16 = 5;
const CMD_ATTR_TIMEOUT_UDP: u16 = 6;

// IPVS_DAEMON_ATTR_*
const DAEMON_STATE: u16 = 1;
const DAEMON_MCAST_IFN: u16 = 2;
const DAEMON_SYNC_ID: u16 = 3;
const DAEMON_SYNC_MAXLEN: u16 = 4;
const DAEMON_MCAST_GROUP: u16 = 5;
const DAEMON_MCAST_GROUP6: u16 = 6;
const DAEMON_MCAST_PORT: u16 = 7;
const DAEMON_MCAST_TTL: u16 = 8;

pub(in crate::ipvs) fn encode_timeouts(timeouts: Timeouts) -> Attributes {
    let all = [
        (CMD_ATTR_TIMEOUT_TCP, timeouts.tcp),
        (CMD_ATTR_TIMEOUT_TCP_FIN, timeouts.tcp_fin),
        (CMD_ATTR_TIMEOUT_UDP, timeouts.udp),
    ];
    all.iter().map(|(kind, seconds)| attribute(*kind, &seconds.to_ne_bytes())).collect()
}

/// Reads the answer to `IPVS_CMD_GET_CONFIG`.
pub(in crate::ipvs) fn decode_timeouts(answer: &Attributes) -> Result<Timeouts, Malformed> {
    let fields = Fields::parse(answer.as_bytes(), "the answer")?;
    Ok(Timeouts {
        tcp: fields.u32(CMD_ATTR_TIMEOUT_TCP, "IPVS_CMD_ATTR_TIMEOUT_TCP")?,
        tcp_fin: fields.u32(CMD_ATTR_TIMEOUT_TCP_FIN, "IPVS_CMD_ATTR_TIMEOUT_TCP_FIN")?,
        udp: fields.u32(CMD_ATTR_TIMEOUT_UDP, "IPVS_CMD_ATTR_TIMEOUT_UDP")?,
    })
}

/// What starts a daemon. What the kernel is to choose is left out, which kernels before Linux 4.3 need: they know none of it.
pub(in crate::ipvs) fn encode_daemon(daemon: &SyncDaemon) -> Attributes {
    let mut inner = vec![
        attribute(DAEMON_STATE, &state(daemon.role).to_ne_bytes()),
        attribute(DAEMON_MCAST_IFN, &text(&daemon.interface)),
        attribute(DAEMON_SYNC_ID, &daemon.sync_id.to_ne_bytes()),
    ];
    if daemon.max_length != 0 {
        inner.push(attribute(DAEMON_SYNC_MAXLEN, &daemon.max_length.to_ne_bytes()));
    }
    match daemon.group {
        Some(IpAddr::V4(group)) => inner.push(attribute(DAEMON_MCAST_GROUP, &group.octets())),
        Some(IpAddr::V6(group)) => {
            inner.push(attribute(DAEMON_MCAST_GROUP6, &nf_inet_addr(group.into())));
        }
        None => {}
    }
    if daemon.port != 0 {
        // In host order, other than the ports of services and destinations.
        inner.push(attribute(DAEMON_MCAST_PORT, &daemon.port.to_ne_bytes()));
    }
    if daemon.ttl != 0 {
        inner.push(attribute(DAEMON_MCAST_TTL, &[daemon.ttl]));
    }
    [nest(CMD_ATTR_DAEMON, inner)].into_iter().collect()
}

/// What stops a daemon.
pub(in crate::ipvs) fn encode_role(role: SyncRole) -> Attributes {
    let state = attribute(DAEMON_STATE, &state(role).to_ne_bytes());
    [nest(CMD_ATTR_DAEMON, vec![state])].into_iter().collect()
}

/// Reads a daemon out of an answer to `IPVS_CMD_GET_DAEMON`.
pub(in crate::ipvs) fn decode_daemon(answer: &Attributes) -> Result<SyncDaemon, Malformed> {
    let fields = Fields::nested(answer, CMD_ATTR_DAEMON, "IPVS_CMD_ATTR_DAEMON")?;
    let number = |kind, name| match fields.get(kind) {
        Some(bytes) => Ok(u16::from_ne_bytes(sized(bytes, name)?)),
        None => Ok(0),
    };
    Ok(SyncDaemon {
        role: match fields.u32(DAEMON_STATE, "IPVS_DAEMON_ATTR_STATE")? {
            1 => SyncRole::Master,
            2 => SyncRole::Backup,
            other => {
                return Err(Malformed(format!("IPVS_DAEMON_ATTR_STATE is {other}, not 1 or 2")));
            }
        },
        interface: fields.text(DAEMON_MCAST_IFN, "IPVS_DAEMON_ATTR_MCAST_IFN")?,
        sync_id: fields.u32(DAEMON_SYNC_ID, "IPVS_DAEMON_ATTR_SYNC_ID")?,
        max_length: number(DAEMON_SYNC_MAXLEN, "IPVS_DAEMON_ATTR_SYNC_MAXLEN")?,
        group: group(&fields)?,
        port: number(DAEMON_MCAST_PORT, "IPVS_DAEMON_ATTR_MCAST_PORT")?,
        ttl: match fields.get(DAEMON_MCAST_TTL) {
            Some(bytes) => u8::from_ne_bytes(sized(bytes, "IPVS_DAEMON_ATTR_MCAST_TTL")?),
            None => 0,
        },
    })
}

fn group(fields: &Fields<'_>) -> Result<Option<IpAddr>, Malformed> {
    if let Some(bytes) = fields.get(DAEMON_MCAST_GROUP6) {
        return decode_address(true, bytes, "IPVS_DAEMON_ATTR_MCAST_GROUP6").map(Some);
    }
    let Some(bytes) = fields.get(DAEMON_MCAST_GROUP) else { return Ok(None) };
    let group: [u8; 4] = sized(bytes, "IPVS_DAEMON_ATTR_MCAST_GROUP")?;
    Ok(Some(IpAddr::from(group)))
}

fn state(role: SyncRole) -> u32 {
    match role {
        SyncRole::Master => 1,
        SyncRole::Backup => 2,
    }
}

#[cfg(test)]
mod tests;
