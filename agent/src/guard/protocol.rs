//! What the agent tells its guard: one line a change, text, so that `strace` shows it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use lvsmesh_core::model::Protocol;
use lvsmesh_core::plan::ServiceKey;

/// A VIP address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip {
    /// Index of the interface.
    pub ifindex: u32,
    /// The address, /32 or /128.
    pub address: IpAddr,
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// From here on this address may be in the kernel.
    Hold(Vip),
    /// It is no longer.
    Drop(Vip),
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
        vec![
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
        for (text, line) in lines() {
            let longer = format!("{text} 1");
            assert_eq!(longer.parse::<Line>(), Err(Unreadable), "{longer}");
            if line != Line::Done {
                let cut = text.rsplit_once(' ').unwrap().0;
                assert_eq!(cut.parse::<Line>(), Err(Unreadable), "{cut}");
            }
        }
        assert_eq!("".parse::<Line>(), Err(Unreadable));
    }
}
