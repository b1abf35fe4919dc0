//! Services and destinations: the table as it is and as it should be give operations.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Destination, Extent, Op, ServiceKey, ServiceSpec, Table, VirtualService};

/// What has to be done to the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDiff {
    /// Services added and changed.
    pub services: Vec<Op>,
    /// Real servers added, and changed to what gets new connections.
    pub additions: Vec<Op>,
    /// Real servers changed to weight 0, and removed.
    pub reductions: Vec<Op>,
    /// Services removed.
    pub removals: Vec<Op>,
    /// Services that are ours before the first operation.
    pub record: BTreeSet<ServiceKey>,
    /// Services that are ours after the last one.
    pub settled: BTreeSet<ServiceKey>,
    /// Services that are neither planned nor ours.
    pub foreign: BTreeSet<ServiceKey>,
}

/// Lists the operations that make the services of `wanted` stand as wanted and take away those of ours that it does not name.
///
/// A service that had a real server with a weight, and should have one, never stands without one on the way. `source` says where the
/// wish comes from, for the reasons. Without a table (`None`) nothing is known: nothing is done, and what is recorded stays so.
#[must_use]
pub fn diff(
    observed: Option<&Table>,
    wanted: &Table,
    owned: &BTreeSet<ServiceKey>,
    source: &str,
) -> TableDiff {
    diff_within(&Extent::All, observed, wanted, owned, source)
}

/// The same for the services in `extent` alone: of the others those that are recorded stay so, and nothing is said of what is foreign.
#[must_use]
pub fn diff_within(
    extent: &Extent,
    observed: Option<&Table>,
    wanted: &Table,
    owned: &BTreeSet<ServiceKey>,
    source: &str,
) -> TableDiff {
    let Some(observed) = observed else {
        return TableDiff { record: owned.clone(), settled: owned.clone(), ..TableDiff::default() };
    };

    let mut out = TableDiff::default();
    let diff_one = |key: ServiceKey, out: &mut TableDiff| match wanted.get(&key) {
        Some(want) => {
            diff_service(key, observed.get(&key), want, owned.contains(&key), source, out);
            out.record.insert(key);
            out.settled.insert(key);
        }
        None if !observed.contains_key(&key) => {
            out.record.remove(&key);
            out.settled.remove(&key);
        }
        None if owned.contains(&key) => {
            out.record.insert(key);
            out.settled.remove(&key);
            out.removals.push(Op {
                action: Action::RemoveService(key),
                reason: format!("ours, and not in the table of {source}"),
            });
        }
        None => {
            out.foreign.insert(key);
        }
    };
    match extent {
        Extent::All => {
            for key in wanted.keys() {
                diff_one(*key, &mut out);
            }
            for key in observed.keys().filter(|key| !wanted.contains_key(key)) {
                diff_one(*key, &mut out);
            }
        }
        Extent::Only(keys) => {
            (out.record, out.settled) = (owned.clone(), owned.clone());
            for key in keys {
                diff_one(*key, &mut out);
            }
        }
    }
    out
}

fn diff_service(
    key: ServiceKey,
    have: Option<&VirtualService>,
    want: &VirtualService,
    owned: bool,
    source: &str,
    out: &mut TableDiff,
) {
    let none = BTreeMap::new();
    let have_destinations = have.map_or(&none, |service| &service.destinations);

    match have {
        None => out.services.push(Op {
            action: Action::AddService(key, want.spec.clone()),
            reason: if owned {
                "recorded as ours, but gone from the kernel".into()
            } else {
                format!("in the table of {source}")
            },
        }),
        Some(have) if have.spec != want.spec => out.services.push(Op {
            action: Action::SetService(key, want.spec.clone()),
            reason: spec_difference(&have.spec, &want.spec),
        }),
        Some(_) => {}
    }

    for (&address, &destination) in &want.destinations {
        match have_destinations.get(&address) {
            None => out.additions.push(Op {
                action: Action::AddDestination(key, address, destination),
                reason: format!("in the table of {source}"),
            }),
            Some(&have) if have != destination => {
                // Weights that go up before weights that go to 0: a drain must not come before its replacement.
                let ops =
                    if destination.weight > 0 { &mut out.additions } else { &mut out.reductions };
                ops.push(Op {
                    action: Action::SetDestination(key, address, destination),
                    reason: destination_difference(have, destination),
                });
            }
            Some(_) => {}
        }
    }
    for &address in have_destinations.keys().filter(|at| !want.destinations.contains_key(at)) {
        out.reductions.push(Op {
            action: Action::RemoveDestination(key, address),
            reason: format!("not in the table of {source}"),
        });
    }
}

fn spec_difference(have: &ServiceSpec, want: &ServiceSpec) -> String {
    let mut differences = Differences::default();
    differences.note("scheduler", &have.scheduler, &want.scheduler);
    differences.note("flags", &format!("{:#x}", have.flags), &format!("{:#x}", want.flags));
    differences.note("timeout", &format!("{} s", have.timeout), &format!("{} s", want.timeout));
    differences.note("netmask", &format!("{:#x}", have.netmask), &format!("{:#x}", want.netmask));
    differences.note("engine", engine(have), engine(want));
    differences.0.join("; ")
}

fn engine(spec: &ServiceSpec) -> &str {
    spec.engine.as_deref().unwrap_or("none")
}

fn destination_difference(have: Destination, want: Destination) -> String {
    let mut differences = Differences::default();
    differences.note("weight", &have.weight.to_string(), &want.weight.to_string());
    differences.note("method", &have.method.to_string(), &want.method.to_string());
    differences.note("upper threshold", &have.upper.to_string(), &want.upper.to_string());
    differences.note("lower threshold", &have.lower.to_string(), &want.lower.to_string());
    differences.0.join("; ")
}

#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn note(&mut self, what: &str, have: &str, want: &str) {
        if have != want {
            self.0.push(format!("{what} is {have}, should be {want}"));
        }
    }
}
