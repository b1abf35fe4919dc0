//! The envelope of a lease datagram: which key, and a code over everything (HMAC-SHA-256 cut to 128 bits, RFC 2104 §5).
//!
//! ```text
//!  0               4                          length - 16
//!  | key id, BE    | core::lease::wire ...    | code (16)   |
//! ```
//!
//! The code covers the key id too. It keeps strangers out; it does not hide anything, and the machine, not the envelope, makes old
//! datagrams harmless.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// Bytes before the message.
const HEADER: usize = 4;
/// Bytes after it.
const CODE: usize = 16;
/// Longest datagram that is sent or read. A longer one is cut by the receive call and then fails its code.
pub(super) const LONGEST: usize = 256;

/// The fleet's lease key.
#[derive(Clone, PartialEq, Eq)]
pub struct LeaseKey {
    /// Sent in every datagram, so that the receiver need not guess.
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
    /// Shorter than an empty message.
    Short,
    /// Made with another key.
    Key,
    /// Changed, or made by someone who knows the key's id only.
    Code,
}

/// Makes and opens envelopes. The keyed state is computed once.
#[derive(Clone)]
pub(super) struct Seal {
    id: [u8; HEADER],
    keyed: Hmac<Sha256>,
}

impl Seal {
    pub(super) fn new(key: &LeaseKey) -> Self {
        Self {
            id: key.id.to_be_bytes(),
            keyed: Hmac::new_from_slice(&key.secret).expect("HMAC takes keys of any length"),
        }
    }

    /// Puts `message` into an envelope. `out` is overwritten.
    pub(super) fn close(&self, message: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.id);
        out.extend_from_slice(message);
        let mut code = self.keyed.clone();
        code.update(out);
        out.extend_from_slice(&code.finalize().into_bytes()[..CODE]);
    }

    /// Takes the message out, if a member made it.
    pub(super) fn open<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], Refusal> {
        let covered = datagram.len().checked_sub(CODE).ok_or(Refusal::Short)?;
        if covered < HEADER {
            return Err(Refusal::Short);
        }
        let (covered, code) = datagram.split_at(covered);
        if covered[..HEADER] != self.id {
            return Err(Refusal::Key);
        }
        let mut expected = self.keyed.clone();
        expected.update(covered);
        // Compares in constant time.
        expected.verify_truncated_left(code).map_err(|_| Refusal::Code)?;
        Ok(&covered[HEADER..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u32, fill: u8) -> LeaseKey {
        LeaseKey { id, secret: [fill; 32] }
    }

    #[test]
    fn a_member_reads_what_a_member_wrote() {
        let seal = Seal::new(&key(7, 1));
        let mut datagram = vec![9; 3];
        for message in [&b""[..], b"hold", &[0xff; 128]] {
            seal.close(message, &mut datagram);
            assert_eq!(datagram.len(), message.len() + HEADER + CODE);
            assert_eq!(seal.open(&datagram), Ok(message));
        }
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        let seal = Seal::new(&key(7, 1));
        let mut datagram = Vec::new();
        seal.close(b"hold", &mut datagram);
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(seal.open(&changed).is_err(), "bit {bit}");
        }
        for length in 0..datagram.len() {
            assert!(seal.open(&datagram[..length]).is_err(), "cut at {length}");
        }
        datagram.push(0);
        assert_eq!(seal.open(&datagram), Err(Refusal::Code), "grown");
    }

    #[test]
    fn another_key_is_told_from_a_wrong_code() {
        let mut datagram = Vec::new();
        Seal::new(&key(7, 1)).close(b"hold", &mut datagram);
        assert_eq!(Seal::new(&key(8, 1)).open(&datagram), Err(Refusal::Key));
        assert_eq!(Seal::new(&key(7, 2)).open(&datagram), Err(Refusal::Code));
        assert_eq!(Seal::new(&key(7, 1)).open(&[0; 19]), Err(Refusal::Short));
    }

    /// Computed
    /// with Python's `hmac.new(bytes([1]*32), bytes.fromhex("00000007") + b"hold", "sha256").hexdigest()[:32]`.
    #[test]
    fn the_code_is_hmac_sha_256_cut_to_128_bits() {
        let mut datagram = Vec::new();
        Seal::new(&key(7, 1)).close(b"hold", &mut datagram);
        let code: String = datagram[8..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(code, "1b35522c10433a6d50eac6109289a1a7");
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert_eq!(format!("{:?}", key(7, 0xab)), "LeaseKey { id: 7, .. }");
    }
}
