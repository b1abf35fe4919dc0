//! What is in a snapshot.

use lvsmesh_core::document::Value;
use lvsmesh_core::model::Role;
use lvsmesh_proto::backup::Backup;

use super::Align::{Left, Right};
use super::{columns, time};
use crate::tree::{map, number, texts};

fn roles(backup: &Backup, index: usize) -> String {
    let member = backup.state.members().nth(index);
    let word = |role: &Role| match role {
        Role::Director => "director",
        Role::RealServer => "realserver",
    };
    let roles = member.into_iter().flat_map(|member| member.roles.iter().map(word));
    roles.collect::<Vec<_>>().join(", ")
}

fn raft(backup: &Backup, id: u64) -> &'static str {
    let header = &backup.header;
    match (header.voters.contains(&id), header.learners.contains(&id)) {
        (true, _) => "voter",
        (false, true) => "learner",
        (false, false) => "-",
    }
}

/// One screen.
pub(crate) fn table(name: &str, backup: &Backup) -> String {
    let Backup { header, state } = backup;
    let document = state.document();
    let oldest = state.history().next().map_or(0, |revision| revision.summary.revision);
    let revision = match state.revision() {
        0 => "none was ever applied".to_owned(),
        revision if oldest == revision => revision.to_string(),
        revision => format!("{revision} ({oldest} to {revision} are in it)"),
    };
    let stale = if header.stale {
        "\nmajority  was not asked; the fleet may have had a newer revision"
    } else {
        ""
    };
    let rows: Vec<[String; 5]> = state
        .members()
        .enumerate()
        .map(|(index, member)| {
            [
                member.name.clone(),
                member.id.0.to_string(),
                roles(backup, index),
                raft(backup, member.id.0).to_owned(),
                member.grpc.to_string(),
            ]
        })
        .collect();
    let headings =
        [("NODE", Left), ("ID", Right), ("ROLES", Left), ("RAFT", Left), ("ADDRESS", Left)];
    format!(
        "snapshot  {name}, whole\nfleet     {}\nepoch     {}\nrevision  {revision}\nentry     {} (term {})\ntaken     {} by {} ({}){stale}\nholds     {} VIP groups, {} pools, {} services\n\n{}",
        state.fleet(),
        header.epoch,
        header.index,
        header.term,
        time(header.taken_unix_ms),
        header.taken_by,
        header.version,
        document.vips.len(),
        document.pools.len(),
        document.services.len(),
        columns(headings, &rows, ""),
    )
}

pub(crate) fn tree(name: &str, backup: &Backup) -> Value {
    let Backup { header, state } = backup;
    let text = |text: &str| Value::Text(text.to_owned());
    let nodes = state.members().enumerate().map(|(index, member)| {
        map([
            ("name", text(&member.name)),
            ("id", number(member.id.0)),
            ("roles", text(&roles(backup, index))),
            ("raft", text(raft(backup, member.id.0))),
            ("address", text(&member.grpc.to_string())),
        ])
    });
    let services: Vec<String> =
        state.document().services.iter().map(|service| service.name.clone()).collect();
    map([
        ("file", text(name)),
        ("fleet", text(state.fleet())),
        ("epoch", number(header.epoch)),
        ("revision", number(state.revision())),
        ("index", number(header.index)),
        ("term", number(header.term)),
        ("taken", text(&time(header.taken_unix_ms))),
        ("taken_by", text(&header.taken_by)),
        ("version", text(&header.version)),
        ("stale", Value::Bool(header.stale)),
        ("services", texts(&services)),
        ("nodes", Value::List(nodes.collect())),
    ])
}
