//! The rules of the lease machine, one by one, in both directions. Moments are milliseconds; the profile is the default one: P = 200, L = 170,
//! a beat every 25.

use std::collections::BTreeSet;
use std::time::Duration;

use lvsmesh_core::lease::wire::Speaker;
use lvsmesh_core::lease::{
    Effect, Effects, GateRequest, Input, Lease, LeaseConfig, Loss, Message, Phase, Profile,
    RaftView, Standing,
};
use lvsmesh_core::model::NodeId;
use lvsmesh_core::time::Mono;
use proptest::prelude::*;

const ME: NodeId = NodeId(1);
const X: NodeId = NodeId(2);
const Y: NodeId = NodeId(3);

fn ms(at: u64) -> Mono {
    Mono(at * 1_000_000)
}

fn span(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Node 1 of a fleet.
struct Node {
    lease: Lease,
}

impl Node {
    /// Starts at 0, never voted, with durable term 4 and no voters.
    fn blank() -> Self {
        let config = LeaseConfig::new(ME, Profile::Default.timing(), 4);
        Self { lease: Lease::new(config, Mono(0)) }
    }

    /// An eligible director of rank 0 among that many voters.
    fn director(voters: u64) -> Self {
        let mut node = Self::blank();
        node.at(0, voters_of(1..=voters));
        node.at(0, Input::Standing(Standing { eligible: true, rank: 0, witness: false }));
        node
    }

    /// One of three voters, that leads term 5 since 1000 and has asked once.
    fn leader() -> Self {
        let mut node = Self::director(3);
        let effects = node.at(1000, raft(5, Some(ME), true));
        assert_eq!(effects, vec![send(X, hold(5, 1, 1000)), send(Y, hold(5, 1, 1000))]);
        node
    }

    /// One of three voters, that holds since 1001 a lease that ends at 1170.
    fn holder() -> Self {
        let mut node = Self::leader();
        assert_eq!(node.at(1001, from(X, ack(5, 1, 1000))), vec![Effect::Prepare { epoch: 5 }]);
        let claim = Effect::Claim { epoch: 5, until: ms(1170) };
        assert_eq!(node.at(1001, Input::TableReady { epoch: 5 }), vec![claim]);
        node
    }

    fn at(&mut self, at: u64, input: Input) -> Vec<Effect> {
        let mut out = Effects::new();
        self.lease.step(ms(at), input, &mut out);
        out.as_slice().to_vec()
    }
}

fn voters_of(ids: impl IntoIterator<Item = u64>) -> Input {
    Input::Voters(ids.into_iter().map(NodeId).collect::<BTreeSet<_>>())
}

fn raft(term: u64, leader: Option<NodeId>, settled: bool) -> Input {
    Input::Raft(RaftView { term, leader, settled })
}

fn from(from: NodeId, message: Message) -> Input {
    Input::Datagram { from, message }
}

fn send(to: NodeId, message: Message) -> Effect {
    Effect::Send { to, message }
}

fn hold(term: u64, seq: u64, stamp: u64) -> Message {
    let promise = span(200);
    Message::Hold { group: 0, epoch: term, term, seq, stamp: ms(stamp), promise, hint: None }
}

fn ack(term: u64, seq: u64, echo: u64) -> Message {
    let (echo, applied, eligible) = (ms(echo), 0, false);
    Message::Ack { group: 0, epoch: term, term, seq, echo, applied, eligible }
}

fn nack(epoch: u64, term: u64) -> Message {
    Message::Nack { group: 0, epoch, term }
}

fn relinquish(term: u64, last_seq: u64, successor: Option<NodeId>) -> Message {
    let by = Speaker::Agent;
    Message::Relinquish { group: 0, epoch: term, term, last_seq, successor, by }
}

fn request(ticket: u64, candidate: NodeId, term: u64, binding: bool) -> Input {
    Input::Gate(GateRequest { ticket, candidate, term, binding })
}

fn busy(term: u64, remaining: u64) -> Message {
    Message::Busy { group: 0, epoch: 0, term, remaining: span(remaining) }
}

fn answered_yes(effects: &[Effect]) -> bool {
    matches!(effects, [Effect::Send { message: Message::Ack { .. }, .. }])
}

// ---- promises ----

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

// ---- the gate ----

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

// ---- the lease ----

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

// ---- giving up ----

#[test]
fn a_planned_release_stops_then_frees_the_voters_then_steps_down() {
    let mut node = Node::holder();
    let effects = node.at(1002, Input::Abdicate { successor: Some(Y) });
    let expected = vec![
        Effect::Release { epoch: 5, why: Loss::Abdicated },
        send(X, relinquish(5, 1, Some(Y))),
        send(Y, relinquish(5, 1, Some(Y))),
        Effect::StepDown { term: 5 },
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

// ---- restart ----

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

// ---- configuration ----

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

// ---- who may hold ----

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

// ---- campaigns ----

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
    for (successor, expected) in [(None, 1011), (Some(ME), 1010), (Some(Y), 1032)] {
        let mut node = Node::blank();
        node.at(0, voters_of(1..=3));
        node.at(0, Input::Standing(Standing { eligible: true, rank: 1, witness: false }));
        node.at(1000, from(X, hold(5, 1, 0)));
        let effects = node.at(1010, from(X, relinquish(5, 1, successor)));
        let at_once = effects.contains(&Effect::Campaign).then_some(1010);
        let campaigned = at_once.or_else(|| campaign_after(&mut node, 5000));
        // With nobody named: a fifth of 12 ms, that is 2.4 ms, seen in whole milliseconds.
        let expected = if successor.is_none() { 1013 } else { expected };
        assert_eq!(campaigned, Some(expected), "{successor:?}");
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

// ---- properties ----

fn input() -> impl Strategy<Value = Input> {
    let node = || (1u64..=4).prop_map(NodeId);
    let term = || 3u64..9;
    let leader = proptest::option::of(node());
    let tuple = (term(), 0u64..6, 0u64..3000);
    prop_oneof![
        8 => Just(Input::Timer),
        4 => (node(), tuple.clone()).prop_map(|(n, (t, s, at))| from(n, hold(t, s, at))),
        8 => (node(), tuple).prop_map(|(n, (t, s, at))| from(n, ack(t, s, at))),
        1 => (node(), term()).prop_map(|(n, t)| from(n, nack(t, t))),
        1 => (node(), term(), 0u64..6).prop_map(|(n, t, s)| from(n, relinquish(t, s, None))),
        1 => (node(), term(), 0u64..300).prop_map(|(n, t, r)| from(n, busy(t, r))),
        6 => (term(), leader, any::<bool>()).prop_map(|(t, l, s)| raft(t, l, s)),
        1 => Just(Input::LeaderHeard),
        1 => proptest::collection::btree_set(1u64..=11, 0..11).prop_map(voters_of),
        1 => (any::<bool>(), 0u8..4).prop_map(|(eligible, rank)| {
            Input::Standing(Standing { eligible, rank, witness: false })
        }),
        4 => (any::<u64>(), node(), term(), any::<bool>())
            .prop_map(|(ticket, n, t, b)| request(ticket, n, t, b)),
        2 => term().prop_map(|epoch| Input::TableReady { epoch }),
        1 => proptest::option::of(node()).prop_map(|successor| Input::Abdicate { successor }),
        1 => Just(Input::Suspended),
    ]
}

proptest! {
    /// Whatever comes in whatever order: the bound on effects holds, every request gets exactly one answer, an emission is allowed only under
    /// a lease, and a timer before the deadline would find nothing to do.
    #[test]
    fn the_machine_keeps_its_word(script in proptest::collection::vec((0u64..60, input()), 1..120)) {
        let mut node = Node::director(3);
        let (mut now, mut waiting) = (0, Vec::new());
        for (after, input) in script {
            now += after;
            if let Input::Gate(request) = &input {
                waiting.push(request.ticket);
            }
            for effect in node.at(now, input) {
                if let Effect::Pass(ticket) | Effect::Drop(ticket) = effect {
                    let at = waiting.iter().position(|waits| *waits == ticket);
                    prop_assert!(at.is_some(), "nobody waits under {}", ticket);
                    waiting.remove(at.unwrap());
                }
            }
            prop_assert!(waiting.len() <= 9);
            if node.lease.may_emit(ms(now)) {
                prop_assert!(node.lease.lease_until().unwrap() > ms(now));
            }
            let deadline = node.lease.deadline();
            prop_assert!(deadline > ms(now), "due at {:?}, now {:?}", deadline, ms(now));
            let before = Mono(deadline.0 - 1).min(ms(now + 1_000_000));
            let (mut copy, mut out) = (node.lease.clone(), Effects::new());
            if copy.status(before).phase.is_some() && copy.deadline() < Mono(u64::MAX) {
                copy.step(before, Input::Timer, &mut out);
                let renewal = |effect: &Effect| matches!(effect, Effect::Extend { .. } | Effect::Claim { .. });
                prop_assert!(out.iter().all(renewal), "{:?}", out);
            } else {
                copy.step(before, Input::Timer, &mut out);
                prop_assert!(out.is_empty(), "{:?}", out);
            }
        }
    }
}
