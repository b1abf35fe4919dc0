//! Who is a node of the fleet, and who is not any more.

use lvsmesh_proto::v1::{GetRequest, RemoveNodeRequest, StatusResponse};
use tonic::Code;

use crate::agent::{Agent, Fleet};
use crate::{apply, reason, revisions};

fn raft<'a>(status: &'a StatusResponse, name: &str) -> Option<&'a str> {
    status.nodes.iter().find(|node| node.name == name).map(|node| node.raft.as_str())
}

pub(crate) fn all_vote(status: &StatusResponse, count: usize) -> bool {
    status.quorum
        && status.nodes.len() == count
        && status.nodes.iter().all(|node| node.reachable && node.raft != "learner")
}

/// The term that the metrics page shows.
pub(crate) async fn term(agent: &Agent) -> String {
    let page = agent.metrics().await;
    let line = page.lines().find(|line| line.starts_with("lvsmesh_raft_term "));
    line.unwrap_or_else(|| panic!("no term in:\n{page}")).to_owned()
}

/// Waits until that agent says of itself that it is out, and checks what it still does.
pub(crate) async fn is_out(agent: &Agent, name: &str, word: &str, why: &str) {
    let status = agent.until("it says that it is out", |status| raft(status, name) == Some(word));
    let status = status.await;
    let first = &status.warnings[0];
    assert!(first.starts_with(&format!("{name} is no node of the fleet ({word}): ")), "{first}");
    assert!(first.contains(why) && first.contains("lvs-agent leave"), "{first}");
    let refused = agent.control().apply(apply(99, None)).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::FailedPrecondition, Some("no-member")),
        "{refused}"
    );
    let page = agent.metrics().await;
    assert!(page.lines().any(|line| line == "lvsmesh_member 0.0"), "{page}");
    let refused = agent.control().get(GetRequest { revision: 0 }).await.unwrap_err();
    assert_eq!(reason(&refused), Some("no-member"), "{refused}");
    assert!(agent.log().contains("this machine is no node of the fleet"), "{}", agent.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_told_and_stays_out() {
    let fleet = Fleet::new("removed").await;
    let one = fleet.first("n1", &["director"]).await;
    let mut two = fleet.joined("n2", &["director"], &one).await;
    let mut three = fleet.joined("n3", &["realserver"], &one).await;
    one.until("three voters", |status| all_vote(status, 3)).await;
    one.control().apply(apply(1, None)).await.unwrap();
    three.until("revision 1 everywhere", |status| revisions(status) == [1, 1, 1]).await;

    // While it is down: nobody can tell it, so it must ask.
    three.kill();
    one.control().remove_node(RemoveNodeRequest { name: "n3".into() }).await.unwrap();
    three.run().await;
    is_out(&three, "n3", "removed", "node 3 was removed from fleet `web`, says node `n").await;

    // While it runs.
    one.control().remove_node(RemoveNodeRequest { name: "n2".into() }).await.unwrap();
    is_out(&two, "n2", "removed", "node 2 was removed from fleet `web`").await;

    // Started again, both ask again and are told the same; the fleet hears nothing of them.
    let before = term(&one).await;
    two.kill();
    two.run().await;
    is_out(&two, "n2", "removed", "node 2 was removed from fleet `web`").await;
    one.control().apply(apply(2, None)).await.unwrap();
    let status = one.until("n1 alone", |status| revisions(status) == [2]).await;
    assert_eq!((status.leader.as_str(), status.warnings.as_slice()), ("n1", [].as_slice()));
    assert_eq!(term(&one).await, before, "nobody campaigned");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_nodes_disk_is_refused_by_name_and_the_original_goes_on() {
    let fleet = Fleet::new("copy").await;
    let one = fleet.first("n1", &["director"]).await;
    let mut two = fleet.joined("n2", &["director"], &one).await;
    let three = fleet.joined("n3", &["realserver"], &one).await;
    one.until("three voters", |status| all_vote(status, 3)).await;
    two.stop().await;
    let mut copy = fleet.copied("n2", &["director"], &two);
    two.run().await;
    one.until("n2 is back", |status| all_vote(status, 3)).await;
    let before = term(&one).await;

    copy.run().await;
    is_out(&copy, "n2", "copy", "node 2 runs at ").await;
    for agent in [&one, &two, &three] {
        let status = agent.until("all vote", |status| all_vote(status, 3)).await;
        assert_eq!(raft(&status, "n2"), Some("voter"), "{status:?}");
    }
    one.control().apply(apply(1, None)).await.unwrap();
    two.until("revision 1 everywhere", |status| revisions(status) == [1, 1, 1]).await;
    assert_eq!(term(&one).await, before, "nobody campaigned");
    // The fleet says that there is such a machine, and where it is not.
    one.until("a warning", |status| {
        let line = "a machine with a copy of the disk of node n2 is refused";
        status.warnings.iter().any(|warning| warning.contains(line))
    })
    .await;
}

/// Nobody else could object: the copy must find out before it elects itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_fleet_of_one_finds_the_original_before_it_elects_itself() {
    let fleet = Fleet::new("copy-of-one").await;
    let mut one = fleet.first("n1", &["director"]).await;
    one.until("a leader", |status| status.quorum).await;
    one.stop().await;
    let mut copy = fleet.copied("n1", &["director"], &one);
    one.run().await;
    one.until("a leader", |status| status.quorum).await;
    copy.run().await;
    is_out(&copy, "n1", "copy", "node 1 runs at ").await;
    assert!(!copy.log().contains("the lease is won"), "{}", copy.log());
    one.control().apply(apply(1, None)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_director_takes_over_the_witnesses_vote() {
    let fleet = Fleet::new("promote").await;
    let one = fleet.first("n1", &["director"]).await;
    let _two = fleet.joined("n2", &["director"], &one).await;
    let three = fleet.joined("n3", &["realserver"], &one).await;
    let status = three.until("three voters", |status| all_vote(status, 3)).await;
    assert_eq!(raft(&status, "n3"), Some("witness"));
    let _four = fleet.joined("n4", &["director"], &one).await;
    let status = one.until("n4 votes in place of n3", |status| {
        raft(status, "n4") == Some("voter") && raft(status, "n3") == Some("learner")
    });
    assert!(status.await.quorum);
    // A realserver beyond that only learns.
    let five = fleet.joined("n5", &["realserver"], &one).await;
    five.until("n5 has the state", |status| status.quorum && status.nodes.len() == 5).await;
    let status = one.until("all answer", |status| status.nodes.iter().all(|node| node.reachable));
    assert_eq!(raft(&status.await, "n5"), Some("learner"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_replaced_by_another() {
    let fleet = Fleet::new("replace").await;
    let one = fleet.first("n1", &["director"]).await;
    let mut two = fleet.joined("n2", &["director"], &one).await;
    let _three = fleet.joined("n3", &["realserver"], &one).await;
    one.until("three voters", |status| all_vote(status, 3)).await;
    one.control().apply(apply(1, None)).await.unwrap();
    two.kill();
    let four = fleet.joined("n4", &["director"], &one).await;
    one.control().remove_node(RemoveNodeRequest { name: "n2".into() }).await.unwrap();
    let status = four.until("n4 votes in place of n2", |status| all_vote(status, 3)).await;
    assert_eq!((raft(&status, "n2"), raft(&status, "n4")), (None, Some("voter")));
    four.control().apply(apply(2, Some(1))).await.unwrap();
    one.until("revision 2 everywhere", |status| revisions(status) == [2, 2, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_gets_another_address_joins_again_under_its_name() {
    let fleet = Fleet::new("moved").await;
    let one = fleet.first("n1", &["director"]).await;
    let mut two = fleet.joined("n2", &["director"], &one).await;
    let _three = fleet.joined("n3", &["realserver"], &one).await;
    let before = one.until("three voters", |status| all_vote(status, 3)).await;
    two.stop().await;
    // Another address with the old disk: nobody reaches it there, and it can do no harm.
    let term_before = term(&one).await;
    let mut hasty = fleet.copied("n2", &["director"], &two);
    hasty.run().await;
    hasty
        .until("it says what is wrong", |status| {
            let differs = |line: &String| {
                line.contains("addresses is ") && line.contains("but the node was admitted with")
            };
            status.warnings.iter().any(differs)
        })
        .await;
    one.control().apply(apply(1, None)).await.unwrap();
    assert_eq!(term(&one).await, term_before, "nobody campaigned");
    hasty.kill();
    // Another address and an empty data directory: the same name, the same certificate.
    let mut moved = fleet.machine("n2-moved", "n2", &["director"]);
    moved.join(&one).await;
    moved.run().await;
    let after = one
        .until("n2 votes again", |status| {
            all_vote(status, 3) && status.nodes.iter().any(|node| node.id == 4)
        })
        .await;
    let of = |status: &StatusResponse| {
        let node = status.nodes.iter().find(|node| node.name == "n2").unwrap();
        (node.id, node.addresses.clone())
    };
    let ((old, from), (new, to)) = (of(&before), of(&after));
    assert_eq!((old, new), (2, 4));
    assert_ne!(from, to);
    one.control().apply(apply(2, None)).await.unwrap();
    moved.until("revision 2 everywhere", |status| revisions(status) == [2, 2, 2]).await;
    // With its old disk and its old address it stays out.
    two.run().await;
    is_out(&two, "n2", "removed", "node 2 was removed from fleet `web`").await;
}
