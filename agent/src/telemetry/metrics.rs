//! What is measured: one table, read by Prometheus' page and by the OTLP exporter alike.
//!
//! *In*: what the agent's parts publish. *Out*: samples, at the moment at which somebody asks.

use std::net::SocketAddr;

use lvsmesh_core::model::PoolSource;
use lvsmesh_core::state::State;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use tokio::sync::watch;

use crate::belonging::Belonging;
use crate::lease::{LeaseHandle, Reason, Tenure, Unleased};
use crate::raft::{RaftHandle, RaftStatus};
use crate::reconcile::NodeReport;

/// What the samples are read from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Raft's status and the applied state.
    pub raft: RaftHandle,
    /// The lease thread.
    pub lease: LeaseHandle,
    /// The reconciler's last report.
    pub report: watch::Receiver<NodeReport>,
    /// Whether this machine is a node of the fleet.
    pub belonging: Belonging,
    /// This node's name.
    pub node: String,
}

/// Whether a value can go down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only grows, while the agent runs.
    Counter,
}

/// One value with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
    /// In the measure's unit.
    pub value: f64,
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Without prefix, unit and `_total`: the exporters add what their conventions want.
    pub name: &'static str,
    /// UCUM, as OpenTelemetry has it: `s`, or empty for a plain number.
    pub unit: &'static str,
    /// For people.
    pub help: &'static str,
    /// Gauge or counter.
    pub kind: Kind,
    /// Reads it.
    pub read: fn(&Sources) -> Vec<Sample>,
}

#[rustfmt::skip]
const MEASURES: &[Measure] = &[
    gauge("build", "1, with the version of the agent as a label", |s| {
        labelled(&[("version", env!("CARGO_PKG_VERSION")), ("node", &s.node)], 1.0)
    }),
    gauge("revision", "Revision of the desired state that this node has applied", |s| one(s.raft.state.borrow().state.revision())),
    gauge("raft.term", "Current Raft term", |s| one(status(s).term)),
    gauge("raft.leader", "1 if this node leads", |s| flag(status(s).leading)),
    gauge("raft.leader_known", "1 if this node knows a leader", |s| flag(status(s).leader.is_some())),
    gauge("raft.log_failed", "1 if the log failed, so that this node takes no part until its agent is started again", |s| flag(status(s).fault.is_some())),
    gauge("member", "0 if this machine was told that it is no node of the fleet", |s| flag(s.belonging.outcast().is_none())),
    gauge("raft.commit", "Index of the last committed log entry", |s| one(status(s).commit)),
    gauge("raft.applied", "Index of the last applied log entry", |s| one(status(s).applied)),
    gauge("raft.voters", "Voters of the applied Raft configuration", |s| count(status(s).voters.len())),
    gauge("raft.learners", "Learners of the applied Raft configuration", |s| count(status(s).learners.len())),
    gauge("holding", "1 if this node holds the VIPs", |s| {
        flag(matches!(*s.lease.tenure.borrow(), Tenure::Holding { .. }))
    }),
    gauge("vip.authority", "1 for what this node holds the VIPs by: a lease, or without a quorum `sticky` or `vrrp-fallback`", authority),
    Measure {
        name: "lease.remaining",
        unit: "s",
        help: "How long the lease still runs; 0 without one",
        kind: Kind::Gauge,
        read: |s| vec![Sample { labels: Vec::new(), value: s.lease.remaining().as_secs_f64() }],
    },
    Measure {
        name: "lease.promise",
        unit: "s",
        help: "For how long this node, as the holder, asks voters to elect nobody else; a silent holder is replaced after that",
        kind: Kind::Gauge,
        read: |s| {
            vec![Sample {
                labels: Vec::new(),
                value: s.lease.counters.promise.get().as_secs_f64(),
            }]
        },
    },
    counter("vrrp.adverts", "VRRP adverts sent", |s| one(s.lease.counters.adverts_sent.get())),
    counter("vrrp.foreign_adverts", "VRRP adverts heard from routers outside the fleet", |s| one(s.lease.counters.foreign_adverts.get())),
    counter("vrrp.odd_adverts", "VRRP adverts heard that cannot be read, came through a router, or do not fit the group", odd_adverts),
    counter("arp.answers", "ARP requests and neighbour solicitations for VIPs that the agent answered in the kernel's place", |s| one(s.lease.counters.answers_sent.get())),
    counter("arp.gratuitous", "Gratuitous ARP frames and unsolicited neighbour advertisements sent", |s| one(s.lease.counters.garps_sent.get())),
    counter("arp.sightings", "ARP and neighbour advertisements in which another machine said that it has a VIP", |s| one(s.lease.counters.sightings.get())),
    counter("lease.sent", "Lease datagrams sent", |s| one(s.lease.counters.datagrams_sent.get())),
    counter("lease.received", "Lease datagrams of members received", |s| one(s.lease.counters.datagrams_received.get())),
    counter("lease.unauthenticated", "Lease datagrams dropped because their code or key was wrong", |s| one(s.lease.counters.auth_failures.get())),
    counter("lease.malformed", "Lease datagrams dropped because they could not be read", |s| one(s.lease.counters.malformed.get())),
    counter("lease.claims", "Times that this node became holder", |s| one(s.lease.counters.claims.get())),
    counter("lease.releases", "Times that this node ceased to be holder", |s| one(s.lease.counters.releases.get())),
    counter("lease.promises_voided", "Promises to holders that ended early because the holder or its guard had stopped", |s| one(s.lease.counters.promises_voided.get())),
    counter("lease.promises_voided_by_guards", "Those of them of which a guard said so, for an agent that had died", |s| one(s.lease.counters.promises_voided_by_guards.get())),
    counter("lease.stopped", "Packets that said too late that this node has a VIP, and that the deadline in the packet path has stopped", |s| one(s.lease.counters.stopped.get())),
    counter("lease.demotions", "Times that the lease thread lost its real-time priority because it computed for too long without a pause", |s| one(s.lease.counters.demotions.get())),
    counter("lease.withheld", "Emissions that the lease clock forbade at the last moment", |s| one(s.lease.counters.withheld.get())),
    counter("lease.emission_errors", "Emissions that the kernel refused", |s| one(s.lease.counters.emission_errors.get())),
    counter("vip.refreshes", "VIP addresses added or refreshed", |s| one(s.lease.counters.address_refreshes.get())),
    gauge("converged", "1 if the kernel matched the plan when it was last read", |s| flag(s.report.borrow().converged)),
    counter("kernel.operations", "Kernel operations performed, without the lease's own", |s| one(s.report.borrow().operations)),
    counter("drift.repaired", "Changes to what is ours that others made, repaired", |s| one(s.report.borrow().drift_repaired)),
    gauge("foreign_services", "Services in the kernel that lvsmesh did not make", |s| count(s.report.borrow().foreign.len())),
    gauge("real_server.up", "1 unless the leader's probes hold the real server for down", |s| real_servers(&s.raft.state.borrow().state)),
    gauge("node.ready", "1 if the node confirmed its realserver side without a fault", |s| nodes(&s.raft.state.borrow().state)),
];

const fn gauge(
    name: &'static str,
    help: &'static str,
    read: fn(&Sources) -> Vec<Sample>,
) -> Measure {
    Measure { name, unit: "", help, kind: Kind::Gauge, read }
}

const fn counter(
    name: &'static str,
    help: &'static str,
    read: fn(&Sources) -> Vec<Sample>,
) -> Measure {
    Measure { name, unit: "", help, kind: Kind::Counter, read }
}

/// Everything that is measured.
#[must_use]
pub fn all() -> &'static [Measure] {
    MEASURES
}

/// Registers every measure with the OTLP exporter, which reads them at its interval.
pub fn export(meter: &Meter, sources: &Sources) {
    for measure in MEASURES {
        let (name, sources, read) =
            (format!("lvsmesh.{}", measure.name), sources.clone(), measure.read);
        let attributes = |labels: Vec<(&'static str, String)>| {
            labels.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect::<Vec<_>>()
        };
        // The instruments live as long as the meter's provider, which has the callbacks; their handles do nothing.
        match measure.kind {
            Kind::Gauge => {
                let instrument = meter
                    .f64_observable_gauge(name)
                    .with_unit(measure.unit)
                    .with_description(measure.help)
                    .with_callback(move |observer| {
                        for sample in read(&sources) {
                            observer.observe(sample.value, &attributes(sample.labels));
                        }
                    });
                let _ = instrument.build();
            }
            Kind::Counter => {
                let instrument = meter
                    .f64_observable_counter(name)
                    .with_unit(measure.unit)
                    .with_description(measure.help)
                    .with_callback(move |observer| {
                        for sample in read(&sources) {
                            observer.observe(sample.value, &attributes(sample.labels));
                        }
                    });
                let _ = instrument.build();
            }
        }
    }
}

fn status(sources: &Sources) -> watch::Ref<'_, RaftStatus> {
    sources.raft.status.borrow()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "both exporters carry doubles; a count is exact up to 2^53"
)]
fn one(value: u64) -> Vec<Sample> {
    vec![Sample { labels: Vec::new(), value: value as f64 }]
}

fn count(value: usize) -> Vec<Sample> {
    one(u64::try_from(value).unwrap_or(u64::MAX))
}

fn flag(value: bool) -> Vec<Sample> {
    one(u64::from(value))
}

fn labelled(labels: &[(&'static str, &str)], value: f64) -> Vec<Sample> {
    vec![Sample {
        labels: labels.iter().map(|(key, text)| (*key, (*text).to_owned())).collect(),
        value,
    }]
}

/// Of pools with a check: the others are not probed, and a 1 would say that they are well.
fn real_servers(state: &State) -> Vec<Sample> {
    let mut samples = Vec::new();
    for pool in state.document().pools.iter().filter(|pool| pool.check.is_some()) {
        let found = state.discovered(&pool.name);
        let real_servers = match &pool.source {
            PoolSource::Listed(listed) => listed.as_slice(),
            PoolSource::Discovery(_) => found.map_or(&[][..], |found| &found.real_servers),
        };
        for real_server in real_servers {
            let address = SocketAddr::new(real_server.address, real_server.port);
            let up = state.health_fault(&pool.name, address).is_none();
            let labels = [("pool", pool.name.as_str()), ("real_server", &address.to_string())];
            samples.extend(labelled(&labels, f64::from(u8::from(up))));
        }
    }
    samples
}

/// One sample for each kind.
fn authority(sources: &Sources) -> Vec<Sample> {
    let holds = matches!(*sources.lease.tenure.borrow(), Tenure::Holding { .. });
    let unleased = sources.lease.outlook.borrow().unleased;
    let kinds = [None, Some(Unleased::Sticky), Some(Unleased::Vrrp)];
    let sample = |kind: Option<Unleased>| {
        let value = if holds && kind == unleased { 1.0 } else { 0.0 };
        labelled(&[("kind", kind.map_or("lease", Unleased::name))], value)
    };
    kinds.into_iter().flat_map(sample).collect()
}

fn odd_adverts(sources: &Sources) -> Vec<Sample> {
    let counters = &sources.lease.counters;
    let of = |reason: Reason| {
        let count = one(counters.odd_adverts(reason).get());
        count.into_iter().map(move |sample| Sample {
            labels: vec![("reason", reason.name().to_owned())],
            ..sample
        })
    };
    Reason::ALL.into_iter().flat_map(of).collect()
}

fn nodes(state: &State) -> Vec<Sample> {
    state
        .members()
        .filter(|member| member.is_real_server())
        .flat_map(|member| {
            let ready = state.readiness(member.id).is_some_and(|said| said.fault.is_none());
            labelled(&[("node_name", &member.name)], f64::from(u8::from(ready)))
        })
        .collect()
}
