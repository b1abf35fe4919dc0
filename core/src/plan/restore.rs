//! A saved IPVS table and the one that is there give operations that bring back what is missing.

use std::collections::BTreeSet;

use super::{Action, ServiceKey, Table};

/// What restoring has to do, and what it leaves as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restoration {
    /// What is missing, each service before its destinations.
    pub actions: Vec<Action>,
    /// Services and destinations that stand exactly as they were saved.
    pub standing: usize,
    /// What is not restored, one line each: what stands with other settings, and lvsmesh's own services, which follow the desired state.
    pub kept: Vec<String>,
}

/// Lists the operations that add what `saved` has and `observed` lacks. Nothing is changed and nothing removed, and no service of `ours` is
/// touched: what somebody else has put there since, or lvsmesh wants there, stands.
#[must_use]
pub fn restore(observed: &Table, saved: &Table, ours: &BTreeSet<ServiceKey>) -> Restoration {
    let mut out = Restoration::default();
    for (&key, wanted) in saved {
        let found = observed.get(&key);
        if ours.contains(&key) {
            if found == Some(wanted) {
                out.standing += 1 + wanted.destinations.len();
            } else {
                out.kept.push(format!("{key}: lvsmesh's own, follows the desired state"));
            }
            continue;
        }
        match found {
            None => out.actions.push(Action::AddService(key, wanted.spec.clone())),
            Some(found) if found.spec == wanted.spec => out.standing += 1,
            Some(found) => out
                .kept
                .push(format!("{key}: stands as `{}`, was saved as `{}`", found.spec, wanted.spec)),
        }
        for (&real, settings) in &wanted.destinations {
            match found.and_then(|found| found.destinations.get(&real)) {
                None => out.actions.push(Action::AddDestination(key, real, *settings)),
                Some(found) if found == settings => out.standing += 1,
                Some(found) => out.kept.push(format!(
                    "{real} of {key}: stands as `{found}`, was saved as `{settings}`"
                )),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use super::*;
    use crate::model::Protocol;
    use crate::plan::{Destination, Method, ServiceSpec, VirtualService};

    fn key(port: u16) -> ServiceKey {
        let address = "192.0.2.9".parse().unwrap();
        ServiceKey::Address { protocol: Protocol::Tcp, address, port }
    }

    fn real(last: u8) -> SocketAddr {
        SocketAddr::new([198, 51, 100, last].into(), 80)
    }

    fn routed(weight: u32) -> Destination {
        Destination { weight, method: Method::Route, upper: 0, lower: 0 }
    }

    fn service(scheduler: &str, reals: &[(u8, u32)]) -> VirtualService {
        VirtualService {
            spec: ServiceSpec {
                scheduler: scheduler.into(),
                flags: 0,
                timeout: 0,
                netmask: u32::MAX,
                engine: None,
            },
            destinations: reals
                .iter()
                .map(|&(last, weight)| (real(last), routed(weight)))
                .collect(),
        }
    }

    #[test]
    fn what_is_missing_is_added_and_a_second_time_there_is_nothing_to_do() {
        let saved = Table::from([
            (key(80), service("rr", &[(1, 3), (2, 0)])),
            (key(81), service("wlc", &[(1, 1)])),
        ]);
        let observed = Table::from([(key(80), service("rr", &[(1, 3), (7, 7)]))]);
        let restoration = restore(&observed, &saved, &BTreeSet::new());
        let expected = vec![
            Action::AddDestination(key(80), real(2), routed(0)),
            Action::AddService(key(81), service("wlc", &[]).spec),
            Action::AddDestination(key(81), real(1), routed(1)),
        ];
        assert_eq!(restoration, Restoration { actions: expected, standing: 2, kept: vec![] });

        let again = restore(&saved, &saved, &BTreeSet::new());
        assert_eq!(again, Restoration { standing: 5, ..Restoration::default() });
    }

    #[test]
    fn what_stands_otherwise_stays_and_is_told() {
        let saved = Table::from([(key(80), service("rr", &[(1, 3)]))]);
        let observed = Table::from([(key(80), service("wlc", &[(1, 5)]))]);
        let restoration = restore(&observed, &saved, &BTreeSet::new());
        assert_eq!(restoration.actions, []);
        assert_eq!(
            restoration.kept,
            [
                "tcp 192.0.2.9:80: stands as `wlc`, was saved as `rr`",
                "198.51.100.1:80 of tcp 192.0.2.9:80: stands as `weight 5, route`, was saved as `weight 3, route`",
            ]
        );
    }

    #[test]
    fn lvsmeshs_own_services_are_never_touched() {
        let saved =
            Table::from([(key(80), service("rr", &[(1, 3)])), (key(81), service("rr", &[(1, 3)]))]);
        let standing = BTreeMap::from([(key(81), service("rr", &[(1, 3)]))]);
        for observed in [Table::new(), Table::from([(key(80), service("rr", &[]))])] {
            let observed = observed.into_iter().chain(standing.clone()).collect();
            let restoration = restore(&observed, &saved, &BTreeSet::from([key(80), key(81)]));
            let kept = vec![format!("{}: lvsmesh's own, follows the desired state", key(80))];
            let expected = Restoration { actions: vec![], standing: 2, kept };
            assert_eq!(restoration, expected, "{observed:?}");
        }
    }
}
