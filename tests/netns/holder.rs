//! One holder, and a new one when it fails.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lvsmesh_tests::capture::{Capture, Frame};
use lvsmesh_tests::document::{Document, LVS_1, LVS_2, VIP};
use lvsmesh_tests::probe::{ArpProber, Echo, Prober};
use lvsmesh_tests::{Fleet, eventually, pace, scaled};
use nix::sys::signal::Signal;

/// A fleet that holds the VIP on the first director, and those who watch it.
pub(super) struct Watched {
    pub(super) prober: Prober,
    pub(super) capture: Capture,
    _arp: ArpProber,
    _echoes: Vec<Echo>,
    pub(super) fleet: Fleet,
}

impl Watched {
    pub(super) fn start() -> Self {
        let fleet = Fleet::start();
        fleet.apply(&Document::vip_alone());
        fleet.held_by(LVS_1.0);
        let echoes = fleet.names().iter().map(|name| Echo::start(fleet.lab.node(name))).collect();
        let capture = fleet.lab.capture();
        let prober = Prober::start(fleet.client(), VIP);
        let arp = ArpProber::start(fleet.client(), VIP, Duration::from_millis(10));
        let watched = Self { prober, capture, _arp: arp, _echoes: echoes, fleet };
        watched.answered_by(LVS_1.0, Instant::now());
        watched
    }

    /// Waits until a node answers both datagrams and ARP, after `since`.
    pub(super) fn answered_by(&self, name: &str, since: Instant) {
        eventually(&format!("{name} answers for the VIP"), Duration::from_secs(20), || {
            let last = self.prober.answers().pop()?;
            let arp = self.capture.answering(VIP).pop()?;
            (last.by == name && last.at >= since && arp.0 == name && arp.1 > 3).then_some(())
        });
    }

    /// The VIP has moved from the first director to the second after a fault: it was dark for no longer than `most`, and at no time did two
    /// nodes answer for it.
    pub(super) fn moved(&self, since: Instant, most: Duration) {
        self.answered_by(LVS_2.0, since);
        self.fleet.held_by(LVS_2.0);
        let silence =
            self.prober.longest_silence(since).expect("there were answers before and after");
        pace::note(&format!(
            "dark for {:?} ({} to {})",
            silence.length, silence.before, silence.after
        ));
        assert!(silence.length <= scaled(most), "dark for {silence:?}, at most {most:?} expected");
        let answering: Vec<_> =
            self.capture.answering(VIP).into_iter().map(|(node, _)| node).collect();
        assert_eq!(answering, [LVS_1.0, LVS_2.0], "who answers ARP changes once");
        self.alone();
    }

    pub(super) fn alone(&self) {
        assert_eq!(self.capture.answered_twice(VIP), [], "two nodes answered one ARP request");
    }
}

#[test]
fn the_preferred_director_alone_holds_and_announces_the_vip() {
    let watched = Watched::start();
    let announced = || {
        let adverts = watched.capture.adverts(Duration::from_secs(10));
        (adverts.len() >= 3).then_some(adverts)
    };
    let adverts = eventually("three adverts", Duration::from_secs(15), announced);
    for seen in &adverts {
        assert_eq!(seen.from, LVS_1.0);
        assert_eq!(seen.frame, Frame::Advert { version: 2, vrid: 51, priority: 200 });
    }
    let status =
        watched.fleet.until("the status names the holder", Duration::from_secs(10), |status| {
            status.vips.iter().any(|vip| vip.holder == LVS_1.0)
        });
    assert!(status.quorum, "{status:#?}");
    assert_eq!(status.vips[0].also_on, Vec::<String>::new());
    watched.alone();
}

#[test]
fn a_killed_holder_is_replaced() {
    let mut watched = Watched::start();
    let at = watched.fleet.kill(LVS_1.0);
    watched.moved(at, Duration::from_secs(2));
}

#[test]
fn a_holder_that_is_stopped_cleanly_hands_over_and_says_so_on_the_wire() {
    let mut watched = Watched::start();
    let at = Instant::now();
    let status = watched.fleet.agent_mut(LVS_1.0).end(Signal::SIGTERM);
    assert!(status.success(), "a clean stop is a success: {status}");
    watched.moved(at, Duration::from_secs(2));
    let resigned = Frame::Advert { version: 2, vrid: 51, priority: 0 };
    let seen = watched
        .capture
        .frames()
        .iter()
        .any(|seen| seen.at >= at && seen.from == LVS_1.0 && seen.frame == resigned);
    assert!(seen, "priority 0 on a clean stop");
}

#[test]
fn a_holder_that_is_cut_off_lets_go_before_another_takes_over() {
    let watched = Watched::start();
    let at = Instant::now();
    watched.fleet.lab.cut(LVS_1.0);
    watched.moved(at, Duration::from_secs(2));
    watched.fleet.lab.restore(LVS_1.0);
    watched.fleet.converged();
    watched.fleet.held_by(LVS_2.0);
    watched.alone();
}

#[test]
fn a_holder_whose_cable_is_pulled_is_replaced() {
    let watched = Watched::start();
    let at = Instant::now();
    watched.fleet.lab.unplug(LVS_1.0);
    watched.moved(at, Duration::from_secs(2));
}

#[test]
fn an_operator_moves_the_vip_there_and_back() {
    let watched = Watched::start();
    let at = Instant::now();
    let _moved = watched.fleet.ctl.run(&["failover", "--to", LVS_2.0]).succeeded();
    assert_eq!(watched.fleet.attached(), [LVS_2.0], "failover returns once the new one holds");
    watched.moved(at, Duration::from_secs(2));

    let at = Instant::now();
    let _moved = watched.fleet.ctl.run(&["failover", "--to", LVS_1.0]).succeeded();
    watched.answered_by(LVS_1.0, at);
    watched.fleet.held_by(LVS_1.0);
    watched.alone();
}

/// As often as `LVSMESH_MOVES` says, 12 times without it; each move begins as soon as the one before it has been answered.
#[test]
fn the_vip_is_moved_there_and_back_again_and_again() {
    let moves = std::env::var("LVSMESH_MOVES").map_or(12, |count| count.parse().expect("a number"));
    let watched = Watched::start();
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    for number in 1..=moves {
        let to = if number % 2 == 1 { LVS_2.0 } else { LVS_1.0 };
        let at = Instant::now();
        let _moved = watched.fleet.ctl.run(&["failover", "--to", to]).succeeded();
        assert_eq!(watched.fleet.attached(), [to], "move {number}");
        slowest = slowest.max(at.elapsed());
    }
    let last = if moves % 2 == 1 { LVS_2.0 } else { LVS_1.0 };
    watched.answered_by(last, Instant::now());
    let silence = watched.prober.longest_silence(began).expect("there were answers throughout");
    pace::note(&format!(
        "{moves} moves; dark for at most {:?}, the slowest answer took {slowest:?}",
        silence.length
    ));
    assert!(silence.length <= scaled(Duration::from_secs(1)), "dark for {silence:?}");
    watched.alone();
}

#[test]
fn a_move_to_a_node_that_cannot_hold_is_refused() {
    let watched = Watched::start();
    let run = watched.fleet.ctl.run(&["failover", "--to", "rs-1"]);
    assert_ne!(run.code, 0, "a realserver never holds: {}", run.out);
    assert!(run.err.contains("rs-1"), "{}", run.err);
    assert_eq!(watched.fleet.ctl.run(&["failover", "--to", "nobody"]).code, 4, "no such node");
    watched.fleet.held_by(LVS_1.0);
}

#[test]
fn an_idle_fleet_keeps_its_holder() {
    let watched = Watched::start();
    let epoch =
        || watched.fleet.ctl.status().and_then(|status| status.vips.first().map(|vip| vip.epoch));
    let before = epoch();
    assert!(before.is_some_and(|epoch| epoch > 0), "{before:?}");
    pace::throughout("the holder stays", Duration::from_secs(5), || {
        let attached = watched.fleet.attached();
        (attached != [LVS_1.0]).then(|| format!("{attached:?} have the VIP"))
    });
    assert_eq!(epoch(), before, "one tenure");
    let held: Ipv4Addr = VIP;
    assert_eq!(watched.capture.answering(held).len(), 1, "one node answers");
}
