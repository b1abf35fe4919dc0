//! A majority that is lost, a disk that is damaged, a state that is saved.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use lvsmesh_proto::backup::{self, Backup};
use lvsmesh_proto::v1::SaveSnapshotRequest;
use tonic::{Code, Status};

use crate::agent::{Agent, Fleet};
use crate::members::{all_vote, is_out, term};
use crate::{apply, reason, revisions};

/// Runs a command to its end: whether it succeeded, and all that it said.
async fn say(agent: &Agent, arguments: &[&str]) -> (bool, String) {
    let output = agent.command(arguments).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_goes_on_alone_and_the_old_epoch_must_rejoin() {
    let fleet = Fleet::new("recover").await;
    let mut one = fleet.first("n1", &["director"]).await;
    let mut two = fleet.joined("n2", &["director"], &one).await;
    let mut three = fleet.joined("n3", &["realserver"], &one).await;
    one.until("three voters", |status| all_vote(status, 3)).await;
    one.control().apply(apply(1, None)).await.unwrap();
    two.until("revision 1 everywhere", |status| revisions(status) == [1, 1, 1]).await;

    let force = ["recover", "force-new-fleet", "--fleet", "web", "--survivor", "n2"];
    for arguments in [&["recover", "inspect"][..], &force[..]] {
        let (done, said) = say(&two, arguments).await;
        assert!(!done && said.contains("error: an agent runs on "), "{said}");
    }
    two.kill();
    let (done, said) = say(&two, &force).await;
    assert!(!done && said.contains("voters of this fleet still answer: n1 ("), "{said}");
    one.kill();
    three.kill();
    let (done, said) = say(&two, &["recover", "inspect"]).await;
    assert!(done && said.contains("with the unconfirmed entries 1"), "{said}");
    let (done, said) =
        say(&two, &["recover", "force-new-fleet", "--fleet", "mail", "--survivor", "n2"]).await;
    assert!(!done && said.contains("--fleet mail: this is web"), "{said}");
    let (done, said) = say(&two, &force).await;
    assert!(done && said.contains("this node is the fleet now"), "{said}");

    two.run().await;
    let status = two.until("n2 alone", |status| all_vote(status, 1)).await;
    assert_eq!((status.leader.as_str(), status.revision), ("n2", 1));
    assert_eq!(two.control().apply(apply(2, Some(1))).await.unwrap().into_inner().revision, 2);

    // The old majority comes back, disks and all. It elects a leader among itself, and hears from the survivor that it is over.
    let before = term(&two).await;
    one.run().await;
    three.run().await;
    let why = "was started anew from a survivor: it is in epoch 1, node ";
    is_out(&one, "n1", "superseded", why).await;
    is_out(&three, "n3", "superseded", why).await;
    assert_eq!(two.control().apply(apply(3, Some(2))).await.unwrap().into_inner().revision, 3);
    assert_eq!(term(&two).await, before, "nobody campaigned against the survivor");

    // Wiped, they join like anybody.
    for agent in [&mut one, &mut three] {
        agent.kill();
        agent.empty_disk();
        agent.join(&two).await;
        agent.run().await;
    }
    let status = two.until("three voters", |status| all_vote(status, 3)).await;
    let ids = status.nodes.iter().map(|node| node.id).collect::<BTreeSet<_>>();
    assert_eq!(ids, BTreeSet::from([2, 4, 5]), "no id is used again");
    one.until("revision 3 everywhere", |status| revisions(status) == [3, 3, 3]).await;
    assert_eq!(one.control().apply(apply(4, Some(3))).await.unwrap().into_inner().revision, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_refused_and_names_the_way_back() {
    let fleet = Fleet::new("damaged").await;
    let one = fleet.first("n1", &["director"]).await;
    let mut two = fleet.joined("n2", &["director"], &one).await;
    one.until("two voters", |status| all_vote(status, 2)).await;
    two.stop().await;
    two.damage_log();
    let (done, said) = say(&two, &["run", "--insecure"]).await;
    assert!(!done && said.contains("raft.redb is damaged"), "{said}");
    assert!(said.contains("hint: ") && said.contains("lvs-agent join ADDRESS"), "{said}");
    let (done, said) = say(&two, &["recover", "inspect"]).await;
    assert!(!done && said.contains("raft.redb is damaged"), "{said}");
}

async fn saved(agent: &Agent, stale: bool) -> Result<Backup, Status> {
    let mut pieces =
        agent.control().save_snapshot(SaveSnapshotRequest { stale }).await?.into_inner();
    let mut file = Vec::new();
    while let Some(piece) = pieces.next().await {
        file.extend(piece?.piece);
    }
    Ok(backup::decode(&file).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_gives_the_newest_snapshot_and_without_a_majority_only_its_own() {
    let fleet = Fleet::new("backup").await;
    let mut one = fleet.first("n1", &["director"]).await;
    let mut two = fleet.joined("n2", &["director"], &one).await;
    let three = fleet.joined("n3", &["realserver"], &one).await;
    one.until("three voters", |status| all_vote(status, 3)).await;
    for (mark, agent) in (1..).zip([&one, &two, &three]) {
        let revision =
            agent.control().apply(apply(mark, None)).await.unwrap().into_inner().revision;
        // Whoever is asked next must know of it.
        for asked in [&three, &one, &two] {
            let backup = saved(asked, false).await.unwrap();
            assert_eq!(backup.state.revision(), revision);
            assert!(!backup.header.stale);
        }
    }
    let backup = saved(&three, false).await.unwrap();
    assert_eq!((backup.header.fleet.as_str(), backup.header.epoch), ("web", 0));
    assert_eq!(backup.header.voters, [1, 2, 3]);
    assert_eq!(backup.state.members().len(), 3);
    assert_eq!(backup.state.history().len(), 3, "revisions are in it");

    one.kill();
    two.kill();
    let refused = saved(&three, false).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::Unavailable, Some("no-quorum")),
        "{refused}"
    );
    let backup = saved(&three, true).await.unwrap();
    assert_eq!((backup.state.revision(), backup.header.stale), (3, true));
    assert_eq!(backup.header.taken_by, "n3");
}
