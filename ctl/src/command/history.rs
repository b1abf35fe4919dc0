//! `lvsctl history`.

use lvsmesh_core::document::Value;
use lvsmesh_proto::v1;

use super::get::STALE;
use crate::client::{Client, Repeat};
use crate::failure::Failure;
use crate::output::{Done, Format, present};
use crate::render;

pub(super) async fn run(client: &Client, format: Format, limit: u32) -> Result<Done, Failure> {
    let request = v1::HistoryRequest { limit };
    let answer = client
        .call(Repeat::Freely, request, async |control, request| control.history(request).await)
        .await?;
    let tree = Value::List(answer.revisions.iter().map(render::history::tree).collect());
    let text = present(format, &tree, || render::history::table(&answer.revisions))?;
    let complaint = if answer.stale { STALE.to_owned() } else { String::new() };
    Ok(Done { complaint, ..Done::printed(text) })
}
