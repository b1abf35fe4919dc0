//! The IPVS table.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lvsmesh_core::model::{Encapsulation, Protocol, Scheduler};
use lvsmesh_core::plan::{Action, Destination, Method, ServiceKey, ServiceSpec, Table};
use lvsmesh_kernel::fake::FakeKernel;
use lvsmesh_kernel::{Errno, Kernel, KernelError, Linux, Scope};

use crate::{at, namespace, perform, refused};

const SCOPE: fn() -> Scope = || Scope { ipvs: true, ..Scope::default() };

/// Makes a claim about any kernel into a test of each.
macro_rules! on_both_kernels {
    ($($claim:ident: $fake:ident, $linux:ident;)*) => {
        $(
            #[tokio::test]
            async fn $fake() {
                $claim(&mut FakeKernel::new(&[])).await;
            }

            #[test]
            fn $linux() {
                namespace::run(|| async { $claim(&mut linux_with_ipvs().await).await });
            }
        )*
    };
}

on_both_kernels! {
    every_scheduler_is_taken_and_read_back: fake_every_scheduler, ipvs_every_scheduler;
    every_kind_of_service_is_read_back_as_it_was_written: fake_every_kind, ipvs_every_kind;
    a_service_is_edited_whole: fake_edit, ipvs_edit;
    destinations_are_added_edited_and_removed: fake_destinations, ipvs_destinations;
    services_are_refused_as_linux_does: fake_refusals, ipvs_refusals;
    destinations_are_refused_as_linux_does: fake_destination_refusals, ipvs_destination_refusals;
    removing_a_service_takes_its_destinations_along: fake_removal, ipvs_removal;
}

/// The kernel under test; the test fails here if it has no IPVS.
pub(crate) async fn linux_with_ipvs() -> Linux {
    let mut kernel = Linux::open().unwrap();
    if let Err(error) = kernel.ipvs().await {
        let hint = error.hint().unwrap_or_default();
        panic!("{}; {hint}", lvsmesh_kernel::chain(&error));
    }
    kernel
}

async fn every_scheduler_is_taken_and_read_back<K: Kernel>(kernel: &mut K) {
    for (port, scheduler) in (1..).zip(Scheduler::ALL) {
        let key = tcp(&format!("192.0.2.100:{port}"));
        let spec = spec(scheduler.name());
        perform(kernel, [Action::AddService(key, spec.clone())]).await;
        assert_eq!(table(kernel).await[&key].spec, spec, "{}", scheduler.name());
    }
    assert_eq!(table(kernel).await.len(), Scheduler::ALL.len());
}

async fn every_kind_of_service_is_read_back_as_it_was_written<K: Kernel>(kernel: &mut K) {
    let services = kinds_of_service();
    for (why, key, spec) in &services {
        perform(kernel, [Action::AddService(*key, spec.clone())]).await;
        assert_eq!(table(kernel).await[key].spec, *spec, "{why}");
    }
    assert_eq!(table(kernel).await.len(), services.len(), "each is a service of its own");
}

/// One of each kind, with the reason why it is there.
pub(crate) fn kinds_of_service() -> Vec<(&'static str, ServiceKey, ServiceSpec)> {
    let plain = spec("rr");
    let persistent = ServiceSpec { flags: ServiceSpec::PERSISTENT, timeout: 50, ..spec("wlc") };
    let v6 = ServiceSpec { netmask: 128, ..spec("rr") };
    vec![
        ("TCP", tcp("192.0.2.100:80"), plain.clone()),
        ("UDP on the same address and port", udp("192.0.2.100:80"), plain.clone()),
        ("SCTP", service(Protocol::Sctp, "192.0.2.100:80"), plain.clone()),
        ("another port", tcp("192.0.2.100:81"), plain.clone()),
        ("persistence", tcp("192.0.2.101:80"), persistent.clone()),
        (
            "persistence by network",
            tcp("192.0.2.101:81"),
            ServiceSpec { netmask: 0xffff_ff00, ..persistent.clone() },
        ),
        ("every port", tcp("192.0.2.101:0"), persistent.clone()),
        (
            "one-packet scheduling",
            udp("192.0.2.102:53"),
            ServiceSpec { flags: ServiceSpec::ONE_PACKET, ..plain.clone() },
        ),
        (
            "scheduler flags",
            tcp("192.0.2.103:443"),
            ServiceSpec { flags: 0x8 | 0x10, ..spec("mh") },
        ),
        (
            "a persistence engine",
            udp("192.0.2.104:5060"),
            ServiceSpec {
                flags: ServiceSpec::PERSISTENT | ServiceSpec::ONE_PACKET,
                timeout: 60,
                engine: Some("sip".into()),
                ..plain.clone()
            },
        ),
        ("a mark", ServiceKey::Mark { ipv6: false, mark: 7 }, plain),
        ("the same mark for IPv6", ServiceKey::Mark { ipv6: true, mark: 7 }, v6.clone()),
        (
            // The greatest that ipvsadm 1.31 prints as it is; from there on it shows negative numbers.
            "a great mark",
            ServiceKey::Mark { ipv6: false, mark: i32::MAX.unsigned_abs() },
            persistent.clone(),
        ),
        ("IPv6", tcp("[2001:db8::100]:80"), v6.clone()),
        (
            "IPv6, persistence by network",
            udp("[2001:db8::100]:443"),
            ServiceSpec { netmask: 64, flags: ServiceSpec::PERSISTENT, timeout: 100, ..v6 },
        ),
    ]
}

async fn a_service_is_edited_whole<K: Kernel>(kernel: &mut K) {
    let key = tcp("192.0.2.100:80");
    let before = ServiceSpec {
        flags: ServiceSpec::PERSISTENT | 0x8,
        timeout: 300,
        netmask: 0xffff_ff00,
        ..spec("sh")
    };
    let real = at("198.51.100.1:80");
    perform(
        kernel,
        [Action::AddService(key, before), Action::AddDestination(key, real, routed(3))],
    )
    .await;

    // Flags that are not wanted have to go, not only those that are wanted come.
    let after = spec("wlc");
    perform(kernel, [Action::SetService(key, after.clone())]).await;
    let service = &table(kernel).await[&key];
    assert_eq!(service.spec, after);
    assert_eq!(service.destinations, BTreeMap::from([(real, routed(3))]), "destinations stay");
}

async fn destinations_are_added_edited_and_removed<K: Kernel>(kernel: &mut K) {
    let v4 = tcp("192.0.2.100:80");
    let v6 = tcp("[2001:db8::100]:80");
    let mark = ServiceKey::Mark { ipv6: false, mark: 7 };
    perform(
        kernel,
        [
            Action::AddService(v4, spec("wlc")),
            Action::AddService(v6, ServiceSpec { netmask: 128, ..spec("rr") }),
            Action::AddService(mark, spec("rr")),
        ],
    )
    .await;

    #[rustfmt::skip]
    let cases = [
        ("direct routing",        v4,   "198.51.100.1:80",    routed(1)),
        ("weight 0: a drain",     v4,   "198.51.100.2:80",    routed(0)),
        ("greatest weight",       v4,   "198.51.100.3:80",    routed(i32::MAX.unsigned_abs())),
        ("thresholds",            v4,   "198.51.100.4:80",    Destination { upper: 1000, lower: 800, ..routed(5) }),
        ("translation, port",     v4,   "198.51.100.5:8080",  Destination { method: Method::Masq, ..routed(1) }),
        ("tunnel",                v4,   "198.51.100.6:80",    Destination { method: Method::Tunnel(Encapsulation::Ipip), ..routed(1) }),
        ("tunnel of other family",v4,   "[2001:db8::6]:80",   Destination { method: Method::Tunnel(Encapsulation::Ipip), ..routed(1) }),
        ("IPv6",                  v6,   "[2001:db8::1]:80",   routed(2)),
        ("a mark's, port 0",      mark, "198.51.100.1:0",     routed(2)),
    ];
    for (why, key, real, settings) in cases {
        perform(kernel, [Action::AddDestination(key, at(real), settings)]).await;
        assert_eq!(destinations(kernel, key).await[&at(real)], settings, "{why}");
    }
    for (key, count) in [(v4, 7), (v6, 1), (mark, 1)] {
        assert_eq!(destinations(kernel, key).await.len(), count, "{key:?}");
    }

    let real = at("198.51.100.4:80");
    let edited = Destination { upper: 0, lower: 0, ..routed(9) };
    perform(kernel, [Action::SetDestination(v4, real, edited)]).await;
    assert_eq!(destinations(kernel, v4).await[&real], edited, "edited whole");

    perform(kernel, [Action::RemoveDestination(v4, real)]).await;
    let left = destinations(kernel, v4).await;
    assert_eq!((left.len(), left.contains_key(&real)), (6, false));
}

async fn services_are_refused_as_linux_does<K: Kernel>(kernel: &mut K) {
    let key = tcp("192.0.2.100:80");
    let other = tcp("192.0.2.200:80");
    let v6 = tcp("[2001:db8::100]:80");
    perform(kernel, [Action::AddService(key, spec("rr"))]).await;
    let before = table(kernel).await;

    let engine = ServiceSpec { engine: Some("nosuch".into()), ..spec("rr") };
    let prefix = ServiceSpec { netmask: 129, ..spec("rr") };
    #[rustfmt::skip]
    let cases = [
        ("added twice",             Action::AddService(key, spec("wlc")),      Errno::EEXIST),
        ("edited, not there",       Action::SetService(other, spec("rr")),     Errno::ESRCH),
        ("removed, not there",      Action::RemoveService(other),              Errno::ESRCH),
        ("no such scheduler",       Action::AddService(other, spec("nosuch")), Errno::ENOENT),
        ("edited to no scheduler",  Action::SetService(key, spec("nosuch")),   Errno::ENOENT),
        ("no such engine",          Action::AddService(other, engine),         Errno::ENOENT),
        ("IPv6 prefix too long",    Action::AddService(v6, prefix.clone()),    Errno::EINVAL),
        ("IPv6 prefix of 0",        Action::AddService(v6, ServiceSpec { netmask: 0, ..prefix }), Errno::EINVAL),
    ];
    for (why, action, errno) in cases {
        refused(why, kernel.perform(&action).await, errno);
        assert_eq!(table(kernel).await, before, "{why}: a refusal changes nothing");
    }
}

async fn destinations_are_refused_as_linux_does<K: Kernel>(kernel: &mut K) {
    let key = tcp("192.0.2.100:80");
    let nowhere = tcp("192.0.2.200:80");
    let real = at("198.51.100.1:80");
    let other = at("198.51.100.2:80");
    let v6 = at("[2001:db8::1]:80");
    perform(
        kernel,
        [Action::AddService(key, spec("rr")), Action::AddDestination(key, real, routed(1))],
    )
    .await;
    let before = table(kernel).await;

    let crossed = Destination { upper: 5, lower: 10, ..routed(1) };
    let heavy = routed(i32::MAX.unsigned_abs() + 1);
    #[rustfmt::skip]
    let cases = [
        ("added twice",                 Action::AddDestination(key, real, routed(2)),      Errno::EEXIST),
        ("edited, not there",           Action::SetDestination(key, other, routed(1)),     Errno::ENOENT),
        ("removed, not there",          Action::RemoveDestination(key, other),             Errno::ENOENT),
        ("added to no service",         Action::AddDestination(nowhere, real, routed(1)),  Errno::ESRCH),
        ("edited in no service",        Action::SetDestination(nowhere, real, routed(1)),  Errno::ESRCH),
        ("removed from no service",     Action::RemoveDestination(nowhere, real),          Errno::ESRCH),
        ("thresholds the wrong way",    Action::AddDestination(key, other, crossed),       Errno::ERANGE),
        ("edited to such thresholds",   Action::SetDestination(key, real, crossed),        Errno::ERANGE),
        ("too heavy",                   Action::AddDestination(key, other, heavy),         Errno::ERANGE),
        ("other family, not a tunnel",  Action::AddDestination(key, v6, routed(1)),        Errno::EINVAL),
    ];
    for (why, action, errno) in cases {
        refused(why, kernel.perform(&action).await, errno);
        assert_eq!(table(kernel).await, before, "{why}: a refusal changes nothing");
    }
}

async fn removing_a_service_takes_its_destinations_along<K: Kernel>(kernel: &mut K) {
    let [key, other] = ["192.0.2.100:80", "192.0.2.100:81"].map(tcp);
    let real = at("198.51.100.1:80");
    for key in [key, other] {
        perform(
            kernel,
            [Action::AddService(key, spec("rr")), Action::AddDestination(key, real, routed(1))],
        )
        .await;
    }
    perform(kernel, [Action::RemoveService(key), Action::AddService(key, spec("rr"))]).await;
    assert_eq!(destinations(kernel, key).await, BTreeMap::new(), "nothing is left of before");
    assert_eq!(destinations(kernel, other).await.len(), 1, "another service keeps its own");
}

#[tokio::test]
async fn fake_without_the_module_there_is_no_table_and_no_service_is_taken() {
    let mut kernel = FakeKernel::new(&[]).without_ipvs();
    assert_eq!(kernel.observe(&SCOPE()).await.unwrap().table, None);
    let error = kernel.perform(&Action::RemoveService(tcp("192.0.2.1:80"))).await.unwrap_err();
    assert!(matches!(error, KernelError::IpvsMissing), "{error}");
}

/// Holds on any kernel: with IPVS there is a table, without it the reason is named.
#[test]
fn linux_only_a_kernel_without_the_module_has_no_table() {
    namespace::run(|| async {
        let mut kernel = Linux::open().unwrap();
        let table = kernel.observe(&SCOPE()).await.unwrap().table;
        let operation = kernel.perform(&Action::RemoveService(tcp("192.0.2.1:80"))).await;
        match (table, operation) {
            (None, Err(KernelError::IpvsMissing)) => {}
            (Some(table), Err(error)) => {
                assert!(table.is_empty(), "a new namespace has no services");
                assert_eq!(error.errno(), Some(Errno::ESRCH), "{error}");
            }
            (table, operation) => panic!("{table:?} and {operation:?} contradict each other"),
        }
    });
}

#[tokio::test]
async fn fake_a_table_that_was_not_asked_for_is_not_read() {
    let observed = FakeKernel::new(&[]).observe(&Scope::default()).await.unwrap();
    assert_eq!(observed.table, None);
}

#[test]
fn ipvs_a_table_that_was_not_asked_for_is_not_read() {
    namespace::run(|| async {
        let observed = linux_with_ipvs().await.observe(&Scope::default()).await.unwrap();
        assert_eq!(observed.table, None);
    });
}

pub(crate) async fn table<K: Kernel>(kernel: &mut K) -> Table {
    kernel.observe(&SCOPE()).await.unwrap().table.expect("the table was asked for")
}

async fn destinations<K: Kernel>(
    kernel: &mut K,
    key: ServiceKey,
) -> BTreeMap<SocketAddr, Destination> {
    table(kernel).await.remove(&key).expect("the service is there").destinations
}

pub(crate) fn tcp(text: &str) -> ServiceKey {
    service(Protocol::Tcp, text)
}

fn udp(text: &str) -> ServiceKey {
    service(Protocol::Udp, text)
}

fn service(protocol: Protocol, text: &str) -> ServiceKey {
    let at = at(text);
    ServiceKey::Address { protocol, address: at.ip(), port: at.port() }
}

/// An IPv4 service without persistence.
pub(crate) fn spec(scheduler: &str) -> ServiceSpec {
    ServiceSpec {
        scheduler: scheduler.into(),
        flags: 0,
        timeout: 0,
        netmask: u32::MAX,
        engine: None,
    }
}

/// Direct routing, without thresholds.
pub(crate) fn routed(weight: u32) -> Destination {
    Destination { weight, method: Method::Route, upper: 0, lower: 0 }
}
