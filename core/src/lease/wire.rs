//! Datagram layout of the lease plane: one message each, at most [`MAX_LEN`] bytes, all integers big-endian.
//!
//! ```text
//!  0  2  magic "LV"            16  8  sender's node id (never 0)
//!  2  1  version 1             24  8  sender's incarnation
//!  3  1  kind                  32  .  body
//!  4  4  key id                 .  16 authenticator over everything before it
//!  8  8  fleet (FNV-1a 64 of its name)
//! ```
//!
//! Every body starts with group (4), epoch (8) and term (8). Lengths are exact: a datagram that is longer or shorter than its kind asks for is
//! refused, so that every accepted datagram has exactly one meaning. The authenticator is computed and compared by the caller, over the bytes
//! that [`split`] gives.

use std::time::Duration;

use crate::model::NodeId;
use crate::time::{Mono, nanos};

/// No datagram is longer.
pub const MAX_LEN: usize = 128;
/// Length of the authenticator that ends each datagram.
pub const AUTHENTICATOR_LEN: usize = 16;

const MAGIC: [u8; 2] = *b"LV";
const VERSION: u8 = 1;
const HEADER_LEN: usize = 32;

/// One message of the lease plane.
///
/// `group` is the VIP group that the message is about, and `epoch` the number of the tenure. There is one group, 0, and its epoch is the term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// "Let nobody but me be elected for `promise`, counted from when you read this."
    Hold {
        /// VIP group.
        group: u32,
        /// Tenure.
        epoch: u64,
        /// Raft term that the sender leads.
        term: u64,
        /// Grows with every HOLD of a sender; never reused within a term.
        seq: u64,
        /// The sender's clock before it sent this.
        stamp: Mono,
        /// What is asked for.
        promise: Duration,
        /// Who should campaign first if this holder falls silent; a hint.
        hint: Option<NodeId>,
    },
    /// "I promise." Only the echo counts: the holder dates the promise by its own clock.
    Ack {
        /// VIP group.
        group: u32,
        /// Tenure.
        epoch: u64,
        /// Term of the HOLD.
        term: u64,
        /// Sequence of the HOLD.
        seq: u64,
        /// Stamp of the HOLD.
        echo: Mono,
        /// The voter's applied index.
        applied: u64,
        /// Whether the voter could hold.
        eligible: bool,
    },
    /// "A higher term is known, or I lead that term myself: no promise."
    Nack {
        /// VIP group.
        group: u32,
        /// Tenure of the refused HOLD.
        epoch: u64,
        /// The highest term that the voter knows of.
        term: u64,
    },
    /// "I have stopped emitting; promises for HOLDs of this term up to `last_seq` are void."
    Relinquish {
        /// VIP group.
        group: u32,
        /// Tenure.
        epoch: u64,
        /// Term of the tenure that is over.
        term: u64,
        /// The newest HOLD sent in it.
        last_seq: u64,
        /// Who should campaign first; a hint.
        successor: Option<NodeId>,
        /// Who says so.
        by: Speaker,
    },
    /// "Your request to be elected waits here for another's promise to end." A hint to wait, not an answer.
    Busy {
        /// VIP group.
        group: u32,
        /// Unused: 0.
        epoch: u64,
        /// Term asked for.
        term: u64,
        /// How long the promise runs at least.
        remaining: Duration,
    },
}

/// Who relinquishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Speaker {
    /// The holder itself.
    Agent,
    /// The guard process, after the holder's death.
    Guard,
}

/// What precedes every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Header {
    /// [`fleet_hash`] of the fleet's name.
    pub fleet: u64,
    /// Which of the fleet's keys authenticates the datagram.
    pub key: u32,
    /// The sender.
    pub sender: NodeId,
    /// Grows with every start of the sender's agent.
    pub incarnation: u64,
}

/// Why bytes are no datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Too short for a header and an authenticator, or longer than any datagram.
    #[error("a datagram of {0} bytes is outside the limits of {min} to {MAX_LEN}", min = HEADER_LEN + AUTHENTICATOR_LEN)]
    Size(usize),
    /// Not ours.
    #[error("the datagram does not start with the mark of the lease plane")]
    Magic,
    /// Another layout.
    #[error("datagram version {0} is not {VERSION}, the only one known")]
    Version(u8),
    /// No such message.
    #[error("message kind {0} is not known")]
    Kind(u8),
    /// The length does not fit the kind.
    #[error("a body of {actual} bytes does not fit message kind {kind}, which has {expected}")]
    Length {
        /// Kind byte.
        kind: u8,
        /// Length that the kind asks for.
        expected: usize,
        /// Length found.
        actual: usize,
    },
    /// A field has a value that no sender writes.
    #[error("field {field} has the impossible value {value}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
}

/// Gives the number that stands for a fleet's name in datagrams: FNV-1a, 64 bits. It keeps strangers apart, it does not authenticate.
#[must_use]
pub fn fleet_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Splits a datagram into the bytes that are authenticated and the authenticator. `None` if it is too short to have both.
#[must_use]
pub fn split(datagram: &[u8]) -> Option<(&[u8], &[u8; AUTHENTICATOR_LEN])> {
    if datagram.len() < HEADER_LEN + AUTHENTICATOR_LEN {
        return None;
    }
    datagram.split_last_chunk::<AUTHENTICATOR_LEN>()
}

/// Writes header and message into the caller's buffer and returns the length of the datagram, authenticator included.
///
/// The authenticator's bytes are left zero: compute it over [`split`]'s first half and write it into the last [`AUTHENTICATOR_LEN`] bytes.
#[must_use]
pub fn encode(header: &Header, message: &Message, buffer: &mut [u8; MAX_LEN]) -> usize {
    let mut out = Writer { buffer, at: 0 };
    out.bytes(&MAGIC);
    out.byte(VERSION);
    out.byte(kind(message));
    out.u32(header.key);
    out.u64(header.fleet);
    out.u64(header.sender.0);
    out.u64(header.incarnation);
    match *message {
        Message::Hold { group, epoch, term, seq, stamp, promise, hint } => {
            out.tenure(group, epoch, term);
            out.u64(seq);
            out.u64(stamp.0);
            out.u64(nanos(promise));
            out.u64(hint.map_or(0, |node| node.0));
        }
        Message::Ack { group, epoch, term, seq, echo, applied, eligible } => {
            out.tenure(group, epoch, term);
            out.u64(seq);
            out.u64(echo.0);
            out.u64(applied);
            out.byte(u8::from(eligible));
        }
        Message::Nack { group, epoch, term } => out.tenure(group, epoch, term),
        Message::Relinquish { group, epoch, term, last_seq, successor, by } => {
            out.tenure(group, epoch, term);
            out.u64(last_seq);
            out.u64(successor.map_or(0, |node| node.0));
            out.byte(match by {
                Speaker::Agent => 0,
                Speaker::Guard => 1,
            });
        }
        Message::Busy { group, epoch, term, remaining } => {
            out.tenure(group, epoch, term);
            out.u64(nanos(remaining));
        }
    }
    out.bytes(&[0; AUTHENTICATOR_LEN]);
    out.at
}

/// Reads a datagram. The caller must also compare the authenticator before believing it.
///
/// # Errors
///
/// [`Malformed`] if the bytes are not exactly what [`encode`] would write for some header and message.
pub fn decode(datagram: &[u8]) -> Result<(Header, Message), Malformed> {
    let (signed, _) = split(datagram)
        .filter(|_| datagram.len() <= MAX_LEN)
        .ok_or(Malformed::Size(datagram.len()))?;
    let mut read = Reader { rest: signed };
    if read.array::<2>() != MAGIC {
        return Err(Malformed::Magic);
    }
    let version = read.byte();
    if version != VERSION {
        return Err(Malformed::Version(version));
    }
    let kind = read.byte();
    let header = Header {
        key: read.u32(),
        fleet: read.u64(),
        sender: NodeId(read.u64()),
        incarnation: read.u64(),
    };
    if header.sender.0 == 0 {
        return Err(Malformed::Field { field: "sender", value: 0 });
    }
    let expected = body_len(kind).ok_or(Malformed::Kind(kind))?;
    if read.rest.len() != expected {
        return Err(Malformed::Length { kind, expected, actual: read.rest.len() });
    }
    let (group, epoch, term) = (read.u32(), read.u64(), read.u64());
    let message = match kind {
        HOLD => Message::Hold {
            group,
            epoch,
            term,
            seq: read.u64(),
            stamp: Mono(read.u64()),
            promise: Duration::from_nanos(read.u64()),
            hint: read.node(),
        },
        ACK => Message::Ack {
            group,
            epoch,
            term,
            seq: read.u64(),
            echo: Mono(read.u64()),
            applied: read.u64(),
            eligible: read.choice("eligible", [false, true])?,
        },
        NACK => Message::Nack { group, epoch, term },
        RELINQUISH => Message::Relinquish {
            group,
            epoch,
            term,
            last_seq: read.u64(),
            successor: read.node(),
            by: read.choice("by", [Speaker::Agent, Speaker::Guard])?,
        },
        BUSY => Message::Busy { group, epoch, term, remaining: Duration::from_nanos(read.u64()) },
        unknown => return Err(Malformed::Kind(unknown)),
    };
    Ok((header, message))
}

const HOLD: u8 = 1;
const ACK: u8 = 2;
const NACK: u8 = 3;
const RELINQUISH: u8 = 4;
const BUSY: u8 = 5;

const fn kind(message: &Message) -> u8 {
    match message {
        Message::Hold { .. } => HOLD,
        Message::Ack { .. } => ACK,
        Message::Nack { .. } => NACK,
        Message::Relinquish { .. } => RELINQUISH,
        Message::Busy { .. } => BUSY,
    }
}

/// Length of a kind's body.
const fn body_len(kind: u8) -> Option<usize> {
    const TENURE: usize = 4 + 8 + 8;
    match kind {
        HOLD => Some(TENURE + 4 * 8),
        ACK => Some(TENURE + 3 * 8 + 1),
        NACK => Some(TENURE),
        RELINQUISH => Some(TENURE + 2 * 8 + 1),
        BUSY => Some(TENURE + 8),
        _ => None,
    }
}

/// Fills a buffer that is larger than any datagram.
struct Writer<'a> {
    buffer: &'a mut [u8; MAX_LEN],
    at: usize,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        self.buffer[self.at..end].copy_from_slice(bytes);
        self.at = end;
    }

    fn byte(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    fn tenure(&mut self, group: u32, epoch: u64, term: u64) {
        self.u32(group);
        self.u64(epoch);
        self.u64(term);
    }
}

/// Takes fields from bytes whose total length was checked; what is missing all the same reads as zero.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                *head
            }
            None => [0; N],
        }
    }

    fn byte(&mut self) -> u8 {
        let [value] = self.array();
        value
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    fn node(&mut self) -> Option<NodeId> {
        Some(NodeId(self.u64())).filter(|node| node.0 != 0)
    }

    fn choice<T: Copy>(&mut self, field: &'static str, of: [T; 2]) -> Result<T, Malformed> {
        let value = self.byte();
        of.get(usize::from(value))
            .copied()
            .ok_or(Malformed::Field { field, value: u64::from(value) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: Header =
        Header { fleet: 0x0102_0304_0506_0708, key: 9, sender: NodeId(3), incarnation: 4 };
    const HOLD_MESSAGE: Message = Message::Hold {
        group: 0,
        epoch: 7,
        term: 7,
        seq: 11,
        stamp: Mono(1_000),
        promise: Duration::from_millis(200),
        hint: Some(NodeId(2)),
    };

    fn encoded(message: &Message) -> Vec<u8> {
        let mut buffer = [0xff; MAX_LEN];
        let length = encode(&HEADER, message, &mut buffer);
        buffer[..length].to_vec()
    }

    #[test]
    fn a_hold_has_this_layout() {
        let hex: String = encoded(&HOLD_MESSAGE).iter().map(|byte| format!("{byte:02x}")).collect();
        let fields = [
            "4c56",
            "01",
            "01",
            "00000009",
            "0102030405060708",
            "0000000000000003",
            "0000000000000004",
            "00000000",
            "0000000000000007",
            "0000000000000007",
            "000000000000000b",
            "00000000000003e8",
            "000000000bebc200",
            "0000000000000002",
            "00000000000000000000000000000000",
        ];
        assert_eq!(hex, fields.concat());
    }

    #[test]
    fn the_fleet_hash_is_fnv_1a() {
        // Test vectors of the FNV authors (draft-eastlake-fnv, appendix C): the empty string, "a" and "foobar".
        assert_eq!(fleet_hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fleet_hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fleet_hash("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = encoded(&HOLD_MESSAGE);
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            decode(&bytes)
        };
        assert_eq!(decode(&good), Ok((HEADER, HOLD_MESSAGE)));
        assert_eq!(decode(&good[..47]), Err(Malformed::Size(47)));
        assert_eq!(decode(&[0; 129]), Err(Malformed::Size(129)));
        assert_eq!(with(0, 0), Err(Malformed::Magic));
        assert_eq!(with(2, 2), Err(Malformed::Version(2)));
        assert_eq!(with(3, 6), Err(Malformed::Kind(6)));
        assert_eq!(with(3, NACK), Err(Malformed::Length { kind: NACK, expected: 20, actual: 52 }));
        assert_eq!(with(23, 0), Err(Malformed::Field { field: "sender", value: 0 }));
        let mut relinquish = encoded(&Message::Relinquish {
            group: 0,
            epoch: 1,
            term: 1,
            last_seq: 1,
            successor: None,
            by: Speaker::Guard,
        });
        let by = relinquish.len() - AUTHENTICATOR_LEN - 1;
        relinquish[by] = 2;
        assert_eq!(decode(&relinquish), Err(Malformed::Field { field: "by", value: 2 }));
    }

    fn message() -> impl Strategy<Value = Message> {
        let node = || any::<u64>().prop_map(|id| Some(NodeId(id)).filter(|node| node.0 != 0));
        let tenure = || (any::<u32>(), any::<u64>(), any::<u64>());
        let span = || any::<u64>().prop_map(Duration::from_nanos);
        prop_oneof![
            (tenure(), any::<u64>(), any::<u64>(), span(), node()).prop_map(
                |((group, epoch, term), seq, stamp, promise, hint)| Message::Hold {
                    group,
                    epoch,
                    term,
                    seq,
                    stamp: Mono(stamp),
                    promise,
                    hint
                }
            ),
            (tenure(), any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>()).prop_map(
                |((group, epoch, term), seq, echo, applied, eligible)| Message::Ack {
                    group,
                    epoch,
                    term,
                    seq,
                    echo: Mono(echo),
                    applied,
                    eligible
                }
            ),
            tenure().prop_map(|(group, epoch, term)| Message::Nack { group, epoch, term }),
            (tenure(), any::<u64>(), node(), any::<bool>()).prop_map(
                |((group, epoch, term), last_seq, successor, guard)| Message::Relinquish {
                    group,
                    epoch,
                    term,
                    last_seq,
                    successor,
                    by: if guard { Speaker::Guard } else { Speaker::Agent }
                }
            ),
            (tenure(), span()).prop_map(|((group, epoch, term), remaining)| Message::Busy {
                group,
                epoch,
                term,
                remaining
            }),
        ]
    }

    proptest! {
        #[test]
        fn every_message_survives_the_wire(message in message()) {
            let bytes = encoded(&message);
            prop_assert!(bytes.len() <= MAX_LEN);
            prop_assert_eq!(decode(&bytes), Ok((HEADER, message)));
            let (signed, authenticator) = split(&bytes).unwrap();
            prop_assert_eq!(signed.len() + authenticator.len(), bytes.len());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
            prop_assert!(decode(&bytes).is_err() || bytes.starts_with(&MAGIC));
        }

        /// Flipping one byte gives an error or another datagram that is written back as exactly these bytes: no two forms mean the same.
        #[test]
        fn what_is_accepted_has_one_form(message in message(), at in 0usize..112, value in any::<u8>()) {
            let mut bytes = encoded(&message);
            let end = bytes.len() - AUTHENTICATOR_LEN;
            bytes[at.min(end - 1)] = value;
            if let Ok((header, message)) = decode(&bytes) {
                let mut buffer = [0; MAX_LEN];
                let length = encode(&header, &message, &mut buffer);
                prop_assert_eq!(&buffer[..length], &bytes[..]);
            }
        }
    }
}
