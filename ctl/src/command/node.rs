//! `lvsctl node`.

use lvsmesh_core::document::Value;
use lvsmesh_proto::v1;

use super::confirm;
use crate::client::{Client, Repeat};
use crate::failure::{Exit, Failure};
use crate::output::{Done, Format, present};
use crate::render;
use crate::tree::{map, number};

pub(super) async fn list(client: &Client, format: Format) -> Result<Done, Failure> {
    let request = v1::StatusRequest {};
    let answer = client
        .call(Repeat::Freely, request, async |control, request| control.status(request).await)
        .await?;
    let tree = || Value::List(answer.nodes.iter().map(render::node::tree).collect());
    present(format, &tree(), || render::node::table(&answer.nodes)).map(Done::printed)
}

pub(super) async fn remove(
    client: &Client,
    format: Format,
    name: String,
    yes: bool,
) -> Result<Done, Failure> {
    if !yes && !confirmed(&name)? {
        return Err(Failure::new(Exit::Failed, format!("node `{name}` was not removed")));
    }
    let request = v1::RemoveNodeRequest { name: name.clone() };
    let answer = client
        .call(Repeat::IfUndone, request, async |control, request| {
            control.remove_node(request).await
        })
        .await?;
    let tree = map([("name", Value::Text(name.clone())), ("id", number(answer.id))]);
    let text = present(format, &tree, || {
        format!(
            "node `{name}` (id {}) is out of the fleet; run `lvs-agent leave` there to undo what its agent put into its kernel\n",
            answer.id
        )
    })?;
    Ok(Done::printed(text))
}

/// Says what will happen, and asks if there is somebody to ask.
fn confirmed(name: &str) -> Result<bool, Failure> {
    confirm::confirmed(
        &format!("removing node `{name}` takes its vote and its traffic away for good"),
        &format!(
            "This takes node `{name}` out of the fleet for good: it votes no more, holds no VIP, and gets no traffic as a managed real server.\nRemove it? [y/N] "
        ),
    )
}
