//! What the kernel counts and says of itself.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use lvsmesh_core::plan::Action;

use crate::ipvs::{linux_with_ipvs, routed, spec, tcp};
use crate::ipvsadm::ipvsadm;
use crate::{at, namespace, perform};

#[test]
fn ipvs_version_and_table_size_are_ipvsadms() {
    namespace::run(|| async {
        let mut kernel = linux_with_ipvs().await;
        let info = kernel.ipvs().await.unwrap().info().await.unwrap();
        let (major, minor, patch) = info.version;
        let size = info.connection_table_size;
        let headline = format!("IP Virtual Server version {major}.{minor}.{patch} (size={size})");
        assert_eq!(ipvsadm(&["-Ln"]).lines().next(), Some(headline.as_str()));
    });
}

#[test]
fn ipvs_connections_are_counted_for_the_real_server_that_got_them() {
    namespace::run(|| async {
        let mut kernel = linux_with_ipvs().await;
        let key = tcp("192.0.2.100:80");
        let (served, drained) = (at("192.0.2.1:80"), at("192.0.2.2:80"));
        let on_lo = |text: &str| Action::AddAddress {
            interface: "lo".into(),
            address: text.parse().unwrap(),
        };
        perform(
            &mut kernel,
            [
                on_lo("192.0.2.1"),
                on_lo("192.0.2.2"),
                on_lo("192.0.2.100"),
                Action::AddService(key, spec("rr")),
                Action::AddDestination(key, served, routed(1)),
                Action::AddDestination(key, drained, routed(0)),
            ],
        )
        .await;
        let listener = TcpListener::bind("0.0.0.0:80").unwrap();
        let connections: Vec<_> = (0..3)
            .map(|_| (TcpStream::connect("192.0.2.100:80").unwrap(), listener.accept().unwrap()))
            .collect();

        // The count of connections scheduled comes from the kernel's estimator, which runs every two seconds and tells nobody.
        let counted = async {
            loop {
                let listing = kernel.ipvs().await.unwrap().list().await.unwrap();
                let counters = listing.counters[&(key, served)];
                if counters.connections != 0 {
                    assert_eq!(listing.counters[&(key, drained)].connections, 0);
                    return counters;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let counted = tokio::time::timeout(Duration::from_secs(30), counted).await.unwrap();
        assert_eq!((counted.connections, counted.active, counted.inactive), (3, 3, 0));
        drop(connections);
    });
}
