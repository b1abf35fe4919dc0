//! Real agents, as processes of their own on loopback addresses: what needs neither privileges nor network namespaces, because no VIP is asked for.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "this whole crate is a test, helpers included"
)]

mod agent;
mod disasters;
mod members;

use std::collections::BTreeSet;
use std::time::Duration;

use agent::Fleet;
use lvsmesh_proto::internal::v1::SelfRequest;
use lvsmesh_proto::internal::v1::peer_client::PeerClient;
use lvsmesh_proto::v1::{
    self, ApplyRequest, GetRequest, HistoryRequest, HistoryResponse, StatusResponse,
};
use prost::Message;
use tonic::{Code, Status};

/// A document of which `mark` tells one revision from another.
fn document(fleet: &str, mark: u32) -> v1::Document {
    let real_server = v1::RealServer {
        address: "192.0.2.9".into(),
        port: Some(80),
        weight: Some(mark),
        ..v1::RealServer::default()
    };
    let pool =
        v1::Pool { name: "web".into(), real_servers: vec![real_server], ..v1::Pool::default() };
    v1::Document {
        fleet: Some(v1::Fleet { name: fleet.into(), ..v1::Fleet::default() }),
        pools: vec![pool],
        ..v1::Document::default()
    }
}

fn apply(mark: u32, expected_revision: Option<u64>) -> ApplyRequest {
    ApplyRequest {
        document: Some(document("web", mark)),
        expected_revision,
        message: format!("weight {mark}"),
        unverified_author: "ada@desk".into(),
        dry_run: false,
    }
}

fn revisions(status: &StatusResponse) -> Vec<u64> {
    status.nodes.iter().map(|node| node.revision).collect()
}

/// No agent said this: the connection failed.
fn is_broken(status: &Status) -> bool {
    std::error::Error::source(status).is_some_and(|source| source.is::<tonic::transport::Error>())
}

fn reason(status: &Status) -> Option<&str> {
    status.metadata().get("lvsmesh-reason")?.to_str().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_agents_keep_one_revision_through_a_kill_and_an_emptied_disk() {
    let fleet = Fleet::new("three").await;
    let one = fleet.first("n1", &["director"]).await;
    let mut two = fleet.joined("n2", &["director"], &one).await;
    let three = fleet.joined("n3", &["realserver"], &one).await;
    let status = one.until("three voters", |status| {
        status.quorum && status.nodes.iter().filter(|node| node.raft != "learner").count() == 3
    });
    let status = status.await;
    assert_eq!(status.leader, "n1");
    assert_eq!(status.nodes.iter().find(|node| node.name == "n3").unwrap().raft, "witness");

    // A write to an agent that does not lead; dry runs first, which change nothing.
    let rehearsal = ApplyRequest { dry_run: true, ..apply(1, Some(0)) };
    let response = three.control().apply(rehearsal).await.unwrap().into_inner();
    assert_eq!((response.revision, response.unchanged), (0, false));
    assert!(response.changes.iter().any(|line| line.contains("web")), "{:?}", response.changes);
    let response = three.control().apply(apply(1, Some(0))).await.unwrap().into_inner();
    assert_eq!(response.revision, 1);
    for agent in [&one, &two, &three] {
        agent.until("revision 1 everywhere", |status| revisions(status) == [1, 1, 1]).await;
    }

    // Against an old revision: refused, with what came in between.
    let refused = two.control().apply(apply(2, Some(0))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    let trailer = refused.metadata().get_bin("lvsmesh-conflict-bin").unwrap().to_bytes().unwrap();
    let since = HistoryResponse::decode(trailer).unwrap().revisions;
    assert_eq!(since[0].author, "ada@desk (unverified)");
    assert_eq!(since[0].message, "weight 1");

    // The same document again makes no revision.
    let response = one.control().apply(apply(1, None)).await.unwrap().into_inner();
    assert_eq!((response.revision, response.unchanged), (1, true));

    // Killed while the others go on, then started again: from disk, and then from the leader.
    two.kill();
    one.until("n2 is missed", |status| {
        status.quorum && status.warnings.iter().any(|line| line.contains("node n2"))
    })
    .await;
    assert_eq!(one.control().apply(apply(2, Some(1))).await.unwrap().into_inner().revision, 2);
    two.run().await;
    two.until("revision 2 everywhere", |status| revisions(status) == [2, 2, 2]).await;

    // Its disk emptied: it comes back under its name, with an id that nobody ever had.
    two.kill();
    two.empty_disk();
    two.join(&one).await;
    two.run().await;
    let status = two
        .until("n2 is back and votes", |status| {
            revisions(status) == [2, 2, 2] && status.nodes.iter().all(|node| node.raft != "learner")
        })
        .await;
    let ids = status.nodes.iter().map(|node| node.id).collect::<BTreeSet<_>>();
    assert_eq!(ids, BTreeSet::from([1, 3, 4]));
    assert_eq!(two.control().apply(apply(3, Some(2))).await.unwrap().into_inner().revision, 3);
    one.until("revision 3 everywhere", |status| revisions(status) == [3, 3, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_the_fleet_is_read_only_and_says_so() {
    let fleet = Fleet::new("minority").await;
    let mut one = fleet.first("n1", &["director"]).await;
    let two = fleet.joined("n2", &["director"], &one).await;
    let mut three = fleet.joined("n3", &["realserver"], &one).await;
    two.until("three voters", |status| {
        status.quorum && status.nodes.iter().all(|node| node.raft != "learner")
    })
    .await;
    two.control().apply(apply(1, None)).await.unwrap();
    two.until("revision 1 everywhere", |status| revisions(status) == [1, 1, 1]).await;

    one.kill();
    three.kill();
    let status = two.until("no quorum", |status| !status.quorum).await;
    assert!(
        status.warnings[0].starts_with("no quorum: 1 of 3 voters answer"),
        "{:?}",
        status.warnings
    );

    let refused = two.control().apply(apply(2, None)).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::Unavailable, Some("no-quorum")),
        "{refused}"
    );
    let got = two.control().get(GetRequest { revision: 0 }).await.unwrap().into_inner();
    assert_eq!((got.revision, got.stale), (1, true));
    assert_eq!(got.document.unwrap().pools, document("web", 1).pools);

    // One back is enough.
    three.run().await;
    two.until("a quorum again", |status| status.quorum).await;
    assert_eq!(two.control().apply(apply(2, None)).await.unwrap().into_inner().revision, 2);
}

/// Realservers alone: whoever leads holds no lease, so nothing deposes it when its followers go.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_lease_and_followers_refuses_writes_for_want_of_a_quorum() {
    let fleet = Fleet::new("quiet").await;
    let one = fleet.first("n1", &["realserver"]).await;
    let mut two = fleet.joined("n2", &["realserver"], &one).await;
    let mut three = fleet.joined("n3", &["realserver"], &one).await;
    one.until("three voters and n1 leads", |status| {
        status.quorum
            && status.leader == "n1"
            && status.nodes.len() == 3
            && status.nodes.iter().all(|node| node.raft != "learner")
    })
    .await;
    one.control().apply(apply(1, None)).await.unwrap();
    two.kill();
    three.kill();
    let refused = one.control().apply(apply(2, None)).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::Unavailable, Some("unconfirmed")),
        "it may come to be made: {refused}"
    );
    // By now it knows, and does not even try.
    let refused = one.control().apply(apply(3, None)).await.unwrap_err();
    assert!(refused.message().contains("no leader was found"), "{refused}");
    assert_eq!(reason(&refused), Some("no-quorum"));
    let got = one.control().get(GetRequest { revision: 0 }).await.unwrap().into_inner();
    assert!(got.stale, "a leader without a majority may not know the newest revision");
    three.run().await;
    one.until("a quorum again", |status| status.quorum).await;
    let applied = one.control().apply(apply(4, None)).await.unwrap().into_inner();
    assert!(applied.revision >= 2, "{applied:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_hands_over_when_asked_and_when_it_stops() {
    let fleet = Fleet::new("handover").await;
    let mut one = fleet.first("n1", &["director"]).await;
    let two = fleet.joined("n2", &["director"], &one).await;
    let three = fleet.joined("n3", &["realserver"], &one).await;
    three
        .until("three voters", |status| {
            status.quorum && status.nodes.iter().all(|node| node.raft != "learner")
        })
        .await;

    // Asked through an agent that is neither.
    let refused =
        three.control().failover(v1::FailoverRequest { to: "n3".into() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("no director"), "{refused}");
    let refused =
        three.control().failover(v1::FailoverRequest { to: "n9".into() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    let moved = three.control().failover(v1::FailoverRequest { to: "n2".into() }).await.unwrap();
    assert_eq!(moved.into_inner().to, "n2");
    three.until("n2 leads", |status| status.leader == "n2").await;

    // Back again, to the only other director, which was not told to stand back for good.
    let moved = two.control().failover(v1::FailoverRequest { to: String::new() }).await.unwrap();
    assert_eq!(moved.into_inner().to, "n1");
    three.until("n1 leads", |status| status.leader == "n1").await;

    one.stop().await;
    three.until("n2 leads", |status| status.leader == "n2" && status.quorum).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_removed_and_no_majority_counts_it_any_more() {
    let fleet = Fleet::new("remove").await;
    let one = fleet.first("n1", &["director"]).await;
    let refused =
        one.control().remove_node(v1::RemoveNodeRequest { name: "n1".into() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");

    let mut two = fleet.joined("n2", &["director"], &one).await;
    one.until("two voters", |status| {
        status.nodes.len() == 2 && status.nodes.iter().all(|node| node.raft == "voter")
    })
    .await;
    let removed = two.control().remove_node(v1::RemoveNodeRequest { name: "n2".into() }).await;
    assert_eq!(removed.unwrap().into_inner().id, 2);
    two.kill();
    // With two voters a dead one would leave no majority.
    assert_eq!(one.control().apply(apply(1, None)).await.unwrap().into_inner().revision, 1);
    let status = one.until("n2 is gone", |status| status.nodes.len() == 1).await;
    assert!(status.quorum, "{:?}", status.warnings);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_certificates_everybody_is_who_the_authority_says() {
    let fleet = Fleet::with_certificates().await;
    let one = fleet.first("n1", &["director"]).await;
    let two = fleet.joined("n2", &["director"], &one).await;

    let ada = fleet.operator("ada");
    let response = agent::control(&two, Some(&ada)).apply(apply(1, None)).await.unwrap();
    assert_eq!(response.into_inner().revision, 1);
    let history = agent::control(&one, Some(&ada)).history(HistoryRequest { limit: 1 }).await;
    // Passed on by n2, under the name in the certificate, whatever the client says of itself.
    assert_eq!(history.unwrap().into_inner().revisions[0].author, "operator/ada");

    let mut peer = PeerClient::new(agent::channel(&one, Some(&ada)));
    let refused = peer.self_(SelfRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");

    let stranger = Fleet::stranger().trusting(&ada);
    let refused =
        agent::control(&one, Some(&stranger)).version(v1::VersionRequest {}).await.unwrap_err();
    assert!(is_broken(&refused), "{refused}");
    let refused = agent::control(&one, None).version(v1::VersionRequest {}).await.unwrap_err();
    assert!(is_broken(&refused), "{refused}");

    // Faults of a document are told one by one.
    let mut wrong = apply(2, None);
    wrong.document.as_mut().unwrap().pools[0].real_servers[0].port = Some(70000);
    wrong.document.as_mut().unwrap().services.push(v1::Service::default());
    let refused = agent::control(&two, Some(&ada)).apply(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let trailer = refused.metadata().get_bin("lvsmesh-faults-bin").unwrap().to_bytes().unwrap();
    let faults = v1::Faults::decode(trailer).unwrap().faults;
    let paths = faults.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>();
    assert!(paths.contains(&"pools[0].real_servers[0].port"), "{paths:?}");
    assert!(paths.iter().any(|path| path.starts_with("services[0]")), "{paths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_page_has_what_the_agent_knows() {
    let fleet = Fleet::new("metrics").await;
    let one = fleet.first("n1", &["director"]).await;
    one.until("a leader", |status| status.quorum).await;
    one.control().apply(apply(1, None)).await.unwrap();
    let page = one.metrics().await;
    assert!(page.lines().next().unwrap().ends_with(" 200 OK"), "{page}");
    assert!(page.contains("application/openmetrics-text; version=1.0.0"), "{page}");
    for line in
        ["lvsmesh_revision 1.0", "lvsmesh_raft_leader 1.0", "lvsmesh_kernel_operations_total 0.0"]
    {
        assert!(page.lines().any(|found| found == line), "no line `{line}` in:\n{page}");
    }
    assert!(page.contains("lvsmesh_build{version="), "{page}");
    assert!(page.trim_end().ends_with("# EOF"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_identity_names_init_and_join() {
    let fleet = Fleet::new("none").await;
    let agent = fleet.agent("n1", &["director"]);
    let output = agent.command(&["run", "--insecure"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("hint: `lvs-agent init --fleet NAME`"), "{text}");

    let output = agent.command(&["init", "--fleet", "web"]).output().await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("error: agent.toml has no [tls]"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

/// How long anything may take that these tests wait for. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Holds on any kernel: with IPVS that node's own answer comes, without it that node's own refusal.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_one_nodes_ipvs_is_answered_by_that_node() {
    let fleet = Fleet::new("ipvs").await;
    let mut one = fleet.first("n1", &["director"]).await;
    let two = fleet.joined("n2", &["realserver"], &one).await;
    two.until("both are known", |status| status.nodes.len() == 2).await;
    let node = || "n1".to_owned();
    let ask = async || {
        let mut control = two.control();
        let service = Some(v1::IpvsService { mark: 99, ..v1::IpvsService::default() });
        [
            control
                .list_ipvs(v1::ListIpvsRequest { node: node() })
                .await
                .map(|answer| answer.into_inner().node),
            control
                .get_ipvs_config(v1::GetIpvsConfigRequest { node: node() })
                .await
                .map(|answer| answer.into_inner().node),
            control
                .zero_ipvs(v1::ZeroIpvsRequest { node: node(), service })
                .await
                .map(|answer| answer.into_inner().node),
            control
                .restore_ipvs(v1::RestoreIpvsRequest {
                    node: node(),
                    services: vec![],
                    dry_run: true,
                })
                .await
                .map(|answer| answer.into_inner().node),
            match control
                .list_ipvs_connections(v1::ListIpvsConnectionsRequest { node: node() })
                .await
            {
                Ok(pieces) => pieces.into_inner().message().await.map(|piece| piece.unwrap().node),
                Err(status) => Err(status),
            },
        ]
    };
    for (number, answer) in ask().await.into_iter().enumerate() {
        match answer {
            Ok(answered_by) => assert_eq!(answered_by, "n1", "call {number}"),
            // That of a service that is not there, where there is IPVS.
            Err(status) if status.code() == Code::NotFound => {
                assert_eq!(status.message(), "node `n1` has no IPVS service fwmark 99");
            }
            Err(status) => {
                assert_eq!(status.code(), Code::FailedPrecondition, "call {number}: {status}");
                assert!(
                    status.message().starts_with("node `n1` has no IPVS table: "),
                    "call {number}: {status}"
                );
                assert!(status.metadata().get_bin("lvsmesh-hint-bin").is_some(), "{status}");
            }
        }
    }

    let nowhere = v1::GetIpvsConfigRequest { node: "n9".into() };
    let refused = two.control().get_ipvs_config(nowhere).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    let mark = v1::IpvsService { mark: 99, port: 80, ..v1::IpvsService::default() };
    let wrong = v1::ZeroIpvsRequest { node: node(), service: Some(mark) };
    let refused = two.control().zero_ipvs(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");

    one.kill();
    for (number, answer) in ask().await.into_iter().enumerate() {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "call {number}: {status}");
        assert!(status.message().contains("node `n1` at "), "call {number}: {status}");
    }
}
