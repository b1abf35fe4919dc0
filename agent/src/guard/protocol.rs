//! What the agent tells its guard: one line a change, text, so that `strace` shows it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use lvsmesh_core::model::{NodeId, Protocol};
use lvsmesh_core::plan::ServiceKey;

use crate::lease::LeaseKey;

/// A VIP address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip {
    /// Index of the interface.
    pub ifindex: u32,
    /// The address, /32 or /128.
    pub address: IpAddr,
}

/// What it takes to speak for this node to the voters: to release, which is all that a guard ever says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// This node.
    pub own: NodeId,
    /// The fleet's name.
    pub fleet: String,
    /// The fleet's key.
    pub key: LeaseKey,
    /// The guard may have real-time priority, as the lease thread has.
    pub realtime: bool,
}

/// The last advert of a VIP group: "I give up", to one of those who get its adverts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// Name of the group.
    pub group: String,
    /// Name of its interface.
    pub interface: String,
    /// Index of its interface.
    pub ifindex: u32,
    /// Whose address it comes from.
    pub source: IpAddr,
    /// The router that it goes to; `None`: every router on the segment.
    pub to: Option<IpAddr>,
    /// The VRRP message.
    pub advert: Vec<u8>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The agent's process number: the guard's parent.
    Agent(u32),
    /// How to speak for this node. The key is in the pipe, and in the memory of two processes, and nowhere else.
    Lease(Credentials),
    /// A voter's lease socket is there.
    Peer(SocketAddr),
    /// It is no longer.
    Unpeer(SocketAddr),
    /// The agent holds from here on: look whether it stands still.
    Watch,
    /// From here on this address may be in the kernel.
    Hold(Vip),
    /// It is no longer.
    Drop(Vip),
    /// What says that this machine has something leaves that interface under the lease alone: the kernel sees to it, also without the agent.
    Gate(u32),
    /// It does no longer.
    Ungate(u32),
    /// From here on this group is announced there, and is to be taken back like this.
    Goodbye(Goodbye),
    /// It is not announced any more, anywhere.
    Quiet(String),
    /// From here on this service of a VIP that is held may be in the kernel.
    Serve(ServiceKey),
    /// It is no longer, or it may stay after the agent's death.
    Unserve(ServiceKey),
    /// The agent ends on purpose and has cleaned up itself.
    Done,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(pid) => write!(f, "agent {pid}"),
            Self::Lease(Credentials { own, fleet, key, realtime }) => {
                write!(f, "lease {} {} {} ", own.0, u8::from(*realtime), key.id)?;
                hex(f, &key.secret)?;
                write!(f, " {fleet}")
            }
            Self::Peer(address) => write!(f, "peer {address}"),
            Self::Unpeer(address) => write!(f, "unpeer {address}"),
            Self::Watch => f.write_str("watch"),
            Self::Goodbye(Goodbye { group, interface, ifindex, source, to, advert }) => {
                write!(f, "goodbye {group} {interface} {ifindex} {source} ")?;
                match to {
                    Some(router) => write!(f, "{router} ")?,
                    None => f.write_str("all ")?,
                }
                hex(f, advert)
            }
            Self::Gate(ifindex) => write!(f, "gate {ifindex}"),
            Self::Ungate(ifindex) => write!(f, "ungate {ifindex}"),
            Self::Quiet(group) => write!(f, "quiet {group}"),
            Self::Hold(Vip { ifindex, address }) => write!(f, "hold {ifindex} {address}"),
            Self::Drop(Vip { ifindex, address }) => write!(f, "drop {ifindex} {address}"),
            Self::Serve(key) => {
                f.write_str("serve ")?;
                service(f, key)
            }
            Self::Unserve(key) => {
                f.write_str("unserve ")?;
                service(f, key)
            }
            Self::Done => f.write_str("done"),
        }
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn unhex(text: &str) -> Result<Vec<u8>, Unreadable> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(Unreadable);
    }
    let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(Unreadable);
    let byte = |[high, low]: &[u8; 2]| -> Result<u8, Unreadable> {
        u8::try_from(digit(*high)? << 4 | digit(*low)?).map_err(|_| Unreadable)
    };
    pairs.iter().map(byte).collect()
}

fn service(f: &mut fmt::Formatter<'_>, key: &ServiceKey) -> fmt::Result {
    match *key {
        ServiceKey::Address { protocol, address, port } => {
            write!(f, "{} {address} {port}", protocol.number())
        }
        ServiceKey::Mark { ipv6, mark } => write!(f, "mark {} {mark}", if ipv6 { 6 } else { 4 }),
    }
}

/// A line that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl FromStr for Line {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let mut words = text.split(' ');
        let line = match words.next() {
            Some("agent") => Self::Agent(word(&mut words)?),
            Some("lease") => Self::Lease(credentials(&mut words)?),
            Some("peer") => Self::Peer(word(&mut words)?),
            Some("unpeer") => Self::Unpeer(word(&mut words)?),
            Some("watch") => Self::Watch,
            Some("gate") => Self::Gate(word(&mut words)?),
            Some("ungate") => Self::Ungate(word(&mut words)?),
            Some("goodbye") => Self::Goodbye(goodbye(&mut words)?),
            Some("quiet") => Self::Quiet(name(&mut words)?),
            Some("hold") => Self::Hold(vip(&mut words)?),
            Some("drop") => Self::Drop(vip(&mut words)?),
            Some("serve") => Self::Serve(key(&mut words)?),
            Some("unserve") => Self::Unserve(key(&mut words)?),
            Some("done") => Self::Done,
            _ => return Err(Unreadable),
        };
        if words.next().is_some() { Err(Unreadable) } else { Ok(line) }
    }
}

fn vip<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Vip, Unreadable> {
    Ok(Vip { ifindex: word(words)?, address: word(words)? })
}

fn credentials<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Credentials, Unreadable> {
    let own = NodeId(word(words)?);
    let flag = |text: &str| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    };
    let first = words.next().ok_or(Unreadable)?;
    let realtime = match flag(first) {
        Some(realtime) => realtime,
        // An agent of before says first how long its lease is. Its guard may be of after it, if the program was replaced and its own guard died.
        None if first.parse::<u64>().is_ok() => words.next().and_then(flag).ok_or(Unreadable)?,
        None => return Err(Unreadable),
    };
    let id = word(words)?;
    let secret = unhex(words.next().ok_or(Unreadable)?)?.try_into().map_err(|_| Unreadable)?;
    let fleet = name(words)?;
    Ok(Credentials { own, fleet, key: LeaseKey { id, secret }, realtime })
}

fn goodbye<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Goodbye, Unreadable> {
    Ok(Goodbye {
        group: name(words)?,
        interface: name(words)?,
        ifindex: word(words)?,
        source: word(words)?,
        to: match words.next() {
            Some("all") => None,
            router => Some(router.and_then(|text| text.parse().ok()).ok_or(Unreadable)?),
        },
        advert: unhex(words.next().ok_or(Unreadable)?)?,
    })
}

fn name<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<String, Unreadable> {
    words.next().filter(|name| !name.is_empty()).map(str::to_owned).ok_or(Unreadable)
}

fn key<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<ServiceKey, Unreadable> {
    let protocol = match words.next() {
        Some("6") => Protocol::Tcp,
        Some("17") => Protocol::Udp,
        Some("132") => Protocol::Sctp,
        Some("mark") => {
            let ipv6 = match words.next() {
                Some("4") => false,
                Some("6") => true,
                _ => return Err(Unreadable),
            };
            return Ok(ServiceKey::Mark { ipv6, mark: word(words)? });
        }
        _ => return Err(Unreadable),
    };
    Ok(ServiceKey::Address { protocol, address: word::<IpAddr>(words)?, port: word(words)? })
}

fn word<'a, T: FromStr>(words: &mut impl Iterator<Item = &'a str>) -> Result<T, Unreadable> {
    words.next().and_then(|word| word.parse().ok()).ok_or(Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<(&'static str, Line)> {
        let vip = |address: &str| Vip { ifindex: 3, address: address.parse().unwrap() };
        let (v4, v6) = (vip("192.168.3.100"), vip("2001:db8::100"));
        let address = |protocol, address: &str, port| ServiceKey::Address {
            protocol,
            address: address.parse().unwrap(),
            port,
        };
        let credentials = Credentials {
            own: NodeId(2),
            fleet: "blue".into(),
            key: LeaseKey { id: 7, secret: [0x0a; 32] },
            realtime: true,
        };
        let goodbye = Goodbye {
            group: "web".into(),
            interface: "eth0.5".into(),
            ifindex: 3,
            source: "fe80::1".parse().unwrap(),
            to: None,
            advert: vec![0x31, 0xff, 0],
        };
        let to_one = Goodbye {
            group: "mail".into(),
            source: "192.0.2.1".parse().unwrap(),
            to: Some("192.0.2.9".parse().unwrap()),
            ..goodbye.clone()
        };
        const LEASE: &str =
            "lease 2 1 7 0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a blue";
        vec![
            ("agent 4711", Line::Agent(4711)),
            (LEASE, Line::Lease(credentials)),
            ("peer 192.168.3.102:7401", Line::Peer("192.168.3.102:7401".parse().unwrap())),
            ("unpeer [2001:db8::2]:7401", Line::Unpeer("[2001:db8::2]:7401".parse().unwrap())),
            ("watch", Line::Watch),
            ("goodbye web eth0.5 3 fe80::1 all 31ff00", Line::Goodbye(goodbye)),
            ("goodbye mail eth0.5 3 192.0.2.1 192.0.2.9 31ff00", Line::Goodbye(to_one)),
            ("quiet web", Line::Quiet("web".into())),
            ("hold 3 192.168.3.100", Line::Hold(v4)),
            ("drop 3 192.168.3.100", Line::Drop(v4)),
            ("hold 3 2001:db8::100", Line::Hold(v6)),
            ("drop 3 2001:db8::100", Line::Drop(v6)),
            ("serve 6 192.168.3.100 80", Line::Serve(address(Protocol::Tcp, "192.168.3.100", 80))),
            ("unserve 17 2001:db8::1 0", Line::Unserve(address(Protocol::Udp, "2001:db8::1", 0))),
            ("serve 132 192.0.2.1 7", Line::Serve(address(Protocol::Sctp, "192.0.2.1", 7))),
            ("serve mark 4 7", Line::Serve(ServiceKey::Mark { ipv6: false, mark: 7 })),
            ("unserve mark 6 7", Line::Unserve(ServiceKey::Mark { ipv6: true, mark: 7 })),
            ("done", Line::Done),
        ]
    }

    #[test]
    fn every_line_reads_as_it_was_written() {
        for (text, line) in lines() {
            assert_eq!(line.to_string(), text);
            assert_eq!(text.parse(), Ok(line));
        }
    }

    #[test]
    fn a_cut_or_a_longer_line_is_none() {
        for (text, _) in lines() {
            let longer = format!("{text} 1");
            assert_eq!(longer.parse::<Line>(), Err(Unreadable), "{longer}");
            if text.contains(' ') {
                let cut = text.rsplit_once(' ').unwrap().0;
                assert_eq!(cut.parse::<Line>(), Err(Unreadable), "{cut}");
            }
        }
        assert_eq!("".parse::<Line>(), Err(Unreadable));
    }

    #[test]
    fn the_line_of_an_agent_that_says_how_long_its_lease_is_is_understood() {
        let rest = "1 7 0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a blue";
        let parsed = |line: String| line.parse::<Line>();
        let present = parsed(format!("lease 2 {rest}"));
        assert!(present.is_ok());
        assert_eq!(parsed(format!("lease 2 170 {rest}")), present);
        assert!(parsed(format!("lease 2 170 170 {rest}")).is_err());
    }
}
