//! Nodes of different versions side by side: no word is committed, and no node admitted, that the other does not know.
//!
//! *In*: a document, or a machine that wants to join. *Out*: a refusal that names word, node and version. A node that meets such a word all the same
//! ends, because going on would make it disagree with the others.

use lvsmesh_core::document::level::{FIRST_LEVEL, Need, level, needs};
use lvsmesh_core::model::Document;
use lvsmesh_core::state::State;

use super::context::{Answers, Context};
use super::status::CallError;

/// Refuses a document with words that a member may not know. Asks the members only if the document needs more than the one in force, which
/// all of them have read.
pub(super) async fn all_know(context: &Context, document: &Document) -> Result<(), CallError> {
    let state = context.raft.state.borrow().state.clone();
    let in_force = level(state.document());
    let newer: Vec<Need> =
        needs(document).into_iter().filter(|need| need.level > in_force).collect();
    if newer.is_empty() {
        return Ok(());
    }
    let answers = context.answers().await;
    newer.iter().try_for_each(|need| known(&state, &answers, need))
}

fn known(state: &State, answers: &Answers, need: &Need) -> Result<(), CallError> {
    for member in state.members() {
        let reason = match answers.get(&member.id) {
            Some(Ok(said)) if said.level.max(FIRST_LEVEL) >= need.level => continue,
            Some(Ok(said)) => {
                let version = said.status.as_ref().map_or("unknown", |status| &status.version);
                outdated(version, said.level, need)
            }
            Some(Err(reason)) => format!("it does not say its version: {reason}"),
            None => "it was not asked for its version".to_owned(),
        };
        return Err(refused(need, &member.name, reason));
    }
    Ok(())
}

/// Refuses a machine whose version cannot read a document that the fleet has, the older ones that it remembers included: a new node is sent all of
/// them.
pub(super) fn knows_all(state: &State, name: &str, level: u32) -> Result<(), CallError> {
    let level = level.max(FIRST_LEVEL);
    let documents = state.history().map(|revision| &revision.document);
    let need = documents.flat_map(|document| needs(document)).find(|need| need.level > level);
    match need {
        Some(need) => Err(refused(&need, name, outdated("that joins", level, &need))),
        None => Ok(()),
    }
}

fn outdated(version: &str, level: u32, need: &Need) -> String {
    let level = level.max(FIRST_LEVEL);
    format!("version {version} has feature level {level}, and {} is needed", need.level)
}

fn refused(need: &Need, node: &str, reason: String) -> CallError {
    let Need { path, word, .. } = need.clone();
    CallError::TooNew { path, word, node: node.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use lvsmesh_core::document::level::LEVEL;
    use lvsmesh_core::model::Failback;
    use lvsmesh_proto::internal::v1::SelfResponse;

    use super::*;
    use crate::fixtures::{LVS_1, LVS_2, TestFleet, WEB_1, document};

    fn need() -> Need {
        Need { path: "fleet.failback".into(), word: "immediate".into(), level: 2 }
    }

    #[test]
    fn one_old_or_silent_member_is_enough_to_refuse_a_new_word() {
        let fleet = TestFleet::new();
        let said = |level| Ok(SelfResponse { level, ..SelfResponse::default() });
        #[rustfmt::skip]
        let cases = [
            ("all know it",     said(2),                        None),
            ("an old one",      said(0),                        Some("feature level 1, and 2 is needed")),
            ("a silent one",    Err("no answer".to_owned()),    Some("it does not say its version: no answer")),
        ];
        for (why, third, expected) in cases {
            let answers = Answers::from([(LVS_1, said(LEVEL)), (LVS_2, said(2)), (WEB_1, third)]);
            let refusal = known(&fleet.state, &answers, &need()).err();
            let Some(expected) = expected else {
                assert!(refusal.is_none(), "{why}");
                continue;
            };
            let Some(CallError::TooNew { path, word, node, reason }) = refusal else {
                panic!("{why}: {refusal:?}")
            };
            assert_eq!(
                (path.as_str(), word.as_str(), node.as_str()),
                ("fleet.failback", "immediate", "web-1")
            );
            assert!(reason.contains(expected), "{why}: {reason}");
        }
    }

    #[test]
    fn an_old_machine_is_not_admitted_while_a_kept_revision_has_a_new_word() {
        let mut fleet = TestFleet::new();
        assert!(knows_all(&fleet.state, "web-2", 0).is_ok());
        let mut newer = document();
        newer.fleet.failback = Failback::Immediate;
        fleet.apply(newer);
        fleet.apply(document());
        assert!(knows_all(&fleet.state, "web-2", LEVEL).is_ok());
        let refusal = knows_all(&fleet.state, "web-2", 0).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "fleet.failback: `immediate` cannot be used while node `web-2` may not know it: version that joins has feature level 1, and 2 is needed"
        );
    }
}
