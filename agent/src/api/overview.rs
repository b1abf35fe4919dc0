//! One screen of what the fleet is and does.
//!
//! *In*: the replicated state, Raft's view, and what each member said of itself. *Out*: [`v1::StatusResponse`]. Pure: the asking is in
//! [`super::context`].

use std::collections::BTreeMap;

use lvsmesh_core::command::SourceStatus;
use lvsmesh_core::model::{Discovery, Member, NodeId, PoolSource};
use lvsmesh_core::placement::{self, ServiceView};
use lvsmesh_core::state::State;
use lvsmesh_proto::internal::v1::SelfResponse;
use lvsmesh_proto::v1;

use super::context::{Answers, listing, node_status};
use crate::belonging::Outcast;
use crate::identity::Identity;
use crate::raft::RaftStatus;

/// Puts the status together.
#[must_use]
pub fn overview(
    state: &State,
    raft: &RaftStatus,
    answers: &Answers,
    answered_by: &str,
) -> v1::StatusResponse {
    let quorum = quorum(raft, answers);
    let leader = quorum.or_else(|| believed_leader(answers));
    let name = |id: NodeId| state.member(id).map_or(String::new(), |member| member.name.clone());
    let services = placement::explain(state);
    let mut response = v1::StatusResponse {
        fleet: state.fleet().to_owned(),
        leader: leader.map_or(String::new(), name),
        quorum: quorum.is_some(),
        revision: state.revision(),
        vips: vips(state, answers),
        services: services.iter().map(service).collect(),
        nodes: state.members().map(|member| node(member, raft, answers.get(&member.id))).collect(),
        warnings: Vec::new(),
        answered_by: answered_by.to_owned(),
        pools: pools(state),
    };
    response.warnings = warnings(state, raft, answers, &services, &response);
    response
}

/// Says first of all that the node which answers is none of the fleet any more, so that nobody takes the rest for the fleet's own view.
pub fn cast_out(status: &mut v1::StatusResponse, identity: &Identity, outcast: &Outcast) {
    let (name, word) = (&identity.name, outcast.word());
    let line = format!("{name} is no node of the fleet ({word}): {outcast}; {}", outcast.hint());
    status.warnings.insert(0, line);
    let id = identity.id.0;
    let listed = status.nodes.iter_mut().find(|node| node.id == id);
    match listed {
        Some(node) => word.clone_into(&mut node.raft),
        None => status.nodes.push(v1::NodeStatus {
            id,
            name: name.clone(),
            raft: word.to_owned(),
            reachable: true,
            revision: status.revision,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..v1::NodeStatus::default()
        }),
    }
}

/// The leader that a majority of voters stands behind, itself included: all of them answered and name it for the same term. A leader that lost
/// its majority, or voters that only remember one, do not count.
fn quorum(raft: &RaftStatus, answers: &Answers) -> Option<NodeId> {
    let mut behind = BTreeMap::<(u64, u64), usize>::new();
    for id in &raft.voters {
        if let Some(Ok(answer)) = answers.get(id) {
            *behind.entry((answer.raft_term, answer.raft_leader)).or_default() += 1;
        }
    }
    let ((_, leader), _) = behind
        .into_iter()
        .find(|((_, leader), count)| *leader != 0 && *count > raft.voters.len() / 2)?;
    let leader = NodeId(leader);
    let itself = answers.get(&leader)?.as_ref().ok()?;
    (itself.raft_leader == leader.0).then_some(leader)
}

/// The leader of the newest term that anybody names.
fn believed_leader(answers: &Answers) -> Option<NodeId> {
    heard(answers)
        .filter(|(_, answer)| answer.raft_leader != 0)
        .max_by_key(|(_, answer)| answer.raft_term)
        .map(|(_, answer)| NodeId(answer.raft_leader))
}

fn heard(answers: &Answers) -> impl Iterator<Item = (NodeId, &SelfResponse)> {
    answers.iter().filter_map(|(id, answer)| Some((*id, answer.as_ref().ok()?)))
}

/// The one that says it holds; of several, which would be a fault, one that has a lease, and of these the one of the newest tenure.
fn holder(answers: &Answers) -> Option<(NodeId, &SelfResponse)> {
    heard(answers)
        .filter(|(_, answer)| answer.holding)
        .max_by_key(|(_, answer)| (answer.unleased.is_empty(), answer.epoch))
}

fn vips(state: &State, answers: &Answers) -> Vec<v1::VipStatus> {
    let holder = holder(answers);
    let name = |id: NodeId| state.member(id).map(|member| member.name.clone());
    let status = |vip: &lvsmesh_core::model::Vip| {
        let addresses = vip.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        let has =
            |answer: &SelfResponse| answer.vips_attached.iter().any(|on| addresses.contains(on));
        let silent = holder.is_some_and(|(_, answer)| !has(answer));
        let also_on = heard(answers)
            .filter(|(id, _)| holder.is_none_or(|(holder, _)| holder != *id))
            .filter(|(_, answer)| has(answer))
            .filter_map(|(id, _)| name(id))
            .collect();
        v1::VipStatus {
            name: vip.name.clone(),
            addresses,
            holder: holder.and_then(|(id, _)| name(id)).unwrap_or_default(),
            epoch: holder.map_or(0, |(_, answer)| answer.epoch),
            lease_remaining_ms: holder.map_or(0, |(_, answer)| answer.lease_remaining_ms),
            promise_ms: holder
                .filter(|(_, answer)| answer.unleased.is_empty())
                .map_or(0, |(_, answer)| answer.promise_ms),
            also_on,
            silent,
            authority: holder.map(|(_, answer)| authority(answer)).unwrap_or_default(),
            failback: holder.and_then(|(_, answer)| answer.failback.clone()),
            gated: holder.is_some_and(|(_, answer)| answer.gated.contains(&vip.name)),
            ungated_reason: holder
                .filter(|(_, answer)| !answer.gated.contains(&vip.name))
                .map(|(_, answer)| answer.ungated_reason.clone())
                .unwrap_or_default(),
        }
    };
    state.document().vips.iter().map(status).collect()
}

/// What a holder holds by.
fn authority(holder: &SelfResponse) -> String {
    let word = if holder.unleased.is_empty() { "lease" } else { &holder.unleased };
    word.to_owned()
}

fn service(view: &ServiceView) -> v1::ServiceStatus {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::ServiceStatus {
        name: view.name.clone(),
        listens: view.listens.iter().map(listing).collect(),
        scheduler: view.scheduler.to_owned(),
        ready: count(view.ready()),
        total: count(view.real_servers.len()),
        real_servers: view
            .real_servers
            .iter()
            .map(|real_server| v1::RealServerStatus {
                address: real_server.address.to_string(),
                weight: real_server.weight,
                serving: real_server.serving,
                node: real_server.node.clone().unwrap_or_default(),
                reason: real_server.reason.clone().unwrap_or_default(),
            })
            .collect(),
    }
}

fn node(
    member: &Member,
    raft: &RaftStatus,
    answer: Option<&Result<SelfResponse, String>>,
) -> v1::NodeStatus {
    let known = node_status(member.id, &member.name, Some(member), raft);
    match answer {
        Some(Ok(SelfResponse { status: Some(said), .. })) => v1::NodeStatus {
            // Who it is comes from the state that the fleet agreed on; how it is, from itself.
            id: known.id,
            name: known.name,
            roles: known.roles,
            raft: known.raft,
            addresses: known.addresses,
            reachable: true,
            ..said.clone()
        },
        Some(Ok(_) | Err(_)) | None => known,
    }
}

fn pools(state: &State) -> Vec<v1::PoolStatus> {
    let status = |pool: &lvsmesh_core::model::Pool| {
        let (source, listed) = match &pool.source {
            PoolSource::Listed(listed) => ("listed", listed.len()),
            PoolSource::Discovery(Discovery::File(_)) => ("file", 0),
            PoolSource::Discovery(Discovery::Dns(_)) => ("dns", 0),
        };
        let found = state.discovered(&pool.name);
        let (said, reason) = match found.map(|found| &found.status) {
            Some(SourceStatus::Synced) => ("synced", ""),
            Some(SourceStatus::Stale(reason)) => ("stale", reason.as_str()),
            Some(SourceStatus::Lost(reason)) => ("lost", reason.as_str()),
            None if source == "listed" => ("", ""),
            None => ("lost", "the source has not answered yet"),
        };
        let count = found.map_or(listed, |found| found.real_servers.len());
        v1::PoolStatus {
            name: pool.name.clone(),
            source: source.to_owned(),
            state: said.to_owned(),
            reason: reason.to_owned(),
            real_servers: u32::try_from(count).unwrap_or(u32::MAX),
        }
    };
    state.document().pools.iter().map(status).collect()
}

/// One line each, most urgent first: what answers no client, what is about to, what is odd.
fn warnings(
    state: &State,
    raft: &RaftStatus,
    answers: &Answers,
    services: &[ServiceView],
    status: &v1::StatusResponse,
) -> Vec<String> {
    let mut lines = Vec::new();
    if !status.quorum {
        let answering =
            raft.voters.iter().filter(|id| matches!(answers.get(id), Some(Ok(_)))).count();
        let voters = raft.voters.len();
        let why = if answering > voters / 2 { ", and no majority agrees on a leader" } else { "" };
        lines.push(format!(
            "no quorum: {answering} of {voters} voters answer{why}; the desired state cannot be changed"
        ));
    }
    for vip in &status.vips {
        if vip.holder.is_empty() {
            lines.push(format!("VIP group {} has no holder", vip.name));
        } else if vip.authority != "lease" {
            lines.push(format!(
                "DEGRADED: {} holds VIP group {} without a lease, by `no_quorum: {}`",
                vip.holder, vip.name, vip.authority
            ));
        }
        for node in &vip.also_on {
            lines.push(format!(
                "VIP group {}: an address is also on {node}, which does not hold it",
                vip.name
            ));
        }
    }
    for member in state.members() {
        let (name, address) = (&member.name, member.grpc);
        match answers.get(&member.id) {
            Some(Ok(_)) => {}
            Some(Err(reason)) => {
                lines.push(format!("node {name} ({address}) does not answer: {reason}"));
            }
            None => lines.push(format!("node {name} ({address}) was not asked")),
        }
    }
    for view in services {
        if view.ready() == 0 {
            lines.push(format!("service {} has no real server that gets traffic", view.name));
        }
        lines.extend(view.real_servers.iter().filter_map(unserved));
    }
    lines.dedup();
    lines.extend(
        status.pools.iter().filter(|pool| !matches!(pool.state.as_str(), "" | "synced")).map(
            |pool| {
                format!(
                    "pool {}: its {} source is {}: {}",
                    pool.name, pool.source, pool.state, pool.reason
                )
            },
        ),
    );
    for (id, answer) in heard(answers) {
        let Some(member) = state.member(id) else { continue };
        if member.is_director() && !answer.eligible {
            lines.push(format!(
                "director {} cannot hold VIPs: {}",
                member.name, answer.ineligible_reason
            ));
        }
    }
    lines.extend(differing(state, answers));
    for node in &status.nodes {
        lines.extend(node.warnings.iter().map(|warning| format!("{}: {warning}", node.name)));
        lines.extend(node.foreign.iter().map(|key| {
            format!("{}: service {key} was not made by lvsmesh and is left alone", node.name)
        }));
        if node.drift_repaired > 0 {
            let (name, count, last) = (&node.name, node.drift_repaired, &node.last_drift);
            lines.push(format!(
                "{name}: {count} changes by others repaired since the agent started, last: {last}"
            ));
        }
    }
    for vip in &state.document().vips {
        for name in &vip.preference {
            let known = state.member_by_name(name);
            if !known.is_some_and(Member::is_director) {
                let what =
                    if known.is_some() { "a node that is no director" } else { "an unknown node" };
                lines.push(format!("VIP group {}: its preference names {what}, {name}", vip.name));
            }
        }
    }
    lines
}

/// Hash-scheduled services that directors would schedule differently: a failover would break their connections.
fn differing(state: &State, answers: &Answers) -> Vec<String> {
    let mut said = BTreeMap::<&str, Vec<(&str, u64)>>::new();
    for (id, answer) in heard(answers) {
        let Some(member) = state.member(id) else { continue };
        for hashed in &answer.hashed {
            said.entry(&hashed.service).or_default().push((&member.name, hashed.digest));
        }
    }
    let differs = |nodes: &Vec<(&str, u64)>| nodes.iter().any(|(_, digest)| *digest != nodes[0].1);
    said.into_iter()
        .filter(|(_, nodes)| differs(nodes))
        .map(|(service, nodes)| {
            let names: Vec<_> = nodes.into_iter().map(|(name, _)| name).collect();
            format!("service {service}: the tables of {} differ, so that a failover would send its connections elsewhere", names.join(", "))
        })
        .collect()
}

/// `real server 192.168.3.102:80 (lvs-2) gets no traffic: VIP 192.168.3.100 is not on lo`
fn unserved(view: &placement::RealServerView) -> Option<String> {
    let reason = view.reason.as_deref()?;
    let (node, reason) = match &view.node {
        Some(node) => {
            let prefix = format!("{node}: ");
            (format!(" ({node})"), reason.strip_prefix(&prefix).unwrap_or(reason))
        }
        None => (String::new(), reason),
    };
    let verdict = if view.serving { "gets traffic although" } else { "gets no traffic:" };
    Some(format!("real server {}{node} {verdict} {reason}", view.address))
}

#[cfg(test)]
mod tests;
