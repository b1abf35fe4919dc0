//! ARP, neighbour discovery and VRRP frames, as they enter the switch.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::netns::Namespace;
use crate::pace;

/// A frame that a node sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When it was read from the switch.
    pub at: Instant,
    /// The node behind the port it came in by.
    pub from: String,
    /// What it was.
    pub frame: Frame,
}

/// The frames that the lab looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// ARP (RFC 826).
    Arp {
        /// A reply, not a request.
        reply: bool,
        /// Sender protocol address.
        sender: Ipv4Addr,
        /// Target protocol address; the sender's own in a gratuitous ARP.
        target: Ipv4Addr,
        /// Hardware address of who asks: a request's sender, a reply's target.
        asker: [u8; 6],
    },
    /// A neighbour solicitation (RFC 4861 §4.3) that is no test for duplicates.
    Solicitation {
        /// The address that is asked for.
        target: Ipv6Addr,
    },
    /// A neighbour advertisement (RFC 4861 §4.4).
    Neighbour {
        /// The address that it is about.
        target: Ipv6Addr,
        /// It answers a solicitation.
        solicited: bool,
    },
    /// A VRRP advertisement (RFC 3768, RFC 9568) over IPv4 or IPv6.
    Advert {
        /// 2 or 3.
        version: u8,
        /// Virtual router id.
        vrid: u8,
        /// 0: the sender gives up.
        priority: u8,
    },
}

impl Frame {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let kind = u16::from_be_bytes([*bytes.get(12)?, *bytes.get(13)?]);
        let payload = bytes.get(14..)?;
        let address =
            |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(payload.get(at..at + 4)?).ok()?));
        match kind {
            0x0806 => {
                let reply = *payload.get(7)? == 2;
                let asker = if reply { 18 } else { 8 };
                Some(Self::Arp {
                    reply,
                    sender: address(14)?,
                    target: address(24)?,
                    asker: payload.get(asker..asker + 6)?.try_into().ok()?,
                })
            }
            0x0800 if *payload.get(9)? == 112 => {
                Self::advert(payload.get(usize::from(payload.first()? & 0x0f) * 4..)?)
            }
            0x86dd if *payload.get(6)? == 112 => Self::advert(payload.get(40..)?),
            0x86dd if *payload.get(6)? == 58 => {
                let message = payload.get(40..)?;
                let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
                let target = Ipv6Addr::from(target);
                match *message.first()? {
                    135 if payload.get(8..24)? != [0; 16] => Some(Self::Solicitation { target }),
                    136 => Some(Self::Neighbour { target, solicited: message.get(4)? & 0x40 != 0 }),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn advert(message: &[u8]) -> Option<Self> {
        Some(Self::Advert {
            version: message.first()? >> 4,
            vrid: *message.get(1)?,
            priority: *message.get(2)?,
        })
    }

    /// Whether it asks who has the address.
    #[must_use]
    pub fn asks_for(&self, address: IpAddr) -> bool {
        match *self {
            Self::Arp { reply: false, sender, target, .. } => {
                target == address && sender != address
            }
            Self::Solicitation { target } => target == address,
            Self::Arp { .. } | Self::Neighbour { .. } | Self::Advert { .. } => false,
        }
    }

    /// Whether its sender says, being asked, that it has the address.
    #[must_use]
    pub fn answers_for(&self, address: IpAddr) -> bool {
        match *self {
            Self::Arp { reply: true, sender, target, .. } => sender == address && target != address,
            Self::Neighbour { target, solicited } => solicited && target == address,
            Self::Arp { .. } | Self::Solicitation { .. } | Self::Advert { .. } => false,
        }
    }
}

/// A running recording; ends when dropped.
#[derive(Debug)]
pub struct Capture {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Capture {
    pub(crate) fn start(switch: &Namespace, ports: BTreeMap<u32, String>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        // Opened before this returns, so that nothing sent from now on is missed.
        let socket = switch.inside(|| {
            socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
            .expect("root may open a packet socket")
        });
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000))
            .expect("a receive timeout can be set");
        // Beyond `net/core/rmem_max`, which root may: a reader that has to wait for the processor must not lose what was seen.
        setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).expect("root may set any buffer");
        let (writer, ended) = (Arc::clone(&seen), Arc::clone(&stop));
        let reader = std::thread::spawn(move || {
            pace::hasten();
            let mut buffer = [0_u8; 256];
            while !ended.load(Ordering::Relaxed) {
                let mut parts = [IoSliceMut::new(&mut buffer)];
                let Ok(message) =
                    recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, None, MsgFlags::empty())
                else {
                    continue;
                };
                let at = Instant::now();
                let (Some(from), length) = (message.address, message.bytes) else { continue };
                // A frame passes the switch's links more than once; only its way in tells who sent it.
                if from.pkttype() == libc::PACKET_OUTGOING {
                    continue;
                }
                let Some(node) =
                    u32::try_from(from.ifindex()).ok().and_then(|port| ports.get(&port))
                else {
                    continue;
                };
                if let Some(frame) = buffer.get(..length).and_then(Frame::parse) {
                    let mut seen = writer.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.push(Seen { at, from: node.clone(), frame });
                }
            }
        });
        Self { seen, stop, reader: Some(reader) }
    }

    /// Everything seen until now, oldest first.
    #[must_use]
    pub fn frames(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many frames were seen until now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What was seen after the first `count` frames.
    #[must_use]
    pub fn after(&self, count: usize) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(count..).unwrap_or_default().to_vec()
    }

    /// Who sent adverts in the last `span`, and with what.
    #[must_use]
    pub fn adverts(&self, span: Duration) -> Vec<Seen> {
        let mut frames = self.frames();
        frames
            .retain(|seen| matches!(seen.frame, Frame::Advert { .. }) && seen.at.elapsed() <= span);
        frames
    }

    /// Requests for `address` that more than one node answered: each with those who did.
    ///
    /// A reply belongs to the newest request before it; the prober asks the next time only after the answers to the last must be in.
    #[must_use]
    pub fn answered_twice(&self, address: impl Into<IpAddr>) -> Vec<(Instant, Vec<String>)> {
        let address = address.into();
        let mut answers: Vec<(Instant, Vec<String>)> = Vec::new();
        for seen in self.frames() {
            if seen.frame.asks_for(address) {
                answers.push((seen.at, Vec::new()));
            } else if seen.frame.answers_for(address)
                && let Some((_, who)) = answers.last_mut()
                && !who.contains(&seen.from)
            {
                who.push(seen.from);
            }
        }
        answers.retain(|(_, who)| who.len() > 1);
        answers
    }

    /// Who answered requests for `address`, in order, each node once for each unbroken run of answers, with their number.
    #[must_use]
    pub fn answering(&self, address: impl Into<IpAddr>) -> Vec<(String, usize)> {
        let address = address.into();
        let mut runs: Vec<(String, usize)> = Vec::new();
        for seen in self.frames() {
            if !seen.frame.answers_for(address) {
                continue;
            }
            match runs.last_mut() {
                Some((node, count)) if *node == seen.from => *count += 1,
                _ => runs.push((seen.from, 1)),
            }
        }
        runs
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ended = reader.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbour_discovery_is_read_from_its_bytes() {
        let target = Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 0x64);
        let frame = |source: Ipv6Addr, kind: u8, flags: u8| {
            let mut frame = vec![0_u8; 12];
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255]);
            frame.extend(source.octets());
            frame.extend([0; 16]);
            frame.extend([kind, 0, 0, 0, flags, 0, 0, 0]);
            frame.extend(target.octets());
            Frame::parse(&frame)
        };
        let asked = Frame::Solicitation { target };
        assert_eq!(frame(Ipv6Addr::LOCALHOST, 135, 0), Some(asked));
        assert_eq!(frame(Ipv6Addr::UNSPECIFIED, 135, 0), None, "a test for duplicates");
        let answer = Frame::Neighbour { target, solicited: true };
        assert_eq!(frame(target, 136, 0x60), Some(answer));
        assert!(answer.answers_for(target.into()) && asked.asks_for(target.into()));
        let unasked = Frame::Neighbour { target, solicited: false };
        assert_eq!(frame(target, 136, 0x20), Some(unasked));
        assert!(!unasked.answers_for(target.into()));
    }

    #[test]
    fn an_advert_and_an_arp_reply_are_read_from_their_bytes() {
        let mut advert = vec![0_u8; 12];
        advert.extend([
            0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 255, 112, 0, 0, 192, 168, 3, 101, 224, 0, 0, 18,
        ]);
        advert.extend([0x21, 51, 200, 1]);
        assert_eq!(
            Frame::parse(&advert),
            Some(Frame::Advert { version: 2, vrid: 51, priority: 200 })
        );

        let mut reply = vec![0_u8; 12];
        reply.extend([
            0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2, 1, 1, 1, 1, 1, 1, 192, 168, 3, 100, 2, 2, 2, 2, 2,
            2, 192, 168, 3, 10,
        ]);
        let (sender, target) = (Ipv4Addr::new(192, 168, 3, 100), Ipv4Addr::new(192, 168, 3, 10));
        let asker = [2; 6];
        assert_eq!(Frame::parse(&reply), Some(Frame::Arp { reply: true, sender, target, asker }));
        reply[21] = 1;
        let asker = [1; 6];
        assert_eq!(Frame::parse(&reply), Some(Frame::Arp { reply: false, sender, target, asker }));
        assert_eq!(Frame::parse(&reply[..20]), None, "a short frame is no frame");
    }
}
