//! `no_quorum`: two directors alone, and two with a witness, under each policy. What is promised is what happens, and never two answers.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

use lvsmesh_core::vrrp::fallback::PATIENCE;
use lvsmesh_tests::document::{CLIENT, Document, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::fleet::{Fleet, Options, machines};
use lvsmesh_tests::probe::Echo;
use lvsmesh_tests::watcher::{Claim, Mark, Watcher, Way};
use lvsmesh_tests::{eventually, scaled};

/// Longer than it takes to take a VIP that nobody holds: VRRP's time with adverts once a second, twenty questions.
const LONG_ENOUGH: Duration = Duration::from_secs(9);

/// What a policy promises, by its word, in a fleet of two directors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Promise {
    word: &'static str,
    /// The holder goes on.
    holds: bool,
    /// Another takes it.
    takes: bool,
}

const STRICT: Promise = Promise { word: "strict", holds: false, takes: false };
const STICKY: Promise = Promise { word: "sticky", holds: true, takes: false };
const FALLBACK: Promise = Promise { word: "vrrp-fallback", holds: true, takes: true };
const AUTO: Promise = Promise { word: "auto", holds: true, takes: true };

struct Site {
    watcher: Watcher,
    _echoes: Vec<Echo>,
    fleet: Fleet,
    promise: Promise,
    begun: Mark,
}

impl Site {
    fn start(promise: Promise, two: bool, arbiter: Ipv4Addr) -> Self {
        Self::with("responder", promise, two, arbiter)
    }

    fn with(attach: &'static str, promise: Promise, two: bool, arbiter: Ipv4Addr) -> Self {
        let fleet = Fleet::start_on(machines(), &Options { two, pure: true, ..Options::default() });
        let document = Document {
            attach,
            fleet: format!(", no_quorum: {}", promise.word),
            vip: format!("\n    arbiters: [{arbiter}]"),
            ..Document::vip_alone()
        };
        fleet.apply(&document);
        fleet.converged();
        let echoes = fleet.names().iter().map(|name| Echo::start(fleet.lab.node(name))).collect();
        let watcher = Watcher::start(&fleet.lab, fleet.client(), VIP);
        let begun = watcher.mark();
        let site = Self { watcher, _echoes: echoes, fleet, promise, begun };
        site.answered_by(LVS_1.0);
        site
    }

    /// Waits until a node answers what is asked from now on.
    fn answered_by(&self, name: &str) {
        let mark = self.watcher.mark();
        eventually(&format!("{name} answers"), Duration::from_secs(40), || {
            (self.watcher.answered_by(mark)? == name).then_some(())
        });
    }

    /// Nobody says that it has the VIP, and nobody comes to. A client that still knows where it was is served there on, which loses less.
    fn dark(&self) {
        eventually("nobody answers", Duration::from_secs(20), || {
            let mark = self.watcher.mark();
            sleep(Duration::from_millis(300));
            self.watcher.since(mark).claims.is_empty().then_some(())
        });
        let mark = self.watcher.mark();
        sleep(scaled(LONG_ENOUGH));
        assert_eq!(self.watcher.since(mark).runs(), vec![], "{:?}", self.promise);
    }

    /// A node goes on answering as if nothing had happened.
    fn goes_on(&self, name: &str) {
        let mark = self.watcher.mark();
        sleep(scaled(LONG_ENOUGH));
        assert_eq!(answering(&self.watcher, mark), [name], "{:?}", self.promise);
        self.answered_by(name);
    }

    /// What the last node that runs says of the VIP.
    fn held_by(&self, name: &str, authority: &str, quorum: bool) {
        let what = format!("{name} holds by {authority}");
        self.fleet.until(&what, Duration::from_secs(40), |status| {
            let vip = status.vips.first();
            let held = vip.is_some_and(|vip| vip.holder == name && vip.authority == authority);
            let warned = status.warnings.iter().any(|line| line.starts_with("DEGRADED"));
            held && status.quorum == quorum && warned == (authority != "lease")
        });
    }

    /// No question since the begin was answered twice.
    fn once(&self) {
        let story = self.watcher.since(self.begun);
        assert_eq!(story.twice(), [], "{:?}", self.promise);
        assert_eq!(story.datagrams_twice(), [], "{:?}", self.promise);
    }

    /// The order in which machines answered since the begin is this one, and no question was answered twice.
    fn told(&self, order: &[&str]) {
        self.once();
        assert_eq!(answering(&self.watcher, self.begun), order, "{:?}", self.promise);
    }

    fn start_agents(&mut self, names: &[&str]) {
        for name in names {
            self.fleet.agent_mut(name).start();
        }
    }

    /// A change needs a majority under each policy.
    fn refuses_changes(&self) {
        let document = Document { addresses: "192.168.3.99".into(), ..Document::vip_alone() };
        let run = self.fleet.ctl.apply(&document.yaml(), &["-m", "without a majority"]);
        assert_eq!(run.code, 6, "{run:?}");
    }
}

/// Who answered ARP requests since then, each once for each unbroken run.
fn answering(watcher: &Watcher, mark: Mark) -> Vec<String> {
    let claims: Vec<Claim> = watcher.since(mark).claims;
    let answers = claims.into_iter().filter(|claim| matches!(claim.way, Way::Answer(_)));
    let mut runs: Vec<String> = answers.map(|claim| claim.by).collect();
    runs.dedup();
    runs
}

/// The holder loses everybody else, and they come back; then everybody but one who does not hold is lost.
fn lost_and_found(attach: &'static str, promise: Promise, two: bool) {
    let mut site = Site::with(attach, promise, two, CLIENT.1);
    let others: &[&str] = if two { &[LVS_2.0] } else { &[LVS_2.0, RS_1.0] };
    for name in others {
        site.fleet.kill(name);
    }
    if promise.holds {
        site.held_by(LVS_1.0, "sticky", false);
        site.goes_on(LVS_1.0);
        site.refuses_changes();
    } else {
        site.dark();
    }
    site.start_agents(others);
    if promise.holds {
        site.held_by(LVS_1.0, "lease", true);
        site.told(&[LVS_1.0]);
    } else {
        // Either may lead first; the move is an operator's.
        site.fleet.until("somebody holds", Duration::from_secs(40), |status| {
            status.quorum && status.vips.first().is_some_and(|vip| !vip.holder.is_empty())
        });
        let _moved = site.fleet.ctl.run(&["failover", "--to", LVS_1.0]).succeeded();
        site.held_by(LVS_1.0, "lease", true);
    }
    site.fleet.until("all vote", Duration::from_secs(40), |status| {
        status.nodes.iter().all(|node| node.reachable && node.raft != "learner")
    });

    site.once();
    site.begun = site.watcher.mark();
    site.answered_by(LVS_1.0);
    let lost: &[&str] = if two { &[LVS_1.0] } else { &[RS_1.0, LVS_1.0] };
    // The last word that it had from the fleet is the holder's.
    for name in lost {
        site.fleet.kill(name);
    }
    if promise.takes {
        site.answered_by(LVS_2.0);
        site.held_by(LVS_2.0, "vrrp-fallback", false);
        site.refuses_changes();
        site.start_agents(lost);
        // Who held goes on.
        site.held_by(LVS_2.0, "lease", true);
        site.goes_on(LVS_2.0);
        site.told(&[LVS_1.0, LVS_2.0]);
    } else {
        site.dark();
        site.start_agents(lost);
        site.fleet.until("somebody holds", Duration::from_secs(40), |status| {
            status.quorum && status.vips.first().is_some_and(|vip| !vip.holder.is_empty())
        });
        site.once();
    }
}

#[test]
fn two_directors_alone_strict() {
    lost_and_found("responder", STRICT, true);
}

#[test]
fn two_directors_alone_sticky() {
    lost_and_found("responder", STICKY, true);
}

#[test]
fn two_directors_alone_vrrp_fallback() {
    lost_and_found("responder", FALLBACK, true);
}

#[test]
fn two_directors_alone_auto() {
    lost_and_found("responder", AUTO, true);
}

#[test]
fn two_directors_and_a_witness_strict() {
    lost_and_found("responder", STRICT, false);
}

#[test]
fn two_directors_and_a_witness_sticky() {
    lost_and_found("responder", STICKY, false);
}

#[test]
fn two_directors_and_a_witness_vrrp_fallback() {
    lost_and_found("responder", FALLBACK, false);
}

#[test]
fn two_directors_and_a_witness_auto() {
    lost_and_found("responder", AUTO, false);
}

/// The kernel answers, and has a deadline that the lease does not give it.
#[test]
fn two_directors_alone_with_an_address_vrrp_fallback() {
    lost_and_found("address", FALLBACK, true);
}

#[test]
fn two_directors_and_a_witness_with_an_address_sticky() {
    lost_and_found("address", STICKY, false);
}

#[test]
fn two_directors_and_a_witness_with_an_address_strict() {
    lost_and_found("address", STRICT, false);
}

/// What VRRP alone gets wrong: agents that do not hear each other, on a segment on which everybody hears everybody.
#[test]
fn a_split_of_the_control_plane_doubles_nobody() {
    let site = Site::start(FALLBACK, false, CLIENT.1);
    site.fleet.lab.control_cut(LVS_1.0, CLIENT.1);
    // It goes on without a quorum until the new holder has told it, and not a moment longer.
    site.answered_by(LVS_2.0);
    site.goes_on(LVS_2.0);
    site.told(&[LVS_1.0, LVS_2.0]);
    let logged = site.fleet.agent(LVS_1.0).logged();
    assert!(logged.contains("holding without a quorum"), "it was sticky in between: {logged}");

    // And it takes nothing, however long it hears of no majority: it hears the holder's adverts.
    sleep(scaled(PATIENCE));
    site.goes_on(LVS_2.0);
    site.fleet.lab.mend();
    site.fleet.until("all three answer", Duration::from_secs(40), |status| {
        status.quorum && status.nodes.iter().all(|node| node.reachable)
    });
    site.goes_on(LVS_2.0);
    site.told(&[LVS_1.0, LVS_2.0]);
}

#[test]
fn who_hears_of_no_arbiter_takes_nothing_and_holds_nothing() {
    // Nobody has that address.
    let mut site = Site::start(FALLBACK, true, Ipv4Addr::new(192, 168, 3, 250));
    site.fleet.kill(LVS_2.0);
    site.dark();
    site.start_agents(&[LVS_2.0]);
    site.fleet.until("somebody holds", Duration::from_secs(40), |status| {
        status.quorum && status.vips.first().is_some_and(|vip| vip.authority == "lease")
    });
    site.fleet.kill(LVS_1.0);
    let waits = "no quorum; to be taken when nobody answers for it and one of its arbiters does";
    site.fleet.until("it says what it waits for", Duration::from_secs(40), |status| {
        status.warnings.iter().any(|line| line.contains(waits))
    });
    site.dark();
}
