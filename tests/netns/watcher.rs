//! Never two answers, whatever happens to the holder; and what the same watcher sees of keepalived.
//!
//! A watcher asks a thousand times a second by ARP, and as often by datagram, who has the VIP. Meanwhile the holder's processes are stopped or
//! killed, its link is cut on either side, or cut in one direction alone, each at a random moment for a random time. Checked after each round:
//!
//! 1. No question, of either kind, has been answered by two machines. A question has a number, so this is exact.
//! 2. Nothing that says that a machine has the VIP (an answer, a gratuitous ARP, an advert with a priority) has come from a machine after its
//!    successor had said so, unless that machine had been made holder again in between. Who was made holder, and in which order, is taken from the
//!    agents' logs, which name the tenures. What counts is the order in which frames enter the switch: also those that the switch drops
//!    because the machine is cut off.
//! 3. The same of the answers to datagrams, in the order in which the datagrams were sent. A datagram goes where the client's neighbour cache
//!    says, so this is what clients see.
//! 4. Each kind of fault has moved the VIP at least once: a watcher of nothing sees nothing.
//!
//! That holds for both ways to attach, because the kernel itself keeps the deadline (`docs/adr/0006-fences.md`): an address that nobody removes is silent from the lease's end
//! on, and so is a process that was stopped between its look at the clock and the `send`.
//!
//! The other fences are looked at without that one. Then one thing is let pass, once for each time that a process is stopped and woken, and it is printed: an ARP answer
//! out of turn to a question that was asked before the stop. Nobody else has answered that question: a successor hears only what is asked after its claim. A machine that
//! answered what it found queued when it was woken would send more than one, and is caught.
//!
//! `LVSMESH_ROUNDS=50` is the long run; `LVSMESH_SEED` repeats the moments of an earlier one, as far as a machine repeats anything.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lvsmesh_core::lease::Profile;
use lvsmesh_tests::document::{CLIENT, Document, LVS_1, LVS_2, VIP};
use lvsmesh_tests::fleet::{Fleet, Options, machines};
use lvsmesh_tests::peers::{Instance, Keepalived};
use lvsmesh_tests::probe::Echo;
use lvsmesh_tests::watcher::{Claim, Mark, Watcher, Way};
use lvsmesh_tests::{Lab, eventually, link, pace};
use nix::sys::signal::{Signal, kill};

use super::guard::{guard_of, kill_with_guard};

/// What happens to the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// SIGSTOP to the agent, then SIGCONT. Its guard ends an agent that is stopped for longer than a second.
    Stopped,
    /// SIGSTOP to the agent and its guard, then SIGCONT to both, in either order: it goes on.
    Frozen,
    /// SIGKILL to the agent.
    Killed,
    /// SIGKILL to the agent and its guard.
    KilledWithGuard,
    /// No carrier, from the switch's side.
    Unplugged,
    /// The interface is set down on the machine.
    TakenDown,
    /// The switch drops both ways.
    Cut,
    /// It can send and not receive.
    Deaf,
    /// It can receive and not send.
    Mute,
}

/// Random numbers that a seed repeats (Steele, Lea and Flood's SplitMix64).
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let seed = std::env::var("LVSMESH_SEED").ok().map(|text| text.parse().expect("a number"));
        let seed = seed.unwrap_or_else(|| u64::try_from(now() & 0xffff_ffff).unwrap_or(1));
        pace::note(&format!("LVSMESH_SEED={seed}"));
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(self.next() % most)
    }
}

fn rounds() -> u32 {
    std::env::var("LVSMESH_ROUNDS").map_or(5, |count| count.parse().expect("a number"))
}

struct Site {
    watcher: Watcher,
    _echoes: Vec<Echo>,
    fleet: Fleet,
    random: Random,
    promise: Duration,
    gate: bool,
}

impl Site {
    fn start(attach: &'static str) -> Self {
        Self::with(attach, true)
    }

    /// As [`start`](Self::start), without the fence that the kernel is.
    fn without_gate(attach: &'static str) -> Self {
        Self::with(attach, false)
    }

    fn with(attach: &'static str, gate: bool) -> Self {
        let fleet = Fleet::start_on(machines(), &Options { gate, ..Options::default() });
        fleet.apply(&Document { attach, ..Document::vip_alone() });
        fleet.converged();
        let echoes = fleet.names().iter().map(|name| Echo::start(fleet.lab.node(name))).collect();
        let watcher = Watcher::start(&fleet.lab, fleet.client(), VIP);
        let profile = Profile::named(pace::profile()).expect("the lab's profile is one");
        let promise = profile.span().promise;
        Self { watcher, _echoes: echoes, fleet, random: Random::new(), promise, gate }
    }

    /// Every tenure in which the VIP was claimed, by the agents' logs: its number, which grows, and who held.
    fn tenures(&self) -> Vec<(u64, String)> {
        let mut tenures = Vec::new();
        for name in self.fleet.names() {
            let logged = self.fleet.agent(&name).logged();
            let epochs = logged.lines().filter_map(|line| {
                line.split_once(" holding epoch=")?.1.split_whitespace().next()?.parse().ok()
            });
            tenures.extend(epochs.map(|epoch: u64| (epoch, name.clone())));
        }
        tenures.sort();
        tenures
    }

    /// Waits until every node is back and somebody answers whom the status names; starts agents that have ended.
    fn whole(&mut self, since: Mark) -> String {
        let names = self.fleet.names();
        let gate = self.gate;
        eventually("the fleet is whole and its holder answers", Duration::from_secs(40), || {
            for name in &names {
                self.fleet.agent_mut(name).start_again_if_ended();
            }
            let answering = self.watcher.answered_by(since)?;
            let status = self.fleet.ctl.status()?;
            let here = status.nodes.iter().all(|node| node.reachable && node.converged);
            let named = status.vips.iter().all(|vip| vip.holder == answering && vip.gated == gate);
            (status.quorum && here && named).then_some(answering)
        })
    }

    fn begin(&mut self, fault: Fault, holder: &str) {
        let lab = &self.fleet.lab;
        let guard = || guard_of(&self.fleet, holder).expect("a director has a guard");
        match fault {
            Fault::Stopped => self.fleet.agent(holder).process().signal(Signal::SIGSTOP),
            Fault::Frozen => {
                kill(guard(), Signal::SIGSTOP).expect("the guard runs");
                self.fleet.agent(holder).process().signal(Signal::SIGSTOP);
            }
            Fault::Killed => drop(self.fleet.kill(holder)),
            Fault::KilledWithGuard => kill_with_guard(&mut self.fleet, holder),
            Fault::Unplugged => lab.unplug(holder),
            Fault::TakenDown => lab.set_interface(holder, false),
            Fault::Cut => lab.cut(holder),
            Fault::Deaf => lab.half_cut(holder, true),
            Fault::Mute => lab.half_cut(holder, false),
        }
    }

    fn end(&mut self, fault: Fault, holder: &str) {
        let lab = &self.fleet.lab;
        match fault {
            Fault::Stopped => self.fleet.agent(holder).process().signal(Signal::SIGCONT),
            Fault::Frozen => {
                let guard = guard_of(&self.fleet, holder).expect("a stopped guard stays");
                let agent = self.fleet.agent(holder).process().pid();
                let guard_first = self.random.next().is_multiple_of(2);
                for pid in if guard_first { [guard, agent] } else { [agent, guard] } {
                    kill(pid, Signal::SIGCONT).expect("nobody ended it, or waited for its end");
                }
            }
            Fault::Killed | Fault::KilledWithGuard => self.fleet.agent_mut(holder).start(),
            Fault::Unplugged => lab.plug(holder),
            Fault::TakenDown => lab.set_interface(holder, true),
            Fault::Cut => lab.restore(holder),
            Fault::Deaf | Fault::Mute => lab.mend(),
        }
    }

    /// One fault; returns who held before it and who holds after it.
    fn round(&mut self, fault: Fault, span: Duration, holder: &str) -> String {
        std::thread::sleep(self.random.up_to(self.promise));
        let held = self.tenures().last().map_or(0, |(epoch, _)| *epoch);
        let (mark, asking) = (self.watcher.mark(), std::time::Instant::now());
        self.begin(fault, holder);
        let begun = self.watcher.mark();
        std::thread::sleep(span);
        self.end(fault, holder);
        let after = self.whole(self.watcher.mark());

        let story = self.watcher.since(mark);
        let tenures = self.tenures().into_iter().filter(|(epoch, _)| *epoch >= held);
        let holders: Vec<String> = tenures.map(|(_, name)| name).collect();
        let (asked, datagrams) = self.watcher.asked_since(mark);
        let what = format!("{fault:?} on {holder} for {span:?}; holders {holders:?}");
        pace::note(&format!(
            "{what}: {asked} asked by ARP and {datagrams} by datagram, claims {:?}",
            story.runs()
        ));
        // Who hardly asks sees nobody answer twice.
        let least = u64::try_from(asking.elapsed().as_millis() / 2).expect("a round is short");
        assert!(
            u64::from(asked) > least && datagrams > least,
            "{what}: {asked} asked by ARP and {datagrams} by datagram, fewer than half of one a millisecond"
        );
        assert_eq!(story.twice(), [], "{what}: two answered one ARP request");
        assert_eq!(story.datagrams_twice(), [], "{what}: two answered one datagram");
        let late = story.claims_out_of_turn(&holders);
        if self.gate || !under_way(fault, holder, &late, begun) {
            assert_eq!(late, [], "{what}: claimed after a successor");
        }
        let strays = story.datagrams_out_of_turn(&holders);
        assert_eq!(strays, [], "{what}: answered after a successor");
        after
    }

    /// As often as is asked for, each; the first time for long enough to move the VIP, then for a random time of some promises' length.
    fn all(&mut self, faults: &[Fault]) {
        let mut holder = self.whole(self.watcher.mark());
        for &fault in faults {
            let mut moved = 0;
            for round in 0..rounds() {
                let span =
                    if round == 0 { self.promise * 6 } else { self.random.up_to(self.promise * 4) };
                let after = self.round(fault, span, &holder);
                moved += u32::from(after != holder);
                holder = after;
            }
            pace::note(&format!("{fault:?}: the VIP moved in {moved} of {} rounds", rounds()));
            assert!(moved > 0, "{fault:?} never moved the VIP");
        }
    }
}

/// Whether that is nothing but the one answer that a stopped process may have been about to send.
fn under_way(fault: Fault, holder: &str, late: &[Claim], begun: Mark) -> bool {
    let stopped = matches!(fault, Fault::Stopped | Fault::Frozen);
    let [claim] = late else { return false };
    let asked_before = matches!(claim.way, Way::Answer(question) if begun.follows(question));
    if stopped && asked_before && claim.by == holder {
        pace::note(&format!("{fault:?}: one answer was under way: {claim:?}"));
    }
    stopped && asked_before && claim.by == holder
}

#[test]
fn a_holder_that_is_stopped_or_frozen_is_never_one_of_two() {
    Site::start("responder").all(&[Fault::Stopped, Fault::Frozen]);
}

#[test]
fn a_holder_that_is_killed_is_never_one_of_two() {
    Site::start("responder").all(&[Fault::Killed, Fault::KilledWithGuard]);
}

#[test]
fn a_holder_without_a_link_is_never_one_of_two() {
    Site::start("responder").all(&[Fault::Unplugged, Fault::TakenDown, Fault::Cut]);
}

#[test]
fn a_holder_that_is_deaf_or_mute_is_never_one_of_two() {
    Site::start("responder").all(&[Fault::Deaf, Fault::Mute]);
}

#[test]
fn an_address_of_a_holder_that_is_stopped_or_frozen_is_never_one_of_two() {
    Site::start("address").all(&[Fault::Stopped, Fault::Frozen]);
}

#[test]
fn an_address_of_a_holder_that_is_killed_is_never_one_of_two() {
    Site::start("address").all(&[Fault::Killed, Fault::KilledWithGuard]);
}

#[test]
fn an_address_of_a_holder_without_a_way_is_never_one_of_two() {
    Site::start("address").all(&[
        Fault::Unplugged,
        Fault::TakenDown,
        Fault::Cut,
        Fault::Deaf,
        Fault::Mute,
    ]);
}

/// An agent that answers itself needs no gate.
#[test]
fn a_holder_without_a_gate_is_never_one_of_two() {
    Site::without_gate("responder").all(&[
        Fault::Stopped,
        Fault::Frozen,
        Fault::Killed,
        Fault::KilledWithGuard,
        Fault::Cut,
        Fault::Deaf,
    ]);
}

/// Of an address without a gate that is promised while the guard lives, and not of one that hangs.
#[test]
fn an_address_without_a_gate_of_a_holder_that_is_killed_is_never_one_of_two() {
    Site::without_gate("address").all(&[Fault::Killed, Fault::Cut, Fault::Deaf]);
}

/// A pair of keepalived, and what the watcher sees when a fault befalls the master's processes: two answers to one question, each time.
fn keepalived_answers_twice(what: &str, mut fault: impl FnMut(&mut Option<Keepalived>)) {
    let lab = Lab::new(&[LVS_1, LVS_2, CLIENT]);
    let watcher = Watcher::start(&lab, lab.node(CLIENT.0), VIP);
    let mut random = Random::new();
    for round in 1..=rounds() {
        let start = |(name, priority): (&str, u8)| {
            let instance = Instance { priority, ..Instance::backup(3, "0.1", &[VIP.into()]) };
            Keepalived::start(&lab, lab.node(name), &[instance])
        };
        let mut master = Some(start((LVS_1.0, 150)));
        let backup = start((LVS_2.0, 100));
        master.as_ref().expect("it runs").enters("MASTER", Duration::from_secs(20));
        backup.enters("BACKUP", Duration::from_secs(20));
        let began = watcher.mark();
        eventually("the master alone answers", Duration::from_secs(20), || {
            let story = watcher.since(began);
            // What was asked before may still be on its way through the watcher.
            let new = |claim: &&Claim| matches!(claim.way, Way::Answer(question) if !began.follows(question));
            let answers: Vec<_> = story.claims.iter().filter(new).collect();
            let alone = answers.iter().rev().take(100).all(|claim| claim.by == LVS_1.0);
            (answers.len() >= 100 && alone).then_some(())
        });
        std::thread::sleep(random.up_to(Duration::from_millis(200)));
        let mark = watcher.mark();
        fault(&mut master);
        eventually("both answer the same questions", Duration::from_secs(20), || {
            (watcher.since(mark).twice().len() > 10).then_some(())
        });
        let (twice, asked) = (watcher.since(mark).twice().len(), watcher.asked_since(mark).0);
        pace::note(&format!(
            "{what}, round {round}: of {asked} questions {twice} were answered by two"
        ));
        drop((master, backup));
        for (name, _) in [LVS_1, LVS_2] {
            let node = lab.node(name);
            node.namespace.clear();
            if link::has_address(&node.namespace, "eth0", VIP) {
                link::delete_address(&node.namespace, "eth0", VIP);
            }
        }
    }
}

#[test]
fn a_stopped_keepalived_is_one_of_two() {
    keepalived_answers_twice("SIGSTOP", |master| {
        master.as_ref().expect("it runs").freeze();
    });
}

#[test]
fn a_killed_keepalived_is_one_of_two() {
    keepalived_answers_twice("SIGKILL", |master| {
        master.take().expect("it runs").kill();
    });
}
