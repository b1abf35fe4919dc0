//! Directors that are real servers too, behind tunnels and translation: each serves its share, whichever of the two holds.

use lvsmesh_core::model::{Role, Scheduler};
use lvsmesh_tests::{Lab, link};

use super::site::{Site, Way, v4};

const BOTH: &[Role] = &[Role::Director, Role::RealServer];

/// Two dual-role machines, of which first one holds and then the other.
fn serve_their_share_whoever_holds(way: Way) {
    Lab::require_ipvs();
    let mode = way.name();
    let mut site = Site::build(way, [BOTH, BOTH, &[Role::RealServer]], [1, 2]);
    site.claim(1);
    site.want(Scheduler::Rr, [1, 1]);
    for (holder, standby) in [(1, 2), (2, 1), (1, 2)] {
        site.reconcile(standby, false);
        site.reconcile(holder, true);
        // Once more, now that both have confirmed.
        site.reconcile(standby, false);
        site.reconcile(holder, true);
        let answers = site.answers(6, false).unwrap_or_else(|error| {
            panic!("{mode}, machine {holder} holds: {error}");
        });
        assert!(
            answers.windows(2).all(|pair| pair[0] != pair[1]),
            "{mode}, machine {holder} holds: {answers:?}"
        );
        // The other one takes over: VIPs first away, then there, and neighbours learn it.
        site.release(holder);
        site.claim(standby);
        for number in [0, holder] {
            for vip in [100, 200] {
                let std::net::IpAddr::V4(vip) = v4(vip) else { unreachable!("it is IPv4") };
                link::request(&site.node(number).namespace, "forget a neighbour", async |handle| {
                    link::forget_neighbour(&handle, vip.into()).await
                });
            }
        }
    }
    site.leave();
}

const fn over_ipv4(mode: &'static str) -> Way {
    Way::new(mode, false, false)
}

#[test]
fn tunnel() {
    serve_their_share_whoever_holds(over_ipv4("ipip"));
}

#[test]
fn nat_with_a_gateway() {
    serve_their_share_whoever_holds(over_ipv4("nat"));
}

#[test]
fn direct_routing_answered_by_the_agent() {
    serve_their_share_whoever_holds(over_ipv4("dr").answered());
}

#[test]
fn tunnel_answered_by_the_agent() {
    serve_their_share_whoever_holds(over_ipv4("ipip").answered());
}

#[test]
fn nat_with_a_gateway_answered_by_the_agent() {
    serve_their_share_whoever_holds(over_ipv4("nat").answered());
}
