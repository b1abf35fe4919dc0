//! `attach: responder`: the VIP is on every director's `lo`, whose kernel is quiet about it; the holder's agent answers, under the lease.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use lvsmesh_tests::capture::Capture;
use lvsmesh_tests::document::{CLIENT, Document, LVS_1, LVS_2, RS_1, VIP, VIP_V6};
use lvsmesh_tests::fleet::{Fleet, Options};
use lvsmesh_tests::netns::Namespace;
use lvsmesh_tests::probe::{ArpProber, Echo, Prober};
use lvsmesh_tests::{Lab, eventually, link, pace, scaled};
use nix::sys::signal::{Signal, kill};

use super::guard::guard_of;

/// A fleet whose first director answers for the VIP, and those who watch it.
struct Watched {
    prober: Prober,
    capture: Capture,
    _arp: ArpProber,
    _echoes: Vec<Echo>,
    fleet: Fleet,
    vip: IpAddr,
}

fn document() -> Document {
    Document { attach: "responder", ..Document::vip_alone() }
}

impl Watched {
    fn start() -> Self {
        let fleet = Fleet::start();
        fleet.apply(&document());
        Self::watch(fleet, VIP.into())
    }

    fn watch(fleet: Fleet, vip: IpAddr) -> Self {
        let echoes =
            fleet.names().iter().map(|name| Echo::dual_stack(fleet.lab.node(name))).collect();
        let capture = fleet.lab.capture();
        let prober = Prober::start(fleet.client(), vip);
        let arp = ArpProber::start(fleet.client(), vip, Duration::from_millis(5));
        let watched = Self { prober, capture, _arp: arp, _echoes: echoes, fleet, vip };
        watched.answered_by(LVS_1.0, Instant::now());
        watched
    }

    /// Waits until a node answers both datagrams and the question who has the VIP, after `since`; its status says so too.
    fn answered_by(&self, name: &str, since: Instant) {
        eventually(&format!("{name} answers for the VIP"), Duration::from_secs(20), || {
            let last = self.prober.answers().pop()?;
            let (node, count) = self.capture.answering(self.vip).pop()?;
            (last.by == name && last.at >= since && node == name && count > 3).then_some(())
        });
    }

    /// No interface has the VIP; whose agent answers is the one whom the status names, and nobody else's does.
    fn named(&self, name: &str) {
        self.fleet.until(&format!("{name} alone is named"), Duration::from_secs(20), |status| {
            status.vips.iter().all(|vip| vip.holder == name && vip.also_on.is_empty())
        });
        assert_eq!(self.fleet.having(self.vip), Vec::<String>::new());
    }

    /// Everyone who has answered, in order; nobody did together with another.
    fn only(&self, order: &[&str]) {
        let answering: Vec<_> =
            self.capture.answering(self.vip).into_iter().map(|(node, _)| node).collect();
        assert_eq!(answering, order, "who answers, in order");
        assert_eq!(self.capture.answered_twice(self.vip), [], "two answered one question");
    }

    fn moved(&self, since: Instant) {
        self.answered_by(LVS_2.0, since);
        self.named(LVS_2.0);
        let silence = self.prober.longest_silence(since).expect("there were answers all along");
        pace::note(&format!("responder: dark for {:?}", silence.length));
        assert!(silence.length <= scaled(Duration::from_secs(2)), "dark for {silence:?}");
        self.only(&[LVS_1.0, LVS_2.0]);
    }

    fn on_lo(&self, name: &str) -> bool {
        link::has_address(self.namespace(name), "lo", self.vip)
    }

    fn namespace(&self, name: &str) -> &Namespace {
        &self.fleet.lab.node(name).namespace
    }
}

#[test]
fn the_holder_alone_answers_for_a_vip_that_every_director_has_on_lo() {
    let watched = Watched::start();
    watched.fleet.converged();
    watched.named(LVS_1.0);
    for name in [LVS_1.0, LVS_2.0] {
        assert!(watched.on_lo(name), "{name}");
    }
    assert!(!watched.on_lo(RS_1.0), "there is no service for which it would need the VIP");
    watched.only(&[LVS_1.0]);

    // Taken off a director's lo: it is put back.
    link::delete_address(watched.namespace(LVS_2.0), "lo", VIP);
    eventually("the VIP is back on lo", Duration::from_secs(10), || {
        watched.on_lo(LVS_2.0).then_some(())
    });
    watched.fleet.until("the repair is told", Duration::from_secs(10), |status| {
        status.node(LVS_2.0).is_some_and(|node| node.drift_repaired == 1)
    });
}

#[test]
fn a_killed_agent_is_silent_and_replaced() {
    let mut watched = Watched::start();
    let at = watched.fleet.kill(LVS_1.0);
    watched.moved(at);
    assert!(watched.on_lo(LVS_1.0), "the address stays; its kernel is quiet");
    // Back again, it answers nothing that it should not.
    watched.fleet.agent_mut(LVS_1.0).start();
    watched.fleet.converged();
    watched.only(&[LVS_1.0, LVS_2.0]);
}

#[test]
fn a_stopped_agent_is_silent_and_ended_by_its_guard() {
    let watched = Watched::start();
    let at = Instant::now();
    watched.fleet.agent(LVS_1.0).process().signal(Signal::SIGSTOP);
    watched.moved(at);
    eventually("the guard has done its work", Duration::from_secs(20), || {
        guard_of(&watched.fleet, LVS_1.0).is_none().then_some(())
    });
    let logged = watched.fleet.agent(LVS_1.0).logged();
    assert!(logged.contains("killing the agent"), "{logged}");
    watched.only(&[LVS_1.0, LVS_2.0]);
}

/// The fence that needs nobody to be awake: without a guard, a stopped agent is silent all the same, and when it is woken.
#[test]
fn a_stopped_agent_without_a_guard_is_silent_and_stays_so_when_it_is_woken() {
    let watched = Watched::start();
    let guard = guard_of(&watched.fleet, LVS_1.0).expect("a director has a guard");
    // Stopped it can neither act nor be replaced.
    kill(guard, Signal::SIGSTOP).unwrap();
    let at = Instant::now();
    let agent = watched.fleet.agent(LVS_1.0).process();
    agent.signal(Signal::SIGSTOP);
    watched.answered_by(LVS_2.0, at);
    watched.only(&[LVS_1.0, LVS_2.0]);
    agent.signal(Signal::SIGCONT);
    let woken = Instant::now();
    eventually("many have asked since", Duration::from_secs(20), || {
        let since = watched.prober.answers().iter().filter(|answer| answer.at > woken).count();
        (since > 1000).then_some(())
    });
    watched.moved(at);
}

#[test]
fn a_director_that_is_cut_off_is_silent_when_it_is_back() {
    let watched = Watched::start();
    let at = Instant::now();
    watched.fleet.lab.cut(LVS_1.0);
    watched.moved(at);
    watched.fleet.lab.restore(LVS_1.0);
    watched.fleet.converged();
    watched.only(&[LVS_1.0, LVS_2.0]);
}

#[test]
fn an_operator_moves_who_answers() {
    let watched = Watched::start();
    let at = Instant::now();
    let _moved = watched.fleet.ctl.run(&["failover", "--to", LVS_2.0]).succeeded();
    watched.moved(at);
}

#[test]
fn an_agent_that_is_stopped_cleanly_leaves_the_address_and_takes_it_when_it_leaves_the_fleet() {
    let mut watched = Watched::start();
    let at = Instant::now();
    assert!(watched.fleet.agent_mut(LVS_1.0).end(Signal::SIGTERM).success());
    watched.moved(at);
    assert!(watched.on_lo(LVS_1.0));
    let quiet = || {
        let read = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/arp_ignore");
        watched.namespace(LVS_1.0).inside(read).unwrap().trim().to_owned()
    };
    assert_eq!(quiet(), "1");
    watched.fleet.agent(LVS_1.0).succeed(&["leave"]);
    assert!(!watched.on_lo(LVS_1.0));
    assert_eq!(quiet(), "0");
    watched.only(&[LVS_1.0, LVS_2.0]);
}

#[test]
fn solicitations_are_answered_by_the_holders_agent_and_by_no_kernel() {
    let lab = Lab::dual_stack(&[LVS_1, LVS_2, RS_1, CLIENT]);
    let fleet = Fleet::start_on(lab, &Options::default());
    fleet.apply(&Document { addresses: format!("{VIP}, '{VIP_V6}'"), ..document() });
    let mut watched = Watched::watch(fleet, VIP_V6.into());
    watched.named(LVS_1.0);
    let at = watched.fleet.kill(LVS_1.0);
    watched.moved(at);
}

/// The ways to attach can be changed while the VIP is in use: it is dark for a moment at most, and never answered for by two.
#[test]
fn the_way_to_attach_is_changed_in_place() {
    let watched = Watched::start();
    let at = Instant::now();
    watched.fleet.apply(&Document::vip_alone());
    watched.fleet.held_by(LVS_1.0);
    eventually("no lo has the VIP", Duration::from_secs(20), || {
        [LVS_1.0, LVS_2.0].iter().all(|name| !watched.on_lo(name)).then_some(())
    });
    watched.fleet.apply(&document());
    watched.fleet.converged();
    watched.answered_by(LVS_1.0, Instant::now());
    watched.named(LVS_1.0);
    let silence = watched.prober.longest_silence(at).expect("there were answers all along");
    pace::note(&format!("changing how the VIP is attached: dark for {:?}", silence.length));
    assert!(silence.length <= scaled(Duration::from_secs(2)), "dark for {silence:?}");
    watched.only(&[LVS_1.0]);
}
