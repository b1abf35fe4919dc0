//! `lvsctl ipvs`.

mod fleet;
mod merge;

use std::path::Path;

use lvsmesh_core::document::Value;
use lvsmesh_proto::v1;

use crate::args::{Ipvs, Listed, Named, Whose};
use crate::client::{Client, Repeat};
use crate::failure::{Exit, Failure};
use crate::ipvsadm;
use crate::manifest;
use crate::output::{Done, Format, present};
use crate::render::ipvs::{self as render, View, config};
use crate::tree::{map, number, texts};

use fleet::each;
use merge::merge;

/// Reads a saved table: everything that can be found wrong without asking anybody.
pub(super) fn read(file: &Path) -> Result<Vec<v1::IpvsService>, Failure> {
    let (name, text) = manifest::text(file)?;
    ipvsadm::read(&text).map_err(|faults| Failure {
        details: faults,
        ..Failure::new(Exit::Failed, format!("{name} cannot be restored; nothing was changed"))
    })
}

/// Runs one of the commands. `saved` is what [`read`] made of a restore's file.
pub(super) async fn run(
    client: &Client,
    format: Format,
    command: Ipvs,
    saved: Vec<v1::IpvsService>,
) -> Result<Done, Failure> {
    match command {
        Ipvs::List { whose, columns } => list(client, format, &whose, view(columns)).await,
        Ipvs::Stats { whose, exact } => {
            list(client, format, &whose, View::Statistics { exact }).await
        }
        Ipvs::Rate { whose, exact } => list(client, format, &whose, View::Rates { exact }).await,
        Ipvs::Conns { whose, persistent_conn } => {
            connections(client, format, &whose, persistent_conn).await
        }
        Ipvs::Timeouts { whose } => {
            configs(client, format, &whose, config::timeouts, config::timeouts_tree).await
        }
        Ipvs::Daemon { whose } => {
            configs(client, format, &whose, config::daemons, config::daemons_tree).await
        }
        Ipvs::Zero { whose, service } => zero(client, format, &whose, &service).await,
        Ipvs::Save { node, foreign } => save(client, format, node, foreign).await,
        Ipvs::Restore { node, dry_run, file: _ } => {
            let request = v1::RestoreIpvsRequest { node, services: saved, dry_run };
            restore(client, format, request).await
        }
    }
}

const fn view(columns: Listed) -> View {
    match columns {
        Listed { thresholds: true, .. } => View::Thresholds,
        Listed { persistent_conn: true, .. } => View::PersistentConnections,
        Listed { tun_info: true, .. } => View::Tunnels,
        Listed { thresholds: false, persistent_conn: false, tun_info: false } => View::Table,
    }
}

async fn table(client: &Client, node: String) -> Result<v1::ListIpvsResponse, Failure> {
    let request = v1::ListIpvsRequest { node };
    client
        .call(Repeat::Freely, request, async |control, request| control.list_ipvs(request).await)
        .await
}

async fn list(client: &Client, format: Format, whose: &Whose, view: View) -> Result<Done, Failure> {
    if !whose.all {
        let answer = table(client, whose.node.clone()).await?;
        return present(format, &render::tree(&answer), || render::listing(&answer, view))
            .map(Done::printed);
    }
    let (tables, unheard) = each(client, async |node| table(client, node).await).await?;
    let (merged, differences) = merge(&tables);
    let tree = map([
        ("merged", render::tree(&merged)),
        ("nodes", Value::List(tables.iter().map(render::tree).collect())),
    ]);
    let text = present(format, &tree, || render::listing(&merged, view))?;
    Ok(unheard.beside(text, &differences))
}

async fn connections(
    client: &Client,
    format: Format,
    whose: &Whose,
    engines: bool,
) -> Result<Done, Failure> {
    let read = async |node| {
        let request = v1::ListIpvsConnectionsRequest { node };
        let mut pieces = client
            .stream(request, async |control, request| control.list_ipvs_connections(request).await)
            .await?;
        let mut whole = v1::ListIpvsConnectionsResponse::default();
        while let Some(piece) = client.next(&mut pieces).await? {
            whole.node = piece.node;
            whole.connections.extend(piece.connections);
        }
        Ok::<_, Failure>(whole)
    };
    let tree = |answer: &v1::ListIpvsConnectionsResponse| {
        let connections = answer.connections.iter().map(render::connection_tree).collect();
        map([("node", Value::Text(answer.node.clone())), ("connections", Value::List(connections))])
    };
    if !whose.all {
        let answer = read(whose.node.clone()).await?;
        return present(format, &tree(&answer), || {
            render::connections(&answer.connections, engines)
        })
        .map(Done::printed);
    }
    let (answers, unheard) = each(client, read).await?;
    let nodes = map([("nodes", Value::List(answers.iter().map(tree).collect()))]);
    let text = present(format, &nodes, || {
        render::connections(answers.iter().flat_map(|answer| &answer.connections), engines)
    })?;
    Ok(unheard.beside(text, &[]))
}

async fn configs(
    client: &Client,
    format: Format,
    whose: &Whose,
    text: fn(&v1::GetIpvsConfigResponse) -> String,
    tree: fn(&v1::GetIpvsConfigResponse) -> Value,
) -> Result<Done, Failure> {
    let read = async |node| {
        let request = v1::GetIpvsConfigRequest { node };
        client
            .call(Repeat::Freely, request, async |control, request| {
                control.get_ipvs_config(request).await
            })
            .await
    };
    if !whose.all {
        let answer = read(whose.node.clone()).await?;
        return present(format, &tree(&answer), || text(&answer)).map(Done::printed);
    }
    let (answers, unheard) = each(client, read).await?;
    let nodes = map([("nodes", Value::List(answers.iter().map(tree).collect()))]);
    let lines = || {
        let lines = answers.iter().flat_map(|answer| {
            text(answer)
                .lines()
                .map(|line| format!("{}: {line}\n", answer.node))
                .collect::<Vec<_>>()
        });
        lines.collect::<String>()
    };
    let text = present(format, &nodes, lines)?;
    Ok(unheard.beside(text, &[]))
}

async fn zero(
    client: &Client,
    format: Format,
    whose: &Whose,
    service: &Named,
) -> Result<Done, Failure> {
    let service = named(service)?;
    let zero = async |node| {
        let request = v1::ZeroIpvsRequest { node, service: service.clone() };
        // Twice is as good as once.
        client
            .call(Repeat::Freely, request, async |control, request| {
                control.zero_ipvs(request).await
            })
            .await
    };
    let (answers, unheard) = match whose.all {
        true => each(client, zero).await?,
        false => (vec![zero(whose.node.clone()).await?], fleet::Unheard::default()),
    };
    let nodes = answers.into_iter().map(|answer| answer.node).collect::<Vec<_>>();
    let text = present(format, &map([("nodes", texts(&nodes))]), || {
        nodes.iter().map(|node| format!("counters of node `{node}` are zero\n")).collect()
    })?;
    Ok(unheard.beside(text, &[]))
}

fn named(named: &Named) -> Result<Option<v1::IpvsService>, Failure> {
    let Named { tcp_service, udp_service, sctp_service, fwmark_service, fwmark_service_6 } = named;
    let words = [
        ("-t", tcp_service, ""),
        ("-u", udp_service, ""),
        ("--sctp-service", sctp_service, ""),
        ("-f", fwmark_service, ""),
        ("-f", fwmark_service_6, " -6"),
    ];
    let given = words
        .iter()
        .find_map(|(option, value, more)| Some(format!("{option} {}{more}", value.as_ref()?)));
    given.map(|given| ipvsadm::named(&given)).transpose().map_err(Failure::usage)
}

async fn save(
    client: &Client,
    format: Format,
    node: String,
    only_foreign: bool,
) -> Result<Done, Failure> {
    let answer = table(client, node).await?;
    let (lines, unsaid) = render::save(&answer, only_foreign);
    let tree = map([
        ("node", Value::Text(answer.node.clone())),
        ("lines", Value::List(lines.lines().map(|line| Value::Text(line.to_owned())).collect())),
        ("unsaid", texts(&unsaid)),
    ]);
    let done = Done::printed(present(format, &tree, || lines)?);
    if unsaid.is_empty() {
        return Ok(done);
    }
    let failure = Failure {
        details: unsaid,
        ..Failure::new(Exit::Failed, "some real servers are missing in what was saved")
    };
    Ok(Done { complaint: failure.render(), exit: failure.exit, ..done })
}

async fn restore(
    client: &Client,
    format: Format,
    request: v1::RestoreIpvsRequest,
) -> Result<Done, Failure> {
    let dry_run = request.dry_run;
    let answer = client
        .call(Repeat::IfUndone, request, async |control, request| {
            control.restore_ipvs(request).await
        })
        .await?;
    let tree = map([
        ("node", Value::Text(answer.node.clone())),
        ("operations", texts(&answer.operations)),
        ("kept", texts(&answer.kept)),
        ("failed", texts(&answer.failed)),
        ("standing", number(answer.standing)),
    ]);
    let text = present(format, &tree, || {
        let lead = if dry_run { "would " } else { "" };
        let lines: String =
            answer.operations.iter().map(|operation| format!("{lead}{operation}\n")).collect();
        let count = answer.operations.len();
        let done = if dry_run { "would be added" } else { "added" };
        lines
            + &format!(
                "node `{}`: {count} {done}, {} stood already\n",
                answer.node, answer.standing
            )
    })?;
    let pending = dry_run && !answer.operations.is_empty();
    let done = Done::printed(text).with_exit(if pending { Exit::Pending } else { Exit::Done });
    let details: Vec<String> = [answer.failed, answer.kept].concat();
    if details.is_empty() {
        return Ok(done);
    }
    let failure = Failure {
        details,
        ..Failure::new(Exit::Failed, "not everything is in the kernel as it was saved")
    };
    Ok(Done { complaint: failure.render(), exit: failure.exit, ..done })
}
