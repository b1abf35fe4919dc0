//! Whether and how eagerly this node may become holder: derived from the state and the reconciler's last report, told to the lease thread
//! and to Raft.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use lvsmesh_core::lease::{Input, Standing};
use lvsmesh_core::model::{Member, NodeId, Vip};
use lvsmesh_core::placement::standing;
use lvsmesh_core::state::State;
use lvsmesh_core::vrrp::fallback::Policy;
use tokio::sync::watch;

use crate::lease::{LeaseHandle, LeaseInputs, Order, Outlook, WithoutQuorum};
use crate::raft::{RaftHandle, RaftStatus};
use crate::reconcile::NodeReport;

/// Raft's priority of the most preferred director; each further node has one less. Among voters with equally new logs a voter refuses its vote to
/// a candidate of lower priority than its own, so the order is the one in which they campaign.
const MOST_PREFERRED: i64 = 100;

/// Above every other: who holds without a quorum is to hold on when there is one again.
const HOLDS: i64 = 1000;

/// A witness: below every director.
const WITNESS: i64 = -10;

/// A director that could not hold: below the witnesses, who hand over as soon as a director can.
const INELIGIBLE: i64 = -1000;

/// Everything that the lease thread and Raft are told from here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct View {
    standing: Standing,
    priority: i64,
    vips: Vec<Vip>,
    peers: BTreeMap<NodeId, SocketAddr>,
    members: BTreeSet<IpAddr>,
    directors: Vec<BTreeSet<IpAddr>>,
    without: WithoutQuorum,
}

/// Keeps the lease thread's and Raft's idea of this node up to date until `shutdown` turns true.
///
/// The lease thread gets the standing, the VIP groups and the members' addresses; Raft gets the priority.
pub async fn run(
    own: NodeId,
    raft: RaftHandle,
    report: watch::Receiver<NodeReport>,
    lease: LeaseHandle,
    mut shutdown: watch::Receiver<bool>,
) {
    let (state, status) = (raft.state.clone(), raft.status.clone());
    let LeaseHandle { inputs, outlook, .. } = lease;
    let follow = follow(own, state, status, report, outlook, inputs, |priority| {
        raft.set_priority(priority);
    });
    tokio::select! {
        biased;
        _ = shutdown.wait_for(|stop| *stop) => {}
        () = follow => {}
    }
}

async fn follow(
    own: NodeId,
    mut state: watch::Receiver<crate::raft::Applied>,
    mut status: watch::Receiver<RaftStatus>,
    mut report: watch::Receiver<NodeReport>,
    mut outlook: watch::Receiver<Outlook>,
    lease: LeaseInputs,
    set_priority: impl Fn(i64),
) {
    let mut told: Option<View> = None;
    let mut silenced = false;
    loop {
        let (voters, holds) =
            (status.borrow().voters.clone(), outlook.borrow_and_update().unleased.is_some());
        let mut next =
            view(&state.borrow_and_update().state, own, &report.borrow_and_update(), &voters);
        if silenced {
            // Its votes and acknowledgements are gone for good; a holder must not name it as its successor.
            next.standing.eligible = false;
            next.priority = priority(next.standing);
        }
        if holds {
            next.priority = HOLDS;
        }
        let before = told.as_ref();
        // Where to send and what to hold, before the leave to hold it.
        if before.is_none_or(|before| before.peers != next.peers) {
            lease.order(Order::Peers(next.peers.clone()));
        }
        if before.is_none_or(|before| before.members != next.members) {
            lease.order(Order::Members(next.members.clone()));
        }
        if before.is_none_or(|before| before.directors != next.directors) {
            lease.order(Order::Directors(next.directors.clone()));
        }
        if before.is_none_or(|before| before.without != next.without) {
            lease.order(Order::WithoutQuorum(next.without.clone()));
        }
        if before.is_none_or(|before| before.vips != next.vips) {
            lease.order(Order::Vips(next.vips.clone()));
        }
        if before.is_none_or(|before| before.priority != next.priority) {
            set_priority(next.priority);
        }
        if before.is_none_or(|before| before.standing != next.standing) {
            tracing::info!(standing = ?next.standing, priority = next.priority, "this node's standing");
            lease.send(Input::Standing(next.standing));
        }
        told = Some(next);
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            changed = report.changed() => if changed.is_err() { return },
            changed = outlook.changed() => if changed.is_err() { return },
            changed = status.wait_for(|status| {
                status.voters != voters || (status.fault.is_some() && !silenced)
            }) => match changed {
                Ok(status) => silenced = status.fault.is_some(),
                Err(_) => return,
            },
        }
    }
}

/// Raft's priority of a node that stands like this.
#[must_use]
pub fn priority(standing: Standing) -> i64 {
    let Standing { eligible, rank, witness } = standing;
    if witness {
        WITNESS
    } else if eligible {
        MOST_PREFERRED - i64::from(rank)
    } else {
        INELIGIBLE
    }
}

fn view(state: &State, own: NodeId, report: &NodeReport, voters: &BTreeSet<NodeId>) -> View {
    let (rank, witness) = standing(state, own);
    // The report of the last round, whichever revision that was for: an `apply` does not make every director ineligible for a moment. What
    // a claim needs is put in place between winning the lease and claiming.
    let director = state.member(own).is_some_and(Member::is_director);
    let eligible = director && report.ineligible.is_none();
    let standing = Standing { eligible, rank, witness };
    let mut directors: BTreeSet<NodeId> = state
        .members()
        .filter(|member| member.is_director() && voters.contains(&member.id))
        .map(|member| member.id)
        .collect();
    let policy = Policy::of(state.document().fleet.no_quorum, directors.len());
    directors.remove(&own);
    View {
        without: WithoutQuorum { policy, rank, directors },
        standing,
        priority: priority(standing),
        vips: if director { state.document().vips.clone() } else { vec![] },
        // Who was removed counts until Raft's configuration says otherwise.
        peers: state
            .departed()
            .chain(state.members())
            .filter(|member| member.id != own)
            .map(|member| (member.id, member.lease))
            .collect(),
        members: state.members().flat_map(|member| member.addresses.iter().copied()).collect(),
        directors: state
            .members()
            .filter(|member| member.id != own && member.is_director())
            .map(|member| member.addresses.iter().copied().collect())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::fixtures::{LVS_1, LVS_2, TestFleet, WEB_1, document, ip, vip};
    use crate::lease::{Unleased, queue};

    fn voters() -> BTreeSet<NodeId> {
        BTreeSet::from([LVS_1, LVS_2, WEB_1])
    }

    fn report(ineligible: Option<&str>) -> NodeReport {
        NodeReport { ineligible: ineligible.map(ToOwned::to_owned), ..NodeReport::default() }
    }

    #[test]
    fn standing_and_priority_follow_roles_preference_and_the_report() {
        let mut preferred = document();
        preferred.vips[0].preference = vec!["lvs-2".into()];
        let (by_id, by_preference) = (TestFleet::new(), TestFleet::with(preferred));
        let stand = |eligible, rank, witness| Standing { eligible, rank, witness };
        #[rustfmt::skip]
        let cases = [
            ("most preferred",              &by_id,         LVS_1,      None,               stand(true, 0, false),  100),
            ("the other one",               &by_id,         LVS_2,      None,               stand(true, 1, false),  99),
            ("preference before id",        &by_preference, LVS_2,      None,               stand(true, 0, false),  100),
            ("no carrier",                  &by_id,         LVS_1,      Some("no carrier"), stand(false, 0, false), -1000),
            ("a witness never holds",       &by_id,         WEB_1,      None,               stand(false, 2, true),  -10),
            ("a stranger",                  &by_id,         NodeId(9),  None,               stand(false, 255, true), -10),
        ];
        for (why, fleet, own, ineligible, standing, priority) in cases {
            let view = view(&fleet.state, own, &report(ineligible), &voters());
            assert_eq!((view.standing, view.priority), (standing, priority), "{why}");
        }
        assert!(
            !view(&by_id.state, LVS_1, &NodeReport::default(), &voters()).standing.eligible,
            "before the first round"
        );
    }

    #[test]
    fn only_directors_are_given_vips_and_nobody_is_their_own_peer() {
        let fleet = TestFleet::new();
        let director = view(&fleet.state, LVS_1, &report(None), &voters());
        assert_eq!(director.vips, [vip()]);
        assert_eq!(director.peers.keys().copied().collect::<Vec<_>>(), [LVS_2, WEB_1]);
        assert_eq!(director.members, BTreeSet::from([ip(3), ip(101), ip(102)]));
        assert_eq!(director.directors, [BTreeSet::from([ip(102)])]);
        assert_eq!(view(&fleet.state, WEB_1, &report(None), &voters()).vips, []);
    }

    #[tokio::test]
    async fn the_lease_thread_hears_of_changes_only_and_of_its_vips_first() {
        let mut fleet = TestFleet::new();
        let (state, seen) = watch::channel(fleet.applied());
        let raft = RaftStatus { voters: voters(), ..RaftStatus::default() };
        let (statuses, status) = watch::channel(raft);
        let (reports, reports_seen) = watch::channel(report(None));
        let (inputs, orders) = queue().unwrap();
        let priorities = RefCell::new(vec![]);
        let (outlooks, outlook) = watch::channel(Outlook::default());
        let follow = follow(LVS_1, seen, status, reports_seen, outlook, inputs, |priority| {
            priorities.borrow_mut().push(priority);
        });
        let steps = async {
            let heard = || -> Vec<Order> { orders.queue.try_iter().collect() };
            tokio::task::yield_now().await;
            let first = heard();
            let [
                Order::Peers(_),
                Order::Members(_),
                Order::Directors(_),
                Order::WithoutQuorum(without),
                Order::Vips(_),
                Order::Input(Input::Standing(standing)),
            ] = first.as_slice()
            else {
                panic!("{first:?}");
            };
            assert!(standing.eligible);
            let strict = WithoutQuorum {
                policy: Policy::Strict,
                rank: 0,
                directors: BTreeSet::from([LVS_2]),
            };
            assert_eq!(*without, strict);

            reports.send_modify(|report| report.operations += 1);
            tokio::task::yield_now().await;
            assert!(heard().is_empty(), "nothing that matters here");

            let mut changed = document();
            changed.vips.clear();
            changed.services.clear();
            fleet.apply(changed);
            state.send_replace(fleet.applied());
            tokio::task::yield_now().await;
            let second = heard();
            assert!(
                matches!(second.as_slice(), [Order::Vips(vips)] if vips.is_empty()),
                "{second:?}"
            );

            reports.send_replace(report(Some("no carrier")));
            tokio::task::yield_now().await;
            let third = heard();
            let [Order::Input(Input::Standing(standing))] = third.as_slice() else {
                panic!("{third:?}");
            };
            assert!(!standing.eligible);

            reports.send_replace(report(None));
            tokio::task::yield_now().await;
            assert_eq!(heard().len(), 1, "eligible again");
            statuses.send_modify(|status| status.commit += 1);
            tokio::task::yield_now().await;
            assert!(heard().is_empty(), "nothing that matters here");
            statuses.send_modify(|status| status.fault = Some("disk full".to_owned()));
            tokio::task::yield_now().await;
            let fourth = heard();
            let [Order::Input(Input::Standing(standing))] = fourth.as_slice() else {
                panic!("{fourth:?}");
            };
            assert!(!standing.eligible, "its log failed");
            statuses.send_modify(|status| status.fault = None);
            tokio::task::yield_now().await;
            outlooks.send_modify(|outlook| outlook.unleased = Some(Unleased::Sticky));
            tokio::task::yield_now().await;
            outlooks.send_modify(|outlook| outlook.unleased = None);
            tokio::task::yield_now().await;
        };
        tokio::select! {
            biased;
            () = follow => panic!("it ended"),
            () = steps => {}
        }
        assert_eq!(*priorities.borrow(), [100, -1000, 100, -1000, 1000, -1000]);
    }
}
