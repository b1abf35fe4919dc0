//! Every state that three voters can reach in a small scope, with the lease machine that runs in production.
//!
//! Two directors and a witness, spans of a few ticks, at most three messages under way, terms up to two. Messages are lost, delayed and
//! reordered without limit; any node may campaign, give up or, where the scope has it, crash and restart at any moment; timers fire as late as
//! they like. Around the machine stands a Raft that is more reckless than any real one: it campaigns at will, without pre-votes, its logs never
//! differ, and a grant that arrives late still elects a leader that had stepped down.
//!
//! The claim: never do two nodes have a lease at once, where the lease of a node that crashed counts as running to its end. And the check of
//! the check: with any one rule left out, the same search finds two.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, in its helpers too")]
#![expect(clippy::disallowed_types, reason = "nothing walks through these maps")]
#![expect(clippy::disallowed_methods, reason = "a search says how long it took")]
#![expect(clippy::print_stdout, reason = "and what it came to")]

mod model;
mod search;

use lvsmesh_core::lease::Faults;
use model::Scope;
use search::{Found, search};

/// P = L = 2 ticks, three messages under way, nobody crashes. Scopes with more in them have two messages under way, so that they finish in a test
/// run; `LVSMESH_LEASE_MESSAGES=3` gives them three (4 GB and half an hour).
const SMALL: Scope = Scope {
    promise: 2,
    lease: 2,
    other: None,
    messages: 3,
    terms: 2,
    crashes: 0,
    guarded: false,
    guards_spare_the_agent: false,
    lagging_views: false,
    transfers_bypass_the_gate: false,
    faults: NO_FAULT,
};

const NO_FAULT: Faults = Faults {
    lease_outlives_promise: false,
    lease_from_arrival: false,
    silence_ignored: false,
    campaign_under_promise: false,
    kept_after_relinquishing: false,
    relinquish_unfenced: false,
    term_reused: false,
    gate_open: false,
    emission_unchecked: false,
    worth_of_present_span: false,
    shorter_uncapped: false,
};

/// Leaders that ask now for two ticks and now for one.
const ADAPTIVE: Scope = Scope { other: Some(1), messages: 2, ..SMALL };

/// Messages under way where the scope has more in it.
fn wider() -> usize {
    std::env::var("LVSMESH_LEASE_MESSAGES").map_or(2, |count| count.parse().expect("a number"))
}

#[track_caller]
fn is_safe(name: &str, scope: Scope) -> Found {
    let found = search(scope);
    println!("{name}: {}", found.summary());
    if let Some(trace) = &found.violation {
        panic!("two leases at once:\n  {}", trace.join("\n  "));
    }
    // The search must not be empty talk: leases are won, and two leaders at once do occur, which is why leading alone allows nothing.
    assert!(found.with_one_holder > found.states / 100, "leases are hardly ever won");
    assert_eq!(found.leaders_at_once, 2, "two leaders at once must occur");
    assert!(found.tenures > 1, "some node holds twice");
    found
}

#[track_caller]
fn is_caught(name: &str, scope: Scope) {
    let found = search(scope);
    println!("{name}: {}", found.summary());
    assert!(found.violation.is_some(), "{name}: the search did not notice");
}

#[test]
fn two_nodes_never_have_a_lease_at_once() {
    is_safe("P=2 L=2", SMALL);
}

#[test]
fn nor_do_they_when_one_node_crashes_and_restarts() {
    is_safe("P=2 L=2, one crash", Scope { crashes: 1, messages: wider(), ..SMALL });
}

#[test]
fn nor_when_a_guard_relinquishes_for_one_that_died() {
    let scope = Scope { crashes: 1, guarded: true, messages: wider(), ..SMALL };
    is_safe("P=2 L=2, one death with a guard", scope);
}

#[test]
fn a_guard_that_relinquishes_for_an_agent_that_goes_on_is_caught() {
    let guards_spare_the_agent = true;
    let scope =
        Scope { crashes: 1, guarded: true, messages: wider(), guards_spare_the_agent, ..SMALL };
    is_caught("relinquished for the living", scope);
}

#[test]
fn nor_when_the_machine_hears_late_what_raft_decided() {
    is_safe("P=2 L=2, lagging views", Scope { lagging_views: true, messages: wider(), ..SMALL });
}

#[test]
fn a_lease_longer_than_the_promise_is_caught() {
    let faults = Faults { lease_outlives_promise: true, ..NO_FAULT };
    is_caught("lease longer than the promise", Scope { faults, ..SMALL });
}

#[test]
fn a_lease_counted_from_the_arrival_of_the_promise_is_caught() {
    let faults = Faults { lease_from_arrival: true, ..NO_FAULT };
    is_caught("lease counted from arrival", Scope { faults, ..SMALL });
}

#[test]
fn a_restarted_voter_that_votes_at_once_is_caught() {
    let faults = Faults { silence_ignored: true, ..NO_FAULT };
    is_caught(
        "no silence after a restart",
        Scope { faults, crashes: 1, messages: wider(), ..SMALL },
    );
}

#[test]
fn a_forced_transfer_that_bypasses_the_gate_is_caught() {
    let scope = Scope { transfers_bypass_the_gate: true, ..SMALL };
    is_caught("forced transfer bypasses the gate", scope);
}

#[test]
fn a_relinquishment_by_a_node_that_holds_on_is_caught() {
    let faults = Faults { kept_after_relinquishing: true, ..NO_FAULT };
    is_caught("relinquished and kept", Scope { faults, ..SMALL });
}

#[test]
fn a_campaign_under_ones_own_promise_is_caught() {
    let faults = Faults { campaign_under_promise: true, ..NO_FAULT };
    is_caught("campaign under a promise", Scope { faults, ..SMALL });
}

#[test]
fn a_relinquishment_that_voids_a_later_promise_of_the_same_term_is_caught() {
    let faults = Faults { relinquish_unfenced: true, term_reused: true, ..NO_FAULT };
    is_caught("relinquishment without a fence, term reused", Scope { faults, ..SMALL });
}

#[test]
fn an_open_gate_is_caught() {
    let faults = Faults { gate_open: true, ..NO_FAULT };
    is_caught("open gate", Scope { faults, ..SMALL });
}

#[test]
fn nor_when_leaders_ask_for_longer_and_for_shorter_promises_as_they_like() {
    is_safe("P=L=2 or 1", ADAPTIVE);
}

#[test]
fn an_acknowledgement_that_is_worth_what_is_asked_for_by_now_is_caught() {
    let faults = Faults { worth_of_present_span: true, ..NO_FAULT };
    // One acknowledgement under way while the next HOLDs are.
    let scope = Scope { promise: 1, lease: 1, other: Some(2), messages: 3, ..ADAPTIVE };
    is_caught("worth of the present span", Scope { faults, ..scope });
}

#[test]
fn old_promises_that_are_relied_on_although_shorter_ones_are_asked_for_are_caught() {
    let faults = Faults { shorter_uncapped: true, ..NO_FAULT };
    is_caught("shorter, uncapped", Scope { faults, promise: 3, lease: 3, ..ADAPTIVE });
}
