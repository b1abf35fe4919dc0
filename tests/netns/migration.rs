//! A running pair of keepalived is replaced by a fleet, under traffic; and gets its VIP back.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lvsmesh_tests::capture::Capture;
use lvsmesh_tests::document::{CLIENT, Document, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::fleet::{Fleet, Options};
use lvsmesh_tests::peers::{Instance, Keepalived};
use lvsmesh_tests::probe::{ArpProber, Echo, Prober};
use lvsmesh_tests::{Lab, eventually, link, pace, scaled};

const OLD_1: (&str, Ipv4Addr) = ("old-1", Ipv4Addr::new(192, 168, 3, 104));
const OLD_2: (&str, Ipv4Addr) = ("old-2", Ipv4Addr::new(192, 168, 3, 105));

struct Site {
    fleet: Fleet,
    old: Vec<Keepalived>,
    capture: Capture,
    prober: Prober,
    _asking: ArpProber,
    _echoes: Vec<Echo>,
}

/// When a step began, by the clock and by the last datagram before it.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    asked: u64,
}

impl Site {
    /// A pair of keepalived that has the VIP, and a fleet beside it that has no document yet.
    fn start() -> Self {
        let lab = Lab::new(&[LVS_1, LVS_2, RS_1, CLIENT, OLD_1, OLD_2]);
        let fleet = Fleet::start_on(lab, &Options::default());
        let old: Vec<Keepalived> = [(OLD_1, 150), (OLD_2, 100)]
            .into_iter()
            .map(|((name, _), priority)| {
                let instance = Instance { priority, ..Instance::backup(2, "1", &[VIP.into()]) };
                Keepalived::start(&fleet.lab, fleet.lab.node(name), &[instance])
            })
            .collect();
        old[0].enters("MASTER", Duration::from_secs(20));
        let echoes = fleet.lab.nodes().iter().map(Echo::start).collect();
        let capture = fleet.lab.capture();
        let prober = Prober::start(fleet.client(), VIP);
        let asking = ArpProber::start(fleet.client(), VIP, Duration::from_millis(10));
        let site = Self { fleet, old, capture, prober, _asking: asking, _echoes: echoes };
        site.answered_by(OLD_1.0, Instant::now());
        site
    }

    fn answered_by(&self, name: &str, since: Instant) {
        eventually(&format!("{name} answers for the VIP"), Duration::from_secs(20), || {
            let last = self.prober.answers().pop()?;
            let arp = self.capture.answering(VIP).pop()?;
            (last.by == name && last.at >= since && arp.0 == name && arp.1 > 3).then_some(())
        });
    }

    fn now(&self) -> Moment {
        Moment { at: Instant::now(), asked: self.prober.asked() }
    }

    /// How many of the datagrams since then were not answered, but for those that are under way.
    fn lost(&self, since: Moment) -> usize {
        let answers = self.prober.answers_after(since.asked);
        let newest = answers.iter().map(|answer| answer.question).max().unwrap_or(since.asked);
        usize::try_from(newest - since.asked).expect("a test asks less often") - answers.len()
    }

    /// One step is over: `name` answers, and the VIP was dark for no longer than one failover of keepalived.
    fn moved(&self, step: &str, name: &str, since: Moment) {
        self.answered_by(name, since.at);
        let lost = self.lost(since);
        let since = since.at;
        let silence = self.prober.longest_silence(since).expect("there were answers before");
        pace::note(&format!("{step}: dark for {:?}, {lost} datagrams lost", silence.length));
        // Three adverts and the skew of priority 100; the kernel and this machine need their time, too.
        let most = scaled(Duration::from_millis(3610 + 1000));
        assert!(silence.length <= most, "{step}: dark for {silence:?}");
    }

    /// The first step: a fleet that holds its lease and says nothing.
    fn beside(&self) {
        let vrrp = ", coexist: yield".to_owned();
        self.fleet.apply(&Document { vrrp, ..Document::vip_alone() });
        let said = |status: &lvsmesh_tests::ctl::Status| {
            status.complaints().contains("192.168.3.104 with priority 150; yielding to it")
        };
        self.fleet.until("the status names the pair", Duration::from_secs(20), said);
        assert_eq!(self.fleet.attached(), Vec::<String>::new());
        assert!(
            !self
                .capture
                .adverts(Duration::from_secs(60))
                .iter()
                .any(|seen| { seen.from == LVS_1.0 || seen.from == LVS_2.0 })
        );
    }

    /// Another answers for the VIP and does not advertise it: the fleet says so, and is silent for so many seconds.
    fn claims_nothing(&self, seconds: u64) {
        let attached = || {
            let attached = self.fleet.attached();
            (!attached.is_empty()).then(|| format!("{attached:?}"))
        };
        self.fleet.until("the status says who has it", Duration::from_secs(30), |status| {
            assert_eq!(attached(), None);
            status.complaints().contains("answers for 192.168.3.100 and does not advertise it")
        });
        pace::throughout("the fleet claims nothing", Duration::from_secs(seconds), attached);
        let run = self.fleet.ctl.run(&["status"]);
        assert_eq!(run.code, 3, "{}{}", run.out, run.err);
        assert!(run.err.contains("degraded: VIP group web is held by lvs-"), "{}", run.err);
        assert!(run.err.contains(" in silence\n"), "{}", run.err);
    }

    fn command(&self, arguments: &[&str]) -> Moment {
        let at = self.now();
        let _printed = self.fleet.ctl.run(arguments).succeeded();
        at
    }

    fn alone(&self) {
        assert_eq!(self.capture.answered_twice(VIP), [], "two machines answered one question");
    }
}

#[test]
fn a_fleet_takes_the_place_of_a_running_pair_and_a_datagram_a_millisecond_counts_the_cost() {
    let mut site = Site::start();
    let began = site.now();
    site.beside();
    let silence = site.prober.longest_silence(began.at).expect("it answers");
    let lost = site.lost(began);
    pace::note(&format!("a fleet beside the pair: dark for {:?}, {lost} lost", silence.length));
    site.answered_by(OLD_1.0, Instant::now());

    let at = site.command(&["vip", "take", "web"]);
    site.moved("taken", LVS_1.0, at);
    for old in &site.old {
        old.enters("BACKUP", Duration::from_secs(10));
    }
    assert_eq!(site.fleet.attached(), [LVS_1.0]);

    // One after the other goes, and nobody notices.
    let at = site.now();
    while let Some(old) = site.old.pop() {
        old.stop();
    }
    site.moved("the pair stopped", LVS_1.0, at);
    let at = site.now();
    site.fleet.kill(LVS_1.0);
    site.moved("the first holder killed", LVS_2.0, at);
    let answering: Vec<_> = site.capture.answering(VIP).into_iter().map(|(node, _)| node).collect();
    assert_eq!(answering, [OLD_1.0, LVS_1.0, LVS_2.0], "who answers ARP changes twice");
    site.alone();
}

#[test]
fn a_frozen_keepalived_keeps_its_vip_for_as_long_as_its_kernel_answers() {
    let mut site = Site::start();
    site.old[0].freeze();
    // Its backup takes over, and both kernels answer: that is keepalived's own doing, and what the fleet does not join in.
    site.old[1].enters("MASTER", Duration::from_secs(20));
    eventually("the backup has the VIP, too", Duration::from_secs(10), || {
        let node = &site.fleet.lab.node(OLD_2.0).namespace;
        link::has_address(node, "eth0", VIP).then_some(())
    });
    site.old[1].freeze();
    let vrrp = ", coexist: contest".to_owned();
    let mut document = Document { vrrp, ..Document::vip_alone() };
    site.fleet.apply(&document);
    site.claims_nothing(5);
    // Neither under another configuration, nor when another node has the lease.
    document.advert_interval = "2s";
    site.fleet.apply(&document);
    site.claims_nothing(3);
    let leader = site.fleet.until("somebody leads", Duration::from_secs(10), |status| {
        [LVS_1.0, LVS_2.0].contains(&status.leader.as_str())
    });
    site.fleet.kill(&leader.leader);
    site.claims_nothing(5);
    for (name, _) in [OLD_1, OLD_2] {
        assert!(site.fleet.attached().is_empty());
        link::delete_address(&site.fleet.lab.node(name).namespace, "eth0", VIP);
    }
    site.answered_by(&site.fleet.holder(), Instant::now());
}

#[test]
fn a_pair_gets_its_vip_back() {
    let site = Site::start();
    site.beside();
    let at = site.command(&["vip", "take", "web", "--priority", "200"]);
    site.moved("taken", LVS_1.0, at);
    let at = site.command(&["vip", "yield", "web"]);
    site.moved("given back", OLD_1.0, at);
    site.old[0].enters("MASTER", Duration::from_secs(10));
    assert_eq!(site.fleet.attached(), Vec::<String>::new());
    let answering: Vec<_> = site.capture.answering(VIP).into_iter().map(|(node, _)| node).collect();
    assert_eq!(answering, [OLD_1.0, LVS_1.0, OLD_1.0]);
    site.alone();
}
