//! Advertisements on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::{PRIORITY_GOODBYE, PROTOCOL, group};
use crate::model::{Auth, Checksum, Vip, VrrpVersion};

const HEADER: usize = 8;
const AUTH_DATA: usize = 8;
/// What keepalived's `auth_hmac` (2.4 and later, draft-cassen-vrrp-auth-hmac) puts behind a message: its type 1, key id, time, counter and
/// code.
const HMAC_TRAILER: usize = 28;
const HMAC_TYPE: u8 = 1;
/// Type 1, in both versions the only one.
const ADVERTISEMENT: u8 = 1;

/// An advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// Version on the wire.
    pub version: VrrpVersion,
    /// Virtual router, 1 to 255.
    pub vrid: u8,
    /// 1 to 254; 0 says goodbye, 255 is the address owner's.
    pub priority: u8,
    /// Between adverts. On the wire whole seconds (version 2) or hundredths of a second up to 40.95 s (version 3).
    pub interval: Duration,
    /// The addresses, in the order of the configuration and of one family, which is that of the packet; keepalived 2.2.7 drops an advert
    /// whose list differs from its own. Over IPv6 the first should be link-local (RFC 9568 §5.2.9); keepalived 2.2.7 takes others too.
    pub addresses: Vec<IpAddr>,
    /// Version 2 only. A foreign password that is not UTF-8 is read with replacement characters.
    pub auth: Option<Auth>,
}

/// An advertisement that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// What it says.
    pub advert: Advert,
    /// Which checksum the sender uses; always [`Checksum::Plain`] in version 2.
    pub checksum: Checksum,
    /// It carries keepalived's HMAC trailer. The code is not checked: there is no key to check it with.
    pub hmac: bool,
}

/// In what two routers differ of which one drops the other's adverts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mismatch {
    /// The version.
    Version,
    /// Version 2: the password, or that there is one.
    Authentication,
    /// Version 2: the interval.
    Interval,
    /// The set of addresses.
    Addresses,
}

/// Why a packet is no valid advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than any advertisement.
    #[error("packet has {have} bytes, an advertisement has at least {HEADER}")]
    Incomplete {
        /// Bytes received.
        have: usize,
    },
    /// Not as long as its header says.
    #[error("packet has {have} bytes, its address count makes it {expected}")]
    Length {
        /// Bytes received.
        have: usize,
        /// Bytes that header, addresses and authentication data take.
        expected: usize,
    },
    /// Neither 2 nor 3; over IPv6 there is no 2.
    #[error("version {0} is neither 2 nor 3, or is 2 over IPv6")]
    Version(u8),
    /// Not an advertisement.
    #[error("packet type {0} is not an advertisement (1)")]
    Type(u8),
    /// Authentication of version 2 that is neither none nor a password.
    #[error("authentication type {0} is neither 0 (none) nor 1 (password)")]
    AuthType(u8),
    /// No such virtual router.
    #[error("virtual router id 0 is not valid")]
    Vrid,
    /// The checksum is wrong, with a pseudo-header and without.
    #[error("checksum {found:#06x} should be {expected:#06x}")]
    Checksum {
        /// In the packet.
        found: u16,
        /// As computed: with the pseudo-header in version 3.
        expected: u16,
    },
}

impl Advert {
    /// What the holder of that group says.
    ///
    /// A group's adverts go over one family. If it has any IPv4 address, that is IPv4, and IPv6 addresses move with the group without being
    /// announced, as those of keepalived's `virtual_ipaddress_excluded` do. Otherwise it is IPv6, where there is only version 3.
    #[must_use]
    pub fn of(vip: &Vip) -> Self {
        let ipv4 = !vip.is_ipv6_only();
        Self {
            version: if ipv4 { vip.vrrp.version } else { VrrpVersion::V3 },
            vrid: vip.vrrp.vrid,
            priority: vip.vrrp.priority,
            interval: vip.vrrp.advert_interval,
            addresses: vip
                .advertised()
                .iter()
                .copied()
                .filter(|address| address.is_ipv4() == ipv4)
                .collect(),
            auth: vip.vrrp.auth.clone().filter(|_| ipv4),
        }
    }

    /// The same with priority 0: the holder stops, and backups need not wait for silence.
    #[must_use]
    pub fn goodbye(&self) -> Self {
        Self { priority: PRIORITY_GOODBYE, ..self.clone() }
    }

    /// The VRRP message, to be sent from `source` to `destination` (both are part of version 3's checksum).
    ///
    /// Values beyond what the format can say are cut to its limits: 255 addresses, 8 bytes of password, 1 to 255 s or 0.01 to 40.95 s.
    /// Over IPv6 the checksum always covers the pseudo-header (RFC 9568 §5.2.8).
    #[must_use]
    pub fn encode(
        &self,
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
        checksum: Checksum,
    ) -> Vec<u8> {
        let (source, destination) = (source.into(), destination.into());
        let count = u8::try_from(self.addresses.len()).unwrap_or(u8::MAX);
        let (auth_type, interval) = match self.version {
            VrrpVersion::V2 => {
                (u8::from(self.auth.is_some()), units(self.interval, 1_000, u16::from(u8::MAX)))
            }
            VrrpVersion::V3 => (0, units(self.interval, 10, 0x0fff)),
        };
        let [high, low] = interval.to_be_bytes();
        let high = match self.version {
            VrrpVersion::V2 => auth_type,
            VrrpVersion::V3 => high,
        };

        let mut message = vec![self.first_byte(), self.vrid, self.priority, count, high, low, 0, 0];
        for address in self.addresses.iter().take(usize::from(count)) {
            match address {
                IpAddr::V4(address) => message.extend(address.octets()),
                IpAddr::V6(address) => message.extend(address.octets()),
            }
        }
        if self.version == VrrpVersion::V2 {
            let mut data = [0; AUTH_DATA];
            if let Some(Auth::Pass(text)) = &self.auth {
                for (to, from) in data.iter_mut().zip(text.bytes()) {
                    *to = from;
                }
            }
            message.extend(data);
        }

        let pseudo = source.is_ipv6() || checksum == Checksum::Pseudo;
        let sum = match self.version {
            VrrpVersion::V3 if pseudo => pseudo_checksum(&message, source, destination),
            VrrpVersion::V2 | VrrpVersion::V3 => plain_checksum(&message),
        };
        message[6..HEADER].copy_from_slice(&sum.to_be_bytes());
        message
    }

    /// Reads a VRRP message that arrived from `source` for `destination`. The caller checks the TTL or hop limit, which belongs to IP.
    ///
    /// A version 3 checksum over IPv4 is accepted with a pseudo-header, without one, and with one for the multicast group on a unicast
    /// packet (keepalived before 1.3.6).
    ///
    /// # Errors
    ///
    /// If the message is not a valid advertisement of version 2 or 3, or over IPv6 of version 3.
    pub fn decode(
        message: &[u8],
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
    ) -> Result<Received, DecodeError> {
        let (source, destination) = (source.into(), destination.into());
        let Some(&[first, vrid, priority, count, fifth, sixth, sum_high, sum_low]) =
            message.first_chunk::<HEADER>()
        else {
            return Err(DecodeError::Incomplete { have: message.len() });
        };
        let version = match first >> 4 {
            2 if source.is_ipv4() => VrrpVersion::V2,
            3 => VrrpVersion::V3,
            other => return Err(DecodeError::Version(other)),
        };
        if first & 0x0f != ADVERTISEMENT {
            return Err(DecodeError::Type(first & 0x0f));
        }
        let size = if source.is_ipv4() { 4 } else { 16 };
        let addresses_end = HEADER + size * usize::from(count);
        let expected = match version {
            VrrpVersion::V2 => addresses_end + AUTH_DATA,
            VrrpVersion::V3 => addresses_end,
        };
        let hmac = message.len() == expected + HMAC_TRAILER && message[expected] == HMAC_TYPE;
        if message.len() != expected && !hmac {
            return Err(DecodeError::Length { have: message.len(), expected });
        }
        let found = u16::from_be_bytes([sum_high, sum_low]);
        let checksum = match verify(version, message, found, source, destination) {
            // Whether the checksum covers the trailer is the sender's business: the code in it does.
            Err(_) if hmac => verify(version, &message[..expected], found, source, destination)?,
            verified => verified?,
        };
        if vrid == 0 {
            return Err(DecodeError::Vrid);
        }
        let (interval, auth) = match version {
            VrrpVersion::V2 => {
                let auth = match fifth {
                    0 => None,
                    1 => Some(password(&message[addresses_end..expected])),
                    other => return Err(DecodeError::AuthType(other)),
                };
                (Duration::from_secs(sixth.into()), auth)
            }
            // The upper four bits are reserved and ignored on reception (RFC 9568 §5.2.6).
            VrrpVersion::V3 => {
                let hundredths = u16::from_be_bytes([fifth & 0x0f, sixth]);
                (Duration::from_millis(10 * u64::from(hundredths)), None)
            }
        };
        let listed = &message[HEADER..addresses_end];
        let addresses = if source.is_ipv4() {
            listed.as_chunks::<4>().0.iter().map(|octets| Ipv4Addr::from(*octets).into()).collect()
        } else {
            listed.as_chunks::<16>().0.iter().map(|octets| Ipv6Addr::from(*octets).into()).collect()
        };
        Ok(Received {
            advert: Self { version, vrid, priority, interval, addresses, auth },
            checksum,
            hmac,
        })
    }

    /// Why a router configured like `self` drops an advert like `other`, as keepalived 2.2.7 does, in one line; `None`: it takes it.
    ///
    /// Two masters that drop each other's adverts both hold the address, and only the configuration can end it.
    #[must_use]
    pub fn mismatch(&self, other: &Self) -> Option<(Mismatch, String)> {
        if self.version != other.version {
            let text = format!("version {} instead of {}", number(other), number(self));
            return Some((Mismatch::Version, text));
        }
        if self.auth != other.auth {
            let kind = |auth: &Option<Auth>| if auth.is_some() { "a password" } else { "none" };
            let text = match (&self.auth, &other.auth) {
                (Some(_), Some(_)) => "another password".to_owned(),
                (ours, theirs) => {
                    format!("authentication {} instead of {}", kind(theirs), kind(ours))
                }
            };
            return Some((Mismatch::Authentication, text));
        }
        if self.version == VrrpVersion::V2 && self.interval != other.interval {
            let (theirs, ours) = (other.interval.as_secs(), self.interval.as_secs());
            let text = format!("advert interval {theirs} s instead of {ours} s");
            return Some((Mismatch::Interval, text));
        }
        let sorted = |advert: &Self| {
            let mut addresses = advert.addresses.clone();
            addresses.sort_unstable();
            addresses
        };
        (sorted(self) != sorted(other)).then(|| {
            let list = |advert: &Self| {
                advert.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            };
            (Mismatch::Addresses, format!("addresses {} instead of {}", list(other), list(self)))
        })
    }

    fn first_byte(&self) -> u8 {
        number(self) << 4 | ADVERTISEMENT
    }
}

fn number(advert: &Advert) -> u8 {
    match advert.version {
        VrrpVersion::V2 => 2,
        VrrpVersion::V3 => 3,
    }
}

/// The span in units of so many milliseconds, at least 1 and at most `max`.
fn units(span: Duration, milliseconds: u128, max: u16) -> u16 {
    u16::try_from(span.as_millis() / milliseconds).unwrap_or(max).clamp(1, max)
}

fn password(data: &[u8]) -> Auth {
    let end = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    Auth::Pass(String::from_utf8_lossy(&data[..end]).into_owned())
}

fn verify(
    version: VrrpVersion,
    message: &[u8],
    found: u16,
    source: IpAddr,
    destination: IpAddr,
) -> Result<Checksum, DecodeError> {
    let mut blank = message.to_vec();
    blank[6..HEADER].fill(0);

    let plain = plain_checksum(&blank);
    match version {
        VrrpVersion::V2 if found == plain => Ok(Checksum::Plain),
        VrrpVersion::V2 => Err(DecodeError::Checksum { found, expected: plain }),
        VrrpVersion::V3 => {
            let pseudo = pseudo_checksum(&blank, source, destination);
            if found == pseudo || found == pseudo_checksum(&blank, source, group(source)) {
                Ok(Checksum::Pseudo)
            } else if found == plain && source.is_ipv4() {
                Ok(Checksum::Plain)
            } else {
                Err(DecodeError::Checksum { found, expected: pseudo })
            }
        }
    }
}

fn plain_checksum(message: &[u8]) -> u16 {
    fold(sum(message))
}

/// RFC 9568 §5.2.8, in keepalived's and FRR's reading for IPv4. The pseudo-headers of both families add up alike.
fn pseudo_checksum(message: &[u8], source: IpAddr, destination: IpAddr) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let header = address_sum(source) + address_sum(destination) + u32::from(PROTOCOL) + length;
    fold(header + sum(message))
}

fn address_sum(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    }
}

/// RFC 1071, before folding; a message of 4088 bytes, the longest there is, cannot overflow it.
fn sum(bytes: &[u8]) -> u32 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let pairs = pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum::<u32>();
    pairs + rest.first().map_or(0, |last| u32::from(*last) << 8)
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    !u16::try_from(twice).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
