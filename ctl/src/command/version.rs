//! `lvsctl version`.

use lvsmesh_core::document::Value;
use lvsmesh_proto::v1;

use crate::client::{Client, Repeat};
use crate::failure::Failure;
use crate::output::{Done, Format, present};
use crate::tree::map;

const OURS: &str = env!("CARGO_PKG_VERSION");

pub(super) async fn run(client: &Client, format: Format) -> Result<Done, Failure> {
    let request = v1::VersionRequest {};
    let answer = client
        .call(Repeat::Freely, request, async |control, request| control.version(request).await)
        .await;
    let agent = answer.as_ref().ok();
    let text = |text: &str| Value::Text(text.to_owned());
    let tree = map([
        ("lvsctl", text(OURS)),
        ("lvs_agent", agent.map_or(Value::Null, |agent| text(&agent.version))),
        ("node", agent.map_or(Value::Null, |agent| text(&agent.node))),
        ("fleet", agent.map_or(Value::Null, |agent| text(&agent.fleet))),
    ]);
    let done = Done::printed(present(format, &tree, || table(agent))?);
    Ok(match answer {
        Ok(_) => done,
        // Its own version it knows without asking.
        Err(failure) => Done { complaint: failure.render(), exit: failure.exit, ..done },
    })
}

fn table(agent: Option<&v1::VersionResponse>) -> String {
    let agent = agent.map(|v1::VersionResponse { version, node, fleet }| {
        format!("lvs-agent {version} (node {node} of fleet {fleet})\n")
    });
    format!("lvsctl {OURS}\n{}", agent.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_version_comes_first_and_needs_no_agent() {
        let agent = v1::VersionResponse {
            version: "0.2.0".into(),
            node: "lvs-1".into(),
            fleet: "blue".into(),
        };
        assert_eq!(
            table(Some(&agent)),
            format!("lvsctl {OURS}\nlvs-agent 0.2.0 (node lvs-1 of fleet blue)\n")
        );
        assert_eq!(table(None), format!("lvsctl {OURS}\n"));
    }
}
