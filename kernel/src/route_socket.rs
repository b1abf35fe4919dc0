//! A blocking route-netlink socket for the lease thread: it adds, refreshes and deletes VIPs in the moment that the lease clock allows it.
//!
//! Messages are encoded beforehand and only their sequence number is written on the way out, so nothing is allocated between the look at
//! the clock and the `send`. The kernel does the work inside `send` and queues its acknowledgement before that returns; what can take time
//! is the kernel's own lock over network settings (RTNL), which another process may hold.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt,
};
use nix::sys::time::TimeVal;

use crate::PROTOCOL_MARK;

// <linux/rtnetlink.h>, <linux/netlink.h>, <linux/if_addr.h>
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

const HEADER: usize = 16;
/// With room for IPv6.
const CLAIM: usize = HEADER + 8 + 20 + 20 + 20 + 8 + 8;
const RELEASE: usize = HEADER + 8 + 20 + 20;

/// How long an answer may take. The kernel answers before `send` returns, so this only bounds what should not happen.
const PATIENCE: Duration = Duration::from_millis(200);

/// One address on one interface, ready to be claimed and released.
#[derive(Clone, Debug)]
pub struct PreparedAddress {
    claim: Message<CLAIM>,
    release: Message<RELEASE>,
    address: IpAddr,
    ifindex: u32,
}

/// An encoded request.
#[derive(Clone, Debug)]
struct Message<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Message<N> {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

impl PreparedAddress {
    /// Encodes the requests for `address`, /32 or /128, scope global, on the interface with index `ifindex`, with lvsmesh's protocol mark.
    ///
    /// Unless it is claimed again, the kernel itself deletes the address `lifetime` after a claim: whole seconds, rounded up, at least 1.
    /// It checks lifetimes about once a second (`check_lifetime`, net/ipv4/devinet.c; `addrconf_verify_rtnl`, net/ipv6/addrconf.c), so
    /// that may be up to a second late.
    ///
    /// IPv6 comes without duplicate address detection, which would leave the address dead while the last holder still has it; without a
    /// route of its own to a network of one address; and with a preferred lifetime of zero, so that the kernel never takes it as the source
    /// of a connection from this machine (RFC 6724 §5, rule 3): an answer to that would go to whoever holds the VIP by then.
    #[must_use]
    pub fn new(ifindex: u32, address: impl Into<IpAddr>, lifetime: Duration) -> Self {
        let address = address.into();
        let round_up = u64::from(lifetime.subsec_nanos() > 0);
        let seconds = u32::try_from(lifetime.as_secs().saturating_add(round_up))
            // The greatest value means "forever".
            .map_or(u32::MAX - 1, |seconds| seconds.clamp(1, u32::MAX - 1));

        let mut claim = Encoder::<CLAIM>::new(
            RTM_NEWADDR,
            NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
        );
        claim.subject(ifindex, address);
        // struct ifa_cacheinfo: preferred and valid lifetime, then two stamps that only the kernel fills in.
        let mut cacheinfo = [0; 16];
        let preferred = if address.is_ipv4() { seconds } else { 0 };
        cacheinfo[..4].copy_from_slice(&preferred.to_ne_bytes());
        cacheinfo[4..8].copy_from_slice(&seconds.to_ne_bytes());
        claim.attribute(IFA_CACHEINFO, &cacheinfo);
        claim.attribute(IFA_PROTO, &[PROTOCOL_MARK]);
        if address.is_ipv6() {
            claim.attribute(IFA_FLAGS, &(IFA_F_NODAD | IFA_F_NOPREFIXROUTE).to_ne_bytes());
        }

        let mut release = Encoder::<RELEASE>::new(RTM_DELADDR, NLM_F_REQUEST | NLM_F_ACK);
        release.subject(ifindex, address);

        Self { claim: claim.finish(), release: release.finish(), address, ifindex }
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The interface.
    #[must_use]
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

/// A blocking socket to the kernel's network settings, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct RouteSocket {
    socket: OwnedFd,
    sequence: u32,
}

impl RouteSocket {
    /// Opens the socket.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptors left.
    pub fn open() -> Result<Self, Errno> {
        let socket = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        // Port 0 on both sides: ours is chosen by the kernel, the peer is the kernel itself. A connected socket takes nothing else.
        socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        socket::connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let patience = TimeVal::new(0, 1000 * i64::from(PATIENCE.subsec_millis()));
        socket::setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Adds the address, or renews the lifetime of one that is there.
    ///
    /// # Errors
    ///
    /// The kernel's: `ENODEV` without such an interface, `EPERM` without CAP_NET_ADMIN, `EACCES` for
    /// an IPv6 address where IPv6 is switched off (`disable_ipv6`). `EAGAIN` if no answer came within 200 ms.
    pub fn claim(&mut self, address: &mut PreparedAddress) -> Result<(), Errno> {
        self.perform(address.claim.as_mut_slice())
    }

    /// Deletes the address; one that is not there, or whose interface is not, is deleted.
    ///
    /// # Errors
    ///
    /// As for [`claim`](Self::claim), except `EADDRNOTAVAIL` and `ENODEV`.
    pub fn release(&mut self, address: &mut PreparedAddress) -> Result<(), Errno> {
        match self.perform(address.release.as_mut_slice()) {
            Err(Errno::EADDRNOTAVAIL | Errno::ENODEV) => Ok(()),
            outcome => outcome,
        }
    }

    /// Sends an encoded request that asks for an acknowledgement, with a sequence number of its own, and waits for it.
    pub(crate) fn perform(&mut self, message: &mut [u8]) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        message[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        restarting(|| socket::send(self.socket.as_raw_fd(), message, MsgFlags::empty()))?;

        // Room for the acknowledgement, which repeats the request after its own 20 bytes.
        let mut answer = [0_u8; 512];
        loop {
            let length = restarting(|| {
                socket::recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())
            })?;
            // What answers an earlier request that was given up on is passed over.
            if let Some(code) = acknowledgement(&answer[..length], self.sequence) {
                return if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) };
            }
        }
    }
}

/// Repeats a system call that a signal interrupted.
fn restarting(mut call: impl FnMut() -> nix::Result<usize>) -> nix::Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

/// The code in an `NLMSG_ERROR` for that sequence number: 0 or a negative errno.
fn acknowledgement(message: &[u8], sequence: u32) -> Option<i32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let answered = u32::from_ne_bytes(message.get(8..12)?.try_into().ok()?);
    let code = i32::from_ne_bytes(message.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR && answered == sequence).then_some(code)
}

/// Writes a message of a greatest length known beforehand. Attributes are aligned to 4 bytes (`NLA_ALIGNTO`).
struct Encoder<const N: usize> {
    bytes: [u8; N],
    filled: usize,
}

impl<const N: usize> Encoder<N> {
    /// Starts with the `nlmsghdr`: type and flags; the length is filled in at the end, sequence and port stay 0.
    fn new(kind: u16, flags: u16) -> Self {
        let mut encoder = Self { bytes: [0; N], filled: 0 };
        encoder.put(&[0; 4]);
        encoder.put(&kind.to_ne_bytes());
        encoder.put(&flags.to_ne_bytes());
        encoder.put(&[0; 8]);
        encoder
    }

    /// `struct ifaddrmsg` (a host address, no flags, scope global; IPv6 takes its scope from the address) and the address.
    fn subject(&mut self, ifindex: u32, address: IpAddr) {
        const AF_INET: u8 = 2;
        const AF_INET6: u8 = 10;
        const RT_SCOPE_UNIVERSE: u8 = 0;
        let (family, prefix) = if address.is_ipv4() { (AF_INET, 32) } else { (AF_INET6, 128) };
        self.put(&[family, prefix, 0, RT_SCOPE_UNIVERSE]);
        self.put(&ifindex.to_ne_bytes());
        for kind in [IFA_LOCAL, IFA_ADDRESS] {
            match address {
                IpAddr::V4(address) => self.attribute(kind, &address.octets()),
                IpAddr::V6(address) => self.attribute(kind, &address.octets()),
            }
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("an attribute has some ten bytes");
        self.put(&length.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
        self.filled = self.filled.next_multiple_of(4);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    fn finish(mut self) -> Message<N> {
        let length = u32::try_from(self.filled).expect("a message has some ten bytes");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        Message { bytes: self.bytes, length: self.filled }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
    use netlink_packet_route::address::{
        AddressAttribute, AddressFlags, AddressMessage, AddressScope,
    };
    use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100));
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100));

    fn claim_of(address: IpAddr, lifetime: Duration) -> AddressMessage {
        let mut prepared = PreparedAddress::new(7, address, lifetime);
        let bytes = prepared.claim.as_mut_slice();
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).unwrap();
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) =
            message.payload
        else {
            panic!("{:?}", message.payload);
        };
        message
    }

    fn lifetimes(message: &AddressMessage) -> (u32, u32) {
        let info = message.attributes.iter().find_map(|attribute| {
            let AddressAttribute::CacheInfo(info) = attribute else { return None };
            Some((info.ifa_preferred, info.ifa_valid))
        });
        info.unwrap()
    }

    #[test]
    fn another_codec_reads_what_is_claimed() {
        for (address, family, prefix) in
            [(V4, AddressFamily::Inet, 32), (V6, AddressFamily::Inet6, 128)]
        {
            let message = claim_of(address, Duration::from_secs(2));
            assert_eq!((message.header.index, message.header.family), (7, family));
            assert_eq!(message.header.prefix_len, prefix);
            assert_eq!(message.header.scope, AddressScope::Universe);
            for expected in [
                AddressAttribute::Local(address),
                AddressAttribute::Address(address),
                AddressAttribute::Protocol(PROTOCOL_MARK.into()),
            ] {
                assert!(message.attributes.contains(&expected), "{expected:?} in {message:?}");
            }
        }
    }

    #[test]
    fn ipv6_is_not_probed_for_duplicates_and_never_a_source() {
        let message = claim_of(V6, Duration::from_secs(2));
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        assert!(message.attributes.contains(&AddressAttribute::Flags(flags)), "{message:?}");
        assert_eq!(lifetimes(&message), (0, 2));
    }

    #[test]
    fn lifetimes_are_rounded_up_to_seconds_and_never_forever() {
        #[rustfmt::skip]
        let cases = [
            (Duration::ZERO,                   1),
            (Duration::from_millis(1),         1),
            (Duration::from_secs(2),           2),
            (Duration::from_millis(2001),      3),
            (Duration::from_secs(u64::MAX),    u32::MAX - 1),
        ];
        for (lifetime, seconds) in cases {
            assert_eq!(lifetimes(&claim_of(V4, lifetime)), (seconds, seconds), "{lifetime:?}");
            assert_eq!(lifetimes(&claim_of(V6, lifetime)), (0, seconds), "{lifetime:?}");
        }
    }

    #[test]
    fn only_the_answer_to_this_request_counts() {
        let mut answer = [0; 36];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        answer[8..12].copy_from_slice(&5_u32.to_ne_bytes());
        answer[16..20].copy_from_slice(&(-19_i32).to_ne_bytes());
        assert_eq!(acknowledgement(&answer, 5), Some(-19));
        assert_eq!(acknowledgement(&answer, 6), None, "of another request");
        assert_eq!(acknowledgement(&answer[..19], 5), None, "cut off");
        answer[4] = 20;
        assert_eq!(acknowledgement(&answer, 5), None, "no acknowledgement");
    }
}
