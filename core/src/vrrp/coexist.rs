//! What a holder does beside a foreign master: a router that is no member of the fleet and advertises the same virtual router; or beside a
//! member that holds without a lease.
//!
//! *In*: adverts of routers that are no members, whether this node's lease runs, and whether another machine says by ARP or neighbour discovery
//! that it has the addresses. *Out*: whether this node may be seen on the wire. Every director feeds its machine all the time, so that the
//! answer is known when a lease is won. A foreign master never costs the lease: the node keeps leading and forwarding, and only stays silent.
//!
//! A foreign master gives up when it hears a higher advert (RFC 9568 §6.4.3), but not at once. A contest therefore is won by adverts alone, and
//! the VIP is claimed after the other has fallen silent and nobody answers for the address: at no moment do two machines have it.

use std::net::IpAddr;
use std::time::Duration;

use super::{Advert, PRIORITY_GOODBYE};
use crate::model::{Coexist as Policy, VrrpVersion};
use crate::time::Mono;

/// Between two questions who has the addresses.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// So many questions without an answer, each given [`ASK_EVERY`], and the addresses are free.
const QUESTIONS: u8 = 3;
/// The same in a contest, after an answer: the other has just had them.
const QUESTIONS_AFTER_AN_ANSWER: u8 = 5;
/// Adverts at the start of a contest that follow each other after at most [`DENSE`].
const DENSE_ADVERTS: u8 = 3;
/// See there.
const DENSE: Duration = Duration::from_millis(100);
/// Addresses that somebody has who does not advertise are looked at again after this.
const AGAIN: Duration = Duration::from_millis(200);
/// Who had the addresses is remembered for at least this: longer than any failover takes.
const REMEMBERED: Duration = Duration::from_secs(10);
/// An announcement by another is answered at most this often: the other may do the same.
const ANSWER_EVERY: Duration = Duration::from_secs(1);

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// The lease was won and the table stands: this node would claim.
    Acquired {
        /// No member can hold without a lease: the policy does not allow it, or each has promised in this tenure, which it does only after it has
        /// given way.
        alone: bool,
    },
    /// The lease ended.
    Lost,
    /// A valid advert of our virtual router came from an address that is no member's.
    Heard(Foreign),
    /// Another machine said that it has one of the addresses, asked or not.
    Sighted,
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
    /// It is a member that holds without a lease. It gives way to any holder, whatever the policy says about others.
    pub member: bool,
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
    /// Ask who has the addresses, as a machine without address would (RFC 5227 §2.1.1, RFC 4862 §5.4.2). Nothing is claimed by that.
    Ask {
        /// Send an advert as well, and no more than that.
        advert: bool,
    },
}

/// Where the holder stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No lease; foreign masters are only remembered.
    #[default]
    NoLease,
    /// The lease runs, a foreign master is alive or another machine has the addresses: silent.
    Yielding,
    /// The lease runs, a foreign master that we outrank is alive: adverts alone, until it gives up.
    Contesting,
    /// The lease runs and nobody advertises: asking whether anybody has the addresses.
    Checking,
    /// The lease runs and we are seen.
    Active,
}

impl State {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoLease => "no lease",
            Self::Yielding => "yielding",
            Self::Contesting => "contesting",
            Self::Checking => "checking",
            Self::Active => "active",
        }
    }
}

/// The machine of one VIP group on one director.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coexist {
    policy: Policy,
    priority: u8,
    source: IpAddr,
    version: VrrpVersion,
    interval: Duration,
    state: State,
    /// The highest foreign master heard.
    foreign: Option<Known>,
    /// The addresses were with this node or another member lately, and no foreign router has been heard since: until then they are claimed without
    /// asking.
    sure_until: Mono,
    /// Under another configuration this node was seen already.
    was_active: bool,
    /// It was, and is to give the addresses back now.
    stands_back: bool,
    /// The next moment to look, in the states that ask, and while the addresses are occupied.
    wake: Option<Mono>,
    /// Another machine has the addresses, and nobody advertises them.
    occupied: bool,
    /// A member may hold without a lease: nothing is claimed before it had an advert and nobody answers.
    unsure: bool,
    /// It did not give up though we outrank it.
    unimpressed: Option<IpAddr>,
    /// An announcement by another was answered last.
    answered_at: Option<Mono>,
    contest: Contest,
    /// With whom, and since when the first advert of it was sent: one that was late with an advert is contested with further on, and not anew.
    contested: Option<(IpAddr, Mono)>,
}

/// A foreign master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Known {
    says: Foreign,
    heard: Mono,
    /// It counts as gone then.
    until: Mono,
}

/// How far asking and contesting are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Contest {
    adverts: u8,
    advert_at: Mono,
    /// Somebody answered for the addresses since the contest began.
    answered: bool,
    /// Questions since the last answer.
    unanswered: u8,
}

impl Coexist {
    /// A machine without a lease that knows nothing of others. `source` is the address that our adverts come from, `interval` what is between
    /// them.
    #[must_use]
    pub fn new(
        policy: Policy,
        priority: u8,
        version: VrrpVersion,
        interval: Duration,
        source: IpAddr,
    ) -> Self {
        Self {
            policy,
            priority,
            source,
            version,
            interval,
            state: State::NoLease,
            foreign: None,
            sure_until: Mono(0),
            was_active: false,
            stands_back: false,
            wake: None,
            occupied: false,
            unsure: false,
            unimpressed: None,
            answered_at: None,
            contest: Contest::default(),
            contested: None,
        }
    }

    /// Takes over what a machine for the same virtual router and interface knows, whose configuration this one's replaces.
    pub fn succeed(&mut self, old: &Self) {
        self.foreign = old.foreign;
        self.sure_until = old.sure_until;
        let active = old.state == State::Active;
        self.stands_back = active && (old.policy, self.policy) == (Policy::Contest, Policy::Yield);
        self.was_active = active && !self.stands_back;
    }

    /// A member that holds under a lease advertises the virtual router. Unless it contests with a foreign master, which would be heard here, too, it has the
    /// addresses.
    pub fn vouched(&mut self, now: Mono) {
        if self.foreign(now).is_none() {
            self.sure_until = now.after(REMEMBERED.max(self.down_time(self.interval)));
        }
    }

    /// An advert was heard that a member may have sent, or a foreign router that says the same.
    pub fn doubt(&mut self) {
        self.sure_until = Mono(0);
    }

    /// Whether a claim under the old configuration is to be given up with a goodbye, and a foreign backup to be waited for: addresses that were
    /// taken from it are given back. If none takes them, they are claimed again.
    #[must_use]
    pub fn stands_back(&self) -> bool {
        self.stands_back
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The highest foreign master that has been heard within its time, or member that holds without a lease.
    #[must_use]
    pub fn foreign(&self, now: Mono) -> Option<Foreign> {
        self.foreign.filter(|known| now < known.until).map(|known| known.says)
    }

    /// This node is on the wire already, without a lease: what it claims next needs no asking.
    pub fn goes_on(&mut self) {
        self.was_active = true;
    }

    /// Whether a claim waits because another machine has the addresses and does not advertise them.
    #[must_use]
    pub fn is_occupied(&self) -> bool {
        self.occupied
    }

    /// The foreign master that did not give up in a contest though it should have: it drops our adverts.
    #[must_use]
    pub fn unimpressed(&self) -> Option<IpAddr> {
        self.unimpressed
    }

    /// When to feed [`Input::Timer`] next.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        match self.state {
            State::Yielding => self.foreign.map(|known| known.until).max(self.wake),
            State::Contesting | State::Checking => self.wake,
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
            Input::Acquired { alone } => self.acquired(now, alone),
            Input::Lost => {
                // What was on the wire is the lease machine's to withdraw.
                if self.state == State::Active {
                    self.vouched(now);
                }
                self.contested = None;
                self.unsure = false;
                self.enter(State::NoLease);
                None
            }
            Input::Sighted => self.sighted(now),
            Input::Timer => self.look(now),
        }
    }

    fn acquired(&mut self, now: Mono, alone: bool) -> Option<Effect> {
        if self.state != State::NoLease {
            return None;
        }
        let was_active = std::mem::take(&mut self.was_active);
        if alone {
            // Who promised has given way before.
            self.foreign = self.foreign.filter(|known| !known.says.member);
        }
        if std::mem::take(&mut self.stands_back) {
            self.enter(State::Yielding);
            self.wake = Some(now.after(self.down_time(self.interval)));
            return None;
        }
        match self.foreign(now) {
            Some(_) if was_active && !self.outranked(now) => self.claim(),
            Some(foreign) => self.meet(now, foreign),
            None if was_active => self.claim(),
            None if !alone => {
                self.unsure = true;
                self.begin_contest(now)
            }
            None if now < self.sure_until => self.claim(),
            None => self.check(now),
        }
    }

    fn heard(&mut self, now: Mono, heard: Foreign) -> Option<Effect> {
        // It may leave its address behind.
        self.doubt();
        let replaces = self
            .foreign(now)
            .is_none_or(|known| known.source == heard.source || rank(heard) > rank(known));
        if replaces {
            let until = now.after(self.down_time(heard.interval));
            self.foreign = Some(Known { says: heard, heard: now, until });
        }
        match self.state {
            State::NoLease => None,
            State::Active if self.outranked(now) => {
                self.enter(State::Yielding);
                Some(Effect::Silence)
            }
            // RFC 9568 §6.4.3: it believes itself master, and so do the caches of the segment.
            State::Active => Some(Effect::Reassert),
            State::Checking => self.meet(now, heard),
            // The master that we yielded to may have lowered its priority.
            State::Yielding if self.contests(now, heard) => self.meet(now, heard),
            State::Yielding => None,
            State::Contesting => {
                self.contest.unanswered = 0;
                if self.outranked(now) {
                    self.contested = None;
                    self.enter(State::Yielding);
                } else if self.has_had_enough(now, heard) {
                    self.give_up_on(heard);
                }
                None
            }
        }
    }

    /// A foreign master is alive and nothing of ours is on the wire.
    fn meet(&mut self, now: Mono, foreign: Foreign) -> Option<Effect> {
        if self.contests(now, foreign) {
            if self.contested.is_none_or(|(source, _)| source != foreign.source) {
                self.contested = Some((foreign.source, now));
            }
            if self.has_had_enough(now, foreign) {
                self.give_up_on(foreign);
                return None;
            }
            return self.begin_contest(now);
        }
        self.contested = None;
        self.enter(State::Yielding);
        None
    }

    /// Whether it has had three of our adverts at least.
    fn has_had_enough(&self, now: Mono, foreign: Foreign) -> bool {
        let span = 3 * at_least(foreign.interval);
        self.contested.is_some_and(|(_, since)| now >= since.after(span))
    }

    fn give_up_on(&mut self, foreign: Foreign) {
        self.unimpressed = Some(foreign.source);
        self.contested = None;
        self.enter(State::Yielding);
    }

    fn contests(&self, now: Mono, foreign: Foreign) -> bool {
        match self.policy {
            Policy::Yield if !foreign.member => false,
            Policy::Yield | Policy::Contest => {
                !self.outranked(now) && self.unimpressed != Some(foreign.source)
            }
        }
    }

    fn begin_contest(&mut self, now: Mono) -> Option<Effect> {
        self.enter(State::Contesting);
        self.contest = Contest { advert_at: now, ..Contest::default() };
        self.go_on(now)
    }

    /// The next question of a contest, and an advert when it is time.
    fn go_on(&mut self, now: Mono) -> Option<Effect> {
        let advert = self.contest.advert_at <= now;
        if advert {
            self.contest.adverts = self.contest.adverts.saturating_add(1);
            let dense = self.contest.adverts < DENSE_ADVERTS;
            let pause = if dense { self.interval.min(DENSE) } else { self.interval };
            self.contest.advert_at = now.after(pause);
        }
        self.wake = Some(now.after(ASK_EVERY));
        Some(Effect::Ask { advert })
    }

    fn check(&mut self, now: Mono) -> Option<Effect> {
        self.enter(State::Checking);
        self.contest = Contest::default();
        self.wake = Some(now.after(ASK_EVERY));
        Some(Effect::Ask { advert: false })
    }

    fn claim(&mut self) -> Option<Effect> {
        self.contested = None;
        self.unsure = false;
        self.enter(State::Active);
        Some(Effect::Claim)
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.wake = None;
        self.occupied = false;
    }

    fn goodbye(&mut self, now: Mono, leaving: Foreign) -> Option<Effect> {
        let own = skew(self.priority, self.version, leaving.interval);
        let known = self.foreign.as_mut().filter(|known| known.says.source == leaving.source);
        let was_known = known.is_some();
        if let Some(known) = known {
            // Its other backups wait their own skew time; so do we.
            known.until = known.until.min(now.after(own));
        }
        match self.state {
            // RFC 9568 §6.4.3: a router that stops gets an answer, so that nobody waits for silence.
            State::Active => Some(Effect::Reassert),
            // Our adverts tell its backups already that somebody is there.
            State::Contesting if was_known => {
                self.foreign = None;
                self.contested = None;
                self.check(now)
            }
            State::NoLease | State::Yielding | State::Contesting | State::Checking => None,
        }
    }

    fn sighted(&mut self, now: Mono) -> Option<Effect> {
        match self.state {
            State::NoLease | State::Yielding => None,
            State::Contesting => {
                self.contest.answered = true;
                self.contest.unanswered = 0;
                None
            }
            State::Checking => {
                self.enter(State::Yielding);
                self.occupied = true;
                self.wake = Some(now.after(AGAIN));
                None
            }
            State::Active => {
                let soon = self.answered_at.is_some_and(|at| now < at.after(ANSWER_EVERY));
                if soon {
                    return None;
                }
                self.answered_at = Some(now);
                Some(Effect::Reassert)
            }
        }
    }

    fn look(&mut self, now: Mono) -> Option<Effect> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        match self.state {
            State::NoLease | State::Active => None,
            // Who answered did not hear the adverts, or is no router.
            State::Yielding if self.unsure => self.begin_contest(now),
            State::Yielding => self.check(now),
            State::Checking => {
                self.contest.unanswered += 1;
                if self.contest.unanswered >= QUESTIONS {
                    return self.claim();
                }
                self.wake = Some(now.after(ASK_EVERY));
                Some(Effect::Ask { advert: false })
            }
            State::Contesting => {
                let silent = self.foreign.is_none_or(|known| {
                    now >= known.heard.after(at_least(known.says.interval) * 6 / 5)
                });
                if silent {
                    return self.check(now);
                }
                self.contest.unanswered = self.contest.unanswered.saturating_add(1);
                // A member that holds answers; one that does not answer holds no more.
                let answers =
                    self.contest.answered || self.foreign.is_some_and(|known| known.says.member);
                let gave_way = answers && self.contest.unanswered > QUESTIONS_AFTER_AN_ANSWER;
                if gave_way { self.claim() } else { self.go_on(now) }
            }
        }
    }

    /// RFC 9568 §6.4.3: higher priority, then higher address.
    fn outranked(&self, now: Mono) -> bool {
        self.foreign(now).is_some_and(|foreign| rank(foreign) > (self.priority, self.source))
    }

    /// RFC 9568 §6.1, `Active_Down_Interval`.
    fn down_time(&self, interval: Duration) -> Duration {
        let interval = at_least(interval);
        3 * interval + skew(self.priority, self.version, interval)
    }
}

impl Foreign {
    /// What an advert from `source` says.
    #[must_use]
    pub fn of(advert: &Advert, source: IpAddr) -> Self {
        Self { priority: advert.priority, source, interval: advert.interval, member: false }
    }
}

fn rank(foreign: Foreign) -> (u8, IpAddr) {
    (foreign.priority, foreign.source)
}

/// An interval of zero would make a master vanish at once.
fn at_least(interval: Duration) -> Duration {
    interval.max(Duration::from_millis(10))
}

/// RFC 9568 §6.1 (a part of the interval) and RFC 3768 §6.1 (a part of a second): the lower the priority, the longer.
pub(super) fn skew(priority: u8, version: VrrpVersion, interval: Duration) -> Duration {
    let whole = match version {
        VrrpVersion::V2 => Duration::from_secs(1),
        VrrpVersion::V3 => interval,
    };
    whole * (256 - u32::from(priority)) / 256
}

#[cfg(test)]
mod tests;
