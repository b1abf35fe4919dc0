//! What a holder does beside a foreign master: a router that is no member of the fleet and advertises the same virtual router.
//!
//! *In*: adverts of routers that are no members, and whether this node's lease runs. *Out*: whether it may be seen on the wire. Every
//! director feeds its machine all the time, so that the answer is known when a lease is won. A foreign master never costs the lease: the
//! node keeps leading and forwarding, and only stays silent.

use std::net::IpAddr;
use std::time::Duration;

use super::{Advert, PRIORITY_GOODBYE};
use crate::model::VrrpVersion;
use crate::time::Mono;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// The lease was won and the table stands: this node would claim.
    Acquired,
    /// The lease ended.
    Lost,
    /// A valid advert of our virtual router came from an address that is no member's.
    Heard(Foreign),
    /// The moment named by [`Coexist::deadline`] has come; others are harmless.
    Timer,
}

/// What a foreign router advertises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Foreign {
    /// Its priority; 0: it stops.
    pub priority: u8,
    /// Its address.
    pub source: IpAddr,
    /// Its advert interval.
    pub interval: Duration,
}

/// What to do now. Each is performed under the lease, like everything that is seen on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Be seen: VIP, advert, gratuitous ARP, then adverts at the interval.
    Claim,
    /// Stop at once: no advert, not even a goodbye, no ARP, no VIP.
    Silence,
    /// Send an advert and gratuitous ARP now: another router has just claimed the address, and caches may point there.
    Reassert,
}

/// Where the holder stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No lease; foreign masters are only remembered.
    #[default]
    NoLease,
    /// The lease runs, a foreign master that outranks us is alive: silent.
    Yielding,
    /// The lease runs and we are seen.
    Active,
}

/// The machine of one VIP group on one director, for the policy `yield`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coexist {
    priority: u8,
    source: IpAddr,
    version: VrrpVersion,
    state: State,
    /// The highest foreign master heard, and when it will count as gone.
    foreign: Option<(Foreign, Mono)>,
}

impl Coexist {
    /// A machine without a lease that has heard nobody. `source` is the address that our adverts come from.
    #[must_use]
    pub fn new(priority: u8, version: VrrpVersion, source: IpAddr) -> Self {
        Self { priority, source, version, state: State::NoLease, foreign: None }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The highest foreign master that has been heard within its time.
    #[must_use]
    pub fn foreign(&self, now: Mono) -> Option<Foreign> {
        self.foreign.filter(|(_, until)| now < *until).map(|(foreign, _)| foreign)
    }

    /// When to feed [`Input::Timer`] next.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        match self.state {
            State::Yielding => self.foreign.map(|(_, until)| until),
            State::NoLease | State::Active => None,
        }
    }

    /// Advances the machine by one input.
    #[must_use = "a holder that should be silent must be silenced"]
    pub fn step(&mut self, now: Mono, input: Input) -> Option<Effect> {
        match input {
            Input::Heard(foreign) if foreign.priority == PRIORITY_GOODBYE => {
                self.goodbye(now, foreign)
            }
            Input::Heard(foreign) => self.heard(now, foreign),
            Input::Acquired => match self.state {
                State::NoLease if self.outranked(now) => {
                    self.state = State::Yielding;
                    None
                }
                State::NoLease => {
                    self.state = State::Active;
                    Some(Effect::Claim)
                }
                State::Yielding | State::Active => None,
            },
            Input::Lost => {
                // What was on the wire is the lease machine's to withdraw.
                self.state = State::NoLease;
                None
            }
            Input::Timer => self.claim_if_free(now),
        }
    }

    fn heard(&mut self, now: Mono, heard: Foreign) -> Option<Effect> {
        let replaces = self
            .foreign(now)
            .is_none_or(|known| known.source == heard.source || rank(heard) > rank(known));
        if replaces {
            self.foreign = Some((heard, now.after(self.down_time(heard))));
        }
        match self.state {
            State::NoLease => None,
            State::Active if self.outranked(now) => {
                self.state = State::Yielding;
                Some(Effect::Silence)
            }
            // RFC 9568 §6.4.3: it believes itself master, and so do the caches of the segment.
            State::Active => Some(Effect::Reassert),
            // The master that we yielded to may have lowered its priority.
            State::Yielding => self.claim_if_free(now),
        }
    }

    fn goodbye(&mut self, now: Mono, leaving: Foreign) -> Option<Effect> {
        match &mut self.foreign {
            Some((known, until)) if known.source == leaving.source => {
                // Its other backups wait their own skew time; so do we.
                *until = (*until).min(now.after(skew(self.priority, self.version, known.interval)));
            }
            Some(_) | None => {}
        }
        match self.state {
            State::NoLease => None,
            // RFC 9568 §6.4.3: a router that stops gets an answer, so that nobody waits for silence.
            State::Active => Some(Effect::Reassert),
            State::Yielding => self.claim_if_free(now),
        }
    }

    fn claim_if_free(&mut self, now: Mono) -> Option<Effect> {
        if self.state != State::Yielding || self.outranked(now) {
            return None;
        }
        self.state = State::Active;
        Some(Effect::Claim)
    }

    /// RFC 9568 §6.4.3: higher priority, then higher address.
    fn outranked(&self, now: Mono) -> bool {
        self.foreign(now).is_some_and(|foreign| rank(foreign) > (self.priority, self.source))
    }

    /// RFC 9568 §6.1, `Active_Down_Interval`.
    fn down_time(&self, foreign: Foreign) -> Duration {
        let interval = foreign.interval.max(Duration::from_millis(10));
        3 * interval + skew(self.priority, self.version, interval)
    }
}

impl Foreign {
    /// What an advert from `source` says.
    #[must_use]
    pub fn of(advert: &Advert, source: IpAddr) -> Self {
        Self { priority: advert.priority, source, interval: advert.interval }
    }
}

fn rank(foreign: Foreign) -> (u8, IpAddr) {
    (foreign.priority, foreign.source)
}

/// RFC 9568 §6.1 (a part of the interval) and RFC 3768 §6.1 (a part of a second): the lower the priority, the longer.
fn skew(priority: u8, version: VrrpVersion, interval: Duration) -> Duration {
    let whole = match version {
        VrrpVersion::V2 => Duration::from_secs(1),
        VrrpVersion::V3 => interval,
    };
    whole * (256 - u32::from(priority)) / 256
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u8 = 100;
    const SECOND: Duration = Duration::from_secs(1);
    const T0: Mono = Mono(1_000_000_000_000);

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Our own address ends in 10.
    fn machine() -> Coexist {
        Coexist::new(OURS, VrrpVersion::V3, ip(10))
    }

    fn active() -> Coexist {
        let mut machine = machine();
        assert_eq!(machine.step(T0, Input::Acquired), Some(Effect::Claim));
        machine
    }

    fn yielding() -> Coexist {
        let mut machine = active();
        assert_eq!(machine.step(T0, advert(9, 150)), Some(Effect::Silence));
        machine
    }

    fn advert(last: u8, priority: u8) -> Input {
        Input::Heard(Foreign { priority, source: ip(last), interval: SECOND })
    }

    #[test]
    fn every_state_has_an_answer_to_every_input() {
        #[rustfmt::skip]
        let cases = [
            // why                                  start       input               effect                      state after
            ("nobody is heard",                     machine(),  Input::Acquired,    Some(Effect::Claim),        State::Active),
            ("no lease, no voice",                  machine(),  advert(9, 1),       None,                       State::NoLease),
            ("no lease, no voice",                  machine(),  advert(9, 0),       None,                       State::NoLease),
            ("nothing to lose",                     machine(),  Input::Lost,        None,                       State::NoLease),
            ("a spurious timer",                    machine(),  Input::Timer,       None,                       State::NoLease),
            ("acquired twice",                      active(),   Input::Acquired,    None,                       State::Active),
            ("lower priority",                      active(),   advert(20, 50),     Some(Effect::Reassert),     State::Active),
            ("equal priority, lower address",       active(),   advert(9, 100),     Some(Effect::Reassert),     State::Active),
            ("equal priority, higher address",      active(),   advert(11, 100),    Some(Effect::Silence),      State::Yielding),
            ("higher priority",                     active(),   advert(9, 101),     Some(Effect::Silence),      State::Yielding),
            ("the address owner",                   active(),   advert(9, 255),     Some(Effect::Silence),      State::Yielding),
            ("another router stops",                active(),   advert(9, 0),       Some(Effect::Reassert),     State::Active),
            ("the lease ends",                      active(),   Input::Lost,        None,                       State::NoLease),
            ("a spurious timer",                    active(),   Input::Timer,       None,                       State::Active),
            ("acquired twice",                      yielding(), Input::Acquired,    None,                       State::Yielding),
            ("the master goes on",                  yielding(), advert(9, 150),     None,                       State::Yielding),
            ("a third router, lower than it",       yielding(), advert(20, 140),    None,                       State::Yielding),
            ("the master gives way to us",          yielding(), advert(9, 50),      Some(Effect::Claim),        State::Active),
            ("the master stops: skew first",        yielding(), advert(9, 0),       None,                       State::Yielding),
            ("another router stops",                yielding(), advert(20, 0),      None,                       State::Yielding),
            ("the lease ends",                      yielding(), Input::Lost,        None,                       State::NoLease),
            ("the timer comes early",               yielding(), Input::Timer,       None,                       State::Yielding),
        ];
        for (why, mut machine, input, effect, state) in cases {
            assert_eq!(machine.step(T0.after(SECOND), input), effect, "{why}");
            assert_eq!(machine.state(), state, "{why}");
        }
    }

    #[test]
    fn over_ipv6_the_higher_address_wins_too() {
        let address = |last: u16| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, last]);
        for (last, effect) in [(9, Effect::Reassert), (0x11, Effect::Silence)] {
            let mut machine = Coexist::new(OURS, VrrpVersion::V3, address(0x10));
            assert_eq!(machine.step(T0, Input::Acquired), Some(Effect::Claim));
            let foreign = Foreign { priority: OURS, source: address(last), interval: SECOND };
            assert_eq!(machine.step(T0, Input::Heard(foreign)), Some(effect), "{last}");
        }
    }

    #[test]
    fn a_master_heard_without_a_lease_is_known_when_the_lease_is_won() {
        let mut machine = machine();
        assert_eq!(machine.step(T0, advert(9, 150)), None);
        assert_eq!(machine.step(T0.after(SECOND), Input::Acquired), None);
        assert_eq!(machine.state(), State::Yielding);

        let mut lower = self::machine();
        assert_eq!(lower.step(T0, advert(9, 50)), None);
        assert_eq!(lower.step(T0.after(SECOND), Input::Acquired), Some(Effect::Claim));
    }

    #[test]
    fn silence_or_a_goodbye_of_the_master_ends_the_yielding() {
        // (256 - 100) / 256 of a second.
        let skew = Duration::from_micros(609_375);
        let down = 3 * SECOND + skew;

        let mut silent = yielding();
        assert_eq!(silent.deadline(), Some(T0.after(down)));
        let just_before = Mono(T0.after(down).0 - 1);
        assert_eq!(silent.step(just_before, Input::Timer), None);
        assert_eq!(silent.step(T0.after(down), Input::Timer), Some(Effect::Claim));
        assert_eq!(silent.foreign(T0.after(down)), None);
        assert_eq!(silent.deadline(), None);

        let mut stopped = yielding();
        let later = T0.after(SECOND);
        assert_eq!(stopped.step(later, advert(9, 0)), None);
        assert_eq!(stopped.deadline(), Some(later.after(skew)));
        assert_eq!(stopped.step(later.after(skew), Input::Timer), Some(Effect::Claim));
    }

    #[test]
    fn version_2_skews_by_parts_of_a_second_whatever_the_interval() {
        let slow = 10 * SECOND;
        assert_eq!(skew(100, VrrpVersion::V2, slow), Duration::from_micros(609_375));
        assert_eq!(skew(100, VrrpVersion::V3, slow), Duration::from_micros(6_093_750));
        assert_eq!(skew(254, VrrpVersion::V3, slow), Duration::from_micros(78_125));
    }

    #[test]
    fn an_interval_of_zero_does_not_make_a_master_vanish_at_once() {
        let mut machine = active();
        let broken = Foreign { priority: 150, source: ip(9), interval: Duration::ZERO };
        assert_eq!(machine.step(T0, Input::Heard(broken)), Some(Effect::Silence));
        assert!(machine.deadline().unwrap() > T0.after(Duration::from_millis(30)));
    }
}
