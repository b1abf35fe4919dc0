//! One screen of what the fleet is and does.

use lvsmesh_core::document::Value;
use lvsmesh_proto::v1::{
    NodeStatus, PoolStatus, RealServerStatus, ServiceStatus, StatusResponse, VipStatus,
};

use super::Align::{Left, Right};
use super::vip::{failback_tree, pending};
use super::{columns, dash, node};
use crate::tree::{map, number, texts};

/// The whole screen.
pub(crate) fn table(status: &StatusResponse) -> String {
    let blocks = [
        head(status),
        vips(&status.vips),
        services(&status.services),
        pools(&status.pools),
        node::table(&status.nodes),
        warnings(status),
    ];
    let blocks: Vec<String> = blocks.into_iter().filter(|block| !block.is_empty()).collect();
    blocks.join("\n")
}

fn head(status: &StatusResponse) -> String {
    let leader = match (status.quorum, status.leader.as_str()) {
        (true, "") => "none".to_owned(),
        (true, leader) => leader.to_owned(),
        (false, "") => "none, no quorum".to_owned(),
        (false, leader) => format!("{leader}, no quorum"),
    };
    format!(
        "fleet     {}\nleader    {leader}\nrevision  {}\nseen by   {}\n",
        dash(&status.fleet),
        status.revision,
        dash(&status.answered_by),
    )
}

fn vips(vips: &[VipStatus]) -> String {
    if vips.is_empty() {
        return String::new();
    }
    let rows: Vec<[String; 5]> = vips
        .iter()
        .map(|vip| {
            [
                vip.name.clone(),
                vip.addresses.join(", "),
                super::vip::holder(vip),
                vip.epoch.to_string(),
                super::vip::lease(vip),
            ]
        })
        .collect();
    let headings =
        [("VIP", Left), ("ADDRESSES", Left), ("HOLDER", Left), ("EPOCH", Right), ("LEASE", Right)];
    let mut text = columns(headings, &rows, "");
    // All groups move together.
    if let Some(waiting) = vips.iter().find_map(|vip| vip.failback.as_ref()) {
        text += &format!("  {}\n", pending(waiting));
    }
    text
}

fn services(services: &[ServiceStatus]) -> String {
    if services.is_empty() {
        return String::new();
    }
    // A service and its real servers share columns, so that one look down the screen finds what is out.
    let mut rows: Vec<[String; 4]> = Vec::new();
    for service in services {
        let ServiceStatus { name, listens, scheduler, ready, total, real_servers } = service;
        rows.push([
            format!("{name}  {}", listens.join(", ")),
            format!("{ready}/{total} ready"),
            scheduler.clone(),
            String::new(),
        ]);
        rows.extend(real_servers.iter().map(real_server));
    }
    let headings = [("SERVICE", Left), ("", Left), ("", Left), ("", Left)];
    columns(headings, &rows, "")
}

fn real_server(real_server: &RealServerStatus) -> [String; 4] {
    let RealServerStatus { address, weight, serving, node, reason } = real_server;
    let node = if node.is_empty() { "unmanaged" } else { node };
    let state = match (serving, reason.as_str()) {
        (true, "") if *weight == 0 => "drained".to_owned(),
        (true, "") => "serving".to_owned(),
        (true, reason) => format!("serving: {reason}"),
        (false, "") => "out".to_owned(),
        (false, reason) => format!("out: {reason}"),
    };
    [format!("  {address}"), format!("weight {weight}"), node.to_owned(), state]
}

/// Only pools that are found: of the others there is nothing to say.
fn pools(pools: &[PoolStatus]) -> String {
    let rows: Vec<[String; 5]> = pools
        .iter()
        .filter(|pool| !pool.state.is_empty())
        .map(|pool| {
            [
                pool.name.clone(),
                pool.source.clone(),
                pool.real_servers.to_string(),
                pool.state.clone(),
                pool.reason.clone(),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let headings =
        [("POOL", Left), ("SOURCE", Left), ("REAL SERVERS", Right), ("STATE", Left), ("", Left)];
    columns(headings, &rows, "")
}

fn warnings(status: &StatusResponse) -> String {
    let mut lines = status.warnings.clone();
    for vip in status.vips.iter().filter(|vip| !vip.also_on.is_empty()) {
        lines.push(format!("vip {}: also on {}", vip.name, vip.also_on.join(", ")));
    }
    for node in &status.nodes {
        lines.extend(of_node(node).into_iter().map(|line| format!("{}: {line}", node.name)));
    }
    // The same may come from the node and, through the leader, from the fleet.
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        if !lines[..index].contains(line) {
            text += &format!("  {line}\n");
        }
    }
    if text.is_empty() { text } else { format!("WARNINGS\n{text}") }
}

fn of_node(node: &NodeStatus) -> Vec<String> {
    let mut lines = node.warnings.clone();
    if !node.foreign.is_empty() {
        lines.push(format!("foreign services, left alone: {}", node.foreign.join(", ")));
    }
    match node.drift_repaired {
        0 => {}
        1 => lines.push(format!("drift repaired once, {}", node.last_drift)),
        times => lines.push(format!("drift repaired {times} times, last: {}", node.last_drift)),
    }
    lines
}

/// What serves less than it should, or survives less, one line each: a monitor may take it for an alarm. Empty: nothing.
///
/// A warning is more than this may say, and no alarm: a repaired drift, services of others.
pub(crate) fn degraded(status: &StatusResponse) -> Vec<String> {
    let mut lines = Vec::new();
    for vip in &status.vips {
        let name = &vip.name;
        if vip.holder.is_empty() {
            lines.push(format!("VIP group {name} has no holder"));
        } else if vip.silent {
            lines.push(format!("VIP group {name} is held by {} in silence", vip.holder));
        } else if !super::vip::is_leased(vip) {
            lines.push(format!("VIP group {name} is held without a lease"));
        }
        if !vip.also_on.is_empty() {
            lines.push(format!("VIP group {name} is also on {}", vip.also_on.join(", ")));
        }
    }
    for service in status.services.iter().filter(|service| service.total > 0 && service.ready == 0)
    {
        lines.push(format!("service {} has no real server that is ready", service.name));
    }
    for node in status.nodes.iter().filter(|node| !node.reachable) {
        lines.push(format!("node {} is unreachable", node.name));
    }
    lines
}

/// The names are those of `StatusResponse` in `control.proto`.
pub(crate) fn tree(status: &StatusResponse) -> Value {
    let text = |text: &str| Value::Text(text.to_owned());
    let vip = |vip: &VipStatus| {
        map([
            ("name", text(&vip.name)),
            ("addresses", texts(&vip.addresses)),
            ("holder", text(&vip.holder)),
            ("epoch", number(vip.epoch)),
            ("lease_remaining_ms", number(vip.lease_remaining_ms)),
            ("promise_ms", number(vip.promise_ms)),
            ("also_on", texts(&vip.also_on)),
            ("silent", Value::Bool(vip.silent)),
            ("authority", text(&vip.authority)),
            ("failback", failback_tree(vip.failback.as_ref())),
            ("gated", Value::Bool(vip.gated)),
            ("ungated_reason", text(&vip.ungated_reason)),
        ])
    };
    let real_server = |real_server: &RealServerStatus| {
        map([
            ("address", text(&real_server.address)),
            ("weight", number(real_server.weight)),
            ("serving", Value::Bool(real_server.serving)),
            ("node", text(&real_server.node)),
            ("reason", text(&real_server.reason)),
        ])
    };
    let service = |service: &ServiceStatus| {
        map([
            ("name", text(&service.name)),
            ("listens", texts(&service.listens)),
            ("scheduler", text(&service.scheduler)),
            ("ready", number(service.ready)),
            ("total", number(service.total)),
            ("real_servers", Value::List(service.real_servers.iter().map(real_server).collect())),
        ])
    };
    let pool = |pool: &PoolStatus| {
        map([
            ("name", text(&pool.name)),
            ("source", text(&pool.source)),
            ("state", text(&pool.state)),
            ("reason", text(&pool.reason)),
            ("real_servers", number(pool.real_servers)),
        ])
    };
    map([
        ("fleet", text(&status.fleet)),
        ("leader", text(&status.leader)),
        ("quorum", Value::Bool(status.quorum)),
        ("revision", number(status.revision)),
        ("vips", Value::List(status.vips.iter().map(vip).collect())),
        ("services", Value::List(status.services.iter().map(service).collect())),
        ("nodes", Value::List(status.nodes.iter().map(node::tree).collect())),
        ("warnings", texts(&status.warnings)),
        ("answered_by", text(&status.answered_by)),
        ("pools", Value::List(status.pools.iter().map(pool).collect())),
    ])
}

#[cfg(test)]
mod tests;
