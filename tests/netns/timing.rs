//! How long promises last: given, or as the holder sees fit.

use std::time::Duration;

use lvsmesh_tests::document::{Document, LVS_1, LVS_2, VIP};
use lvsmesh_tests::fleet::{Options, machines};
use lvsmesh_tests::probe::{Echo, Prober};
use lvsmesh_tests::{Fleet, eventually};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(30);

/// A fleet with that timing, a profile's name or P in milliseconds, whose VIP somebody holds.
fn start(timing: &str) -> Fleet {
    // A busy machine is not to cost anybody the lease here.
    let options =
        Options { profile: timing.to_owned(), realtime: true, pure: true, ..Options::default() };
    let fleet = Fleet::start_on(machines(), &options);
    fleet.apply(&Document { attach: "responder", ..Document::vip_alone() });
    fleet.converged();
    fleet
}

/// Who holds, and for how long it asks for promises.
fn held(fleet: &Fleet) -> Option<(String, u64)> {
    let status = fleet.ctl.status()?;
    let vip = status.vips.first().filter(|vip| !vip.holder.is_empty())?;
    Some((vip.holder.clone(), vip.promise_ms))
}

#[test]
fn a_promise_of_60_ms_is_held_by_and_ends_when_its_holder_falls_silent() {
    let fleet = start("60");
    let (first, promise) = eventually("somebody holds", LIMIT, || held(&fleet));
    assert_eq!(promise, 60);
    let said = fleet.ctl.run(&["vip", "status"]).succeeded();
    assert!(said.contains("a silent holder is replaced after promises of 60 ms"), "{said}");
    let _echoes: Vec<Echo> =
        fleet.names().iter().map(|name| Echo::start(fleet.lab.node(name))).collect();
    let prober = Prober::start(fleet.client(), VIP);
    let answering = |name: &str| {
        let by = prober.answering(Duration::from_millis(500));
        by.is_some_and(|by| by == name).then_some(())
    };
    eventually("the holder answers", LIMIT, || answering(&first));
    let other = if first == LVS_1.0 { LVS_2.0 } else { LVS_1.0 };
    fleet.lab.cut(&first);
    eventually("the other director holds", LIMIT, || {
        held(&fleet).is_some_and(|(holder, _)| holder == other).then_some(())
    });
    eventually("the other director answers", LIMIT, || answering(other));
    fleet.lab.restore(&first);
    fleet.converged();
}

#[test]
fn acknowledgements_that_come_late_lengthen_the_promise_of_a_holder_that_may_choose() {
    let fleet = start("adaptive");
    let (holder, promise) = eventually("somebody holds", LIMIT, || held(&fleet));
    assert!(promise >= 200, "nothing shortens it before ten minutes have passed: {promise}");
    let others: Vec<_> = fleet.names().iter().filter(|name| **name != holder).cloned().collect();
    // The voters answer late, again and again, for as long as a lease of 170 ms just lasts.
    let agents: Vec<_> = others.iter().map(|name| fleet.agent(name).process()).collect();
    let longer = eventually("the holder asks for longer promises", LIMIT, || {
        for agent in &agents {
            agent.signal(Signal::SIGSTOP);
        }
        std::thread::sleep(Duration::from_millis(135));
        for agent in &agents {
            agent.signal(Signal::SIGCONT);
        }
        std::thread::sleep(Duration::from_millis(300));
        held(&fleet).map(|(_, now)| now).filter(|now| *now > promise)
    });
    assert!(longer >= 300, "half as long again: {longer}");
    let said = "asking for promises of another length";
    assert!(fleet.names().iter().any(|name| fleet.agent(name).logged().contains(said)));
    fleet.converged();
}
