//! What a sound document will not do, though its author may expect it.

use crate::model::{Connections, Document, Failback, NoQuorum, Scheduler, Service, text};

/// One line for each expectation that the document does not meet; none of them is a fault.
#[must_use]
pub fn advice(document: &Document) -> Vec<String> {
    let mut lines = [without_quorum(document), connections(document)].concat();
    lines.extend(failback(document));
    lines
}

/// What a policy that lets a node hold without a quorum gives up.
fn without_quorum(document: &Document) -> Vec<String> {
    let policy = document.fleet.no_quorum;
    if policy == NoQuorum::Strict || document.vips.is_empty() {
        return vec![];
    }
    let bare = document.vips.iter().filter(|vip| vip.arbiters.is_empty());
    let bare: Vec<_> = bare.map(|vip| vip.name.as_str()).collect();
    let mut lines = vec![format!(
        "fleet.no_quorum: under `{}` a VIP may have two holders without a quorum if the segment itself is split; `strict` rules that out",
        policy.name()
    )];
    if !bare.is_empty() {
        lines.push(format!(
            "vips[].arbiters: {} names none, so a director without a quorum relies on its default gateway, and where it has none on carrier alone",
            bare.join(", ")
        ));
    }
    lines
}

/// What a move back does not do, or does not wait for.
fn failback(document: &Document) -> Option<String> {
    let fleet = &document.fleet;
    if fleet.failback == Failback::Never {
        return None;
    }
    if document.vips.iter().all(|vip| vip.preference.is_empty()) {
        return Some(format!(
            "fleet.failback: `{}` moves the VIPs back to directors that `vips[].preference` puts before their holder, and no VIP group has a preference",
            fleet.failback.name()
        ));
    }
    match (fleet.failback, &fleet.ipvs.sync) {
        (Failback::Delayed(delay), None) if !document.services.is_empty() => Some(format!(
            "fleet.failback: without `fleet.ipvs.sync` there is nothing to tell whether a preferred director knows the open connections: after {} the VIPs move back all the same",
            text::duration(delay)
        )),
        (Failback::Immediate, Some(_)) => Some(
            "fleet.failback: `immediate` does not wait until a preferred director that came back knows the open connections; `delayed` does".to_owned(),
        ),
        (Failback::Never | Failback::Delayed(_) | Failback::Immediate, _) => None,
    }
}

fn connections(document: &Document) -> Vec<String> {
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
    use crate::document::{Value, decode};
    use crate::model::{Fleet, Ipvs, Sync, Vip};

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

    /// As a document with nothing but that makes it.
    fn vip(preference: &[&str]) -> Vip {
        let map = |entries: Vec<(&str, Value)>| {
            Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
        };
        let vip = map(vec![
            ("name", "web".into()),
            ("addresses", Value::List(vec!["192.0.2.100".into()])),
            ("interface", "eth0".into()),
            ("preference", Value::List(preference.iter().map(|&name| name.into()).collect())),
            ("vrrp", map(vec![("vrid", 51u32.into())])),
        ]);
        let fleet = map(vec![("name", "blue".into())]);
        let document = decode(&map(vec![("fleet", fleet), ("vips", Value::List(vec![vip]))]));
        document.unwrap().vips.remove(0)
    }

    #[test]
    fn a_policy_that_allows_two_holders_says_so() {
        let mut document = Document { vips: vec![vip(&[])], ..Document::default() };
        assert_eq!(advice(&document), [""; 0]);
        for policy in [NoQuorum::Sticky, NoQuorum::VrrpFallback, NoQuorum::Auto] {
            document.fleet.no_quorum = policy;
            let lines = advice(&document);
            assert!(lines.len() == 2 && lines[0].contains(policy.name()), "{lines:?}");
        }
        document.vips[0].arbiters = vec!["192.0.2.1".parse().unwrap()];
        assert_eq!(advice(&document).len(), 1);
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

    #[test]
    fn a_move_back_that_goes_nowhere_or_breaks_connections_is_said_beforehand() {
        let delayed = Failback::Delayed(Failback::DELAY);
        #[rustfmt::skip]
        let cases = [
            (Failback::Never,     2, false, None),
            (delayed,             2, true,  None),
            (delayed,             2, false, Some("without `fleet.ipvs.sync`")),
            (delayed,             1, true,  None),
            (Failback::Immediate, 0, true,  Some("no VIP group has a preference")),
            (Failback::Immediate, 2, true,  Some("does not wait")),
            (Failback::Immediate, 2, false, None),
        ];
        for (failback, named, sync, expected) in cases {
            let mut document = document(Connections::Keep, Scheduler::Mh, sync);
            document.fleet.failback = failback;
            document.vips.push(vip(&["lvs-1", "lvs-2"][..named]));
            let lines = advice(&document);
            let why = format!("{failback:?} {named} {sync}: {lines:?}");
            match expected {
                None => assert!(lines.is_empty(), "{why}"),
                Some(part) => assert!(lines.len() == 1 && lines[0].contains(part), "{why}"),
            }
        }
    }
}
