//! `lvsctl get`.

use lvsmesh_core::document;
use lvsmesh_core::model::Document;
use lvsmesh_proto::v1;

use crate::client::{Client, Repeat};
use crate::failure::{Exit, Failure};
use crate::output::{Done, Format, present, yaml};

/// For an answer that no leader has confirmed.
pub(super) const STALE: &str = "warning: no leader could be asked; a newer revision may exist\n";

pub(super) async fn run(
    client: &Client,
    format: Option<Format>,
    revision: u64,
) -> Result<Done, Failure> {
    let request = v1::GetRequest { revision };
    let answer = client
        .call(Repeat::Freely, request, async |control, request| control.get(request).await)
        .await?;
    print(format, answer)
}

/// A revision (0: the newest) and what it says.
pub(super) async fn document(client: &Client, revision: u64) -> Result<(u64, Document), Failure> {
    let request = v1::GetRequest { revision };
    let answer = client
        .call(Repeat::Freely, request, async |control, request| control.get(request).await)
        .await?;
    Ok((answer.revision, known(answer.revision, answer.document)?))
}

fn known(revision: u64, document: Option<v1::Document>) -> Result<Document, Failure> {
    Document::try_from(document.unwrap_or_default()).map_err(|_| {
        Failure::new(
            Exit::Failed,
            format!("revision {revision} says things that this lvsctl does not know"),
        )
        .hint("use an lvsctl of the agents' version")
    })
}

/// A document, as `apply` takes it; YAML says the revision in a comment, JSON cannot.
fn print(format: Option<Format>, answer: v1::GetResponse) -> Result<Done, Failure> {
    let v1::GetResponse { revision, document, stale } = answer;
    let document = known(revision, document)?;
    let tree = document::encode(&document);
    let warning = if stale { STALE } else { "" };
    let (text, note) = match format {
        None | Some(Format::Table | Format::Yaml) => {
            (format!("# revision {revision}\n{}", yaml(&tree)?), String::new())
        }
        Some(Format::Json) => {
            (present(Format::Json, &tree, String::new)?, format!("revision {revision}\n"))
        }
    };
    Ok(Done { complaint: format!("{note}{warning}"), ..Done::printed(text) })
}

#[cfg(test)]
mod tests;
