//! Timeouts, daemons and the counters' zero, as Linux and ipvsadm have them.

use lvsmesh_core::model::Encapsulation;
use lvsmesh_core::plan::{Action, Destination, Method};
use lvsmesh_kernel::Errno;
use lvsmesh_kernel::ipvs::{Ipvs, SyncDaemon, SyncRole, Timeouts};

use crate::ipvs::{routed, spec, tcp};
use crate::ipvsadm::ipvsadm;
use crate::{at, namespace, refused};

async fn open() -> Ipvs {
    Ipvs::open().await.unwrap()
}

fn daemon(role: SyncRole) -> SyncDaemon {
    SyncDaemon {
        role,
        interface: "lo".into(),
        sync_id: 5,
        max_length: 0,
        group: None,
        port: 0,
        ttl: 0,
    }
}

#[test]
fn ipvs_timeouts_are_set_and_one_that_is_zero_stays() {
    namespace::run(|| async {
        let mut ipvs = open().await;
        let first = Timeouts { tcp: 900, tcp_fin: 120, udp: 300 };
        assert_eq!(ipvs.timeouts().await.unwrap(), first, "what a new namespace starts with");

        ipvs.set_timeouts(Timeouts { tcp: 1000, tcp_fin: 0, udp: 77 }).await.unwrap();
        let then = Timeouts { tcp: 1000, tcp_fin: 120, udp: 77 };
        assert_eq!(ipvs.timeouts().await.unwrap(), then);
        assert_eq!(ipvsadm(&["-Ln", "--timeout"]), "Timeout (tcp tcpfin udp): 1000 120 77\n");

        ipvsadm(&["--set", "900", "60", "0"]);
        let edited = Timeouts { tcp: 900, tcp_fin: 60, udp: 77 };
        assert_eq!(ipvs.timeouts().await.unwrap(), edited, "what ipvsadm sets is read");

        let endless = Timeouts { udp: 5, tcp: u32::MAX, tcp_fin: 0 };
        refused("beyond the kernel's clock", ipvs.set_timeouts(endless).await, Errno::EINVAL);
        assert_eq!(ipvs.timeouts().await.unwrap(), edited, "and then none is set");
    });
}

#[test]
fn ipvs_daemons_are_started_listed_and_stopped() {
    namespace::run(|| async {
        let mut ipvs = open().await;
        assert_eq!(ipvs.daemons().await.unwrap(), []);

        let backup = SyncDaemon {
            max_length: 1400,
            group: Some([224, 0, 0, 82].into()),
            port: 8849,
            ttl: 3,
            ..daemon(SyncRole::Backup)
        };
        ipvs.start_daemon(&backup).await.unwrap();
        ipvs.start_daemon(&daemon(SyncRole::Master)).await.unwrap();
        let chosen = SyncDaemon {
            max_length: 1472,
            group: Some([224, 0, 0, 81].into()),
            port: 8848,
            ttl: 1,
            ..daemon(SyncRole::Master)
        };
        assert_eq!(ipvs.daemons().await.unwrap(), [chosen, backup.clone()]);
        assert_eq!(
            ipvsadm(&["-Ln", "--daemon"]),
            "master sync daemon (mcast=lo, syncid=5, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n\
             backup sync daemon (mcast=lo, syncid=5, maxlen=1400, group=224.0.0.82, port=8849, ttl=3)\n"
        );

        ipvs.stop_daemon(SyncRole::Master).await.unwrap();
        assert_eq!(ipvs.daemons().await.unwrap(), [backup], "the other one goes on");
        ipvs.stop_daemon(SyncRole::Backup).await.unwrap();
        assert_eq!(ipvs.daemons().await.unwrap(), []);

        ipvsadm(&["--start-daemon", "master", "--mcast-interface", "lo", "--syncid", "5"]);
        assert_eq!(ipvs.daemons().await.unwrap().len(), 1, "what ipvsadm starts is listed");
        ipvs.stop_daemon(SyncRole::Master).await.unwrap();
    });
}

#[test]
fn ipvs_daemons_are_refused_by_name() {
    namespace::run(|| async {
        let mut ipvs = open().await;
        let master = daemon(SyncRole::Master);
        refused("none runs", ipvs.stop_daemon(SyncRole::Master).await, Errno::ESRCH);
        let nowhere = SyncDaemon { interface: "nosuch".into(), ..master.clone() };
        refused("no such interface", ipvs.start_daemon(&nowhere).await, Errno::ENODEV);
        let one = SyncDaemon { group: Some([10, 0, 0, 1].into()), ..master.clone() };
        refused("no multicast address", ipvs.start_daemon(&one).await, Errno::EINVAL);
        let long = SyncDaemon { interface: "sixteen-letters-".into(), ..master.clone() };
        refused("a name too long", ipvs.start_daemon(&long).await, Errno::EINVAL);

        ipvs.start_daemon(&master).await.unwrap();
        let error = ipvs.start_daemon(&master).await.unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EEXIST));
        assert_eq!(error.to_string(), "cannot start master sync daemon on lo");
        ipvs.stop_daemon(SyncRole::Master).await.unwrap();

        let key = tcp("192.0.2.100:80");
        ipvs.add_service(key, &spec("rr")).await.unwrap();
        let tunnel = Destination { method: Method::Tunnel(Encapsulation::Ipip), ..routed(1) };
        let mixed = Action::AddDestination(key, at("[2001:db8::1]:80"), tunnel);
        ipvs.perform(&mixed).await.unwrap();
        refused("mixed families", ipvs.start_daemon(&master).await, Errno::EINVAL);
    });
}

#[test]
fn ipvs_the_counters_of_no_service_cannot_be_zeroed() {
    namespace::run(|| async {
        let mut ipvs = open().await;
        ipvs.zero(None).await.unwrap();
        let key = tcp("192.0.2.100:80");
        refused("no such service", ipvs.zero(Some(key)).await, Errno::ESRCH);
        ipvs.add_service(key, &spec("rr")).await.unwrap();
        ipvs.zero(Some(key)).await.unwrap();
    });
}
