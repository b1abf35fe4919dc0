//! From the previous release to this one, node by node, while clients ask.

use std::path::Path;
use std::time::{Duration, Instant};

use lvsmesh_tests::capture::Capture;
use lvsmesh_tests::ctl::Lvsctl;
use lvsmesh_tests::document::{Document, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::fleet::{Options, machines};
use lvsmesh_tests::probe::{ArpProber, Echo, Prober};
use lvsmesh_tests::process::previous_release;
use lvsmesh_tests::{Fleet, eventually, pace, scaled};
use nix::sys::signal::Signal;

/// A fleet whose nodes change their version, and those who watch it.
struct Upgrade {
    prober: Prober,
    capture: Capture,
    _arp: ArpProber,
    _echoes: Vec<Echo>,
    fleet: Fleet,
    revision: u64,
}

impl Upgrade {
    fn start(release: &Path) -> Self {
        let options = Options {
            profile: "relaxed".to_owned(),
            release: Some(release.to_owned()),
            ..Options::default()
        };
        let fleet = Fleet::start_on(machines(), &options);
        fleet.apply(&document(""));
        let echoes = fleet.names().iter().map(|name| Echo::start(fleet.lab.node(name))).collect();
        let capture = fleet.lab.capture();
        let prober = Prober::start(fleet.client(), VIP);
        let arp = ArpProber::start(fleet.client(), VIP, Duration::from_millis(10));
        let revision = fleet.converged();
        let upgrade = Self { prober, capture, _arp: arp, _echoes: echoes, fleet, revision };
        upgrade.answered();
        upgrade
    }

    fn answered(&self) {
        eventually("somebody answers for the VIP", Duration::from_secs(20), || {
            self.prober.answering(Duration::from_millis(200))
        });
    }

    /// Stops a node cleanly and starts it with those programs on the same disk; everything is as before, and nobody noticed for long.
    fn install(&mut self, name: &str, release: Option<&Path>) {
        let since = Instant::now();
        let agent = self.fleet.agent_mut(name);
        let status = agent.end(Signal::SIGTERM);
        assert!(status.success(), "a clean stop is a success: {status}");
        agent.install(release);
        agent.start();
        assert_eq!(self.fleet.converged(), self.revision, "after {name}");
        self.answered();
        let silence = self.prober.longest_silence(since).expect("there were answers throughout");
        let version = if release.is_some() { "the previous release" } else { "this release" };
        pace::note(&format!("{name} to {version}: dark for at most {:?}", silence.length));
        assert!(silence.length <= scaled(Duration::from_secs(2)), "{name}: {silence:?}");
        assert_eq!(self.capture.answered_twice(VIP), [], "two nodes answered one ARP request");
    }
}

fn document(fleet: &str) -> Document {
    Document { attach: "responder", fleet: fleet.to_owned(), ..Document::vip_alone() }
}

#[test]
fn a_fleet_changes_its_version_node_by_node_and_new_words_wait_for_the_last() {
    let release = previous_release();
    let mut upgrade = Upgrade::start(&release);
    upgrade.install(RS_1.0, None);
    upgrade.install(LVS_2.0, None);
    // Back and forth once, in the middle.
    upgrade.install(LVS_2.0, Some(&release));
    upgrade.install(LVS_2.0, None);

    // A leader that knows the word, and one member that does not.
    let _moved = upgrade.fleet.ctl.run(&["failover", "--to", LVS_2.0]).succeeded();
    let newer = document(", failback: immediate").yaml();
    let ctl = Lvsctl { endpoints: vec![format!("{}:7400", LVS_2.1)], ..upgrade.fleet.ctl.clone() };
    let refused = ctl.apply(&newer, &[]);
    assert_ne!(refused.code, 0, "{}", refused.out);
    for part in ["fleet.failback: `immediate`", "`lvs-1`", "feature level 1", "upgrade lvs-agent"] {
        assert!(refused.err.contains(part), "{part} is not in: {}", refused.err);
    }
    assert_eq!(upgrade.fleet.converged(), upgrade.revision, "nothing was changed");

    upgrade.install(LVS_1.0, None);
    let _applied = ctl.apply(&newer, &[]).succeeded();
    upgrade.revision += 1;
    assert_eq!(upgrade.fleet.converged(), upgrade.revision);

    // Too late to go back: the old version says so, rather than do something else than the others.
    let agent = upgrade.fleet.agent_mut(RS_1.0);
    agent.end(Signal::SIGTERM);
    agent.install(Some(&release));
    let output = agent.once(&["run"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("cannot be read by this version of lvs-agent"), "{said}");
    let agent = upgrade.fleet.agent_mut(RS_1.0);
    agent.install(None);
    agent.start();
    assert_eq!(upgrade.fleet.converged(), upgrade.revision);
    assert_eq!(upgrade.capture.answered_twice(VIP), [], "two nodes answered one ARP request");
}
