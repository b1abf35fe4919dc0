//! News of links and addresses, and the socket that the lease thread changes addresses with.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use lvsmesh_core::plan::{Action, Address};
use lvsmesh_kernel::address::{Addresses, Event, Events};
use lvsmesh_kernel::route_socket::{PreparedAddress, RouteSocket};
use lvsmesh_kernel::{Errno, Kernel, Linux, Scope};
use rtnetlink::LinkVeth;

use crate::{namespace, perform};

/// The first interface of every namespace.
const LO: u32 = 1;
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
const LIFETIME: Duration = Duration::from_secs(2);

#[test]
fn linux_a_claimed_address_is_ours_and_global_until_it_is_released() {
    namespace::run(|| async {
        let mut kernel = Linux::open().unwrap();
        let mut socket = RouteSocket::open().unwrap();
        for (address, prefix) in [(IpAddr::from(VIP), 32), (IpAddr::from(VIP_V6), 128)] {
            let mut vip = PreparedAddress::new(LO, address, LIFETIME);
            let expected = Address { interface: "lo".into(), address, prefix, marked: true };

            for claim in ["first", "renewed"] {
                assert_eq!(socket.claim(&mut vip), Ok(()), "{address}, {claim}");
                assert!(addresses(&mut kernel).await.contains(&expected), "{address}, {claim}");
            }
            for release in ["first", "again"] {
                assert_eq!(socket.release(&mut vip), Ok(()), "{address}, {release}");
                assert!(!addresses(&mut kernel).await.contains(&expected), "{address}, {release}");
            }
        }
    });
}

#[test]
fn linux_a_claimed_address_that_nobody_renews_goes_by_itself() {
    namespace::run(|| async {
        for address in [IpAddr::from(VIP), IpAddr::from(VIP_V6)] {
            let mut events = Events::subscribe().unwrap();
            let mut vip = PreparedAddress::new(LO, address, Duration::from_millis(1));
            RouteSocket::open().unwrap().claim(&mut vip).unwrap();

            let interface = "lo".to_owned();
            let added = Event::Address { interface: interface.clone(), address };
            assert_eq!(soon(events.next()).await.unwrap(), added);
            let gone = Event::AddressGone { interface, address };
            assert_eq!(soon(events.next()).await.unwrap(), gone);
        }
    });
}

#[test]
fn linux_claiming_on_no_interface_fails_and_releasing_there_does_not() {
    namespace::run(|| async {
        let mut socket = RouteSocket::open().unwrap();
        let mut vip = PreparedAddress::new(9999, VIP, LIFETIME);
        assert_eq!(socket.claim(&mut vip), Err(Errno::ENODEV));
        assert_eq!(socket.release(&mut vip), Ok(()));
    });
}

#[test]
fn linux_changes_of_addresses_and_links_are_told_by_name() {
    namespace::run(|| async {
        let mut events = Events::subscribe().unwrap();
        let mut kernel = Linux::open().unwrap();
        let address: IpAddr = "2001:db8::100".parse().unwrap();
        let interface = "lo".to_owned();
        let add = Action::AddAddress { interface: interface.clone(), address };
        let remove = Action::RemoveAddress { interface: interface.clone(), address };
        // One after the other: the kernel tells of a new IPv6 address from a work queue, and of one that is gone before its turn came not at all (`addrconf_dad_work`).
        perform(&mut kernel, [add]).await;
        let told = soon(events.next()).await.unwrap();
        assert_eq!(told, Event::Address { interface: interface.clone(), address });
        perform(&mut kernel, [remove]).await;
        let told = soon(events.next()).await.unwrap();
        assert_eq!(told, Event::AddressGone { interface, address });

        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        let connection = tokio::spawn(connection);
        handle.link().add(LinkVeth::new("near", "far").build()).execute().await.unwrap();
        let links = Addresses::open().unwrap().links().await.unwrap();
        let near = links["near"].clone();
        assert!(!near.up && !near.usable() && near.mac.is_some(), "{near:?}");
        told_of(&mut events, |event| *event == Event::Link(near.clone())).await;

        for name in ["near", "far"] {
            let up = rtnetlink::LinkUnspec::new_with_index(links[name].index).up().build();
            handle.link().set(up).execute().await.unwrap();
        }
        told_of(
            &mut events,
            |event| matches!(event, Event::Link(link) if link.name == "near" && link.usable()),
        )
        .await;
        let links = Addresses::open().unwrap().links().await.unwrap();
        assert!(links["near"].usable() && links["lo"].usable(), "{links:?}");

        handle.link().del(near.index).execute().await.unwrap();
        let gone = Event::LinkGone { interface: "near".into() };
        told_of(&mut events, |event| *event == gone).await;
        connection.abort();
    });
}

#[test]
fn linux_changes_that_were_missed_are_told_as_such() {
    namespace::run(|| async {
        let mut events = Events::subscribe().unwrap();
        let mut socket = RouteSocket::open().unwrap();
        let mut vip = PreparedAddress::new(LO, VIP, LIFETIME);
        // More than the socket has room for: 2 MiB as the kernel counts, and a message counts for at least 512 bytes. Nobody reads meanwhile.
        for _ in 0..4_000 {
            socket.claim(&mut vip).unwrap();
            socket.release(&mut vip).unwrap();
        }
        told_of(&mut events, |event| *event == Event::Resync).await;

        // It goes on afterwards.
        let last: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
        socket.claim(&mut PreparedAddress::new(LO, last, LIFETIME)).unwrap();
        let expected = Event::Address { interface: "lo".into(), address: last.into() };
        told_of(&mut events, |event| *event == expected).await;
    });
}

/// Reads on until an event is the one that is waited for.
async fn told_of(events: &mut Events, wanted: impl Fn(&Event) -> bool) {
    soon(async {
        loop {
            if wanted(&events.next().await.unwrap()) {
                return;
            }
        }
    })
    .await;
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, future).await.expect("the kernel tells within a minute")
}

async fn addresses(kernel: &mut Linux) -> std::collections::BTreeSet<Address> {
    kernel.observe(&Scope::default()).await.unwrap().addresses
}
