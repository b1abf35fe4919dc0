//! News of changes to links and addresses.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};

use super::{Link, link, local_address};
use crate::error::{Errno, KernelError};

// RTMGRP_*, <linux/rtnetlink.h>
const RTMGRP_LINK: u32 = 0x1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;

/// Enough for some thousand messages: when the kernel has no room for one it says so once, and what is missed has to be read again.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A change that the kernel reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link was made or changed; the state that it has after it.
    Link(Link),
    /// A link was deleted.
    LinkGone {
        /// Its name.
        interface: String,
    },
    /// An address was added or changed, its lifetime included.
    Address {
        /// On this interface.
        interface: String,
        /// Which.
        address: IpAddr,
    },
    /// An address was removed, or its lifetime ended.
    AddressGone {
        /// From this interface.
        interface: String,
        /// Which.
        address: IpAddr,
    },
    /// Changes were missed, because they came faster than they were read (`ENOBUFS`): everything has to be read again.
    Resync,
}

/// A subscription to changes of links and addresses, in the network namespace of the thread that opened it.
///
/// What is not read is kept by the kernel up to the size of the socket's buffer; beyond it [`Event::Resync`] takes its place.
pub struct Events {
    socket: TokioSocket,
    names: BTreeMap<u32, String>,
    pending: VecDeque<Event>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Events {
    /// Subscribes. What changes from here on is reported; what is there has to be listed after this, so that nothing falls in between.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptors left.
    pub fn subscribe() -> Result<Self, KernelError> {
        let failed = |error: std::io::Error| {
            KernelError::io("subscribe to", "changes of links and addresses", &error)
        };
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(failed)?;
        // Beyond net.core.rmem_max only with CAP_NET_ADMIN; without it the kernel cuts the wish down to what it allows.
        if setsockopt(socket.socket_ref(), sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(socket.socket_ref(), sockopt::RcvBuf, &RECEIVE_BUFFER)
                .map_err(|errno| failed(errno.into()))?;
        }
        let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
        socket.socket_mut().bind(&SocketAddr::new(0, groups)).map_err(failed)?;

        let names = nix::net::if_::if_nameindex()
            .map_err(|errno| KernelError::refused("list", "interfaces", errno))?;
        let names = names
            .iter()
            .map(|interface| (interface.index(), interface.name().to_string_lossy().into_owned()))
            .collect();
        Ok(Self { socket, names, pending: VecDeque::new() })
    }

    /// Waits for the next change. Cancel safe.
    ///
    /// # Errors
    ///
    /// If the socket fails; subscribe anew then.
    pub async fn next(&mut self) -> Result<Event, KernelError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            match self.socket.recv_from_full().await {
                // Only the kernel has port 0; other processes may send here too.
                Ok((datagram, sender)) if sender.port_number() == 0 => self.take(&datagram),
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => self.drain(),
                Err(error) => {
                    return Err(KernelError::io("read", "changes of links and addresses", &error));
                }
            }
        }
    }

    /// Throws away what is queued after an overrun, and says only then that everything has to be read again.
    ///
    /// Until its queue is empty the kernel delivers nothing more to a socket that was overrun, and does not say so again
    /// (`netlink_broadcast_deliver`, `netlink_rcv_wake`, net/netlink/af_netlink.c): who read everything again before that would miss what
    /// changed in between.
    fn drain(&mut self) {
        loop {
            match self.socket.socket_ref().recv_from_full() {
                // For the names of interfaces; the events themselves are covered by the one below.
                Ok((datagram, _)) => self.take(&datagram),
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Err(_) => break,
            }
        }
        self.pending.clear();
        self.pending.push_back(Event::Resync);
    }

    /// Takes in a datagram, which may hold several messages.
    fn take(&mut self, mut datagram: &[u8]) {
        while !datagram.is_empty() {
            // A message that cannot be read may have been about anything.
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) else {
                self.pending.push_back(Event::Resync);
                return;
            };
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            if let NetlinkPayload::InnerMessage(inner) = message.payload {
                self.translate(inner);
            }
            // Messages are aligned to 4 bytes (NLMSG_ALIGNTO).
            let Some(rest) = datagram.get(length.max(4).next_multiple_of(4)..) else { return };
            datagram = rest;
        }
    }

    fn translate(&mut self, message: RouteNetlinkMessage) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the groups bring no other messages")]
        let event = match message {
            RouteNetlinkMessage::NewLink(message) => link(&message).map(|link| {
                self.names.insert(link.index, link.name.clone());
                Event::Link(link)
            }),
            RouteNetlinkMessage::DelLink(message) => {
                let interface = self.names.remove(&message.header.index);
                interface.map(|interface| Event::LinkGone { interface })
            }
            RouteNetlinkMessage::NewAddress(message) => {
                let interface = self.names.get(&message.header.index).cloned();
                interface
                    .zip(local_address(&message))
                    .map(|(interface, address)| Event::Address { interface, address })
            }
            RouteNetlinkMessage::DelAddress(message) => {
                let interface = self.names.get(&message.header.index).cloned();
                interface
                    .zip(local_address(&message))
                    .map(|(interface, address)| Event::AddressGone { interface, address })
            }
            _ => return,
        };
        // Half-understood news is no news, but something did change.
        self.pending.push_back(event.unwrap_or(Event::Resync));
    }
}
