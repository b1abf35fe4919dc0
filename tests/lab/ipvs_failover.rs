//! The VIP moves to the node that is also a realserver, and back, under load.

use std::time::{Duration, Instant};

use lvsmesh_tests::document::{CLIENT, Document, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::pages::Client;
use lvsmesh_tests::probe::ArpProber;
use lvsmesh_tests::reference::{Reference, lost_outside};
use lvsmesh_tests::{eventually, pace, scaled};
use nix::sys::signal::Signal;

/// Eight connections, all answered, by both servers.
fn eight_of_eight(running: &Reference, when: &str) {
    let pages = running.pages(8);
    assert!(
        pages.contains(&LVS_2.0.to_owned()) && pages.contains(&RS_1.0.to_owned()),
        "{when}: {pages:?}"
    );
    pace::note(&format!("{when}: {pages:?}"));
}

fn settle(client: &Client) {
    let before = client.requests().len();
    eventually("the client goes on", Duration::from_secs(20), || {
        (client.requests().len() >= before + 10).then_some(())
    });
}

#[test]
fn eight_of_eight_connections_are_answered_before_during_and_after_a_failover_and_back() {
    let mut running = Reference::start();
    running.serve("0s");
    running.fleet.held_by(LVS_1.0);
    eight_of_eight(&running, "before");
    let (client, prober) = (running.client(), running.prober());
    settle(&client);

    let killed = running.fleet.kill(LVS_1.0);
    let away = running.window(&prober, killed, LVS_2.0);
    pace::note(&format!("killed: {:?} dark (profile {})", away.silence.length, pace::profile()));
    running.fleet.held_by(LVS_2.0);
    eight_of_eight(&running, "while the dual-role node holds and the other is down");

    running.fleet.agent_mut(LVS_1.0).start();
    running.fleet.converged();
    eight_of_eight(&running, "while the dual-role node holds and the other is back");
    let asked = Instant::now();
    let _moved = running.fleet.ctl.run(&["failover", "--to", LVS_1.0]).succeeded();
    let back = running.window(&prober, asked, LVS_1.0);
    pace::note(&format!(
        "moved back: {:?} dark (profile {})",
        back.silence.length,
        pace::profile()
    ));
    running.fleet.held_by(LVS_1.0);
    running.all_ready();
    eight_of_eight(&running, "after");
    settle(&client);

    let requests = client.requests();
    let lost = lost_outside(&requests, &[away, back]);
    pace::note(&format!("{} requests", requests.len()));
    assert!(lost.is_empty(), "requests were lost while nothing was wrong: {lost:#?}");
}

#[test]
fn a_director_that_is_cut_off_is_replaced_and_leaves_no_second_answer() {
    let running = Reference::start();
    running.serve("0s");
    running.fleet.held_by(LVS_1.0);
    let (client, prober) = (running.client(), running.prober());
    settle(&client);
    let cut = Instant::now();
    running.fleet.lab.cut(LVS_1.0);
    let window = running.window(&prober, cut, LVS_2.0);
    pace::note(&format!("cut: {:?} dark (profile {})", window.silence.length, pace::profile()));
    running.fleet.held_by(LVS_2.0);
    settle(&client);
    running.fleet.lab.restore(LVS_1.0);
    running.fleet.converged();
    running.fleet.held_by(LVS_2.0);
    settle(&client);
    let lost = lost_outside(&client.requests(), &[window]);
    assert!(lost.is_empty(), "requests were lost while nothing was wrong: {lost:#?}");
}

/// A node of both roles has its table only while it holds, so that a move is more than a change of who answers. What that costs is said, and it costs
/// nothing outside the moves.
#[test]
fn planned_moves_to_the_dual_role_node_and_back_lose_little_and_only_while_they_last() {
    const ROUNDS: usize = 5;

    let running = Reference::start();
    running.serve_answered("0s");
    let (client, prober) = (running.client(), running.prober());
    settle(&client);
    let mut refused = 0;
    let mut windows = Vec::new();
    for _ in 0..ROUNDS {
        for to in [LVS_2.0, LVS_1.0] {
            let asked = Instant::now();
            // An emulated machine that is busy besides may take longer over a move than the command waits: it says so, and is asked again.
            eventually(&format!("the VIPs move to {to}"), Duration::from_secs(30), || {
                let run = running.fleet.ctl.run(&["failover", "--to", to]);
                if run.code != 0 {
                    refused += 1;
                    pace::note(&format!("not moved to {to} at once: {}", run.err.trim()));
                    running.fleet.tell_all();
                }
                (run.code == 0).then_some(())
            });
            windows.push(running.window(&prober, asked, to));
            running.fleet.converged();
            running.all_served();
            settle(&client);
        }
    }
    let requests = client.requests();
    let failed = requests.iter().filter(|request| request.answer.is_err()).count();
    let longest = |to: &str| {
        let of = windows.iter().filter(|window| window.silence.after == to);
        of.map(|window| window.silence.length).max().unwrap_or_default()
    };
    let (sent, unanswered) = prober.finish();
    pace::note(&format!(
        "{ROUNDS} planned moves to the dual-role node and back (profile {}): {failed} of {} requests failed; {unanswered} of {sent} datagrams lost; dark for at most {:?} on the way there and {:?} on the way back",
        pace::profile(),
        requests.len(),
        longest(LVS_2.0),
        longest(LVS_1.0),
    ));
    let lost = lost_outside(&requests, &windows);
    assert!(lost.is_empty(), "requests were lost outside the moves: {lost:#?}");
    assert!(refused <= ROUNDS, "{refused} of {} moves had to be asked for again", 2 * ROUNDS);
    // Half a request a move is what a table that comes too late or goes too early exceeds.
    assert!(failed <= ROUNDS, "{failed} requests failed in {} moves", 2 * ROUNDS);
}

/// The same of a node of both roles whose agent is stopped while it holds: `systemctl stop lvs-agent`.
#[test]
fn a_clean_stop_of_the_dual_role_holder_loses_little_and_only_while_it_lasts() {
    const ROUNDS: usize = 3;

    let mut running = Reference::start();
    running.serve_answered("0s");
    let (client, prober) = (running.client(), running.prober());
    settle(&client);
    let mut windows = Vec::new();
    let mut longest = Duration::ZERO;
    for _ in 0..ROUNDS {
        let asked = Instant::now();
        eventually("the VIPs move to the dual-role node", Duration::from_secs(30), || {
            let run = running.fleet.ctl.run(&["failover", "--to", LVS_2.0]);
            (run.code == 0).then_some(())
        });
        windows.push(running.window(&prober, asked, LVS_2.0));
        running.fleet.converged();
        running.all_served();
        settle(&client);

        let stopped = Instant::now();
        running.fleet.agent_mut(LVS_2.0).end(Signal::SIGTERM);
        let window = running.window(&prober, stopped, LVS_1.0);
        longest = longest.max(window.silence.length);
        windows.push(window);
        settle(&client);
        running.fleet.agent_mut(LVS_2.0).start();
        running.fleet.converged();
        running.all_served();
    }
    let requests = client.requests();
    let failed = requests.iter().filter(|request| request.answer.is_err()).count();
    let (sent, unanswered) = prober.finish();
    pace::note(&format!(
        "{ROUNDS} moves to the dual-role node, and its agent stopped (profile {}): {failed} of {} requests failed; {unanswered} of {sent} datagrams lost; dark for at most {longest:?} after a stop",
        pace::profile(),
        requests.len(),
    ));
    let lost = lost_outside(&requests, &windows);
    assert!(lost.is_empty(), "requests were lost while nothing was done: {lost:#?}");
    assert!(failed <= ROUNDS, "{failed} requests failed in {ROUNDS} moves and as many stops");
}

/// Under `vrrp-fallback` the node that is left takes the VIP, with the table that a node of both roles has only while it holds.
#[test]
fn the_dual_role_node_serves_alone_without_a_quorum() {
    let mut running = Reference::start();
    running.fleet.apply(&Document {
        fleet: ", no_quorum: vrrp-fallback".into(),
        vip: format!("\n    arbiters: [{}]", CLIENT.1),
        ..Document::reference("0s")
    });
    running.all_ready();
    running.fleet.held_by(LVS_1.0);
    eight_of_eight(&running, "before");
    running.fleet.kill(RS_1.0);
    running.fleet.kill(LVS_1.0);
    // Ten promises of the emulated machine's profile, and VRRP's time.
    eventually("lvs-2 takes the VIP", Duration::from_secs(60), || {
        (running.fleet.attached() == [LVS_2.0]).then_some(())
    });
    eight_of_eight(&running, "without a quorum");
    running.fleet.until("it says so", Duration::from_secs(20), |status| {
        !status.quorum && status.vips.first().is_some_and(|vip| vip.authority == "vrrp-fallback")
    });
    running.fleet.agent_mut(RS_1.0).start();
    running.fleet.until("a lease again, and no move", Duration::from_secs(60), |status| {
        let vip = status.vips.first();
        status.quorum && vip.is_some_and(|vip| vip.holder == LVS_2.0 && vip.authority == "lease")
    });
    running.fleet.held_by(LVS_2.0);
    running.all_ready();
    eight_of_eight(&running, "with a quorum again");
}

/// Nothing of the VIP is on any interface; the agents answer. Whoever holds, both servers serve, one of which is the other director.
#[test]
fn eight_of_eight_connections_are_answered_whichever_agent_answers_for_the_vip() {
    let mut running = Reference::start();
    running.serve_answered("0s");
    let named = |running: &Reference, name: &'static str| {
        running.fleet.until(&format!("{name} alone holds"), Duration::from_secs(30), |status| {
            status.vips.iter().all(|vip| vip.holder == name && vip.also_on.is_empty())
        });
        assert_eq!(running.fleet.attached(), Vec::<String>::new());
    };
    named(&running, LVS_1.0);
    let capture = running.fleet.lab.capture();
    let _asking = ArpProber::start(running.fleet.client(), VIP, scaled(Duration::from_millis(20)));
    eight_of_eight(&running, "before");
    let (client, prober) = (running.client(), running.prober());
    settle(&client);

    let killed = running.fleet.kill(LVS_1.0);
    let away = running.window(&prober, killed, LVS_2.0);
    pace::note(&format!("killed: {:?} dark (profile {})", away.silence.length, pace::profile()));
    named(&running, LVS_2.0);
    eight_of_eight(&running, "while the dual-role node holds and the other is down");
    running.fleet.agent_mut(LVS_1.0).start();
    running.fleet.converged();
    eight_of_eight(&running, "while the dual-role node holds and the other is back");

    let asked = Instant::now();
    let _moved = running.fleet.ctl.run(&["failover", "--to", LVS_1.0]).succeeded();
    let back = running.window(&prober, asked, LVS_1.0);
    named(&running, LVS_1.0);
    running.all_served();
    eight_of_eight(&running, "after");
    settle(&client);
    let lost = lost_outside(&client.requests(), &[away, back]);
    assert!(lost.is_empty(), "requests were lost while nothing was wrong: {lost:#?}");
    let answering: Vec<_> = capture.answering(VIP).into_iter().map(|(node, _)| node).collect();
    assert_eq!(answering, [LVS_1.0, LVS_2.0, LVS_1.0], "who answers, in order");
    assert_eq!(capture.answered_twice(VIP), []);
}
