//! Nodes.

use lvsmesh_core::document::Value;
use lvsmesh_proto::v1::NodeStatus;

use super::Align::{Left, Right};
use super::{columns, dash};
use crate::tree::{map, number, texts};

/// One line a node.
pub(crate) fn table(nodes: &[NodeStatus]) -> String {
    let rows: Vec<[String; 8]> = nodes
        .iter()
        .map(|node| {
            [
                node.name.clone(),
                node.id.to_string(),
                dash(&node.roles.join(", ")),
                dash(&node.raft),
                dash(&node.addresses.join(", ")),
                if node.reachable { node.revision.to_string() } else { "-".into() },
                dash(&node.version),
                state(node).to_owned(),
            ]
        })
        .collect();
    let headings = [
        ("NODE", Left),
        ("ID", Right),
        ("ROLES", Left),
        ("RAFT", Left),
        ("ADDRESSES", Left),
        ("REVISION", Right),
        ("VERSION", Left),
        ("STATE", Left),
    ];
    columns(headings, &rows, "")
}

/// In one word, whether the node does what it should.
fn state(node: &NodeStatus) -> &'static str {
    match (node.reachable, node.converged) {
        (false, _) => "unreachable",
        (true, true) => "converged",
        (true, false) => "converging",
    }
}

pub(crate) fn tree(node: &NodeStatus) -> Value {
    map([
        ("id", number(node.id)),
        ("name", Value::Text(node.name.clone())),
        ("roles", texts(&node.roles)),
        ("raft", Value::Text(node.raft.clone())),
        ("addresses", texts(&node.addresses)),
        ("reachable", Value::Bool(node.reachable)),
        ("revision", number(node.revision)),
        ("converged", Value::Bool(node.converged)),
        ("version", Value::Text(node.version.clone())),
        ("warnings", texts(&node.warnings)),
        ("foreign", texts(&node.foreign)),
        ("drift_repaired", number(node.drift_repaired)),
        ("last_drift", Value::Text(node.last_drift.clone())),
        ("operations", number(node.operations)),
    ])
}
