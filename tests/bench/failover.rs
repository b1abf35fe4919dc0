//! How long a VIP is dark when its holder fails or is asked to go: keepalived and lvsmesh in turns, on one switch, seen by one client that asks a
//! thousand times a second by datagram and as often by ARP. In network namespaces; no IPVS is needed.
//!
//! ```text
//! cargo build --workspace --bins               # or with --release, and then target/release below
//! target/debug/failover                        # root, Debian's keepalived and nftables; ten rounds, about a quarter of an hour
//! target/debug/failover --hogs 10              # and ten minutes with 24 processes that want the processor; --rounds 0: nothing else
//! target/debug/failover --quick-hogs 10        # the same at P = 60 ms, beside keepalived with adverts of 10 ms; --realtime, --nice
//! ```
//!
//! keepalived runs on two machines of its own, lvsmesh on two directors (neither a realserver) and a witness; each has a VIP of its own.
//!
//! *Dark* is the longest time between two answers, by datagram or by ARP, whichever is longer: a client that knows the old holder may be served
//! where a new one is not. *Lost* counts datagrams without an answer. *Twice* counts ARP requests that two machines answered.
//!
//! Ends with 1 if a gate is missed, and gates are ratios, so that a slow machine is none: see `GATES` and [`judge`]. No gate is in milliseconds.
#![expect(clippy::print_stdout, reason = "a benchmark reports")]

use std::net::Ipv4Addr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use lvsmesh_tests::document::{CLIENT, Document, LVS_1, LVS_2, RS_1, VIP};
use lvsmesh_tests::fleet::{Fleet, Options as FleetOptions};
use lvsmesh_tests::peers::{Instance, Keepalived};
use lvsmesh_tests::probe::Echo;
use lvsmesh_tests::watcher::{Mark, Story, Watcher, Way};
use lvsmesh_tests::{Lab, eventually, link, pace};
use nix::sys::signal::Signal;

const OLD_1: (&str, Ipv4Addr) = ("old-1", Ipv4Addr::new(192, 168, 3, 104));
const OLD_2: (&str, Ipv4Addr) = ("old-2", Ipv4Addr::new(192, 168, 3, 105));
const OLD_VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 200);

/// P, L and the beat in milliseconds of the quickest fleet: the longest whole L that the rules allow with that P, and a shorter beat than P alone would give. And
/// the interval of adverts in seconds that it stands beside.
const QUICK: &str = "60/47/5";
const QUICK_INTERVAL: &str = "0.01";

/// Processes that want the processor.
const HOGS: usize = 24;

/// Longer than anything that is waited for takes.
const LIMIT: Duration = Duration::from_secs(40);

#[derive(Parser)]
struct Options {
    /// 0: none, for `--hogs` alone.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Minutes with 24 processes that want the processor.
    #[arg(long, default_value_t = 0)]
    hogs: u64,
    /// The same at P = 60 ms, beside keepalived with adverts of 10 ms.
    #[arg(long, default_value_t = 0)]
    quick_hogs: u64,
    /// Real-time priority for leases and for keepalived.
    #[arg(long)]
    realtime: bool,
    /// Gives keepalived the nice value of -20 that lvsmesh's lease thread gives itself; without it keepalived runs as it comes.
    #[arg(long, conflicts_with = "realtime")]
    nice: bool,
    /// Report only.
    #[arg(long)]
    no_gate: bool,
}

/// What is done to the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Its link is cut at the switch; it keeps its carrier.
    Silent,
    /// SIGKILL.
    Killed,
    /// SIGTERM.
    Stopped,
    /// `lvsctl failover`.
    Moved,
}

/// What one round showed.
#[derive(Clone, Copy, Debug)]
struct Seen {
    dark: Duration,
    lost: u64,
    twice: usize,
}

/// One line of the table.
struct Row {
    what: String,
    seen: Vec<Seen>,
}

impl Row {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), seen: Vec::new() }
    }

    fn add(&mut self, seen: Seen) {
        println!(
            "  {}: dark {:.1} ms, lost {}, twice {}",
            self.what,
            ms(seen.dark),
            seen.lost,
            seen.twice
        );
        self.seen.push(seen);
    }

    fn dark(&self) -> f64 {
        let mut dark: Vec<_> = self.seen.iter().map(|seen| seen.dark).collect();
        dark.sort();
        let middle = dark.len() / 2;
        // Of an even number, what is half-way between the two in the middle.
        let lower = if dark.len().is_multiple_of(2) { dark[middle - 1] } else { dark[middle] };
        ms(lower + dark[middle]) / 2.0
    }

    fn longest(&self) -> f64 {
        self.seen.iter().map(|seen| ms(seen.dark)).fold(0.0, f64::max)
    }

    fn lost(&self) -> u64 {
        let mut lost: Vec<_> = self.seen.iter().map(|seen| seen.lost).collect();
        lost.sort_unstable();
        lost[lost.len() / 2]
    }

    fn twice(&self) -> usize {
        self.seen.iter().map(|seen| seen.twice).sum()
    }
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

/// The switch and everybody on it.
fn machines() -> Lab {
    Lab::new(&[LVS_1, LVS_2, RS_1, CLIENT, OLD_1, OLD_2])
}

/// Watches one event: `act` returns when it is done, `settled` once somebody has taken over.
fn watch(
    lab: &Lab,
    vip: Ipv4Addr,
    holder: &str,
    act: impl FnOnce(),
    settled: impl Fn(&Watcher, Mark) -> bool,
) -> Seen {
    let watcher = Watcher::start(lab, lab.node(CLIENT.0), vip);
    let began = watcher.mark();
    eventually("the holder answers for a while", LIMIT, || {
        let answering = watcher.answered_by(began)? == holder;
        (answering && watcher.since(began).datagrams.len() > 300).then_some(())
    });
    let mark = watcher.mark();
    // Some answers before the event, of either kind: the silence begins with the last of them.
    eventually("the holder still answers", LIMIT, || {
        let story = watcher.since(mark);
        (watcher.answered_by(mark).is_some() && story.datagrams.len() > 20).then_some(())
    });
    std::thread::sleep(phase());
    act();
    let acted = watcher.mark();
    eventually("somebody else has taken over", LIMIT, || settled(&watcher, acted).then_some(()));
    let taken = watcher.mark();
    // Some more, so that what is asked now is not at the end of what is looked at.
    eventually("the successor answers for a while", LIMIT, || {
        (watcher.since(taken).datagrams.len() > 200).then_some(())
    });
    let story = watcher.since(mark);
    let last = story.datagrams.last().map_or(0, |answer| answer.question);
    // Answers to the newest are still under way.
    let counted = story.datagrams.iter().filter(|answer| answer.question + 50 <= last).count();
    let asked = mark.datagrams_until(last.saturating_sub(50));
    Seen {
        dark: longest(&story),
        lost: asked.saturating_sub(u64::try_from(counted).unwrap_or(u64::MAX)),
        twice: story.twice().len(),
    }
}

/// A part of a second, another each time and evenly spread: whatever has an interval is struck at every phase of it alike.
fn phase() -> Duration {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let calls = f64::from(CALLS.fetch_add(1, Ordering::Relaxed));
    // The golden ratio's multiples leave the smallest gaps.
    Duration::from_secs(1).mul_f64((calls * 0.618_033_988_749_895).fract())
}

/// The longest time between two answers of one kind.
fn longest(story: &Story) -> Duration {
    let arp = story.claims.iter().filter(|claim| matches!(claim.way, Way::Answer(_)));
    let mut datagrams: Vec<Instant> = story.datagrams.iter().map(|answer| answer.at).collect();
    datagrams.sort();
    gap(arp.map(|claim| claim.at).collect()).max(gap(datagrams))
}

fn gap(moments: Vec<Instant>) -> Duration {
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// Who gets the processor when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Schedule {
    /// keepalived as any process; lvsmesh's lease threads with nice -20, which they give themselves.
    AsItComes,
    /// Both with nice -20.
    Nice,
    /// Both with the same real-time priority.
    RealTime,
}

/// A pair of keepalived with adverts of that interval and version, the first preferred; gone when dropped, with its VIP.
struct Pair<'a> {
    lab: &'a Lab,
    running: Vec<Keepalived>,
}

impl<'a> Pair<'a> {
    fn start(lab: &'a Lab, interval: &'static str, schedule: Schedule) -> Self {
        let version = if interval == "1" { 2 } else { 3 };
        let start = |(name, priority): (&str, u8)| {
            let instance = Instance {
                vrid: 52,
                priority,
                ..Instance::backup(version, interval, &[OLD_VIP.into()])
            };
            let globals = match schedule {
                Schedule::AsItComes => "",
                Schedule::Nice => "  vrrp_priority -20\n",
                Schedule::RealTime => "  vrrp_rt_priority 10\n",
            };
            Keepalived::start_with(lab, lab.node(name), &[instance], globals)
        };
        let running = vec![start((OLD_1.0, 150)), start((OLD_2.0, 100))];
        running[0].enters("MASTER", LIMIT);
        running[1].enters("BACKUP", LIMIT);
        Self { lab, running }
    }

    /// Something happens to the master.
    fn suffers(&mut self, event: Event) -> Seen {
        let lab = self.lab;
        let mut first = Some(self.running.remove(0));
        let seen = watch(
            lab,
            OLD_VIP,
            OLD_1.0,
            || match event {
                Event::Silent => lab.cut(OLD_1.0),
                Event::Killed => first.take().expect("it runs").kill(),
                Event::Stopped | Event::Moved => drop(first.take().expect("it runs").stop()),
            },
            |watcher, acted| {
                let story = watcher.since(acted);
                story.claims.iter().any(|claim| claim.by == OLD_2.0)
                    && story
                        .claims
                        .iter()
                        .filter(|claim| matches!(claim.way, Way::Answer(_)))
                        .count()
                        > 100
            },
        );
        lab.restore(OLD_1.0);
        seen
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        self.running.clear();
        for name in [OLD_1.0, OLD_2.0] {
            let namespace = &self.lab.node(name).namespace;
            namespace.clear();
            if link::has_address(namespace, "eth0", OLD_VIP) {
                link::delete_address(namespace, "eth0", OLD_VIP);
            }
        }
    }
}

/// A fleet of two directors and a witness.
fn fleet(profile: &str, realtime: bool) -> Fleet {
    let options = FleetOptions {
        profile: profile.to_owned(),
        realtime,
        pure: true,
        ..FleetOptions::default()
    };
    let fleet = Fleet::start_on(machines(), &options);
    fleet.apply(&Document { attach: "responder", ..Document::vip_alone() });
    holder(&fleet);
    fleet
}

/// Waits until every node is there and one of them holds.
fn holder(fleet: &Fleet) -> String {
    let status = fleet.until("the fleet is whole", LIMIT, |status| {
        let here = status.nodes.iter().all(|node| node.reachable && node.converged);
        status.quorum && here && status.vips.iter().all(|vip| !vip.holder.is_empty() && vip.gated)
    });
    status.vips[0].holder.clone()
}

/// Something happens to the holder.
fn suffers(fleet: &mut Fleet, event: Event) -> Seen {
    let first = holder(fleet);
    let other = if first == LVS_1.0 { LVS_2.0 } else { LVS_1.0 };
    let agent = fleet.agent(&first).process();
    let seen = watch(
        &fleet.lab,
        VIP,
        &first,
        || match event {
            Event::Silent => fleet.lab.cut(&first),
            Event::Killed => agent.signal(Signal::SIGKILL),
            Event::Stopped => agent.signal(Signal::SIGTERM),
            Event::Moved => {
                let _moved = fleet.ctl.run(&["failover", "--to", other]).succeeded();
            }
        },
        |watcher, acted| watcher.answered_by(acted).is_some_and(|by| by == other),
    );
    match event {
        Event::Silent => fleet.lab.restore(&first),
        Event::Killed | Event::Stopped => {
            let agent = fleet.agent_mut(&first);
            eventually("the agent has ended", LIMIT, || agent.start_again_if_ended().then_some(()));
        }
        Event::Moved => {}
    }
    seen
}

/// A profile's name, or what P, L and the beat are.
fn timing(profile: &str) -> String {
    match profile.split('/').collect::<Vec<_>>()[..] {
        [promise, lease, beat] => format!("P = {promise} ms, L = {lease}, a beat each {beat}"),
        _ => profile.to_owned(),
    }
}

/// 24 processes that never rest; ended when dropped.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start() -> Self {
        let hog = |_| {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            command.spawn().expect("there is a shell")
        };
        Self((0..HOGS).map(hog).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ended = hog.kill();
            let _reaped = hog.wait();
        }
    }
}

/// Who changed how often under load, without any fault.
struct UnderLoad {
    what: String,
    /// Times that a director became holder, after the first.
    ours: usize,
    /// Times that a keepalived became master, after the first.
    theirs: usize,
    /// Questions to the fleet's VIP that two machines answered.
    twice: usize,
    /// Questions.
    asked: u32,
    /// For so long.
    minutes: u64,
    /// What `ours` must be.
    gate: Gate,
}

/// What is asked of a count beside keepalived's.
#[derive(Clone, Copy)]
enum Gate {
    /// 0.
    None,
    /// Less, or 0 beside 0.
    Fewer,
    /// Not more.
    NotMore,
}

impl UnderLoad {
    fn met(&self) -> bool {
        let enough = match self.gate {
            Gate::None => self.ours == 0,
            Gate::Fewer => self.ours < self.theirs || self.ours == 0,
            Gate::NotMore => self.ours <= self.theirs,
        };
        // Of a question in a millisecond, on a machine on which nobody gets the processor when he wants it.
        let asked = u64::from(self.asked) > self.minutes * 60 * 1000 / 10;
        enough && self.twice == 0 && asked
    }
}

/// A fleet with that timing and a pair with adverts of that interval, while 24 processes want the processor.
fn hogs(minutes: u64, schedule: Schedule, timing: &str, interval: &'static str) -> UnderLoad {
    let fleet = fleet(timing, schedule == Schedule::RealTime);
    let pair = Pair::start(&fleet.lab, interval, schedule);
    let watcher = Watcher::start(&fleet.lab, fleet.client(), VIP);
    let claims = || -> usize {
        let held = |name| fleet.agent(name).logged().matches(": holding epoch=").count();
        [LVS_1.0, LVS_2.0].into_iter().map(held).sum()
    };
    let masters = || -> usize {
        let states = pair.running.iter().flat_map(Keepalived::states);
        states.filter(|state| state == "MASTER").count()
    };
    // What happens while the one comes up beside the other is not what the load does.
    let mut before = (0, 0);
    while before != (claims(), masters()) {
        before = (claims(), masters());
        std::thread::sleep(Duration::from_secs(3));
    }
    assert!(before.0 > 0 && before.1 > 0, "each has a holder");
    let began = watcher.mark();
    let load = Hogs::start();
    for minute in 1..=minutes {
        std::thread::sleep(Duration::from_secs(60));
        println!(
            "  minute {minute}: {} changes, keepalived {}",
            claims() - before.0,
            masters() - before.1
        );
    }
    drop(load);
    holder(&fleet);
    let seen = UnderLoad {
        minutes,
        what: format!(
            "{HOGS} hogs for {minutes} min, {schedule:?}, lvsmesh at {}, keepalived with adverts of {interval} s",
            self::timing(timing)
        ),
        ours: claims() - before.0,
        theirs: masters() - before.1,
        twice: watcher.since(began).twice().len(),
        asked: watcher.asked_since(began).0,
        gate: match (interval, schedule) {
            ("1", _) => Gate::None,
            (_, Schedule::AsItComes) => Gate::Fewer,
            (_, Schedule::Nice | Schedule::RealTime) => Gate::NotMore,
        },
    };
    println!(
        "  {}: changes {}, keepalived {}, twice {} of {} questions",
        seen.what, seen.ours, seen.theirs, seen.twice, seen.asked
    );
    seen
}

fn main() -> ExitCode {
    let options = Options::parse();
    pace::at_real_time();
    let schedule = match (options.realtime, options.nice) {
        (true, _) => Schedule::RealTime,
        (false, true) => Schedule::Nice,
        (false, false) => Schedule::AsItComes,
    };
    let load = || std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{} rounds, {schedule:?}; load at the start {}", options.rounds, load().trim());

    let mut rows: Vec<(Row, Row)> = Vec::new();
    let phases: [(&str, &[(Event, &'static str)]); 3] = [
        (
            "default",
            &[
                (Event::Silent, "1"),
                (Event::Silent, "0.1"),
                (Event::Killed, "0.1"),
                (Event::Stopped, "1"),
                (Event::Moved, "0.1"),
            ],
        ),
        ("fast", &[(Event::Silent, "0.05")]),
        (QUICK, &[(Event::Silent, QUICK_INTERVAL)]),
    ];
    for (profile, cases) in phases.into_iter().filter(|_| options.rounds > 0) {
        let mut fleet = fleet(profile, options.realtime);
        let _echoes: Vec<Echo> = fleet
            .lab
            .nodes()
            .iter()
            .filter(|node| node.name != CLIENT.0)
            .map(Echo::start)
            .collect();
        let first = rows.len();
        for (event, interval) in cases {
            rows.push((
                Row::new(format!("{event:?}, keepalived with adverts of {interval} s")),
                Row::new(format!("{event:?}, lvsmesh at {}", timing(profile))),
            ));
        }
        for round in 1..=options.rounds {
            println!("{profile}, round {round}");
            for ((event, interval), (theirs, ours)) in cases.iter().zip(&mut rows[first..]) {
                let mut pair = Pair::start(&fleet.lab, interval, schedule);
                theirs.add(pair.suffers(*event));
                drop(pair);
                ours.add(suffers(&mut fleet, *event));
            }
        }
    }
    let mut under_load = Vec::new();
    if options.hogs > 0 {
        under_load.push(hogs(options.hogs, schedule, "default", "1"));
    }
    if options.quick_hogs > 0 {
        under_load.push(hogs(options.quick_hogs, schedule, QUICK, QUICK_INTERVAL));
    }

    println!("load at the end {}", load().trim());
    println!("{:56}{:>12}{:>10}{:>8}{:>8}", "", "dark, ms", "longest", "lost", "twice");
    for row in rows.iter().flat_map(|(theirs, ours)| [theirs, ours]) {
        let (dark, longest) = (row.dark(), row.longest());
        println!("{:56}{dark:>12.1}{longest:>10.1}{:>8}{:>8}", row.what, row.lost(), row.twice());
    }
    let met = judge(&rows, &under_load);
    if met || options.no_gate { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The most that lvsmesh may be dark as a part of keepalived's time, in the order of the rows; `None`: no ratio is meant, because that keepalived
/// goes on answering, because it has no such command, or because its adverts are six times as frequent as P is long, where the ratio is only shown.
const GATES: [Option<f64>; 7] = [Some(0.1), Some(1.0), None, Some(0.25), None, Some(1.0), None];

/// Whether every gate is met: the ratios; nobody ever one of two; a stop and a move lose nothing, in any round; a killed agent is replaced in a
/// fraction of the time that a silent host takes; and under load the holder changes as rarely as [`UnderLoad`] asks.
fn judge(rows: &[(Row, Row)], under_load: &[UnderLoad]) -> bool {
    let mut met = true;
    let mut gate = |what: String, fine: bool| {
        println!("{} {what}", if fine { "met   " } else { "MISSED" });
        met &= fine;
    };
    for ((theirs, ours), most) in rows.iter().zip(GATES) {
        let ratio = ours.dark() / theirs.dark();
        println!("       {} / {}: {ratio:.3}", ours.what, theirs.what);
        if let Some(most) = most {
            gate(
                format!("{} / {}: {ratio:.3}, at most {most}", ours.what, theirs.what),
                ratio <= most,
            );
        }
        gate(
            format!("{}: overlap {}", ours.what, if ours.twice() == 0 { "none" } else { "seen" }),
            ours.twice() == 0,
        );
        if ours.what.starts_with("Stopped") || ours.what.starts_with("Moved") {
            let most = ours.seen.iter().map(|seen| seen.lost).max().unwrap_or(0);
            gate(format!("{}: at most {most} lost in a round, allowed 0", ours.what), most == 0);
        }
    }
    if let [(_, silent), _, (_, killed), ..] = rows {
        let ratio = killed.dark() / silent.dark();
        gate(format!("killed / silent: {ratio:.3}, at most 0.5"), ratio <= 0.5);
    }
    for seen in under_load {
        let UnderLoad { what, ours, theirs, twice, .. } = seen;
        gate(format!("{what}: changes {ours}, keepalived's {theirs}; overlap {twice}"), seen.met());
    }
    met
}
