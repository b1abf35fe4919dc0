//! Plans on random pairs of tables: by the thousand in memory, by the dozen in Linux.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lvsmesh_core::model::{Encapsulation, Protocol};
use lvsmesh_core::placement::NodePlan;
use lvsmesh_core::plan::{
    Action, Destination, Method, Observed, Op, Owned, ServiceKey, ServiceSpec, Table,
    VirtualService, batches, diff,
};
use lvsmesh_kernel::fake::FakeKernel;
use lvsmesh_kernel::{Errno, Kernel};
use proptest::collection::btree_map;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::ipvs::{linux_with_ipvs, routed, spec, table, tcp};
use crate::{at, done, namespace, perform};

#[tokio::test]
async fn fake_a_plan_takes_any_table_to_any_other_and_touches_nothing_foreign() {
    any_table_to_any_other(&mut FakeKernel::new(&[]), 3000).await;
}

#[test]
fn ipvs_a_plan_takes_any_table_to_any_other_and_touches_nothing_foreign() {
    namespace::run(|| async { any_table_to_any_other(&mut linux_with_ipvs().await, 36).await });
}

#[tokio::test]
async fn fake_one_refused_operation_of_many_stops_no_other() {
    one_refused_of_many(&mut FakeKernel::new(&[])).await;
}

#[test]
fn ipvs_one_refused_operation_of_many_stops_no_other() {
    namespace::run(|| async { one_refused_of_many(&mut linux_with_ipvs().await).await });
}

/// The tables come from a fixed seed: a failure says which pair, and comes again.
async fn any_table_to_any_other<K: Kernel>(kernel: &mut K, pairs: u32) {
    let mut runner = TestRunner::deterministic();
    let mut operations = 0;
    for pair in 0..pairs {
        let tables = (ours(), ours(), foreign()).new_tree(&mut runner).unwrap().current();
        let (first, second, foreign) = tables;
        let mut start: Vec<Action> =
            table(kernel).await.keys().copied().map(Action::RemoveService).collect();
        start.extend(whole(&first));
        start.extend(whole(&foreign));
        perform(kernel, start).await;

        // A record may be ahead of the kernel, never behind it.
        let recorded = first.keys().chain(second.keys().take(1)).copied().collect();
        let owned = Owned { services: recorded, ..Owned::default() };
        let plan = NodePlan { table: second.clone(), ..NodePlan::default() };
        let work = diff(&observed(kernel).await, &plan, &owned);
        for batch in batches(&work.ops) {
            all_done(kernel, batch, &foreign, pair).await;
            operations += batch.len();
        }

        let mut expected = second;
        expected.extend(foreign.clone());
        assert_eq!(table(kernel).await, expected, "pair {pair}");
        let again = diff(&observed(kernel).await, &plan, &work.settled);
        assert_eq!(again.ops, [], "pair {pair}: a second plan has nothing to do");
        assert_eq!(again.foreign, foreign.keys().copied().collect(), "pair {pair}");
    }
    assert!(operations > pairs as usize, "{operations} operations for {pairs} pairs show little");
}

async fn all_done<K: Kernel>(kernel: &mut K, batch: &[Op], foreign: &Table, pair: u32) {
    let actions: Vec<&Action> = batch.iter().map(|op| &op.action).collect();
    let outcomes = kernel.perform_all(&actions).await;
    assert_eq!(outcomes.len(), actions.len());
    for (action, outcome) in actions.into_iter().zip(outcomes) {
        let about = match action {
            Action::AddService(key, _)
            | Action::SetService(key, _)
            | Action::RemoveService(key)
            | Action::AddDestination(key, ..)
            | Action::SetDestination(key, ..)
            | Action::RemoveDestination(key, _) => key,
            other @ (Action::AddAddress { .. }
            | Action::RemoveAddress { .. }
            | Action::SetSysctl { .. }
            | Action::SetTimeout { .. }
            | Action::StartDaemon(_)
            | Action::StopDaemon(_)
            | Action::Path(_)
            | Action::SetMarks(_)
            | Action::ClearMarks) => panic!("pair {pair}: {other} is not about the table"),
        };
        assert!(!foreign.contains_key(about), "pair {pair}: {action} is about a foreign service");
        done(action, outcome);
    }
}

/// More than go into one datagram, every seventh of them refused: the others are all performed, each refusal is told of the right one.
async fn one_refused_of_many<K: Kernel>(kernel: &mut K) {
    let key = tcp("192.0.2.100:80");
    let nowhere = tcp("192.0.2.200:80");
    perform(kernel, [Action::AddService(key, spec("rr"))]).await;
    let bad = |index: usize| index % 7 == 3;
    let real = |index: usize| {
        SocketAddr::new(Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(index).unwrap()).into(), 80)
    };
    let actions: Vec<Action> = (0..300)
        .map(|index| {
            let service = if bad(index) { nowhere } else { key };
            Action::AddDestination(service, real(index), routed(1))
        })
        .collect();
    let outcomes = kernel.perform_all(&actions.iter().collect::<Vec<_>>()).await;
    assert_eq!(outcomes.len(), actions.len());
    for (index, outcome) in outcomes.iter().enumerate() {
        let errno = outcome.as_ref().err().and_then(lvsmesh_kernel::KernelError::errno);
        assert_eq!(errno, bad(index).then_some(Errno::ESRCH), "operation {index}");
    }
    let there: BTreeSet<SocketAddr> =
        table(kernel).await[&key].destinations.keys().copied().collect();
    assert_eq!(there, (0..300).filter(|&index| !bad(index)).map(real).collect());

    // Parts of the table are what the whole has.
    let keys = BTreeSet::from([key, nowhere]);
    let read = kernel.read_services(&keys).await.unwrap().unwrap();
    assert_eq!(read, table(kernel).await, "the one that there is, whole");
    let services = kernel.services().await.unwrap().unwrap();
    assert_eq!(services, BTreeMap::from([(key, spec("rr"))]));
}

async fn observed<K: Kernel>(kernel: &mut K) -> Observed {
    Observed { table: Some(table(kernel).await), ..Observed::default() }
}

/// What makes a table where there is none.
fn whole(table: &Table) -> Vec<Action> {
    let services = table.iter().flat_map(|(&key, service)| {
        let destinations = service.destinations.iter();
        std::iter::once(Action::AddService(key, service.spec.clone())).chain(
            destinations.map(move |(&real, &settings)| Action::AddDestination(key, real, settings)),
        )
    });
    services.collect()
}

fn ours() -> impl Strategy<Value = Table> {
    table_of((0u16..6).prop_map(key), 6)
}

fn foreign() -> impl Strategy<Value = Table> {
    table_of((100u16..104).prop_map(key), 3)
}

fn key(at: u16) -> ServiceKey {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    match at % 6 {
        0 => ServiceKey::Mark { ipv6: false, mark: u32::from(at) + 1 },
        1 => ServiceKey::Mark { ipv6: true, mark: u32::from(at) + 1 },
        2 => ServiceKey::Address {
            protocol: Protocol::Udp,
            address: address("192.0.2.100"),
            port: 1000 + at,
        },
        3 => ServiceKey::Address {
            protocol: Protocol::Tcp,
            address: address("2001:db8::100"),
            port: 1000 + at,
        },
        _ => ServiceKey::Address {
            protocol: Protocol::Tcp,
            address: address("192.0.2.100"),
            port: 1000 + at,
        },
    }
}

fn is_ipv6(key: ServiceKey) -> bool {
    match key {
        ServiceKey::Address { address, .. } => address.is_ipv6(),
        ServiceKey::Mark { ipv6, .. } => ipv6,
    }
}

fn table_of(keys: impl Strategy<Value = ServiceKey>, most: usize) -> impl Strategy<Value = Table> {
    let methods = prop_oneof![
        Just(Method::Route),
        Just(Method::Masq),
        Just(Method::Tunnel(Encapsulation::Ipip))
    ];
    let destination = (0u32..4, methods, prop_oneof![Just((0, 0)), Just((10, 5)), Just((7, 0))])
        .prop_map(|(weight, method, (upper, lower))| Destination { weight, method, upper, lower });
    let destinations = btree_map(1u16..9, destination, 0..6);
    let settings = (
        prop_oneof![Just("rr"), Just("wlc"), Just("sh")],
        prop_oneof![Just(0u32), Just(50), Just(300)],
        prop_oneof![Just(0u32), Just(0x8)],
    );
    btree_map(keys, (settings, destinations), 0..most).prop_map(|services| {
        let services =
            services.into_iter().map(|(key, ((scheduler, timeout, flags), destinations))| {
                let persistent = if timeout > 0 { ServiceSpec::PERSISTENT } else { 0 };
                let spec = ServiceSpec {
                    flags: flags | persistent,
                    timeout,
                    netmask: if is_ipv6(key) { 128 } else { u32::MAX },
                    ..spec(scheduler)
                };
                let real = |last: u16| match is_ipv6(key) {
                    true => at(&format!("[2001:db8::{last}]:80")),
                    false => at(&format!("198.51.100.{last}:80")),
                };
                let destinations = destinations
                    .into_iter()
                    .map(|(last, settings)| (real(last), settings))
                    .collect();
                (key, VirtualService { spec, destinations })
            });
        services.collect()
    })
}
