//! One apply, one trace, at a receiver that this project did not write.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lvsmesh_tests::document::{CLIENT, Document};
use lvsmesh_tests::eventually;
use lvsmesh_tests::fleet::{Fleet, Options, machines};
use lvsmesh_tests::peers::{Receiver, Span};

/// Whose a span is, by whatever its resource names the node with.
fn node(span: &Span) -> Option<String> {
    let keys = ["service.instance.id", "host.name", "lvsmesh.node"];
    keys.iter().find_map(|key| span.resource.get(*key)).cloned()
}

#[test]
fn one_apply_is_one_trace_with_spans_from_every_node() {
    let lab = machines();
    let receiver = Receiver::start(&lab, lab.node(CLIENT.0));
    let options = Options { otlp: Some(receiver.endpoint.clone()), ..Options::default() };
    let fleet = Fleet::start_on(lab, &options);
    fleet.apply(&Document::reference("50s"));
    let names: BTreeSet<String> = fleet.names().into_iter().collect();

    let traced = |name: &str| -> BTreeMap<String, BTreeSet<String>> {
        let mut nodes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for span in receiver.spans().into_iter().filter(|span| span.name == name) {
            nodes.entry(span.trace.clone()).or_default().extend(node(&span));
        }
        nodes
    };
    let trace = eventually(
        "one trace has an apply and spans of all three nodes",
        Duration::from_secs(30),
        || {
            let applied = traced("raft.apply");
            let performed = traced("kernel.perform");
            traced("api.apply").into_keys().find(|trace| {
                applied.get(trace).is_some_and(|nodes| *nodes == names)
                    && performed.contains_key(trace)
            })
        },
    );

    let spans: Vec<Span> =
        receiver.spans().into_iter().filter(|span| span.trace == trace).collect();
    for expected in ["api.apply", "raft.propose", "raft.apply", "reconcile.round", "kernel.perform"]
    {
        assert!(spans.iter().any(|span| span.name == expected), "no span {expected} in {spans:#?}");
    }
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    let applies: Vec<_> = spans.iter().filter(|span| span.name == "api.apply").collect();
    assert!(!applies.is_empty());
    for span in spans.iter().filter(|span| span.name != "api.apply" && span.name.contains('.')) {
        assert!(
            span.parent.is_empty() || ids.contains(span.parent.as_str()),
            "{span:#?} hangs in the air"
        );
    }
}
