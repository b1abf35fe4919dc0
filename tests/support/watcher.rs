//! A client that asks a thousand times a second, by ARP and by datagram, who has an address; and what its answers must never say.
//!
//! Every question has a number, which its answer repeats: an ARP request in the hardware address of who asks, a datagram in its payload. So an
//! answer belongs to its question however late it comes, and of two answers it is known whether they answer the same. What machines say is
//! taken from the switch, as it enters by a machine's port: also from a machine whose frames the switch drops after that.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lvsmesh_core::arp::{BROADCAST, Operation, Packet};
use lvsmesh_kernel::raw::{FrameSender, LinkTarget};
use nix::net::if_::if_nametoindex;

use crate::capture::{Capture, Frame, Seen};
use crate::lab::{Lab, Node};
use crate::pace;
use crate::probe::{Answer, Prober};

/// Who asks by ARP. Nobody else in a lab has it, so no machine learns the asker's changing hardware address for one that it needs.
const ASKER: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 9);

/// Hardware addresses of ARP's askers begin so; four bytes with the number of the question follow. Locally administered, of one station.
const NUMBERED: [u8; 2] = [0x02, 0x3f];

/// Between two questions.
const EVERY: Duration = Duration::from_millis(1);

/// Asks until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    vip: Ipv4Addr,
    capture: Capture,
    datagrams: Prober,
    asked: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    asking: Option<JoinHandle<()>>,
}

/// A moment, from which on a [`Story`] is told.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    frames: usize,
    question: u32,
    datagram: u64,
}

impl Mark {
    /// Whether the ARP request of that number had been sent by then.
    #[must_use]
    pub fn follows(&self, question: u32) -> bool {
        question <= self.question
    }

    /// How many datagrams were sent after it, up to and with the one of that number.
    #[must_use]
    pub fn datagrams_until(&self, question: u64) -> u64 {
        question.saturating_sub(self.datagram)
    }
}

/// How a machine says that it has the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It answers the question of that number by ARP.
    Answer(u32),
    /// By ARP, asked by nobody or by somebody else than the watcher.
    Arp,
    /// By a VRRP advert with a priority above 0.
    Advert,
}

/// What a machine said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// When the switch had it.
    pub at: Instant,
    /// The machine.
    pub by: String,
    /// How it said it.
    pub way: Way,
}

/// What was said and answered since a [`Mark`].
#[derive(Clone, Debug)]
pub struct Story {
    /// Everything that says that a machine has the address, in the order in which it reached the switch.
    pub claims: Vec<Claim>,
    /// The answers to datagrams, in the order in which the datagrams were sent.
    pub datagrams: Vec<Answer>,
}

impl Watcher {
    /// Asks from a machine for an address, and watches the switch.
    ///
    /// # Panics
    ///
    /// Without root's rights.
    #[must_use]
    pub fn start(lab: &Lab, from: &Node, vip: Ipv4Addr) -> Self {
        let capture = lab.capture();
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicU32::new(0));
        let (ended, counter, mac) = (Arc::clone(&stop), Arc::clone(&asked), from.mac);
        let asking = from.namespace.thread(move || {
            pace::hasten();
            let interface = if_nametoindex("eth0").expect("a machine of a lab has eth0");
            let target = LinkTarget::new(interface).expect("eth0 is there");
            let sender = FrameSender::open().expect("root may open a packet socket");
            let mut next = Instant::now();
            while !ended.load(Ordering::Relaxed) {
                let question = counter.fetch_add(1, Ordering::Relaxed) + 1;
                // A full queue loses the question.
                let _lost = sender.send(&target, &request(mac, question, vip));
                next += EVERY;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        let datagrams = Prober::start(from, vip);
        Self { vip, capture, datagrams, asked, stop, asking: Some(asking) }
    }

    /// Now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            frames: self.capture.count(),
            question: self.asked.load(Ordering::Relaxed),
            datagram: self.datagrams.asked(),
        }
    }

    /// What was said from then until now.
    #[must_use]
    pub fn since(&self, mark: Mark) -> Story {
        let vip = self.vip;
        let claims = self.capture.after(mark.frames).into_iter();
        let claims = claims.filter_map(|Seen { at, from, frame }| {
            way(frame, vip).map(|way| Claim { at, by: from, way })
        });
        let mut datagrams = self.datagrams.answers_after(mark.datagram);
        datagrams.sort_by_key(|answer| answer.question);
        Story { claims: claims.collect(), datagrams }
    }

    /// How many questions were asked since then: by ARP, and by datagram.
    #[must_use]
    pub fn asked_since(&self, mark: Mark) -> (u32, u64) {
        let now = self.mark();
        (now.question - mark.question, now.datagram - mark.datagram)
    }

    /// The machine that has answered both an ARP request and a datagram of those that were asked after `mark`, each the last time.
    #[must_use]
    pub fn answered_by(&self, mark: Mark) -> Option<String> {
        let story = self.since(mark);
        let answers =
            |claim: &&Claim| matches!(claim.way, Way::Answer(question) if question > mark.question);
        let arp = story.claims.iter().rev().find(answers)?;
        let datagram = story.datagrams.last()?;
        (arp.by == datagram.by).then(|| arp.by.clone())
    }

    /// The datagrams alone: how long nobody answered.
    #[must_use]
    pub fn datagrams(&self) -> &Prober {
        &self.datagrams
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.asking.take() {
            let ended = thread.join();
            // A watcher that has not asked has seen nothing.
            if !std::thread::panicking() {
                ended.expect("the watcher has asked to its end");
            }
        }
    }
}

impl Story {
    /// The ARP requests, by number, that more than one machine answered.
    #[must_use]
    pub fn twice(&self) -> Vec<(u32, Vec<String>)> {
        let number = |claim: &Claim| match claim.way {
            Way::Answer(question) => Some((question, claim.by.clone())),
            Way::Arp | Way::Advert => None,
        };
        by_more_than_one(self.claims.iter().filter_map(number))
    }

    /// The datagrams, by number, that more than one machine answered.
    #[must_use]
    pub fn datagrams_twice(&self) -> Vec<(u64, Vec<String>)> {
        by_more_than_one(self.datagrams.iter().map(|answer| (answer.question, answer.by.clone())))
    }

    /// Claims that are not in the order in which machines were made holder: see `out_of_turn`.
    #[must_use]
    pub fn claims_out_of_turn(&self, holders: &[String]) -> Vec<Claim> {
        let by = self.claims.iter().map(|claim| claim.by.as_str());
        out_of_turn(by, holders).into_iter().map(|index| self.claims[index].clone()).collect()
    }

    /// The same of the answers to datagrams, in the order in which these were sent.
    #[must_use]
    pub fn datagrams_out_of_turn(&self, holders: &[String]) -> Vec<Answer> {
        let by = self.datagrams.iter().map(|answer| answer.by.as_str());
        out_of_turn(by, holders).into_iter().map(|index| self.datagrams[index].clone()).collect()
    }

    /// Who claimed, each once for each unbroken run of claims, with their number.
    #[must_use]
    pub fn runs(&self) -> Vec<(String, usize)> {
        let mut runs: Vec<(String, usize)> = Vec::new();
        for claim in &self.claims {
            match runs.last_mut() {
                Some((by, count)) if *by == claim.by => *count += 1,
                _ => runs.push((claim.by.clone(), 1)),
            }
        }
        runs
    }
}

/// Where `said` leaves the order of `holders`, by index: once a machine has spoken, those before it are silent, until one of them comes again in
/// `holders`. Holders that say nothing are passed over.
fn out_of_turn<'a>(said: impl Iterator<Item = &'a str>, holders: &[String]) -> Vec<usize> {
    let mut rest = holders;
    let mut out = Vec::new();
    for (index, by) in said.enumerate() {
        match rest.iter().position(|holder| holder == by) {
            Some(position) => rest = &rest[position..],
            None => out.push(index),
        }
    }
    out
}

fn by_more_than_one<N: Ord>(answers: impl Iterator<Item = (N, String)>) -> Vec<(N, Vec<String>)> {
    let mut who: BTreeMap<N, Vec<String>> = BTreeMap::new();
    for (question, by) in answers {
        let by_whom = who.entry(question).or_default();
        if !by_whom.contains(&by) {
            by_whom.push(by);
        }
    }
    who.into_iter().filter(|(_, by)| by.len() > 1).collect()
}

/// The frame that asks for an address. The switch learns the machine that sends it, and not the hardware address that it asks with.
fn request(mac: [u8; 6], question: u32, vip: Ipv4Addr) -> [u8; 42] {
    let ([a, b], [c, d, e, f]) = (NUMBERED, question.to_be_bytes());
    let packet = Packet {
        operation: Operation::Request,
        sender_mac: [a, b, c, d, e, f],
        sender: ASKER,
        target_mac: [0; 6],
        target: vip,
    };
    let mut frame = packet.encode(BROADCAST);
    frame[6..12].copy_from_slice(&mac);
    frame
}

/// How a frame says that its sender has the address, if it does.
fn way(frame: Frame, vip: Ipv4Addr) -> Option<Way> {
    match frame {
        Frame::Arp { reply: true, sender, target: ASKER, asker: [a, b, c, d, e, f] }
            if sender == vip && [a, b] == NUMBERED =>
        {
            Some(Way::Answer(u32::from_be_bytes([c, d, e, f])))
        }
        Frame::Arp { sender, .. } if sender == vip => Some(Way::Arp),
        Frame::Advert { priority: 1.., .. } => Some(Way::Advert),
        Frame::Arp { .. }
        | Frame::Solicitation { .. }
        | Frame::Neighbour { .. }
        | Frame::Advert { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 100);

    #[test]
    fn a_machine_that_speaks_after_its_successor_is_out_of_turn() {
        type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a [usize]);
        #[rustfmt::skip]
        let cases: [Case<'_>; 7] = [
            // why                             said                       holders           out of turn
            ("one holder",                     &["a", "a"],               &["a"],           &[]),
            ("one after another",              &["a", "b", "b"],          &["a", "b"],      &[]),
            ("late",                           &["a", "b", "a", "b"],     &["a", "b"],      &[2]),
            ("made holder again",              &["a", "b", "a"],          &["a", "b", "a"], &[]),
            ("and late then",                  &["a", "b", "a", "b"],     &["a", "b", "a"], &[3]),
            ("a holder that had no time",      &["a", "c", "b"],          &["a", "b", "c"], &[2]),
            ("who was never made holder",      &["a", "x", "a"],          &["a"],           &[1]),
        ];
        for (why, said, holders, expected) in cases {
            let holders: Vec<String> = holders.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(out_of_turn(said.iter().copied(), &holders), expected, "{why}");
        }
    }

    #[test]
    fn an_answer_names_its_question_and_two_to_one_question_are_found() {
        let mac = [2, 0, 0, 0, 0, 1];
        let asked = Packet::decode(&request(mac, 70_000, VIP)).expect("it is ARP");
        let answered =
            Frame::Arp { reply: true, sender: VIP, target: asked.sender, asker: asked.sender_mac };
        assert_eq!(way(answered, VIP), Some(Way::Answer(70_000)));
        let unasked = Frame::Arp { reply: false, sender: VIP, target: VIP, asker: mac };
        assert_eq!(way(unasked, VIP), Some(Way::Arp));
        let advert = |priority| Frame::Advert { version: 3, vrid: 51, priority };
        assert_eq!(way(advert(1), VIP), Some(Way::Advert));
        assert_eq!(way(advert(0), VIP), None, "a goodbye");
        let other = Frame::Arp { reply: false, sender: ASKER, target: VIP, asker: mac };
        assert_eq!(way(other, VIP), None);

        let at = Instant::now();
        let claim = |by: &str, way| Claim { at, by: by.to_owned(), way };
        let claims = vec![
            claim("a", Way::Answer(1)),
            claim("a", Way::Answer(1)),
            claim("b", Way::Arp),
            claim("b", Way::Answer(2)),
            claim("a", Way::Answer(2)),
        ];
        let story = Story { claims, datagrams: Vec::new() };
        assert_eq!(story.twice(), [(2, vec!["b".to_owned(), "a".to_owned()])]);
        assert_eq!(story.runs().len(), 3);
    }
}
