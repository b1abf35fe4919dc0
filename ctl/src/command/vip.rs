//! `lvsctl vip`: who answers for the VIPs; and one change of the desired state, made against the revision that was read.

use lvsmesh_core::model::{Coexist, Document, NoQuorum};
use lvsmesh_proto::v1;

use super::apply::author;
use super::get;
use crate::args::Vip;
use crate::client::{Client, Repeat};
use crate::failure::{Exit, Failure};
use crate::output::{Done, Format, present};
use crate::render;
use crate::tree::{map, number, texts};

pub(super) async fn run(client: &Client, format: Format, vip: Vip) -> Result<Done, Failure> {
    let (group, coexist, priority, word) = match vip {
        Vip::Status { group } => return status(client, format, group.as_deref()).await,
        Vip::Take { group, priority } => (group, Coexist::Contest, Some(priority), "take"),
        Vip::Yield { group, priority } => (group, Coexist::Yield, priority, "yield"),
    };
    let (revision, mut document) = get::document(client, 0).await?;
    let priority = priority.unwrap_or_else(|| lowest(&document));
    change(&mut document, &group, coexist, priority)?;
    let request = v1::ApplyRequest {
        document: Some(v1::Document::from(&document)),
        // What somebody else has changed in between is not undone.
        expected_revision: Some(revision),
        message: format!("lvsctl vip {word} {group}"),
        unverified_author: author(),
        dry_run: false,
    };
    let answer = client
        .call(Repeat::IfUndone, request, async |control, request| control.apply(request).await)
        .await?;
    let tree = map([
        ("revision", number(answer.revision)),
        ("unchanged", lvsmesh_core::document::Value::Bool(answer.unchanged)),
        ("changes", texts(&answer.changes)),
    ]);
    present(format, &tree, || table(&answer, &group, coexist)).map(Done::printed)
}

async fn status(client: &Client, format: Format, group: Option<&str>) -> Result<Done, Failure> {
    let (_, document) = get::document(client, 0).await?;
    let request = v1::StatusRequest {};
    let answer = client
        .call(Repeat::Freely, request, async |control, request| control.status(request).await)
        .await?;
    if let Some(group) = group {
        known(&document, group)?;
    }
    let groups = render::vip::groups(&document, &answer, group);
    let tree = render::vip::tree(&document, &answer, &groups);
    let text = present(format, &tree, || render::vip::table(&document, &answer, &groups))?;
    let done = Done::printed(text);
    if answer.quorum {
        return Ok(done);
    }
    let failure = Failure::new(Exit::NoQuorum, "no quorum: no majority of voters can be reached");
    Ok(Done { complaint: failure.render(), exit: Exit::NoQuorum, ..done })
}

/// That the document has that group.
fn known(document: &Document, group: &str) -> Result<(), Failure> {
    let names: Vec<&str> = document.vips.iter().map(|vip| vip.name.as_str()).collect();
    if names.contains(&group) {
        return Ok(());
    }
    let hint = match names.as_slice() {
        [] => "the desired state has none".to_owned(),
        names => format!("there are {}", names.join(", ")),
    };
    Err(Failure::new(Exit::NotFound, format!("no VIP group is named {group:?}")).hint(hint))
}

/// The lowest priority that a group may have: a holder without a lease stays below it.
fn lowest(document: &Document) -> u8 {
    if document.fleet.no_quorum == NoQuorum::Strict { 1 } else { 2 }
}

fn change(
    document: &mut Document,
    group: &str,
    coexist: Coexist,
    priority: u8,
) -> Result<(), Failure> {
    known(document, group)?;
    for vip in document.vips.iter_mut().filter(|vip| vip.name == group) {
        vip.vrrp.coexist = coexist;
        vip.vrrp.priority = priority;
    }
    Ok(())
}

fn table(answer: &v1::ApplyResponse, group: &str, coexist: Coexist) -> String {
    let v1::ApplyResponse { revision, unchanged, changes, .. } = answer;
    let mut text = if *unchanged {
        format!("revision {revision} says so already\n")
    } else {
        format!("revision {revision}\n")
    };
    for change in changes {
        text += &format!("  {change}\n");
    }
    text += &match coexist {
        Coexist::Contest => format!(
            "`{group}` is taken as soon as a lower foreign master has given up; `lvsctl status` shows one that does not\n"
        ),
        Coexist::Yield => {
            format!("`{group}` is left to the next foreign master that is heard\n")
        }
    };
    text
}

#[cfg(test)]
mod tests {
    use lvsmesh_core::document::decode;

    use super::*;

    fn document() -> Document {
        let vip = map([
            ("name", "web".into()),
            ("addresses", texts(&["192.0.2.100".to_owned()])),
            ("interface", "eth0".into()),
            ("vrrp", map([("vrid", number(51))])),
        ]);
        let fleet = map([("name", "blue".into())]);
        let vips = lvsmesh_core::document::Value::List(vec![vip]);
        decode(&map([("fleet", fleet), ("vips", vips)])).unwrap()
    }

    #[test]
    fn a_group_is_taken_and_given_back_and_nothing_else_changes() {
        let before = document();
        let mut taken = before.clone();
        change(&mut taken, "web", Coexist::Contest, 254).unwrap();
        let vrrp = &taken.vips[0].vrrp;
        assert_eq!((vrrp.coexist, vrrp.priority), (Coexist::Contest, 254));
        change(&mut taken, "web", Coexist::Yield, 200).unwrap();
        assert_eq!(taken, before);
    }

    #[test]
    fn what_is_given_back_has_the_lowest_priority_that_the_fleet_allows() {
        for policy in NoQuorum::ALL {
            let mut given = document();
            given.fleet.no_quorum = policy;
            let priority = lowest(&given);
            change(&mut given, "web", Coexist::Yield, priority).unwrap();
            let faults =
                |document: &Document| decode(&lvsmesh_core::document::encode(document)).err();
            assert_eq!(faults(&given), None, "{policy:?}");
            given.vips[0].vrrp.priority -= 1;
            assert!(faults(&given).is_some(), "{policy:?}");
        }
    }

    #[test]
    fn a_group_that_is_not_there_is_not_found() {
        let failure = change(&mut document(), "wbe", Coexist::Contest, 254).unwrap_err();
        assert_eq!(failure.exit, Exit::NotFound);
        assert_eq!(failure.message, "no VIP group is named \"wbe\"");
        assert_eq!(failure.hint.as_deref(), Some("there are web"));
    }

    #[test]
    fn the_answer_says_what_happens_next() {
        let answer = v1::ApplyResponse {
            revision: 7,
            changes: vec!["vips/web: vrrp.coexist yield -> contest".into()],
            ..Default::default()
        };
        let text = table(&answer, "web", Coexist::Contest);
        assert!(
            text.starts_with("revision 7\n  vips/web: vrrp.coexist yield -> contest\n`web` is")
        );
        let again = v1::ApplyResponse { unchanged: true, changes: vec![], ..answer };
        let text = table(&again, "web", Coexist::Yield);
        assert!(text.starts_with("revision 7 says so already\n`web` is left"), "{text}");
    }
}
