//! Links and addresses inside a namespace, over rtnetlink.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use futures_util::TryStreamExt as _;
use netlink_packet_core::DefaultNla;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{LinkAttribute, LinkProtoInfoBridge};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth};

use crate::netns::Namespace;

/// Of <linux/if_link.h>.
const IFLA_BRPORT_STATE: u16 = 1;

/// Runs rtnetlink requests inside a namespace.
///
/// # Panics
///
/// If the kernel refuses: a lab that cannot be built is a failed test.
pub fn request<T, F>(namespace: &Namespace, what: &str, work: impl FnOnce(Handle) -> F + Send) -> T
where
    T: Send,
    F: Future<Output = Result<T, rtnetlink::Error>>,
{
    let result = namespace.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime needs only descriptors");
        runtime.block_on(async {
            let (connection, handle, _) =
                rtnetlink::new_connection().expect("a netlink socket needs no rights");
            let connection = tokio::spawn(connection);
            let result = work(handle).await;
            connection.abort();
            result
        })
    });
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}

async fn index(handle: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    let link = handle.link().get().match_name(name.to_owned()).execute().try_next().await?;
    link.map(|link| link.header.index).ok_or(rtnetlink::Error::RequestFailed)
}

/// Makes the bridge `br0`; returns its index.
pub fn bridge(switch: &Namespace) -> u32 {
    request(switch, "make a bridge", async |handle| {
        handle.link().add(LinkBridge::new("br0").build()).execute().await?;
        index(&handle, "br0").await
    })
}

/// Connects `node`'s new `eth0` to a new port of the bridge; returns the port's index.
pub fn plug_in(switch: &Namespace, bridge: u32, port: &str, node: BorrowedFd<'_>) -> u32 {
    request(switch, "make a veth pair", async |handle| {
        handle.link().add(LinkVeth::new(port, "eth0").build()).execute().await?;
        let inner = index(&handle, "eth0").await?;
        handle
            .link()
            .set(LinkUnspec::new_with_index(inner).setns_by_fd(node.as_raw_fd()).build())
            .execute()
            .await?;
        let outer = index(&handle, port).await?;
        handle
            .link()
            .set(LinkUnspec::new_with_index(outer).controller(bridge).up().build())
            .execute()
            .await?;
        Ok(outer)
    })
}

/// Gives `eth0` an address of a network with that prefix length.
pub fn add_prefix(node: &Namespace, address: impl Into<IpAddr>, prefix: u8) {
    let address = address.into();
    request(node, "add an address", async |handle| {
        let index = index(&handle, "eth0").await?;
        handle.address().add(index, address, prefix).execute().await
    });
}

/// Brings `lo` and `eth0` up and gives `eth0` an address of a /24.
pub fn configure(node: &Namespace, address: Ipv4Addr) {
    request(node, "configure a node's links", async |handle| {
        for name in ["lo", "eth0"] {
            let index = index(&handle, name).await?;
            handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
        }
        let index = index(&handle, "eth0").await?;
        handle.address().add(index, IpAddr::V4(address), 24).execute().await
    });
}

/// Lets a port forward, or drops everything that comes in or goes out by it while both ends keep their carrier.
pub fn port_forwards(switch: &Namespace, port: u32, forwards: bool) {
    // BR_STATE_FORWARDING or BR_STATE_DISABLED of <linux/if_bridge.h>: the bridge would put any other back to forwarding at once
    // (`br_port_state_selection` in br_stp.c). By RTM_SETLINK of the bridge family: set as link info, the state would be lost to the carrier
    // check that follows (`br_port_carrier_check` in br_if.c).
    let state = if forwards { 3 } else { 0 };
    let state = LinkProtoInfoBridge::Other(DefaultNla::new(IFLA_BRPORT_STATE, vec![state]));
    let message = LinkUnspec::new_with_index(port)
        .interface_family(AddressFamily::Bridge)
        .append_extra_attribute(LinkAttribute::ProtoInfoBridge(vec![state]))
        .build();
    request(switch, "set a port's state", async |handle| {
        handle.link().set(message).execute().await
    });
}

/// Sets a link up or down; the other end of a veth pair loses its carrier with it.
pub fn set_up(namespace: &Namespace, link: u32, up: bool) {
    let message = LinkUnspec::new_with_index(link);
    let message = if up { message.up() } else { message.down() };
    request(namespace, "set a link up or down", async |handle| {
        handle.link().set(message.build()).execute().await
    });
}

/// Sets `eth0` up or down from the machine's own side.
pub fn set_own_up(namespace: &Namespace, up: bool) {
    request(namespace, "set eth0 up or down", async |handle| {
        let message = LinkUnspec::new_with_index(index(&handle, "eth0").await?);
        let message = if up { message.up() } else { message.down() };
        handle.link().set(message.build()).execute().await
    });
}

/// Whether an interface has an address.
#[must_use]
pub fn has_address(namespace: &Namespace, interface: &str, address: impl Into<IpAddr>) -> bool {
    all_addresses(namespace, interface).contains(&address.into())
}

/// IPv4 addresses of an interface, in the kernel's order.
#[must_use]
pub fn addresses(namespace: &Namespace, interface: &str) -> Vec<Ipv4Addr> {
    let v4 = |address| if let IpAddr::V4(address) = address { Some(address) } else { None };
    all_addresses(namespace, interface).into_iter().filter_map(v4).collect()
}

/// IPv4 and IPv6 addresses of an interface, in the kernel's order.
#[must_use]
pub fn all_addresses(namespace: &Namespace, interface: &str) -> Vec<IpAddr> {
    request(namespace, "list addresses", async |handle| {
        let index = index(&handle, interface).await?;
        let messages: Vec<_> =
            handle.address().get().set_link_index_filter(index).execute().try_collect().await?;
        let own = |attributes: &[AddressAttribute]| {
            let mut other = None;
            for attribute in attributes {
                if let AddressAttribute::Local(address) = attribute {
                    return Some(*address);
                } else if let AddressAttribute::Address(address) = attribute {
                    // All that IPv6 has, but for point-to-point links.
                    other = Some(*address);
                }
            }
            other
        };
        Ok(messages.iter().filter_map(|message| own(&message.attributes)).collect())
    })
}

/// Does what `ip addr del ADDRESS/32 dev INTERFACE` does.
pub fn delete_address(namespace: &Namespace, interface: &str, address: Ipv4Addr) {
    request(namespace, "delete an address", async |handle| {
        let index = index(&handle, interface).await?;
        let mut found = handle
            .address()
            .get()
            .set_link_index_filter(index)
            .set_address_filter(IpAddr::V4(address))
            .execute();
        let message = found.try_next().await?.ok_or(rtnetlink::Error::RequestFailed)?;
        handle.address().del(message).execute().await
    });
}

/// Adds ADDRESS/32 or ADDRESS/128, as an operator would with `ip addr add`.
pub fn add_address(namespace: &Namespace, interface: &str, address: impl Into<IpAddr>) {
    let address = address.into();
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    request(namespace, "add an address", async |handle| {
        let index = index(&handle, interface).await?;
        handle.address().add(index, address, prefix).execute().await
    });
}

/// Forgets what `eth0` knows about a neighbour, so that the next packet asks for it again.
///
/// # Errors
///
/// As the kernel says; `Ok` if there was nothing to forget.
pub async fn forget_neighbour(handle: &Handle, address: IpAddr) -> Result<(), rtnetlink::Error> {
    for message in neighbours(handle, address).await? {
        // It may have gone by itself meanwhile.
        let _gone = handle.neighbours().del(message).execute().await;
    }
    Ok(())
}

/// What `eth0` knows of that address.
async fn neighbours(
    handle: &Handle,
    address: IpAddr,
) -> Result<Vec<NeighbourMessage>, rtnetlink::Error> {
    let (family, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    let mut known: Vec<_> =
        handle.neighbours().get().set_address_family(family).execute().try_collect().await?;
    let wanted = NeighbourAttribute::Destination(destination);
    known.retain(|message| message.attributes.contains(&wanted));
    Ok(known)
}

/// The hardware address that a node has in its cache for another's address.
#[must_use]
pub fn neighbour(namespace: &Namespace, address: impl Into<IpAddr>) -> Option<[u8; 6]> {
    let address = address.into();
    request(namespace, "read a neighbour", async |handle| {
        let known = neighbours(&handle, address).await?;
        Ok(known.iter().flat_map(|message| &message.attributes).find_map(|attribute| {
            if let NeighbourAttribute::LinkLayerAddress(address) = attribute {
                <[u8; 6]>::try_from(address.as_slice()).ok()
            } else {
                None
            }
        }))
    })
}

/// Has an interface take in frames for other stations too.
pub fn promiscuous(namespace: &Namespace, interface: &str) {
    request(namespace, "listen to everything", async |handle| {
        let link = LinkUnspec::new_with_index(index(&handle, interface).await?);
        handle.link().set(link.promiscuous(true).build()).execute().await
    });
}

/// Gives an interface another hardware address.
pub fn set_mac(namespace: &Namespace, interface: &str, mac: [u8; 6]) {
    request(namespace, "set a hardware address", async |handle| {
        let link = LinkUnspec::new_with_index(index(&handle, interface).await?);
        handle.link().set(link.address(mac.to_vec()).build()).execute().await
    });
}

/// The hardware address of `eth0`.
#[must_use]
pub fn mac(namespace: &Namespace) -> [u8; 6] {
    request(namespace, "read a hardware address", async |handle| {
        let link = handle.link().get().match_name("eth0".to_owned()).execute().try_next().await?;
        let address = link.iter().flat_map(|link| &link.attributes).find_map(|attribute| {
            if let LinkAttribute::Address(address) = attribute {
                <[u8; 6]>::try_from(address.as_slice()).ok()
            } else {
                None
            }
        });
        address.ok_or(rtnetlink::Error::RequestFailed)
    })
}
