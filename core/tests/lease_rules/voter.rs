//! What a voter promises, and how its gate keeps that.

use super::*;

#[test]
fn a_hold_is_promised_unless_a_higher_term_is_known() {
    // Raft's term; a vote given in; a promise made to X in; HOLD of term by X; the answer: a promise, or the term that stands against it.
    let table: [(u64, u64, u64, u64, Option<u64>); 9] = [
        (4, 0, 0, 4, None),
        (4, 0, 0, 5, None),
        (4, 0, 0, 3, Some(4)),
        (6, 0, 0, 5, Some(6)),
        (4, 6, 0, 5, Some(6)),
        (4, 6, 0, 6, None),
        (4, 0, 6, 5, Some(6)),
        (4, 0, 6, 6, None),
        (4, 0, 6, 7, None),
    ];
    for (raft_term, voted, promised, asked, refused) in table {
        let mut node = Node::director(3);
        node.at(0, raft(raft_term, None, false));
        if voted > 0 {
            assert_eq!(node.at(1, request(1, X, voted, true)), vec![Effect::Pass(1)]);
        }
        if promised > 0 {
            assert!(answered_yes(&node.at(1, from(X, hold(promised, 1, 0)))));
        }
        let case = format!("raft {raft_term} voted {voted} promised {promised} HOLD {asked}");
        let before = node.lease.promise();
        let effects = node.at(10, from(X, hold(asked, 2, 7)));
        if let Some(term) = refused {
            assert_eq!(effects, vec![send(X, nack(asked, term))], "{case}");
            assert_eq!(node.lease.promise(), before, "{case}");
        } else {
            assert_eq!(effects, vec![send(X, ack_of(asked, 2, 7, true))], "{case}");
            assert_eq!(node.lease.promise().unwrap().until, ms(210), "{case}: from receipt");
        }
    }
}

fn ack_of(term: u64, seq: u64, echo: u64, eligible: bool) -> Message {
    let echo = ms(echo);
    Message::Ack { group: 0, epoch: term, term, seq, echo, applied: 0, eligible }
}

#[test]
fn the_leader_of_a_term_promises_nobody_that_term() {
    let mut node = Node::leader();
    assert_eq!(node.at(1001, from(X, hold(5, 9, 0))), vec![send(X, nack(5, 5))]);
    assert_eq!(node.lease.promise(), None);
}

#[test]
fn a_repeated_or_overtaken_hold_lengthens_no_promise() {
    let mut node = Node::director(3);
    assert!(answered_yes(&node.at(10, from(X, hold(5, 3, 0)))));
    for seq in [3, 2, 1] {
        assert_eq!(node.at(20, from(X, hold(5, seq, 0))), vec![], "seq {seq}");
    }
    assert_eq!(node.lease.promise().unwrap().until, ms(210));
    assert!(answered_yes(&node.at(30, from(X, hold(5, 4, 0)))));
    assert_eq!(node.lease.promise().unwrap().until, ms(230));
}

#[test]
fn nobody_gets_a_longer_promise_than_a_restart_keeps_silent_for() {
    let asking = |promise| {
        let mut node = Node::director(3);
        let (epoch, term, seq, stamp, hint) = (5, 5, 1, ms(0), None);
        node.at(10, from(X, Message::Hold { group: 0, epoch, term, seq, stamp, promise, hint }))
    };
    assert!(answered_yes(&asking(span(2000))));
    assert_eq!(asking(span(2001)), vec![send(X, nack(5, 4))]);
}

#[test]
fn other_groups_and_its_own_echo_are_not_heard() {
    let mut node = Node::director(3);
    let (epoch, term, seq, stamp, promise, hint) = (5, 5, 1, ms(0), span(200), None);
    let other = Message::Hold { group: 7, epoch, term, seq, stamp, promise, hint };
    assert_eq!(node.at(10, from(X, other)), vec![]);
    assert_eq!(node.at(10, from(ME, hold(5, 1, 0))), vec![]);
    assert_eq!(node.lease.promise(), None);
}

#[test]
fn a_promise_stops_everybody_elses_election_until_it_ends() {
    // Candidate; whether the step is free while the promise to X runs.
    for (candidate, free) in [(X, true), (Y, false), (ME, false)] {
        for binding in [false, true] {
            let mut node = Node::director(3);
            node.at(10, from(X, hold(5, 1, 0)));
            let case = format!("{candidate:?} binding {binding}");
            let effects = node.at(209, request(1, candidate, 6, binding));
            if free {
                assert_eq!(effects, vec![Effect::Pass(1)], "{case}");
                continue;
            }
            let hint = Some(send(candidate, busy(6, 1))).filter(|_| candidate != ME);
            assert_eq!(effects, Vec::from_iter(hint), "{case}");
            assert_eq!(node.lease.deadline(), ms(210), "{case}");
            assert_eq!(node.at(210, Input::Timer), vec![Effect::Pass(1)], "{case}");
        }
    }
}

#[test]
fn only_the_newest_request_of_a_candidate_waits_and_all_go_in_the_order_they_came() {
    let mut node = Node::director(3);
    node.at(10, from(X, hold(5, 1, 0)));
    node.at(20, request(1, Y, 6, false));
    node.at(30, request(2, ME, 6, true));
    let effects = node.at(40, request(3, Y, 7, false));
    assert_eq!(effects, vec![Effect::Drop(1), send(Y, busy(7, 170))]);
    assert_eq!(node.at(210, Input::Timer), vec![Effect::Pass(2), Effect::Pass(3)]);
}

#[test]
fn a_newer_hold_voids_what_waits() {
    let mut node = Node::director(3);
    node.at(10, from(X, hold(5, 1, 0)));
    node.at(20, request(1, Y, 6, false));
    let effects = node.at(30, from(X, hold(5, 2, 25)));
    assert_eq!(effects, vec![Effect::Drop(1), send(X, ack_of(5, 2, 25, true))]);
    assert!(!node.at(230, Input::Timer).contains(&Effect::Pass(1)));
}

#[test]
fn more_candidates_than_there_are_voters_are_turned_away() {
    let mut node = Node::director(3);
    node.at(10, from(X, hold(5, 1, 0)));
    for ticket in 0..9 {
        node.at(20, request(ticket, NodeId(10 + ticket), 6, true));
    }
    assert_eq!(node.at(20, request(9, NodeId(19), 6, true)), vec![Effect::Drop(9)]);
}

#[test]
fn only_a_binding_step_is_a_vote() {
    for (binding, answer) in [(true, nack(5, 6)), (false, ack_of(5, 1, 9, true))] {
        let mut node = Node::director(3);
        assert_eq!(node.at(1, request(1, Y, 6, binding)), vec![Effect::Pass(1)]);
        assert_eq!(node.at(10, from(X, hold(5, 1, 9))), vec![send(X, answer)], "{binding}");
    }
}

#[test]
fn a_holder_has_promised_to_itself() {
    let mut node = Node::holder();
    assert_eq!(node.at(1010, request(1, X, 6, true)), vec![send(X, busy(6, 160))]);
    // The lease runs out: release, farewell, step down, and only then the vote.
    node.at(1025, Input::Timer);
    node.at(1050, Input::Timer);
    let effects = node.at(1160, Input::Timer);
    let expected = vec![
        Effect::Release { epoch: 5, why: Loss::Expired },
        send(X, relinquish(5, 3, None)),
        send(Y, relinquish(5, 3, None)),
        Effect::StepDown { term: 5 },
        Effect::Pass(1),
    ];
    assert_eq!(effects, expected);
}

#[test]
fn a_leader_that_votes_for_another_counts_no_promise_any_more() {
    let mut node = Node::leader();
    let effects = node.at(1001, request(1, X, 6, true));
    assert_eq!(effects.last(), Some(&Effect::Pass(1)));
    assert!(effects.contains(&Effect::StepDown { term: 5 }));
    assert_eq!(node.at(1002, from(Y, ack(5, 1, 1000))), vec![]);
    assert_eq!(node.lease.lease_until(), None);
}

#[test]
fn a_restarted_voter_promises_but_neither_votes_nor_campaigns_while_silent() {
    let config = LeaseConfig::new(ME, Profile::Default.timing(), 4);
    let mut node = Node { lease: Lease::new(config, ms(2000)) };
    node.at(0, voters_of(1..=3));
    node.at(0, Input::Standing(Standing { eligible: true, rank: 0, witness: false }));
    assert_eq!(node.at(100, request(1, X, 6, true)), vec![send(X, busy(6, 1900))]);
    assert_eq!(node.at(1999, Input::Timer), vec![]);
    assert!(node.at(2000, Input::Timer).contains(&Effect::Pass(1)));

    let mut node = Node { lease: Lease::new(config, ms(2000)) };
    assert!(answered_yes(&node.at(100, from(X, hold(4, 1, 0)))), "even before it knows the voters");
    assert_eq!(node.at(100, from(X, hold(3, 2, 0))), vec![send(X, nack(3, 4))], "durable term");
}

#[test]
fn a_next_run_is_bound_by_promises_to_others_to_oneself_and_of_earlier_runs() {
    let mut voter = Node::director(3);
    assert_eq!(voter.lease.bound_until(), Mono(0));
    voter.at(10, from(X, hold(5, 1, 0)));
    assert_eq!(voter.lease.bound_until(), ms(210));
    voter.at(20, from(X, relinquish(5, 1, None)));
    assert_eq!(voter.lease.bound_until(), ms(20));
    assert_eq!(Node::holder().lease.bound_until(), ms(1170), "the VIP may outlive the process");
    let config = LeaseConfig::new(ME, Profile::Default.timing(), 4);
    assert_eq!(Lease::new(config, ms(77)).bound_until(), ms(77));
}
