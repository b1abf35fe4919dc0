//! When the VIPs move back to the director that they are preferred on.

use std::time::{Duration, Instant};

use lvsmesh_tests::ctl::FailbackStatus;
use lvsmesh_tests::document::{Document, LVS_1, LVS_2, VIP};
use lvsmesh_tests::fleet::{Options, machines};
use lvsmesh_tests::probe::{Echo, Prober};
use lvsmesh_tests::{Fleet, eventually, pace};

/// A fleet with that policy, its VIP on every director's `lo`, held by the first director.
fn start(policy: &str) -> (Fleet, Vec<Echo>) {
    // Who holds is to change by the policy alone, and not because a busy machine was late with a beat.
    let options = Options { profile: "relaxed".to_owned(), ..Options::default() };
    let fleet = Fleet::start_on(machines(), &options);
    fleet.apply(&Document {
        attach: "responder",
        fleet: format!(", {policy}"),
        ..Document::vip_alone()
    });
    held_by(&fleet, LVS_1.0);
    fleet.converged();
    let echoes = fleet.names().iter().map(|name| Echo::start(fleet.lab.node(name))).collect();
    (fleet, echoes)
}

fn holder(fleet: &Fleet) -> Option<(String, u64)> {
    let status = fleet.ctl.status()?;
    status.vips.first().map(|vip| (vip.holder.clone(), vip.epoch))
}

fn held_by(fleet: &Fleet, name: &str) -> u64 {
    let status = fleet.until(&format!("{name} holds"), Duration::from_secs(30), |status| {
        status.vips.iter().any(|vip| vip.holder == name && vip.also_on.is_empty())
    });
    status.vips[0].epoch
}

fn waits(fleet: &Fleet, what: &str) -> FailbackStatus {
    let status =
        fleet.until(&format!("it waits for `{what}`"), Duration::from_secs(30), |status| {
            status.vips.iter().any(|vip| vip.failback.as_ref().is_some_and(|f| f.waits_for == what))
        });
    status.vips[0].failback.clone().expect("it was just there")
}

/// The preferred director dies and another takes over.
fn lose_the_preferred(fleet: &mut Fleet) -> u64 {
    fleet.kill(LVS_1.0);
    held_by(fleet, LVS_2.0)
}

#[test]
fn never_leaves_the_vip_where_it_is() {
    let (mut fleet, _echoes) = start("failback: never");
    let epoch = lose_the_preferred(&mut fleet);
    fleet.agent_mut(LVS_1.0).start();
    fleet.converged();
    pace::throughout("the holder stays", Duration::from_secs(5), || {
        let now = holder(&fleet)?;
        (now != (LVS_2.0.to_owned(), epoch)).then(|| format!("{now:?} holds"))
    });
}

#[test]
fn immediate_moves_it_back_without_losing_a_datagram() {
    let (mut fleet, _echoes) = start("failback: immediate");
    lose_the_preferred(&mut fleet);
    let waiting = waits(&fleet, "fit");
    assert_eq!(waiting.to, LVS_1.0);
    let shown = fleet.ctl.run(&["vip", "status"]).succeeded();
    assert!(shown.contains("failback to lvs-1 when it can hold"), "{shown}");
    let prober = Prober::start(fleet.client(), VIP);
    eventually("the holder answers", Duration::from_secs(10), || {
        (prober.answering(Duration::from_millis(200))? == LVS_2.0).then_some(())
    });
    let prober = {
        drop(prober);
        Prober::start(fleet.client(), VIP)
    };
    let began = Instant::now();
    fleet.agent_mut(LVS_1.0).start();
    held_by(&fleet, LVS_1.0);
    eventually("the preferred one answers", Duration::from_secs(10), || {
        (prober.answering(Duration::from_millis(200))? == LVS_1.0).then_some(())
    });
    let silence = prober.longest_silence(began).expect("there were answers throughout");
    let (sent, lost) = prober.finish();
    pace::note(&format!("{lost} of {sent} datagrams lost, dark for {:?}", silence.length));
    assert_eq!(lost, 0, "of {sent}; the longest silence: {silence:?}");
    let status = fleet.ctl.status().expect("the fleet answers");
    assert_eq!(status.vips[0].failback, None, "the VIP is where it is preferred");
}

#[test]
fn delayed_waits_for_its_span_and_says_so() {
    let (mut fleet, _echoes) = start("failback: delayed, failback_delay: 5s");
    lose_the_preferred(&mut fleet);
    let started = Instant::now();
    fleet.agent_mut(LVS_1.0).start();
    let waiting = waits(&fleet, "time");
    assert!((1..=5000).contains(&waiting.remaining_ms), "{waiting:?}");
    let shown = fleet.ctl.run(&["status"]).succeeded();
    assert!(shown.contains("failback to lvs-1 in "), "{shown}");
    held_by(&fleet, LVS_1.0);
    // It cannot have been fit before it was started.
    assert!(started.elapsed() >= Duration::from_secs(5), "after {:?}", started.elapsed());
}

#[test]
fn what_an_operator_moved_stays_until_the_preferred_one_was_down() {
    let (mut fleet, _echoes) = start("failback: immediate");
    let _moved = fleet.ctl.run(&["failover", "--to", LVS_2.0]).succeeded();
    let epoch = held_by(&fleet, LVS_2.0);
    assert_eq!(waits(&fleet, "operator").to, LVS_1.0);
    pace::throughout("the holder stays", Duration::from_secs(5), || {
        let now = holder(&fleet)?;
        (now != (LVS_2.0.to_owned(), epoch)).then(|| format!("{now:?} holds"))
    });
    fleet.kill(LVS_1.0);
    waits(&fleet, "fit");
    fleet.agent_mut(LVS_1.0).start();
    held_by(&fleet, LVS_1.0);
}
