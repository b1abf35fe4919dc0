//! Route events of a namespace: what anybody changed in its links, addresses and routes.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::netns::Namespace;

/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV4_RULE of <linux/rtnetlink.h>.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x80;

/// A change that the kernel told everybody about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An address was added, or its lifetime renewed.
    Added(Ipv4Addr),
    /// An address was removed.
    Removed(Ipv4Addr),
    /// Something else: a link, a route, a rule; as text.
    Other(String),
}

/// A running recording; ends when dropped.
#[derive(Debug)]
pub struct Monitor {
    events: Arc<Mutex<Vec<Event>>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Starts recording.
    #[must_use]
    pub fn start(namespace: &Namespace) -> Self {
        let socket = namespace.inside(|| {
            let socket = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkRoute,
            )
            .expect("a netlink socket needs no rights");
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))
                .expect("route groups need no rights");
            socket
        });
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000))
            .expect("a receive timeout can be set");
        let events = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (writer, ended) = (Arc::clone(&events), Arc::clone(&stop));
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0_u8; 32 << 10];
            while !ended.load(Ordering::Relaxed) {
                let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) else {
                    continue;
                };
                let mut rest = &buffer[..length];
                while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
                    let size = usize::try_from(message.header.length)
                        .unwrap_or(rest.len())
                        .next_multiple_of(4);
                    writer
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(event(message.payload));
                    rest = rest.get(size.max(16)..).unwrap_or_default();
                    if rest.is_empty() {
                        break;
                    }
                }
            }
        });
        Self { events, stop, reader: Some(reader) }
    }

    /// Everything until now, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is not about `address`: neither the address itself nor the route to it that the kernel makes and removes with it.
    #[must_use]
    pub fn events_besides(&self, address: Ipv4Addr) -> Vec<Event> {
        let mut events = self.events();
        let own = format!("{address}");
        events.retain(|event| match event {
            Event::Added(other) | Event::Removed(other) => *other != address,
            Event::Other(text) => !text.contains(&own),
        });
        events
    }
}

fn event(payload: NetlinkPayload<RouteNetlinkMessage>) -> Event {
    let local = |attributes: &[AddressAttribute]| {
        attributes.iter().find_map(|attribute| {
            if let AddressAttribute::Local(IpAddr::V4(address)) = attribute {
                Some(*address)
            } else {
                None
            }
        })
    };
    if let NetlinkPayload::InnerMessage(message) = &payload {
        if let RouteNetlinkMessage::NewAddress(address) = message
            && let Some(address) = local(&address.attributes)
        {
            return Event::Added(address);
        }
        if let RouteNetlinkMessage::DelAddress(address) = message
            && let Some(address) = local(&address.attributes)
        {
            return Event::Removed(address);
        }
    }
    Event::Other(format!("{payload:?}"))
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ended = reader.join();
        }
    }
}
