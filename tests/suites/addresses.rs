//! Addresses and sysctls.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lvsmesh_core::plan::{Action, Address, Sysctl};
use lvsmesh_kernel::fake::FakeKernel;
use lvsmesh_kernel::{Errno, Kernel, Linux, Scope, sysctl};

use crate::{namespace, perform, refused};

#[tokio::test]
async fn fake_addresses_are_added_listed_and_removed() {
    addresses_are_added_listed_and_removed(&mut FakeKernel::new(&[])).await;
}

#[test]
fn linux_addresses_are_added_listed_and_removed() {
    namespace::run(|| async {
        addresses_are_added_listed_and_removed(&mut Linux::open().unwrap()).await;
    });
}

async fn addresses_are_added_listed_and_removed<K: Kernel>(kernel: &mut K) {
    for (text, prefix) in [("192.0.2.100", 32), ("2001:db8::100", 128)] {
        let address: IpAddr = text.parse().unwrap();
        let expected = Address { interface: "lo".into(), address, prefix, marked: true };
        let before = observed(kernel).await;

        perform(kernel, [add("lo", address)]).await;
        let with: BTreeSet<_> = before.iter().cloned().chain([expected]).collect();
        assert_eq!(observed(kernel).await, with, "{text}: added, with our mark, and nothing else");

        refused("added twice", kernel.perform(&add("lo", address)).await, Errno::EEXIST);
        assert_eq!(observed(kernel).await, with, "{text}: a refusal changes nothing");

        perform(kernel, [remove("lo", address)]).await;
        assert_eq!(observed(kernel).await, before, "{text}: removed, and nothing else");

        let again = kernel.perform(&remove("lo", address)).await;
        refused("removed twice", again, Errno::EADDRNOTAVAIL);
    }
}

#[tokio::test]
async fn fake_an_interface_that_is_not_there_is_named() {
    an_interface_that_is_not_there_is_named(&mut FakeKernel::new(&[])).await;
}

#[test]
fn linux_an_interface_that_is_not_there_is_named() {
    namespace::run(|| async {
        an_interface_that_is_not_there_is_named(&mut Linux::open().unwrap()).await;
    });
}

async fn an_interface_that_is_not_there_is_named<K: Kernel>(kernel: &mut K) {
    let address = "192.0.2.100".parse().unwrap();
    for action in [add("nosuch0", address), remove("nosuch0", address)] {
        let error = kernel.perform(&action).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENODEV), "{action:?}");
        assert!(error.to_string().ends_with("address 192.0.2.100 on nosuch0"), "{error}");
    }
}

#[tokio::test]
async fn fake_sysctls_are_set_and_read_back() {
    sysctls_are_set_and_read_back(&mut FakeKernel::new(&[])).await;
}

#[test]
fn linux_sysctls_are_set_and_read_back() {
    namespace::run(|| async {
        sysctls_are_set_and_read_back(&mut Linux::open().unwrap()).await;
    });
}

async fn sysctls_are_set_and_read_back<K: Kernel>(kernel: &mut K) {
    let ignore = sysctl::interface("lo", "arp_ignore").unwrap();
    let announce = sysctl::interface("all", "arp_announce").unwrap();
    let missing = sysctl::interface("nosuch0", "arp_ignore").unwrap();
    let scope = Scope {
        sysctls: [&ignore, &announce, &missing].into_iter().cloned().collect(),
        ..Scope::default()
    };

    perform(kernel, [set(&ignore, 0), set(&announce, 0)]).await;
    perform(kernel, [set(&ignore, 1), set(&announce, 2)]).await;
    let read = kernel.observe(&scope).await.unwrap().sysctls;
    let expected = [(ignore.clone(), 1), (announce, 2)].into_iter().collect();
    assert_eq!(read, expected, "the one that does not exist is absent");

    refused("no such interface", kernel.perform(&set(&missing, 1)).await, Errno::ENOENT);

    let only = Scope { sysctls: [ignore.clone()].into_iter().collect(), ..Scope::default() };
    let read = kernel.observe(&only).await.unwrap().sysctls;
    assert_eq!(read, [(ignore, 1)].into_iter().collect(), "nothing that was not asked for");
}

#[tokio::test]
async fn fake_a_fault_hits_the_operation_that_it_was_set_for() {
    let kernel = FakeKernel::new(&[]);
    let mut agent = kernel.clone();
    let [one, two] = ["192.0.2.1", "192.0.2.2"].map(|text| add("lo", text.parse().unwrap()));

    kernel.fail(2, Errno::EPERM);
    perform(&mut agent, [one.clone()]).await;
    refused("the second", agent.perform(&two).await, Errno::EPERM);
    assert_eq!(kernel.state().performed, [one], "a failed operation changed nothing");
    perform(&mut agent, [two]).await;
}

async fn observed<K: Kernel>(kernel: &mut K) -> BTreeSet<Address> {
    kernel.observe(&Scope::default()).await.unwrap().addresses
}

fn add(interface: &str, address: IpAddr) -> Action {
    Action::AddAddress { interface: interface.into(), address }
}

fn remove(interface: &str, address: IpAddr) -> Action {
    Action::RemoveAddress { interface: interface.into(), address }
}

fn set(name: &Sysctl, value: i64) -> Action {
    Action::SetSysctl { name: name.clone(), value }
}
