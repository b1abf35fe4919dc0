//! `deploy/quickstart`: the reference deployment at work, shown by real requests.

mod shell;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lvsmesh_tests::document::{CLIENT, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::pages::{Client, Request};
use lvsmesh_tests::probe::{Prober, Silence};
use lvsmesh_tests::reference::{Reference, Window, lost_outside};
use lvsmesh_tests::{eventually, pace};

/// Prints a line at once: what is shown here is read while it happens.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that has gone away does not stop the demonstration.
    let _closed = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn heading(text: &str) {
    say(&format!("\n== {text}"));
}

fn milliseconds(span: Duration) -> String {
    format!("{:.0} ms", span.as_secs_f64() * 1000.0)
}

fn main() -> ExitCode {
    let shell = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [argument] if argument == "--shell" => true,
        other => {
            say(&format!("usage: quickstart [--shell], not {other:?}"));
            return ExitCode::from(2);
        }
    };
    // A fault panics with what was expected and what was found; the agents' last lines follow it.
    let outcome = std::panic::catch_unwind(|| show(shell));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => {
            say("\nquickstart: something was not as it must be; the message is above");
            ExitCode::FAILURE
        }
    }
}

fn show(shell: bool) {
    heading("The fleet");
    let mut running = bring_up();
    alternate(&running);
    listing(&running);

    let (client, prober) = (running.client(), running.prober());
    let windows = vec![
        crash(&mut running, &prober),
        come_back(&mut running, &prober),
        cut(&running, &prober),
    ];
    restored(&running, &prober);
    summary(&client, &windows);
    drop((client, prober));

    if shell {
        shell::offer(&running);
    }
}

fn bring_up() -> Reference {
    let began = Instant::now();
    let running = Reference::start();
    for (name, address, what) in [
        (LVS_1.0, LVS_1.1, "director"),
        (LVS_2.0, LVS_2.1, "director and realserver"),
        (RS_1.0, RS_1.1, "realserver, and witness: the third vote"),
        (CLIENT.0, CLIENT.1, "no part of the fleet"),
    ] {
        say(&format!("  {name:<7} {address:<15} {what}"));
    }
    running.serve("0s");
    running.fleet.held_by(LVS_1.0);
    let slow = if pace::slow() > 2 { " (stretched: this machine is emulated)" } else { "" };
    say(&format!(
        "  mutual TLS, certificates made for this run; timing profile `{}`{slow}",
        pace::profile()
    ));
    say(&format!("  up and ready after {:.1} s\n", began.elapsed().as_secs_f64()));
    say(running.fleet.ctl.run(&["status"]).out.trim_end());
    running
}

fn alternate(running: &Reference) {
    heading(&format!("Eight requests for http://{VIP}/, a new connection each"));
    let pages = running.pages(8);
    say(&format!("  {}", pages.join("  ")));
    for pair in pages.windows(2) {
        assert_ne!(pair.first(), pair.last(), "with persistence 0 the pages alternate: {pages:?}");
    }
}

fn listing(running: &Reference) {
    heading("lvsctl ipvs list");
    let listing = running.fleet.ctl.run(&["ipvs", "list"]).succeeded();
    say(listing.trim_end());
    for address in [RS_1.1, LVS_2.1] {
        let line = listing.lines().find(|line| line.contains(&format!("-> {address}:80")));
        assert!(
            line.is_some_and(|line| line.contains("Route   3")),
            "{address} is in the table with weight 3"
        );
    }
}

/// The longest time without an answer. A planned move may be so quick that it lies wholly on one holder's side.
fn tell(silence: &Silence) {
    let (before, after) = (&silence.before, &silence.after);
    let who = if before == after {
        format!("the longest silence, with {after} answering before and after it")
    } else {
        format!("{before} fell silent, {after} answered")
    };
    say(&format!(
        "  {who}: {} without an answer to one datagram a millisecond (profile `{}`)",
        milliseconds(silence.length),
        pace::profile()
    ));
}

/// What both failovers say when they are over.
fn report(running: &Reference, window: &Window, requests: &[Request], to: &str) {
    tell(&window.silence);
    let touched: Vec<_> =
        requests.iter().filter(|request| request.overlaps(window.from, window.to)).collect();
    let lost = touched.iter().filter(|request| request.answer.is_err()).count();
    say(&format!("  {} requests fell into the failover, {lost} of them lost", touched.len()));
    assert_eq!(running.fleet.holder(), to, "who answers has the VIP, and nobody else");
}

/// Waits until the client has asked a few times more, so that what follows a failover is seen too.
fn settle(client: &Client) {
    let before = client.requests().len();
    eventually("the client goes on", Duration::from_secs(20), || {
        (client.requests().len() >= before + 10).then_some(())
    });
}

fn crash(running: &mut Reference, prober: &Prober) -> Window {
    heading(&format!("SIGKILL to the agent of {}, which holds the VIP", LVS_1.0));
    let client = running.client();
    settle(&client);
    let from = running.fleet.kill(LVS_1.0);
    let window = running.window(prober, from, LVS_2.0);
    settle(&client);
    report(running, &window, &client.requests(), LVS_2.0);
    still_serving(&client);
    window
}

fn come_back(running: &mut Reference, prober: &Prober) -> Window {
    heading(&format!(
        "{} returns, and is told to take the VIP: lvsctl failover --to {}",
        LVS_1.0, LVS_1.0
    ));
    running.fleet.agent_mut(LVS_1.0).start();
    running.fleet.converged();
    let client = running.client();
    settle(&client);
    let from = Instant::now();
    let moved = eventually("the move is accepted", Duration::from_secs(30), || {
        let run = running.fleet.ctl.run(&["failover", "--to", LVS_1.0]);
        (run.code == 0).then_some(run)
    });
    say(&format!("  {}", moved.out.trim_end()));
    let window = running.window(prober, from, LVS_1.0);
    settle(&client);
    report(running, &window, &client.requests(), LVS_1.0);
    window
}

fn cut(running: &Reference, prober: &Prober) -> Window {
    heading(&format!("The link of {} is cut at the switch", LVS_1.0));
    let client = running.client();
    settle(&client);
    let from = Instant::now();
    running.fleet.lab.cut(LVS_1.0);
    let window = running.window(prober, from, LVS_2.0);
    settle(&client);
    let silence = &window.silence;
    tell(silence);
    still_serving(&client);
    window
}

fn still_serving(client: &Client) {
    let requests = client.requests();
    let by = |name: &str| {
        requests.iter().filter(|request| request.answer.as_deref() == Ok(name)).count()
    };
    say(&format!(
        "  pages in this time: {} by {}, {} by {}",
        by(LVS_2.0),
        LVS_2.0,
        by(RS_1.0),
        RS_1.0
    ));
    assert!(
        by(LVS_2.0) > 0 && by(RS_1.0) > 0,
        "both servers serve, the dual-role one before and after it holds the VIP"
    );
}

fn restored(running: &Reference, prober: &Prober) {
    heading(&format!("The link of {} is restored", LVS_1.0));
    running.fleet.lab.restore(LVS_1.0);
    running.fleet.converged();
    running.fleet.held_by(LVS_2.0);
    assert_eq!(
        prober.answering(pace::scaled(Duration::from_millis(200))).as_deref(),
        Some(LVS_2.0),
        "failback: never"
    );
    say(&format!(
        "  {} follows again; {} goes on holding the VIP (failback: never)",
        LVS_1.0, LVS_2.0
    ));
}

fn summary(client: &Client, windows: &[Window]) {
    heading("Summary");
    let requests = client.requests();
    let lost = requests.iter().filter(|request| request.answer.is_err()).count();
    let outside = lost_outside(&requests, windows);
    say(&format!(
        "  {} requests by the client that asked all along: {lost} lost, of them outside the failovers: {}",
        requests.len(),
        outside.len()
    ));
    assert!(outside.is_empty(), "requests were lost while nothing was wrong: {outside:#?}");
}
