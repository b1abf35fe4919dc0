//! What holds whatever comes in.

use proptest::prelude::*;

use super::*;

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
        1 => (0u64..30).prop_map(|ms| Input::ReleaseMargin(Duration::from_millis(ms))),
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
