//! How a leader comes to hold, and how it lets go.

use super::*;

#[test]
fn a_lease_runs_from_the_sending_of_the_hold_that_a_majority_acknowledged() {
    // Acknowledgements of five voters: from, echo; the lease's end after each.
    let mut node = Node::director(5);
    node.at(1000, raft(5, Some(ME), true));
    node.at(1025, Input::Timer);
    node.at(1050, Input::Timer);
    let table: [(u64, u64, Option<u64>); 7] = [
        (2, 1000, None),
        (2, 1025, None),
        (3, 1000, Some(1170)),
        (3, 1050, Some(1195)),
        (2, 1000, Some(1195)),
        (4, 1050, Some(1220)),
        (9, 1050, Some(1220)),
    ];
    for (voter, echo, end) in table {
        node.at(1060, from(NodeId(voter), ack(5, 1, echo)));
        assert_eq!(node.lease.lease_until(), end.map(ms), "{voter} {echo}");
    }
}

#[test]
fn acknowledgements_of_other_terms_or_of_the_future_count_for_nothing() {
    for message in [ack(4, 1, 1000), ack(6, 1, 1000), ack(5, 1, 1002)] {
        let mut node = Node::leader();
        assert_eq!(node.at(1001, from(X, message)), vec![], "{message:?}");
        assert_eq!(node.lease.lease_until(), None, "{message:?}");
    }
}

#[test]
fn the_table_stands_before_the_vip_is_claimed_and_the_lease_is_looked_at_again() {
    let mut node = Node::leader();
    node.at(1001, from(X, ack(5, 1, 1000)));
    assert_eq!(node.lease.status(ms(1001)).phase, Some(Phase::Preparing { ready: false }));
    assert_eq!(node.at(1002, Input::TableReady { epoch: 4 }), vec![], "another tenure's table");
    // 42 ms are the least to claim under.
    assert_eq!(node.at(1129, Input::TableReady { epoch: 5 }).len(), 2, "a beat, no claim");
    assert!(!node.lease.may_emit(ms(1129)));
    let renewed = node.at(1131, from(Y, ack(5, 2, 1129)));
    assert_eq!(renewed, vec![Effect::Claim { epoch: 5, until: ms(1299) }]);
    assert!(node.lease.may_emit(ms(1298)));
    assert!(!node.lease.may_emit(ms(1299)));
}

#[test]
fn a_leader_that_has_committed_nothing_in_its_term_prepares_nothing() {
    let mut node = Node::director(3);
    node.at(1000, raft(5, Some(ME), false));
    assert_eq!(node.at(1001, from(X, ack(5, 1, 1000))), vec![]);
    assert_eq!(node.lease.lease_until(), Some(ms(1170)));
    assert_eq!(node.at(1002, raft(5, Some(ME), true)), vec![Effect::Prepare { epoch: 5 }]);
}

#[test]
fn renewals_extend_and_a_holder_asks_every_beat() {
    let mut node = Node::holder();
    assert_eq!(node.lease.deadline(), ms(1025));
    let asked = node.at(1025, Input::Timer);
    assert_eq!(asked, vec![send(X, hold(5, 2, 1025)), send(Y, hold(5, 2, 1025))]);
    let extended = node.at(1026, from(Y, ack(5, 2, 1025)));
    assert_eq!(extended, vec![Effect::Extend { until: ms(1195) }]);
    assert_eq!(node.at(1027, from(X, ack(5, 2, 1025))), vec![], "nothing newer");
}

#[test]
fn after_a_loss_nothing_is_asked_held_or_campaigned_for_in_a_hurry() {
    let mut node = Node::holder();
    let effects = node.at(1160, Input::Timer);
    assert_eq!(effects.first(), Some(&Effect::Release { epoch: 5, why: Loss::Expired }));
    assert!(!node.lease.may_emit(ms(1160)));
    // Raft has not stepped down yet: the term is spent all the same.
    let mut now = 1160;
    let mut campaigned_at = None;
    for _ in 0..20 {
        let next = node.lease.deadline();
        if next == Mono(u64::MAX) {
            node.at(now, raft(5, None, false));
            continue;
        }
        now = next.0.div_ceil(1_000_000);
        let effects = node.at(now, Input::Timer);
        assert!(!effects.iter().any(is_hold), "{effects:?}");
        if effects.contains(&Effect::Campaign) {
            campaigned_at = Some(now);
            break;
        }
    }
    assert_eq!(campaigned_at, Some(1160 + 2 * 200 + 2));
}

fn is_hold(effect: &Effect) -> bool {
    matches!(effect, Effect::Send { message: Message::Hold { .. }, .. })
}

#[test]
fn a_leader_that_nobody_promises_anything_stops_asking() {
    let mut node = Node::leader();
    for _ in 0..100 {
        let now = node.lease.deadline();
        let effects = node.at(now.0 / 1_000_000, Input::Timer);
        if effects.contains(&Effect::StepDown { term: 5 }) {
            assert_eq!(now, ms(1400));
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::Release { .. })));
            return;
        }
    }
    panic!("it asks for ever");
}

#[test]
fn a_leader_whose_table_never_stands_lets_others_try() {
    let mut node = Node::leader();
    let mut now = 1000;
    let mut released = None;
    while released.is_none() && now < 5000 {
        now += 25;
        let effects = node.at(now, Input::Timer);
        let release = |effect: &Effect| matches!(effect, Effect::Release { .. });
        released = effects.iter().any(release).then_some(now);
        node.at(now, from(X, ack(5, 1, now)));
    }
    assert_eq!(released, Some(1025 + 2000));
}

#[test]
fn a_holder_that_is_deposed_lets_go_and_frees_its_voters() {
    let farewell = [send(X, relinquish(5, 1, None)), send(Y, relinquish(5, 1, None))];
    let lost = |why| Effect::Release { epoch: 5, why };
    let table: [(&str, Input, Loss); 5] = [
        ("a follower", raft(5, None, false), Loss::Deposed),
        ("a new term", raft(6, Some(X), false), Loss::Deposed),
        ("a NACK", from(X, nack(5, 6)), Loss::Deposed),
        ("a HOLD of a higher term", from(X, hold(6, 1, 0)), Loss::Deposed),
        ("a suspended machine", Input::Suspended, Loss::Suspended),
    ];
    for (case, input, why) in table {
        let mut node = Node::holder();
        let effects = node.at(1002, input);
        assert_eq!(effects[0], lost(why), "{case}");
        assert_eq!(effects[1..3], farewell, "{case}");
        assert_eq!(effects[3], Effect::StepDown { term: 5 }, "{case}");
        assert!(!node.lease.may_emit(ms(1002)), "{case}");
    }
    let mut node = Node::holder();
    assert_eq!(node.at(1002, from(X, nack(5, 5))), vec![], "no higher term");
}

#[test]
fn a_planned_release_stops_then_frees_the_voters_then_hands_over() {
    let mut node = Node::holder();
    let effects = node.at(1002, Input::Abdicate { successor: Some(Y) });
    let expected = vec![
        Effect::Release { epoch: 5, why: Loss::Abdicated },
        send(X, relinquish(5, 1, Some(Y))),
        send(Y, relinquish(5, 1, Some(Y))),
        Effect::HandOver { term: 5, to: Y },
    ];
    assert_eq!(effects, expected);
    for repeat in 1..10 {
        let effects = node.at(1002 + 2 * repeat, Input::Timer);
        assert_eq!(effects, expected[1..3], "repeat {repeat}");
    }
    assert_eq!(node.at(1100, Input::Timer), vec![], "ten in all");
    assert_eq!(node.at(1101, raft(5, Some(ME), true)), vec![], "never again in that term");
    assert_eq!(node.at(1102, from(X, ack(5, 1, 1000))), vec![]);
    let again = node.at(1103, raft(6, Some(ME), true));
    assert!(again.iter().all(is_hold) && !again.is_empty(), "the next term is another matter");
}

#[test]
fn a_leader_without_a_lease_hands_over_all_the_same_and_nobody_hands_over_to_itself() {
    let mut node = Node::blank();
    node.at(0, voters_of(1..=3));
    node.at(1000, raft(5, Some(ME), true));
    let effects = node.at(1001, Input::Abdicate { successor: Some(X) });
    assert_eq!(effects, [Effect::HandOver { term: 5, to: X }]);
    let effects = node.at(1002, Input::Abdicate { successor: Some(ME) });
    assert_eq!(effects, [Effect::StepDown { term: 5 }]);
    let mut follower = Node::director(3);
    assert_eq!(follower.at(10, Input::Abdicate { successor: Some(X) }), []);
}

#[test]
fn a_leader_of_a_term_below_its_own_vote_steps_down_instead_of_leading_without_a_lease() {
    // A step into term 6 was let go, and Raft did not take it: what it made of it was the leadership of term 5.
    let mut node = Node::director(3);
    node.at(990, request(1, ME, 6, true));
    let effects = node.at(1000, raft(5, Some(ME), true));
    assert_eq!(effects, [Effect::StepDown { term: 5 }]);
    assert_eq!(node.at(1001, raft(5, Some(ME), true)), [], "said once");
    node.at(1002, raft(5, None, false));
    let effects = node.at(1003, raft(6, Some(ME), true));
    assert!(effects.iter().all(is_hold) && effects.len() == 2, "the next term is high enough");

    // While it asks already, and before it was told that it leads no more.
    let mut node = Node::holder();
    let effects = node.at(1010, request(1, ME, 6, true));
    assert_eq!(effects.first(), Some(&Effect::Release { epoch: 5, why: Loss::Deposed }));
    assert!(effects.contains(&Effect::StepDown { term: 5 }));
}

#[test]
fn a_relinquishment_frees_exactly_the_promises_it_covers() {
    // From, term, last_seq, against a promise to X, term 5, seq 7; whether it frees.
    let table = [
        (X, 5, 7, true),
        (X, 5, 8, true),
        (X, 5, 6, false),
        (X, 4, 9, false),
        (X, 6, 9, false),
        (Y, 5, 9, false),
    ];
    for (sender, term, last_seq, frees) in table {
        let mut node = Node::director(3);
        node.at(10, from(X, hold(5, 7, 0)));
        node.at(15, request(1, Y, 6, false));
        let effects = node.at(20, from(sender, relinquish(term, last_seq, None)));
        let case = format!("{sender:?} {term} {last_seq}");
        assert_eq!(effects.contains(&Effect::Pass(1)), frees, "{case}");
        let until = if frees { 20 } else { 210 };
        assert_eq!(node.lease.promise().unwrap().until, ms(until), "{case}");
    }
}

#[test]
fn a_hold_that_a_relinquishment_overtook_is_not_promised() {
    let mut node = Node::director(3);
    node.at(10, from(X, hold(5, 7, 0)));
    node.at(20, from(X, relinquish(5, 8, None)));
    assert_eq!(node.at(20, from(X, hold(5, 8, 19))), vec![]);
    assert!(answered_yes(&node.at(20, from(X, hold(5, 9, 20)))));
}

#[test]
fn a_late_relinquishment_does_not_bring_an_ended_promise_back() {
    let mut node = Node::director(3);
    node.at(10, from(X, hold(5, 7, 0)));
    node.at(300, from(X, relinquish(5, 7, None)));
    assert_eq!(node.lease.promise().unwrap().until, ms(210));
}

#[test]
fn a_change_of_voters_keeps_a_running_lease_for_as_long_as_the_old_majority_gave() {
    let mut node = Node::director(1);
    node.at(1000, raft(5, Some(ME), true));
    node.at(1000, Input::TableReady { epoch: 5 });
    assert!(node.lease.may_emit(ms(1000)));
    let asked = node.at(1100, voters_of([1, 2]));
    assert!(asked.contains(&send(X, hold(5, 2, 1100))), "the new voter is asked at once");
    assert_eq!(node.lease.lease_until(), Some(ms(1270)));
    assert!(!node.lease.status(ms(1100)).confirmed);
    node.at(1105, from(X, ack(5, 2, 1100)));
    assert!(node.lease.status(ms(1105)).confirmed);
    node.at(1125, Input::Timer);
    node.at(1126, from(X, ack(5, 3, 1125)));
    assert_eq!(node.lease.lease_until(), Some(ms(1295)));
}

#[test]
fn two_changes_without_a_renewal_between_end_the_lease() {
    let mut node = Node::director(1);
    node.at(1000, raft(5, Some(ME), true));
    node.at(1000, Input::TableReady { epoch: 5 });
    node.at(1001, voters_of([1, 2]));
    let effects = node.at(1002, voters_of([1, 2, 3]));
    assert_eq!(effects.first(), Some(&Effect::Release { epoch: 5, why: Loss::Expired }));
}

#[test]
fn a_removed_voters_promise_counts_no_more_and_a_removed_holder_lets_go() {
    let mut node = Node::director(5);
    node.at(1000, raft(5, Some(ME), true));
    for voter in [2, 3] {
        node.at(1001, from(NodeId(voter), ack(5, 1, 1000)));
    }
    node.at(1050, voters_of([1, 2, 4, 5]));
    assert_eq!(node.lease.lease_until(), Some(ms(1170)), "what the old majority gave");
    let effects = node.at(1051, voters_of([2, 4, 5]));
    assert_eq!(effects.first(), Some(&Effect::Release { epoch: 5, why: Loss::Ineligible }));
    assert_eq!(node.lease.lease_until(), None);
}

#[test]
fn a_leader_that_may_not_hold_asks_for_nothing_and_stays_leader() {
    let mut node = Node::blank();
    node.at(0, voters_of(1..=3));
    assert_eq!(node.at(1000, raft(5, Some(ME), true)), vec![]);
    assert_eq!(node.lease.deadline(), Mono(u64::MAX));
    let eligible = Input::Standing(Standing { eligible: true, rank: 0, witness: false });
    let effects = node.at(2000, eligible);
    assert!(effects.iter().all(is_hold) && effects.len() == 2, "it becomes able to: it asks");
}

#[test]
fn a_holder_that_may_not_hold_any_more_lets_go() {
    let mut node = Node::holder();
    let effects = node.at(1002, Input::Standing(Standing::default()));
    assert_eq!(effects[0], Effect::Release { epoch: 5, why: Loss::Ineligible });
    assert_eq!(effects[1], send(X, relinquish(5, 1, None)));
    assert_eq!(effects[3], Effect::StepDown { term: 5 });
}

#[test]
fn whoever_has_nothing_to_take_away_waits_for_a_late_renewal_to_the_end() {
    let mut node = Node::holder();
    node.at(1001, Input::ReleaseMargin(Duration::ZERO));
    // 10 ms before the end of a lease of 170 it would let go otherwise.
    let released = |effect: &Effect| matches!(effect, Effect::Release { .. });
    assert!(!node.at(1169, Input::Timer).iter().any(released));
    assert!(node.lease.may_emit(ms(1169)));
    let extended = node.at(1169, from(X, ack(5, 2, 1025)));
    assert_eq!(extended.first(), Some(&Effect::Extend { until: ms(1195) }));
    let lost = Effect::Release { epoch: 5, why: Loss::Expired };
    assert_eq!(node.at(1195, Input::Timer).first(), Some(&lost));
    assert!(!node.lease.may_emit(ms(1195)));
}
