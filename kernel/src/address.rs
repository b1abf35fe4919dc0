//! Addresses and links, over rtnetlink.

mod events;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use events::{Event, Events};
use futures_util::StreamExt;
use lvsmesh_core::plan::Address;
use lvsmesh_core::plan::path::DUMMY;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, State};
use rtnetlink::{AddressMessageBuilder, Handle};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::{Errno, KernelError};
use crate::{PROTOCOL_MARK, TIMEOUT};

/// `NLM_F_DUMP_INTR`, <linux/netlink.h>: the set changed while it was listed, so the listing may lack entries.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// How often an interrupted listing is tried before that is an error.
const ATTEMPTS: u32 = 8;

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index: given anew if the interface is deleted and made again.
    pub index: u32,
    /// Name, 1 to 15 bytes.
    pub name: String,
    /// Hardware address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// `IFF_UP`: switched on by an administrator.
    pub up: bool,
    /// `IFF_LOWER_UP`: the driver sees a carrier.
    pub carrier: bool,
    /// `IFLA_OPERSTATE` is up, or unknown as many virtual interfaces have it (RFC 2863 §3.1.13): no bond, bridge or 802.1X holds it back.
    pub operational: bool,
}

impl Link {
    /// Whether packets may be expected to leave by it.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.up && self.carrier && self.operational
    }
}

/// A connection to the kernel's links and addresses, in the network namespace of the thread that opened it.
///
/// Must be opened inside a tokio runtime; its task ends when this is dropped.
#[derive(Debug)]
pub struct Addresses {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Addresses {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Addresses {
    /// Opens the connection.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptors left.
    pub fn open() -> Result<Self, KernelError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|error| KernelError::io("open", "a route netlink socket", &error))?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Lists the network interfaces by name.
    ///
    /// # Errors
    ///
    /// If the request is refused or unanswered, or the list changes during each of several readings.
    pub async fn links(&self) -> Result<BTreeMap<String, Link>, KernelError> {
        let links = self.raw_links().await?;
        Ok(links.into_iter().map(|link| (link.name.clone(), link)).collect())
    }

    /// Lists the addresses of all interfaces.
    ///
    /// # Errors
    ///
    /// As for [`links`](Self::links).
    pub async fn addresses(&self) -> Result<BTreeSet<Address>, KernelError> {
        for _ in 0..ATTEMPTS {
            let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
            let messages = self.dump("list", "addresses", request).await?;
            let links = self.raw_links().await?;
            let names: BTreeMap<u32, String> =
                links.into_iter().map(|link| (link.index, link.name)).collect();

            let mut addresses = BTreeSet::new();
            let mut nameless = false;
            for message in messages {
                let RouteNetlinkMessage::NewAddress(message) = message else { continue };
                let Some(address) = local_address(&message) else { continue };
                match names.get(&message.header.index) {
                    Some(interface) => {
                        addresses.insert(Address {
                            interface: interface.clone(),
                            address,
                            prefix: message.header.prefix_len,
                            marked: is_marked(&message),
                        });
                    }
                    // Its interface went between the two listings.
                    None => nameless = true,
                }
            }
            if !nameless {
                return Ok(addresses);
            }
        }
        Err(KernelError::Unsteady {
            operation: "list",
            object: "addresses".into(),
            attempts: ATTEMPTS,
        })
    }

    /// Adds an address, /32 or /128, with lvsmesh's mark: scope host on `lo` and for tunnels' dummy, global elsewhere. IPv6 without duplicate address detection,
    /// which would leave the address dead while another machine has it.
    ///
    /// # Errors
    ///
    /// `ENODEV` without such an interface, `EEXIST` if it has the address, `EPERM` without CAP_NET_ADMIN.
    pub async fn add(&self, interface: &str, address: IpAddr) -> Result<(), KernelError> {
        const OPERATION: &str = "add address";

        let mut message = self.message(OPERATION, interface, address).await?;
        // What is not to be chosen as the source of what this machine sends.
        if interface == "lo" || address == DUMMY {
            message.header.scope = AddressScope::Host;
        }
        if address.is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
        }
        let mark = AddressProtocol::from(PROTOCOL_MARK);
        message.attributes.push(AddressAttribute::Protocol(mark));
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let request = RouteNetlinkMessage::NewAddress(message);
        self.acknowledged(OPERATION, &format!("{address} on {interface}"), request, flags).await
    }

    /// Removes an address, /32 or /128.
    ///
    /// # Errors
    ///
    /// `ENODEV` without such an interface, `EADDRNOTAVAIL` if it has no such address, `EPERM` without CAP_NET_ADMIN.
    pub async fn remove(&self, interface: &str, address: IpAddr) -> Result<(), KernelError> {
        const OPERATION: &str = "remove address";

        let message = self.message(OPERATION, interface, address).await?;
        let request = RouteNetlinkMessage::DelAddress(message);
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        self.acknowledged(OPERATION, &format!("{address} on {interface}"), request, flags).await
    }

    async fn message(
        &self,
        operation: &'static str,
        interface: &str,
        address: IpAddr,
    ) -> Result<AddressMessage, KernelError> {
        let links = self.raw_links().await?;
        let index = links.iter().find(|link| link.name == interface).map(|link| link.index);
        let Some(index) = index else {
            let object = format!("{address} on {interface}");
            return Err(KernelError::refused(operation, object, Errno::ENODEV));
        };
        Ok(match address {
            IpAddr::V4(address) => {
                AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, 32).build()
            }
            IpAddr::V6(address) => {
                AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(address, 128).build()
            }
        })
    }

    async fn raw_links(&self) -> Result<Vec<Link>, KernelError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let messages = self.dump("list", "links", request).await?;
        Ok(messages
            .into_iter()
            .filter_map(|message| {
                let RouteNetlinkMessage::NewLink(message) = message else { return None };
                link(&message)
            })
            .collect())
    }

    /// Lists a whole set, again if it changed meanwhile.
    pub(crate) async fn dump(
        &self,
        operation: &'static str,
        object: &str,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        for _ in 0..ATTEMPTS {
            let answers = self
                .request(operation, object, request.clone(), NLM_F_REQUEST | NLM_F_DUMP)
                .await?;
            let interrupted =
                answers.iter().any(|answer| answer.header.flags & NLM_F_DUMP_INTR != 0);
            if interrupted {
                continue;
            }
            return Ok(answers
                .into_iter()
                .filter_map(|answer| {
                    let NetlinkPayload::InnerMessage(message) = answer.payload else { return None };
                    Some(message)
                })
                .collect());
        }
        Err(KernelError::Unsteady { operation, object: object.into(), attempts: ATTEMPTS })
    }

    /// Sends a request that the kernel answers with nothing but yes or no.
    pub(crate) async fn acknowledged(
        &self,
        operation: &'static str,
        object: &str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), KernelError> {
        self.request(operation, object, request, flags).await.map(|_| ())
    }

    async fn request(
        &self,
        operation: &'static str,
        object: &str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, KernelError> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = flags;
        let closed = || KernelError::Malformed {
            operation,
            object: object.into(),
            detail: "the netlink connection has ended".into(),
        };
        let stream = self.handle.clone().request(message).map_err(|_| closed())?;
        let Ok(answers) = timeout(TIMEOUT, stream.collect::<Vec<_>>()).await else {
            return Err(KernelError::TimedOut { operation, object: object.into(), after: TIMEOUT });
        };
        for answer in &answers {
            let errno = match &answer.payload {
                NetlinkPayload::Error(error) => {
                    error.code.map(|code| Errno::from_raw(-code.get()))
                }
                NetlinkPayload::Overrun(_) => Some(Errno::ENOBUFS),
                // A listing that fails half way says so at its end.
                NetlinkPayload::Done(done) if done.code < 0 => Some(Errno::from_raw(-done.code)),
                NetlinkPayload::Done(_)
                | NetlinkPayload::Noop
                | NetlinkPayload::InnerMessage(_)
                // The type is open; what it may hold one day is no refusal.
                | _ => None,
            };
            if let Some(errno) = errno {
                return Err(KernelError::refused(operation, object, errno));
            }
        }
        // Every request is answered by at least an acknowledgement or the end of a listing; netlink-proto keeps the latter for itself.
        if answers.is_empty() && flags & NLM_F_ACK != 0 && self.connection.is_finished() {
            return Err(closed());
        }
        Ok(answers)
    }
}

/// The interface's own address: `IFA_LOCAL`, which differs from `IFA_ADDRESS` on point-to-point links; IPv6 may have the latter only.
fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut other = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(address) = attribute {
            return Some(*address);
        }
        if let AddressAttribute::Address(address) = attribute {
            other = Some(*address);
        }
    }
    other
}

fn is_marked(message: &AddressMessage) -> bool {
    let mark = AddressProtocol::from(PROTOCOL_MARK);
    message.attributes.contains(&AddressAttribute::Protocol(mark))
}

fn link(message: &LinkMessage) -> Option<Link> {
    let mut name = None;
    let mut mac = None;
    let mut operational = true;
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(value) = attribute {
            name = Some(value.clone());
        } else if let LinkAttribute::Address(value) = attribute {
            mac = value.as_slice().try_into().ok();
        } else if let LinkAttribute::OperState(state) = attribute {
            operational = matches!(state, State::Up | State::Unknown);
        }
    }
    Some(Link {
        index: message.header.index,
        name: name?,
        mac,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        operational,
    })
}
