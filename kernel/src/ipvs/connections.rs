//! The connections that IPVS remembers: the only part of it that is not told over netlink.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::KernelError;

/// Of the network namespace of the thread that opens it; `/proc/net` would be that of the process's first thread.
const FILE: &str = "/proc/thread-self/net/ip_vs_conn";
const OPERATION: &str = "read";
const OBJECT: &str = "IPVS connections (/proc/net/ip_vs_conn)";

/// A connection, or a persistence template (its client's port is 0, its state `NONE`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// `TCP`, `UDP`, `SCTP`; `IP` and `IPv6` for the template of a firewall mark.
    pub protocol: String,
    /// Who connected.
    pub client: SocketAddr,
    /// To what. The template of a firewall mark has the mark as an address here.
    pub virtual_address: SocketAddr,
    /// Who serves it.
    pub destination: SocketAddr,
    /// The protocol's state: `ESTABLISHED`, `FIN_WAIT`, `UDP`, `NONE`.
    pub state: String,
    /// Seconds until it is forgotten, if nothing more of it is seen.
    pub expires: u64,
    /// The persistence engine, and what it goes by; of a SIP service's template the call's id.
    pub engine: Option<(String, String)>,
}

/// The connections of this network namespace, one after another, in the kernel's order, which is none.
///
/// There may be millions, and reading goes on while they come and go: one that moves meanwhile may be missing or come twice.
#[derive(Debug)]
pub struct Connections {
    lines: BufReader<File>,
    ended: bool,
}

impl Connections {
    /// Opens the list for the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`KernelError::IpvsMissing`] if the kernel has no IPVS.
    pub fn open() -> Result<Self, KernelError> {
        let file = File::open(FILE).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                KernelError::IpvsMissing
            } else {
                KernelError::io(OPERATION, OBJECT, &error)
            }
        })?;
        let mut lines = BufReader::with_capacity(1 << 16, file);
        // The names of the columns.
        let _ = lines
            .read_line(&mut String::new())
            .map_err(|error| KernelError::io(OPERATION, OBJECT, &error))?;
        Ok(Self { lines, ended: false })
    }
}

impl Iterator for Connections {
    type Item = Result<Connection, KernelError>;

    /// Reads one more. Blocks the thread, though not for long.
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => {
                self.ended = true;
                None
            }
            Ok(_) => Some(parse(&line).ok_or_else(|| KernelError::Malformed {
                operation: OPERATION,
                object: OBJECT.to_owned(),
                detail: format!("the line `{}`", line.trim_end()),
            })),
            Err(error) => {
                self.ended = true;
                Some(Err(KernelError::io(OPERATION, OBJECT, &error)))
            }
        }
    }
}

/// A line of `ip_vs_conn_seq_show` (net/netfilter/ipvs/ip_vs_conn.c): blanks between protocol, three addresses with their ports, state, seconds,
/// and for a service with a persistence engine its name and data. All numbers but the seconds are hexadecimal.
fn parse(line: &str) -> Option<Connection> {
    let mut words = line.split_ascii_whitespace();
    let protocol = words.next()?.to_owned();
    let mut endpoint = || {
        let address = address(words.next()?)?;
        let port = u16::from_str_radix(words.next()?, 16).ok()?;
        Some(SocketAddr::new(address, port))
    };
    let (client, virtual_address, destination) = (endpoint()?, endpoint()?, endpoint()?);
    Some(Connection {
        protocol,
        client,
        virtual_address,
        destination,
        state: words.next()?.to_owned(),
        expires: words.next()?.parse().ok()?,
        engine: words.next().map(|name| (name.to_owned(), words.next().unwrap_or("").to_owned())),
    })
}

/// Eight digits in network order, or an IPv6 address with all its zeros.
fn address(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    u32::from_str_radix(text, 16).ok().map(|bits| Ipv4Addr::from_bits(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn lines_are_read_as_the_kernel_writes_them() {
        let web = Connection {
            protocol: "TCP".into(),
            client: at("192.168.3.1:42194"),
            virtual_address: at("192.168.3.100:80"),
            destination: at("192.168.3.3:80"),
            state: "ESTABLISHED".into(),
            expires: 899,
            engine: None,
        };
        let call = Connection {
            protocol: "UDP".into(),
            client: at("192.168.3.1:0"),
            virtual_address: at("192.168.3.100:5060"),
            destination: at("192.168.3.3:5060"),
            state: "UDP".into(),
            expires: 29,
            engine: Some(("sip".into(), "1234567890@host".into())),
        };
        let mark = Connection {
            protocol: "IPv6".into(),
            client: at("[2001:db8::1]:0"),
            virtual_address: at("[::7]:0"),
            destination: at("192.168.3.3:0"),
            state: "NONE".into(),
            expires: 4,
            engine: None,
        };
        #[rustfmt::skip]
        let cases = [
            ("TCP C0A80301 A4D2 C0A80364 0050 C0A80303 0050 ESTABLISHED     899\n", web),
            ("UDP C0A80301 0000 C0A80364 13C4 C0A80303 13C4 UDP              29 sip 1234567890@host\n", call),
            ("IPv6 2001:0db8:0000:0000:0000:0000:0000:0001 0000 0000:0000:0000:0000:0000:0000:0000:0007 0000 \
              C0A80303 0000 NONE              4\n", mark),
        ];
        for (line, connection) in cases {
            assert_eq!(parse(line), Some(connection), "{line}");
        }
    }

    #[test]
    fn a_line_that_lacks_something_is_none() {
        let whole = "TCP C0A80301 A4D2 C0A80364 0050 C0A80303 0050 ESTABLISHED 899";
        assert!(parse(whole).is_some());
        let words: Vec<_> = whole.split(' ').collect();
        for count in 0..words.len() {
            assert_eq!(parse(&words[..count].join(" ")), None, "{count} words");
        }
        for wrong in ["x", "2001:db8", "C0A8030101"] {
            let line = whole.replacen("C0A80301", wrong, 1);
            assert_eq!(parse(&line), None, "{line}");
        }
    }
}
