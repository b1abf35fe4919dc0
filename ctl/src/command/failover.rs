//! `lvsctl failover`.

use lvsmesh_core::document::Value;
use lvsmesh_proto::v1;

use crate::client::{Client, Repeat};
use crate::failure::Failure;
use crate::output::{Done, Format, present};
use crate::tree::{map, number};

pub(super) async fn run(client: &Client, format: Format, to: String) -> Result<Done, Failure> {
    let request = v1::FailoverRequest { to };
    let answer = client
        .call(Repeat::IfUndone, request, async |control, request| control.failover(request).await)
        .await?;
    let tree = map([
        ("from", Value::Text(answer.from.clone())),
        ("to", Value::Text(answer.to.clone())),
        ("epoch", number(answer.epoch)),
    ]);
    present(format, &tree, || table(&answer)).map(Done::printed)
}

fn table(answer: &v1::FailoverResponse) -> String {
    let v1::FailoverResponse { from, to, epoch } = answer;
    if from == to {
        return format!("`{to}` holds the VIPs already (epoch {epoch})\n");
    }
    let from = if from.is_empty() { String::new() } else { format!(" from `{from}`") };
    format!("the VIPs moved{from} to `{to}` (epoch {epoch})\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_says_from_where_to_where() {
        let moved = |from: &str| {
            table(&v1::FailoverResponse { from: from.into(), to: "lvs-2".into(), epoch: 4 })
        };
        assert_eq!(moved("lvs-1"), "the VIPs moved from `lvs-1` to `lvs-2` (epoch 4)\n");
        assert_eq!(moved(""), "the VIPs moved to `lvs-2` (epoch 4)\n");
        assert_eq!(moved("lvs-2"), "`lvs-2` holds the VIPs already (epoch 4)\n");
    }
}
