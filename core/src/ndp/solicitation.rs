//! Neighbour solicitations (RFC 4861 §4.3): questions who has an address.

use std::net::Ipv6Addr;

use super::{
    ALL_NODES, ALL_NODES_MAC, Advertisement, ETHERTYPE, FRAME_LEN, HOP_LIMIT, ICMPV6, IPV6,
    NEIGHBOUR_SOLICITATION,
};
use crate::arp::Mac;

/// Source link-layer address (RFC 4861 §4.6.1).
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;

const ETHERNET: usize = 14;
/// ICMPv6 header with a reserved word, and target.
const MESSAGE: usize = 8 + 16;
/// Ethernet header, IPv6 header and a solicitation without options.
const SHORTEST: usize = ETHERNET + IPV6 + MESSAGE;

/// Somebody asks who has `target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Solicitation {
    /// The address that is asked for.
    pub target: Ipv6Addr,
    /// Who asks; unspecified: somebody who wants to use the address and tests whether it is taken (RFC 4862 §5.4.3).
    pub source: Ipv6Addr,
    /// Where the answer goes: the source link-layer address option, or where the frame came from if there is none.
    pub mac: Mac,
}

/// Why a frame is not one of ours to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SolicitationError {
    /// Shorter than it says, or than a solicitation.
    #[error("frame has {0} bytes, which is less than it should")]
    Incomplete(usize),
    /// Not IPv6, or not a solicitation directly behind the IPv6 header.
    #[error("not a neighbour solicitation")]
    Other,
    /// It came through a router.
    #[error("hop limit {0} is not 255")]
    HopLimit(u8),
    /// The checksum is wrong.
    #[error("the checksum is wrong")]
    Checksum,
    /// RFC 4861 §7.1.1 has it dropped.
    #[error("{0}")]
    Invalid(&'static str),
}

/// The multicast group in which an address is asked for (RFC 4291 §2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    const PREFIX: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Ipv6Addr::from_bits(PREFIX | (address.to_bits() & 0x00ff_ffff))
}

/// The whole frame in which the machine at `mac` with the address `source` asks for `target`, sent to `destination`: the target's
/// [`solicited_node`] group, or the target itself. Unspecified `source`: a test for duplicates, which does not say where it came from.
#[must_use]
pub fn solicitation(
    mac: Mac,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
) -> Vec<u8> {
    let option: &[u8] = if source.is_unspecified() {
        &[]
    } else {
        &[SOURCE_LINK_LAYER_ADDRESS, 1, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]]
    };
    let last = destination.octets();
    // Where frames for a group go (RFC 2464 §7).
    let mut frame = vec![0x33, 0x33, last[12], last[13], last[14], last[15]];
    frame.extend(mac);
    frame.extend(ETHERTYPE.to_be_bytes());
    let length = if option.is_empty() { MESSAGE } else { MESSAGE + 8 };
    frame.extend([0x60, 0, 0, 0, 0, length.to_be_bytes()[size_of::<usize>() - 1]]);
    frame.extend([ICMPV6, HOP_LIMIT]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend([NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(target.octets());
    frame.extend(option);
    let sum = checksum(&frame[22..54], &frame[54..]);
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

impl Solicitation {
    /// Reads a frame, by the rules of RFC 4861 §7.1.1; what follows the IPv6 packet is padding.
    ///
    /// # Errors
    ///
    /// If it is too short, no solicitation, or one that has to be dropped.
    pub fn decode(frame: &[u8]) -> Result<Self, SolicitationError> {
        use SolicitationError as Error;

        let Some((head, _)) = frame.split_first_chunk::<SHORTEST>() else {
            return Err(Error::Incomplete(frame.len()));
        };
        if head[12..14] != ETHERTYPE.to_be_bytes()
            || head[20] != ICMPV6
            || head[54] != NEIGHBOUR_SOLICITATION
        {
            return Err(Error::Other);
        }
        let length = usize::from(u16::from_be_bytes(take(head, 18)));
        if length < MESSAGE {
            return Err(Error::Incomplete(frame.len()));
        }
        let Some(message) = frame.get(ETHERNET + IPV6..ETHERNET + IPV6 + length) else {
            return Err(Error::Incomplete(frame.len()));
        };
        if head[21] != HOP_LIMIT {
            return Err(Error::HopLimit(head[21]));
        }
        if checksum(&head[22..54], message) != 0 {
            return Err(Error::Checksum);
        }
        if head[55] != 0 {
            return Err(Error::Invalid("the code is not 0"));
        }
        let source = Ipv6Addr::from(take::<16>(head, 22));
        let destination = Ipv6Addr::from(take::<16>(head, 38));
        let target = Ipv6Addr::from(take::<16>(head, 62));
        if target.is_multicast() {
            return Err(Error::Invalid("the target is a multicast address"));
        }
        let option = source_option(&message[MESSAGE..])?;
        if source.is_unspecified() {
            if destination != solicited_node(target) {
                return Err(Error::Invalid("a test for duplicates to another group"));
            }
            if option.is_some() {
                return Err(Error::Invalid("a test for duplicates that says where it came from"));
            }
        }
        let mac = option.unwrap_or_else(|| take(head, 6));
        if source.is_multicast() || mac[0] & 1 != 0 {
            return Err(Error::Invalid("the answer would go to more than one"));
        }
        Ok(Self { target, source, mac })
    }

    /// The whole frame that answers this, from the machine whose address is `mac` (RFC 4861 §7.2.4). `router`: the interface forwards.
    ///
    /// Who tests for duplicates has no address yet, so that everybody is told.
    #[must_use]
    pub fn answer(&self, mac: Mac, router: bool) -> [u8; FRAME_LEN] {
        let solicited = !self.source.is_unspecified();
        let said = Advertisement { target: self.target, mac, router, solicited, overriding: true };
        if solicited {
            said.encode(self.mac, self.source)
        } else {
            said.encode(ALL_NODES_MAC, ALL_NODES)
        }
    }
}

/// The sender's hardware address, if an option says it.
fn source_option(mut options: &[u8]) -> Result<Option<Mac>, SolicitationError> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let length = usize::from(units) * 8;
        if length == 0 {
            return Err(SolicitationError::Invalid("an option of no length"));
        }
        let Some((option, rest)) = options.split_at_checked(length) else {
            return Err(SolicitationError::Invalid("an option is longer than the packet"));
        };
        if kind == SOURCE_LINK_LAYER_ADDRESS && units == 1 {
            let mut mac = [0; 6];
            mac.copy_from_slice(&option[2..]);
            found = found.or(Some(mac));
        }
        options = rest;
    }
    Ok(found)
}

/// RFC 4443 §2.3, over a message with its checksum: 0 if that is right. `addresses`: source and destination.
pub(super) fn checksum(addresses: &[u8], message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| {
        let (pairs, last) = bytes.as_chunks::<2>();
        let odd = last.first().map_or(0, |byte| u32::from(*byte) << 8);
        pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum::<u32>() + odd
    };
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut sum = words(addresses) + words(message) + length + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

fn take<const N: usize>(frame: &[u8; SHORTEST], offset: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&frame[offset..offset + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = [0x02, 0, 0, 0, 0, 0x0a];
    const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
    const ASKER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    const ASKERS_MAC: Mac = [0x02, 0, 0, 0, 0, 9];

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().collect();
        let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// A solicitation by hand.
    fn frame(source: Ipv6Addr, destination: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x33, 0x33, 0xff, 0, 1, 0];
        frame.extend(ASKERS_MAC);
        frame.extend(ETHERTYPE.to_be_bytes());
        frame.extend([0x60, 0, 0, 0, 0, u8::try_from(MESSAGE + options.len()).unwrap(), 58, 255]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        frame.extend([135, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend(VIP.octets());
        frame.extend(options);
        seal(&mut frame);
        frame
    }

    fn seal(frame: &mut [u8]) {
        frame[56..58].fill(0);
        let sum = checksum(&frame[22..54], &frame[54..]);
        frame[56..58].copy_from_slice(&sum.to_be_bytes());
    }

    /// Captured from Linux 6.18, of a datagram to a neighbour that is not known yet.
    #[test]
    fn what_linux_asks_is_read() {
        let wire = "3333ff000100020000000009\
                    86dd6000000000203aff20010db8000000000000000000000009ff0200000000000000000001ff000100\
                    87001a1b0000000020010db80000000000000000000001000101020000000009";
        let read = Solicitation::decode(&bytes(wire)).unwrap();
        assert_eq!(read, Solicitation { target: VIP, source: ASKER, mac: ASKERS_MAC });
        assert_eq!(solicitation(ASKERS_MAC, ASKER, solicited_node(VIP), VIP), bytes(wire));
        let answer = Advertisement::decode(&read.answer(MAC, true)).unwrap();
        assert!(answer.router && answer.solicited && answer.overriding);
        assert_eq!((answer.target, answer.mac), (VIP, MAC));
        let frame = read.answer(MAC, true);
        assert_eq!((&frame[..6], &frame[38..54]), (&ASKERS_MAC[..], &ASKER.octets()[..]));
    }

    #[test]
    fn who_says_not_where_it_is_is_answered_where_it_came_from() {
        let padded = [frame(ASKER, VIP, &[]), vec![0xee; 9]].concat();
        let read = Solicitation::decode(&padded).unwrap();
        assert_eq!(read, Solicitation { target: VIP, source: ASKER, mac: ASKERS_MAC });
    }

    #[test]
    fn a_test_for_duplicates_is_answered_to_everybody() {
        let read = frame(Ipv6Addr::UNSPECIFIED, solicited_node(VIP), &[]);
        let answer = Solicitation::decode(&read).unwrap().answer(MAC, false);
        assert_eq!((&answer[..6], &answer[38..54]), (&ALL_NODES_MAC[..], &ALL_NODES.octets()[..]));
        assert!(!Advertisement::decode(&answer).unwrap().solicited);
    }

    #[test]
    fn the_group_is_made_of_the_last_three_bytes() {
        let group = solicited_node("2001:db8::12:3456:789a".parse().unwrap());
        assert_eq!(group, "ff02::1:ff56:789a".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn what_has_to_be_dropped_is() {
        use SolicitationError as Error;

        let from_here = [1, 1, 2, 0, 0, 0, 0, 9];
        let good = frame(ASKER, solicited_node(VIP), &from_here);
        let with = |offset: usize, byte: u8, sealed: bool| {
            let mut bad = good.clone();
            bad[offset] = byte;
            if sealed {
                seal(&mut bad);
            }
            Solicitation::decode(&bad)
        };
        let test =
            |to, options: &[u8]| Solicitation::decode(&frame(Ipv6Addr::UNSPECIFIED, to, options));
        assert!(Solicitation::decode(&good).is_ok());
        #[rustfmt::skip]
        let cases = [
            ("empty",                   Solicitation::decode(&[]),          Error::Incomplete(0)),
            ("cut",                     Solicitation::decode(&good[..85]),  Error::Incomplete(85)),
            ("a short message",         with(19, 23, true),                 Error::Incomplete(86)),
            ("ARP",                     with(13, 0x06, true),               Error::Other),
            ("UDP",                     with(20, 17, true),                 Error::Other),
            ("an advertisement",        with(54, 136, true),                Error::Other),
            ("through a router",        with(21, 254, true),                Error::HopLimit(254)),
            ("another target",          with(77, 7, false),                 Error::Checksum),
            ("a code",                  with(55, 1, true),                  Error::Invalid("the code is not 0")),
            ("a group",                 with(62, 0xff, true),               Error::Invalid("the target is a multicast address")),
            ("no length",               with(79, 0, true),                  Error::Invalid("an option of no length")),
            ("too long",                with(79, 2, true),                  Error::Invalid("an option is longer than the packet")),
            ("everybody asks",          with(80, 0xff, true),               Error::Invalid("the answer would go to more than one")),
            ("a test elsewhere",        test(VIP, &[]),                     Error::Invalid("a test for duplicates to another group")),
            ("a test from somewhere",   test(solicited_node(VIP), &from_here), Error::Invalid("a test for duplicates that says where it came from")),
        ];
        for (why, found, expected) in cases {
            assert_eq!(found, Err(expected), "{why}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics(tail in proptest::collection::vec(any::<u8>(), 0..120), length in any::<u8>()) {
            let mut frame = frame(ASKER, VIP, &[]);
            frame[19] = length;
            frame.truncate(78);
            frame.extend(&tail);
            let _ = Solicitation::decode(&frame);
            if let Some(message) = frame.get(54..54 + usize::from(length)) {
                let sum = {
                    let mut blank = message.to_vec();
                    if blank.len() >= 4 { blank[2..4].fill(0); }
                    checksum(&frame[22..54], &blank)
                };
                frame[56..58].copy_from_slice(&sum.to_be_bytes());
            }
            let _ = Solicitation::decode(&frame);
            let _ = Solicitation::decode(&tail);
        }
    }
}
