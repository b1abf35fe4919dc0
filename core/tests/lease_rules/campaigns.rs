//! Who campaigns, and when.

use super::*;

/// Lets the clock run from deadline to deadline until the node campaigns.
fn campaign_after(node: &mut Node, limit: u64) -> Option<u64> {
    loop {
        let now = node.lease.deadline().0.div_ceil(1_000_000);
        if now > limit {
            return None;
        }
        if node.at(now, Input::Timer).contains(&Effect::Campaign) {
            return Some(now);
        }
    }
}

#[test]
fn promises_end_and_campaigns_begin_in_the_order_of_preference() {
    // Eligible, rank, hint of the holder; campaign at. The promise ends at 1200.
    let table = [
        (true, 0, None, 1202),
        (true, 1, None, 1212),
        (true, 2, None, 1222),
        (true, 1, Some(ME), 1202),
        (true, 0, Some(Y), 1212),
        (false, 2, None, 1282),
    ];
    for (eligible, rank, hint, expected) in table {
        let mut node = Node::blank();
        node.at(0, voters_of(1..=3));
        node.at(0, Input::Standing(Standing { eligible, rank, witness: !eligible }));
        node.at(900, raft(5, Some(X), false));
        let (epoch, term, seq, stamp, promise) = (5, 5, 1, ms(0), span(200));
        let hold = Message::Hold { group: 0, epoch, term, seq, stamp, promise, hint };
        node.at(1000, from(X, hold));
        let case = format!("eligible {eligible} rank {rank} hint {hint:?}");
        assert_eq!(campaign_after(&mut node, 5000), Some(expected), "{case}");
    }
}

#[test]
fn who_may_not_hold_campaigns_only_without_a_leader() {
    let mut node = Node::blank();
    node.at(0, voters_of(1..=3));
    node.at(0, Input::Standing(Standing { eligible: false, rank: 2, witness: true }));
    for heard in (100..2000).step_by(100) {
        let effects = node.at(heard, Input::LeaderHeard);
        assert!(!effects.contains(&Effect::Campaign), "{heard}");
    }
    assert_eq!(campaign_after(&mut node, 5000), Some(1900 + 200 + 2 + 20 + 60));

    let mut director = Node::director(3);
    let campaigned = (60..200).any(|now| director.at(now, Input::LeaderHeard) != vec![]);
    assert!(campaigned, "a quiet leader does not keep an eligible director waiting");
}

#[test]
fn a_relinquishment_shortens_the_wait_and_names_who_goes_first() {
    for (successor, expected) in [(None, 1013), (Some(ME), 1112), (Some(Y), 1132)] {
        let mut node = Node::blank();
        node.at(0, voters_of(1..=3));
        node.at(0, Input::Standing(Standing { eligible: true, rank: 1, witness: false }));
        node.at(1000, from(X, hold(5, 1, 0)));
        node.at(1010, from(X, relinquish(5, 1, successor)));
        // With nobody named: a fifth of 12 ms, that is 2.4 ms, seen in whole milliseconds.
        assert_eq!(campaign_after(&mut node, 5000), Some(expected), "{successor:?}");
    }
}

#[test]
fn a_campaign_that_leads_nowhere_is_repeated_and_a_given_vote_is_waited_for() {
    let mut node = Node::director(3);
    assert_eq!(campaign_after(&mut node, 5000), Some(52), "two beats to hear a holder");
    assert_eq!(campaign_after(&mut node, 5000), Some(52 + 40 + 2));
    node.at(100, request(1, X, 5, true));
    assert_eq!(campaign_after(&mut node, 5000), Some(100 + 200 + 2));
    node.at(310, from(X, busy(6, 150)));
    assert_eq!(campaign_after(&mut node, 5000), Some(310 + 150 + 2));
}

#[test]
fn an_ordered_candidacy_is_not_voided_by_a_campaign_right_after_it() {
    let mut node = Node::director(3);
    node.at(1000, from(X, hold(5, 1, 0)));
    assert_eq!(node.at(1005, request(1, ME, 6, true)), [], "the promise still runs");
    let effects = node.at(1010, from(X, relinquish(5, 1, Some(ME))));
    assert_eq!(effects, [Effect::Pass(1)]);
    assert_eq!(campaign_after(&mut node, 5000), Some(1010 + 100 + 2));
}

#[test]
fn the_wait_doubles_with_each_term_that_nobody_held() {
    // Terms since the start, in which it was 4; milliseconds between two campaigns, 2 of them the stagger.
    for (terms, wait) in [(0, 40), (1, 80), (2, 160), (3, 320), (4, 640), (50, 640)] {
        let mut node = Node::director(3);
        node.at(0, raft(4 + terms, None, false));
        let first = campaign_after(&mut node, 5000).unwrap();
        let second = campaign_after(&mut node, 5000).unwrap();
        assert_eq!(second - first, wait + 2, "{terms} terms");
        // A holder that made itself heard ends the count.
        node.at(second, from(X, hold(4 + terms, 1, 0)));
        let first = campaign_after(&mut node, 5000).unwrap();
        assert_eq!(campaign_after(&mut node, 5000), Some(first + 42), "{terms} terms");
    }
}

#[test]
fn who_is_no_voter_or_leads_already_does_not_campaign() {
    let mut learner = Node::director(3);
    learner.at(0, voters_of([2, 3]));
    assert_eq!(campaign_after(&mut learner, 60_000), None);
    let mut leader = Node::blank();
    leader.at(0, voters_of(1..=3));
    leader.at(0, raft(5, Some(ME), true));
    assert_eq!(campaign_after(&mut leader, 60_000), None);
}

#[test]
fn a_single_voters_campaign_is_its_vote() {
    let mut node = Node::director(1);
    assert_eq!(campaign_after(&mut node, 5000), Some(52));
    assert_eq!(node.at(60, from(X, hold(4, 1, 0))), vec![send(X, nack(4, 5))]);
    let effects = node.at(61, raft(5, Some(ME), true));
    assert_eq!(effects, vec![Effect::Prepare { epoch: 5 }], "a majority of one");
    node.at(61, Input::TableReady { epoch: 5 });
    // Nobody else can be elected: a thread that was late for a minute has lost nothing.
    assert_eq!(node.at(60_061, Input::Timer), vec![Effect::Extend { until: ms(60_231) }]);
}

#[test]
fn the_holder_names_the_eligible_voter_that_is_furthest_along() {
    let mut node = Node::leader();
    for (voter, applied, eligible) in [(X, 9, false), (Y, 7, true)] {
        let (epoch, term, seq, echo) = (5, 5, 1, ms(1000));
        let ack = Message::Ack { group: 0, epoch, term, seq, echo, applied, eligible };
        node.at(1001, from(voter, ack));
    }
    let mut hints = Vec::new();
    for effect in node.at(1025, Input::Timer) {
        if let Effect::Send { message: Message::Hold { hint, .. }, .. } = effect {
            hints.push(hint);
        }
    }
    assert_eq!(hints, vec![Some(Y), Some(Y)]);
}
