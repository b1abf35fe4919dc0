//! What a sound document will not do, though its author may expect it.

use crate::model::{Connections, Document, Scheduler, Service};

/// One line for each expectation that the document does not meet; none of them is a fault.
#[must_use]
pub fn advice(document: &Document) -> Vec<String> {
    let ipvs = &document.fleet.ipvs;
    let services = document.services.iter().filter(|service| !service.one_packet);
    match (ipvs.connections, &ipvs.sync) {
        (_, Some(_)) => vec![],
        (Connections::Drop, None) => {
            let names: Vec<_> = services.map(|service| service.name.as_str()).collect();
            if names.is_empty() {
                return vec![];
            }
            vec![format!(
                "fleet.ipvs.connections: open connections of {} will not survive a failover; `connections: keep`, with or without `sync`, keeps them",
                names.join(", ")
            )]
        }
        (Connections::Keep, None) => services
            .enumerate()
            .filter(|(_, service)| !keeps(service))
            .map(|(index, service)| {
                format!(
                    "services[{index}].scheduler: {} chooses on each director by itself, so open connections of `{}` will not survive a failover in spite of `connections: keep`; use `mh` with `mh-port`, or `fleet.ipvs.sync`",
                    service.scheduler.name(),
                    service.name
                )
            })
            .collect(),
    }
}

/// Whether every director sends a connection to the same real server without knowing of it. `sh` and `dh` do not: their tables depend on the
/// order in which real servers were added (`ip_vs_sh.c`, `ip_vs_dh.c`), that of `mh` does not (`ip_vs_mh.c`).
fn keeps(service: &Service) -> bool {
    service.scheduler == Scheduler::Mh
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Fleet, Ipvs, Sync};

    fn document(connections: Connections, scheduler: Scheduler, sync: bool) -> Document {
        let sync = sync.then(|| Sync {
            interface: "eth0".into(),
            id: 0,
            group: Sync::GROUP,
            port: Sync::PORT,
            ttl: 1,
            maxlen: None,
        });
        let ipvs = Ipvs { connections, sync, ..Ipvs::default() };
        Document {
            fleet: Fleet { name: "blue".into(), ipvs, ..Fleet::default() },
            services: vec![Service { scheduler, ..Service::new("web", "web", 80, "web") }],
            ..Document::default()
        }
    }

    #[test]
    fn what_breaks_at_a_failover_is_said_beforehand() {
        use Connections::{Drop, Keep};
        #[rustfmt::skip]
        let cases = [
            (Drop, Scheduler::Wlc, false, Some("fleet.ipvs.connections")),
            (Drop, Scheduler::Mh,  false, Some("fleet.ipvs.connections")),
            (Keep, Scheduler::Wlc, false, Some("services[0].scheduler: wlc")),
            (Keep, Scheduler::Sh,  false, Some("services[0].scheduler: sh")),
            (Keep, Scheduler::Mh,  false, None),
            (Keep, Scheduler::Wlc, true,  None),
            (Drop, Scheduler::Wlc, true,  None),
        ];
        for (connections, scheduler, sync, expected) in cases {
            let lines = advice(&document(connections, scheduler, sync));
            let why = format!("{connections:?} {scheduler:?} {sync}: {lines:?}");
            match expected {
                None => assert!(lines.is_empty(), "{why}"),
                Some(start) => assert!(lines.len() == 1 && lines[0].starts_with(start), "{why}"),
            }
        }
        assert_eq!(advice(&Document::default()), [""; 0]);
    }
}
