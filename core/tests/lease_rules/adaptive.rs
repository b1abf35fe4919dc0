//! What a holder that may choose comes to ask for, with voters that are far away all the time.

use std::collections::BTreeMap;

use lvsmesh_core::lease::{Adaptive, LeaseConfig, Timing};

use super::*;

/// A director that leads, two voters that acknowledge every HOLD after one way there and back, and a Raft that elects the director anew whenever it
/// has stepped down.
struct Far {
    node: Node,
    round_trip: u64,
    /// What is under way, by when it arrives.
    arriving: BTreeMap<(u64, u64), Input>,
    sent: u64,
    term: u64,
    now: u64,
}

impl Far {
    fn new(round_trip: u64) -> Self {
        Self::with_margin(round_trip, 10)
    }

    fn with_margin(round_trip: u64, release_margin: u64) -> Self {
        let timing = Timing {
            adaptive: Some(Adaptive::WIDEST),
            release_margin: span(release_margin),
            ..Profile::Default.timing()
        };
        let mut node = Node { lease: Lease::new(LeaseConfig::new(ME, timing, 4), Mono(0)) };
        node.at(0, voters_of(1..=3));
        node.at(0, Input::Standing(Standing { eligible: true, rank: 0, witness: false }));
        let mut far =
            Self { node, round_trip, arriving: BTreeMap::new(), sent: 0, term: 4, now: 1000 };
        far.elect(1000);
        far
    }

    fn elect(&mut self, at: u64) {
        self.term += 1;
        self.arrive(at, raft(self.term, Some(ME), true));
    }

    fn arrive(&mut self, at: u64, input: Input) {
        self.sent += 1;
        self.arriving.insert((at, self.sent), input);
    }

    fn step(&mut self, at: u64, input: Input) {
        for effect in self.node.at(at, input) {
            match effect {
                Effect::Send { to, message: Message::Hold { term, seq, stamp, .. } } => {
                    let answer = ack(term, seq, stamp.0 / 1_000_000);
                    self.arrive(at + self.round_trip, from(to, answer));
                }
                Effect::Prepare { epoch } => self.arrive(at, Input::TableReady { epoch }),
                Effect::StepDown { .. } | Effect::HandOver { .. } => {
                    self.arrive(at, raft(self.term, None, false));
                    self.elect(at + self.round_trip * 3);
                }
                Effect::Send { .. }
                | Effect::Pass(_)
                | Effect::Drop(_)
                | Effect::Campaign
                | Effect::Claim { .. }
                | Effect::Extend { .. }
                | Effect::Release { .. } => {}
            }
        }
    }

    /// Goes on until then, by whole milliseconds.
    fn until(&mut self, end: u64) {
        for at in self.now..=end {
            while let Some(next) = self.arriving.first_entry().filter(|next| next.key().0 <= at) {
                let input = next.remove();
                self.step(at, input);
            }
            if self.node.lease.deadline() <= ms(at) {
                self.step(at, Input::Timer);
            }
        }
        self.now = end + 1;
    }

    fn promise(&self, at: u64) -> Duration {
        self.node.lease.status(ms(at)).span.promise
    }
}

#[test]
fn a_holder_comes_to_promises_that_the_way_there_and_back_fits_into_and_to_none_longer() {
    const STEPS: [u64; 7] = [200_000, 300_000, 450_000, 675_000, 1_012_500, 1_518_750, 2_000_000];
    let margins = [10, 0];
    let ways = [1_u64, 60, 120, 155, 165, 300, 700];
    for (round_trip, margin) in ways.into_iter().flat_map(|way| margins.map(|ms| (way, ms))) {
        // A lease of nine tenths less 10 ms may be 65 % used at a beat. They come eight to a promise, and here at whole milliseconds.
        let fits = |promise: &&u64| {
            let (lease, beat) = (**promise * 9 / 10 - 10_000, (**promise / 8).div_ceil(1000));
            round_trip.div_ceil(beat) * beat * 1000 <= lease * 65 / 100
        };
        let promise = *STEPS.iter().find(fits).expect("2 s are enough");
        let mut far = Far::with_margin(round_trip, margin);
        far.until(60_000);
        assert_eq!(far.promise(60_000), Duration::from_micros(promise), "{round_trip} ms");
        assert!(far.node.lease.may_emit(ms(60_000)), "{round_trip} ms: it holds");
        assert!(far.term <= 12, "{round_trip} ms: it was elected {} times", far.term - 4);
    }
}

#[test]
fn a_cut_link_lengthens_nothing_however_often() {
    let mut far = Far::new(1);
    let mut at = 1_000;
    for _ in 0..5 {
        // Until the lease has run out and some.
        at += 2_000;
        far.until(at);
        far.arriving.retain(|_, input| !matches!(input, Input::Datagram { .. }));
        far.round_trip = 10_000_000;
        far.until(at + 300);
        far.arriving.retain(|_, input| !matches!(input, Input::Datagram { .. }));
        far.round_trip = 1;
        far.elect(at + 301);
        at += 301;
    }
    far.until(at + 2_000);
    assert!(far.node.lease.may_emit(ms(at + 2_000)));
    assert_eq!(far.promise(at + 2_000), span(200));
}
