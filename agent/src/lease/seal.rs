//! The authenticator of lease datagrams: HMAC-SHA-256 cut to 128 bits (RFC 2104 §5) over everything before it.
//!
//! It keeps strangers out; it does not hide anything, and the machine, not the seal, makes old datagrams harmless.

use hmac::{Hmac, Mac as _};
use lvsmesh_core::lease::Message;
use lvsmesh_core::lease::wire::{self, AUTHENTICATOR_LEN, Header, MAX_LEN};
use lvsmesh_core::model::NodeId;
use sha2::Sha256;

/// The fleet's lease key. Its bytes are in no log and no `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct LeaseKey {
    /// Tells keys apart while one replaces another; sent in every datagram.
    pub id: u32,
    /// Random.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for LeaseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a datagram is not from a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is no datagram of this plane.
    Malformed,
    /// Another fleet, another key, or a wrong authenticator.
    Stranger,
}

/// Writes and reads datagrams. The keyed state is computed once.
#[derive(Clone)]
pub(crate) struct Seal {
    header: Header,
    keyed: Hmac<Sha256>,
}

impl Seal {
    pub(crate) fn new(fleet: &str, sender: NodeId, incarnation: u64, key: &LeaseKey) -> Self {
        Self {
            header: Header { fleet: wire::fleet_hash(fleet), key: key.id, sender, incarnation },
            keyed: Hmac::new_from_slice(&key.secret).expect("HMAC takes keys of any length"),
        }
    }

    /// Writes a datagram and returns its length.
    pub(crate) fn write(&self, message: &Message, buffer: &mut [u8; MAX_LEN]) -> usize {
        let length = wire::encode(&self.header, message, buffer);
        let covered = length - AUTHENTICATOR_LEN;
        let mut code = self.keyed.clone();
        code.update(&buffer[..covered]);
        buffer[covered..length].copy_from_slice(&code.finalize().into_bytes()[..AUTHENTICATOR_LEN]);
        length
    }

    /// Reads a datagram, if a member made it.
    pub(super) fn read(&self, datagram: &[u8]) -> Result<(NodeId, Message), Refusal> {
        let (covered, code) = wire::split(datagram).ok_or(Refusal::Malformed)?;
        let (header, message) = wire::decode(datagram).map_err(|_| Refusal::Malformed)?;
        if header.fleet != self.header.fleet || header.key != self.header.key {
            return Err(Refusal::Stranger);
        }
        let mut expected = self.keyed.clone();
        expected.update(covered);
        // Compares in constant time.
        expected.verify_truncated_left(code).map_err(|_| Refusal::Stranger)?;
        Ok((header.sender, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: Message = Message::Nack { group: 0, epoch: 7, term: 8 };

    fn seal(fleet: &str, id: u32, fill: u8) -> Seal {
        Seal::new(fleet, NodeId(3), 4, &LeaseKey { id, secret: [fill; 32] })
    }

    fn written(seal: &Seal) -> Vec<u8> {
        let mut buffer = [0xff; MAX_LEN];
        let length = seal.write(&MESSAGE, &mut buffer);
        buffer[..length].to_vec()
    }

    #[test]
    fn a_member_reads_what_a_member_wrote() {
        let seal = seal("blue", 7, 1);
        assert_eq!(seal.read(&written(&seal)), Ok((NodeId(3), MESSAGE)));
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        let seal = seal("blue", 7, 1);
        let good = written(&seal);
        for bit in 0..good.len() * 8 {
            let mut changed = good.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(seal.read(&changed).is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(seal.read(&good[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn another_fleet_or_key_is_a_stranger() {
        let ours = seal("blue", 7, 1);
        for other in [seal("green", 7, 1), seal("blue", 8, 1), seal("blue", 7, 2)] {
            assert_eq!(ours.read(&written(&other)), Err(Refusal::Stranger));
        }
        assert_eq!(ours.read(b"keepalived?"), Err(Refusal::Malformed));
    }

    #[test]
    fn the_secret_is_not_printed() {
        let key = LeaseKey { id: 7, secret: [0xab; 32] };
        assert_eq!(format!("{key:?}"), "LeaseKey { id: 7, .. }");
    }

    /// Computed from the datagram's first 52 bytes with Python's `hmac.new(bytes([1] * 32), covered, "sha256").hexdigest()[:32]`.
    #[test]
    fn the_code_is_hmac_sha_256_cut_to_128_bits() {
        let datagram = written(&seal("blue", 7, 1));
        let code: String = datagram[52..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(code, "58f69bac857f4d232cc40af8a1d57029");
    }
}
