//! ARP over Ethernet for IPv4 (RFC 826): frames in, frames out.

use std::net::Ipv4Addr;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Every station on the segment.
pub const BROADCAST: Mac = [0xff; 6];

/// Ethernet header and ARP packet, without padding: network cards pad to the minimum of 60 bytes themselves.
pub const FRAME_LEN: usize = 42;

/// EtherType of ARP.
pub const ETHERTYPE: u16 = 0x0806;

/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
const FORMAT: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What a packet asks or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// 1: who has the target address?
    Request,
    /// 2: the sender has.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Packet {
    /// Request or reply.
    pub operation: Operation,
    /// Sender's hardware address.
    pub sender_mac: Mac,
    /// Sender's protocol address.
    pub sender: Ipv4Addr,
    /// Target's hardware address; ignored in a request.
    pub target_mac: Mac,
    /// Target's protocol address.
    pub target: Ipv4Addr,
}

/// Why a frame is not one of ours to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than an ARP frame.
    #[error("frame has {0} bytes, ARP over Ethernet has at least {FRAME_LEN}")]
    Incomplete(usize),
    /// Another EtherType.
    #[error("EtherType {0:#06x} is not ARP (0x0806)")]
    EtherType(u16),
    /// Not Ethernet and IPv4.
    #[error("not ARP for IPv4 over Ethernet")]
    Format,
    /// Neither request nor reply.
    #[error("ARP operation {0} is neither request (1) nor reply (2)")]
    Operation(u16),
}

/// The frame that tells a whole segment that `vip` is at `mac`: a broadcast *request* for the address, by the address, with the target's
/// hardware address all ones.
///
/// Requests update more caches than replies do; this is the form that keepalived 2.2.7 sends.
#[must_use]
pub fn gratuitous(mac: Mac, vip: Ipv4Addr) -> [u8; FRAME_LEN] {
    let packet = Packet {
        operation: Operation::Request,
        sender_mac: mac,
        sender: vip,
        target_mac: BROADCAST,
        target: vip,
    };
    packet.encode(BROADCAST)
}

/// The frame that asks a whole segment who has `vip`, from a machine that does not say it has any address (RFC 5227 §2.1.1): it changes
/// nobody's cache.
#[must_use]
pub fn probe(mac: Mac, vip: Ipv4Addr) -> [u8; FRAME_LEN] {
    let packet = Packet {
        operation: Operation::Request,
        sender_mac: mac,
        sender: Ipv4Addr::UNSPECIFIED,
        target_mac: [0; 6],
        target: vip,
    };
    packet.encode(BROADCAST)
}

impl Packet {
    /// The answer to this request, from the machine whose address is `mac`; to be sent to [`Packet::sender_mac`].
    #[must_use]
    pub fn reply(&self, mac: Mac) -> Self {
        Self {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        }
    }

    /// The whole frame that answers this, from the machine whose address is `mac`; `None` if it asks nothing, or if the answer would go to more than
    /// one station.
    ///
    /// A probe (RFC 5227 §1.1, sender 0.0.0.0) is answered like any other question: that is how whoever probes learns that the address is taken.
    #[must_use]
    pub fn answer(&self, mac: Mac) -> Option<[u8; FRAME_LEN]> {
        let asks = self.operation == Operation::Request && !self.is_gratuitous();
        let by_one = self.sender_mac[0] & 1 == 0;
        (asks && by_one).then(|| self.reply(mac).encode(self.sender_mac))
    }

    /// Whether the sender announces its own address rather than asking for another's.
    #[must_use]
    pub fn is_gratuitous(&self) -> bool {
        self.sender == self.target
    }

    /// The whole frame, to `destination`, from the packet's sender.
    #[must_use]
    pub fn encode(&self, destination: Mac) -> [u8; FRAME_LEN] {
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        let mut frame = [0; FRAME_LEN];
        frame[0..6].copy_from_slice(&destination);
        frame[6..12].copy_from_slice(&self.sender_mac);
        frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        frame[14..20].copy_from_slice(&FORMAT);
        frame[20..22].copy_from_slice(&operation.to_be_bytes());
        frame[22..28].copy_from_slice(&self.sender_mac);
        frame[28..32].copy_from_slice(&self.sender.octets());
        frame[32..38].copy_from_slice(&self.target_mac);
        frame[38..42].copy_from_slice(&self.target.octets());
        frame
    }

    /// Reads a frame; what follows the packet is padding.
    ///
    /// # Errors
    ///
    /// If it is too short, or anything but an ARP request or reply for IPv4 over Ethernet.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let Some(frame) = frame.first_chunk::<FRAME_LEN>() else {
            return Err(DecodeError::Incomplete(frame.len()));
        };
        let ethertype = u16::from_be_bytes(take(frame, 12));
        if ethertype != ETHERTYPE {
            return Err(DecodeError::EtherType(ethertype));
        }
        if take(frame, 14) != FORMAT {
            return Err(DecodeError::Format);
        }
        let operation = match u16::from_be_bytes(take(frame, 20)) {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => return Err(DecodeError::Operation(other)),
        };
        Ok(Self {
            operation,
            sender_mac: take(frame, 22),
            sender: take::<4>(frame, 28).into(),
            target_mac: take(frame, 32),
            target: take::<4>(frame, 38).into(),
        })
    }
}

fn take<const N: usize>(frame: &[u8; FRAME_LEN], offset: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&frame[offset..offset + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = [0x02, 0, 0, 0, 0, 0x65];

    #[test]
    fn a_gratuitous_frame_is_a_broadcast_request_for_the_senders_own_address() {
        let frame = gratuitous(MAC, Ipv4Addr::new(192, 168, 3, 100));
        #[rustfmt::skip]
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff,     0x02, 0, 0, 0, 0, 0x65,     0x08, 0x06,
            0, 1,   0x08, 0,    6,  4,  0, 1,
            0x02, 0, 0, 0, 0, 0x65,                 192, 168, 3, 100,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff,     192, 168, 3, 100,
        ];
        assert_eq!(frame, expected);
        assert!(Packet::decode(&frame).unwrap().is_gratuitous());
    }

    #[test]
    fn a_probe_names_no_sender() {
        let vip = Ipv4Addr::new(192, 168, 3, 100);
        let frame = probe(MAC, vip);
        assert_eq!((&frame[0..6], &frame[6..12]), (&BROADCAST[..], &MAC[..]));
        let packet = Packet::decode(&frame).unwrap();
        assert_eq!(packet.operation, Operation::Request);
        assert_eq!((packet.sender, packet.target), (Ipv4Addr::UNSPECIFIED, vip));
        assert!(!packet.is_gratuitous());
    }

    #[test]
    fn a_reply_answers_the_one_who_asked() {
        let asked = Packet {
            operation: Operation::Request,
            sender_mac: [0x02, 0, 0, 0, 0, 9],
            sender: Ipv4Addr::new(192, 168, 3, 9),
            target_mac: [0; 6],
            target: Ipv4Addr::new(192, 168, 3, 100),
        };
        let answer = Packet::decode(&asked.reply(MAC).encode(asked.sender_mac)).unwrap();
        assert_eq!(answer.operation, Operation::Reply);
        assert_eq!((answer.sender, answer.sender_mac), (asked.target, MAC));
        assert_eq!((answer.target, answer.target_mac), (asked.sender, asked.sender_mac));
        assert!(!answer.is_gratuitous());
    }

    #[test]
    fn questions_and_probes_are_answered_and_nothing_else() {
        let vip = Ipv4Addr::new(192, 168, 3, 100);
        let question = Packet {
            operation: Operation::Request,
            sender_mac: [0x02, 0, 0, 0, 0, 9],
            sender: Ipv4Addr::new(192, 168, 3, 9),
            target_mac: [0; 6],
            target: vip,
        };
        let probe = Packet { sender: Ipv4Addr::UNSPECIFIED, ..question };
        for asked in [question, probe] {
            let frame = asked.answer(MAC).unwrap();
            assert_eq!(frame[..6], asked.sender_mac, "to the one who asked alone");
            assert_eq!(Packet::decode(&frame), Ok(asked.reply(MAC)));
        }
        #[rustfmt::skip]
        let others = [
            ("an announcement", Packet { sender: vip, ..question }),
            ("a reply",         Packet { operation: Operation::Reply, ..question }),
            ("from everybody",  Packet { sender_mac: BROADCAST, ..question }),
        ];
        for (why, packet) in others {
            assert_eq!(packet.answer(MAC), None, "{why}");
        }
    }

    #[test]
    fn frames_that_are_not_arp_are_named() {
        let good = gratuitous(MAC, Ipv4Addr::LOCALHOST);
        let with = |offset: usize, byte: u8| {
            let mut frame = good;
            frame[offset] = byte;
            Packet::decode(&frame)
        };
        #[rustfmt::skip]
        let cases = [
            ("empty",                   Packet::decode(&[]),            DecodeError::Incomplete(0)),
            ("one byte short",          Packet::decode(&good[..41]),    DecodeError::Incomplete(41)),
            ("IPv4",                    with(13, 0x00),                 DecodeError::EtherType(0x0800)),
            ("8-byte hardware address", with(18, 8),                    DecodeError::Format),
            ("RARP",                    with(21, 3),                    DecodeError::Operation(3)),
        ];
        for (why, found, expected) in cases {
            assert_eq!(found, Err(expected), "{why}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Packet::decode(&bytes);
        }

        #[test]
        fn what_is_encoded_is_read_back_under_padding(
            request in any::<bool>(), macs in any::<[Mac; 3]>(), ips in any::<[u32; 2]>(),
        ) {
            let packet = Packet {
                operation: if request { Operation::Request } else { Operation::Reply },
                sender_mac: macs[0],
                sender: ips[0].into(),
                target_mac: macs[1],
                target: ips[1].into(),
            };
            let mut padded = packet.encode(macs[2]).to_vec();
            padded.resize(60, 0);
            prop_assert_eq!(Packet::decode(&padded), Ok(packet));
        }
    }
}
