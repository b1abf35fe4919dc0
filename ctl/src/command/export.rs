//! `lvsctl export`.

use lvsmesh_core::model::Document;
use lvsmesh_proto::v1;

use super::get::STALE;
use crate::args::Export;
use crate::client::{Client, Repeat};
use crate::failure::{Exit, Failure};
use crate::interchange::export::{Exported, ipvsadm, keepalived};
use crate::manifest;
use crate::output::Done;

/// Of a document in a file, which asks nobody.
pub(super) fn from_file(export: &Export) -> Result<Done, Failure> {
    let file = export.source().file.as_deref().unwrap_or(std::path::Path::new("-"));
    finish(export, &manifest::read(file)?)
}

/// Of the fleet's desired state.
pub(super) async fn run(client: &Client, export: &Export) -> Result<Done, Failure> {
    let request = v1::GetRequest { revision: 0 };
    let answer = client
        .call(Repeat::Freely, request, async |control, request| control.get(request).await)
        .await?;
    let document = Document::try_from(answer.document.unwrap_or_default()).map_err(|_| {
        Failure::new(Exit::Failed, "the desired state says things that this lvsctl does not know")
            .hint("use an lvsctl of the agents' version")
    })?;
    let done = finish(export, &document)?;
    let warning = if answer.stale { STALE } else { "" };
    Ok(Done { complaint: format!("{warning}{}", done.complaint), ..done })
}

fn finish(export: &Export, document: &Document) -> Result<Done, Failure> {
    let Exported { text, notes } = match export {
        Export::Keepalived { node, .. } => {
            if let Some(node) = node {
                known(document, node)?;
            }
            keepalived::export(document, node.as_deref())
        }
        Export::Ipvsadm { .. } => ipvsadm::export(document),
    };
    let complaint = notes.iter().map(|note| format!("note: {note}\n")).collect();
    Ok(Done { complaint, ..Done::printed(text) })
}

/// A director that no group prefers has no place in their order.
fn known(document: &Document, node: &str) -> Result<(), Failure> {
    let preferred: Vec<&str> =
        document.vips.iter().flat_map(|vip| &vip.preference).map(String::as_str).collect();
    if preferred.is_empty() || preferred.contains(&node) {
        return Ok(());
    }
    Err(Failure::new(Exit::NotFound, format!("no VIP group prefers `{node}`"))
        .hint(format!("`vips[].preference` names {}", preferred.join(", "))))
}
