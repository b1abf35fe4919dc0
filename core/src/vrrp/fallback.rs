//! What a director does with a VIP group while the fleet has no majority, and so nobody has a lease.
//!
//! *In*: signs that there is a majority, the end of this node's own lease, adverts, who answers for the addresses, whether arbiters answer,
//! the clock. *Out*: whether this node holds the group without a lease. Under [`Policy::Strict`] it never does.
//!
//! Two ways lead there. A holder whose lease runs out because nobody renews it goes on as long as nobody contests it (`sticky`). A director that
//! has heard of no majority, of no holder and of nobody who answers for the addresses takes them (`vrrp-fallback`), by VRRP's timers
//! (RFC 9568 §6) and, which VRRP does not do, after asking: the addresses (RFC 5227 §2.1.1), so that a holder on the same segment is
//! never doubled however its adverts or its control plane fare, and an arbiter, so that a machine that is cut off takes nothing.
//!
//! Whoever holds like this gives way at once: before it promises anything to a leader, to a higher advert, to an arbiter's silence. What
//! remains is a segment that is itself split, with clients on both sides: there each side can have one.

use std::net::IpAddr;
use std::time::Duration;

use super::coexist::skew;
use crate::model::{NoQuorum, VrrpVersion};
use crate::time::Mono;

/// Questions before a claim; the answer to each has [`ASK_EVERY`]. RFC 5227 §1.1, `PROBE_NUM`.
pub const QUESTIONS: u8 = 3;
/// Between two questions.
pub const ASK_EVERY: Duration = Duration::from_millis(200);
/// Who is less preferred waits so much longer for each that is more: it hears the other's first advert while it still asks.
pub const STAGGER: Duration = Duration::from_millis(200);
/// How often a holder without a lease asks its arbiters.
pub const ARBITER_EVERY: Duration = Duration::from_millis(500);
/// Without an answer for so long it is cut off: three questions.
pub const ARBITER_PATIENCE: Duration = Duration::from_millis(1600);
/// A claim of another by ARP is contradicted once in this time; a second one is given way to (RFC 5227 §2.4, `DEFEND_INTERVAL`).
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// Nothing is emitted so long after the segment was last listened to: a thread that was stopped listens first.
pub const FRESH: Duration = Duration::from_millis(50);
/// No majority was heard of for so long at least before anything is taken.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The fleet's policy, with `auto` resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// Only a lease gives the right to hold.
    #[default]
    Strict,
    /// A holder whose lease runs out goes on while nobody contests it.
    Sticky,
    /// As that, and a director takes what nobody holds.
    Vrrp,
}

impl Policy {
    /// Of a fleet with so many directors that vote. `auto`: with at most two of them the loss of one more machine may leave a director alone,
    /// which is what keepalived's users expect to go on; with more, a majority of directors decides.
    #[must_use]
    pub const fn of(policy: NoQuorum, directors: usize) -> Self {
        match policy {
            NoQuorum::Strict => Self::Strict,
            NoQuorum::Sticky => Self::Sticky,
            NoQuorum::VrrpFallback => Self::Vrrp,
            NoQuorum::Auto => {
                if directors <= 2 {
                    Self::Vrrp
                } else {
                    Self::Strict
                }
            }
        }
    }

    /// The document's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => NoQuorum::Strict.name(),
            Self::Sticky => NoQuorum::Sticky.name(),
            Self::Vrrp => NoQuorum::VrrpFallback.name(),
        }
    }
}

/// The priority in adverts of a holder without a lease: below the holder's under a lease, lower for each more preferred director, at least 1.
#[must_use]
pub const fn priority(of_holders: u8, rank: u8) -> u8 {
    let priority = of_holders.saturating_sub(1).saturating_sub(rank);
    if priority == 0 { 1 } else { priority }
}

/// What a machine is told once; a change makes a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Terms {
    /// What it may do.
    pub policy: Policy,
    /// How long no majority must have been heard of: the longer of [`PATIENCE`] and ten promises.
    pub patience: Duration,
    /// Of its adverts, see [`priority`].
    pub priority: u8,
    /// Position among the directors, the most preferred first.
    pub rank: u8,
    /// Of the group's adverts.
    pub version: VrrpVersion,
    /// Between adverts.
    pub interval: Duration,
    /// Where this node's adverts come from.
    pub source: IpAddr,
    /// There are arbiters: one of them must answer.
    pub arbiters: bool,
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// There is a majority: a leader was heard, or this node has a lease.
    Contact,
    /// A leader asked for a promise and is about to get it: from then on it may hold.
    Asked,
    /// This node claims the group under a lease of its own.
    Lease,
    /// This node's lease, under which the group was on the wire, was not renewed. Noticed before any promise behind it can have ended, so
    /// that nobody else can hold yet, and after the segment was [listened](Fallback::listened) to.
    Expired,
    /// Whether this node could hold: a director that votes, with carrier, and with all that its kernel needs.
    Fit(bool),
    /// An advert of this virtual router, whoever sent it; not a goodbye.
    Heard {
        /// Its priority.
        priority: u8,
        /// Its address.
        source: IpAddr,
    },
    /// Another machine said that it has one of the addresses, asked or not.
    Sighted,
    /// An arbiter answered.
    Arbiter,
    /// The forwarding table stands.
    Ready,
    /// The machine was suspended, or its clock went back.
    Suspended,
    /// The moment named by [`Fallback::deadline`] has come; others are harmless.
    Timer,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Be seen, or go on being seen, with this node's own [priority](Terms::priority).
    Claim,
    /// Stop at once.
    Silence,
    /// Say again that the addresses are here.
    Reassert,
    /// Ask the arbiters, and with `addresses` who has the group's addresses; nothing is claimed by that. The forwarding table has to be put in
    /// place meanwhile.
    Ask {
        /// Before a claim; a holder asks its arbiters alone.
        addresses: bool,
    },
}

/// Where the group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Not held without a lease.
    Idle,
    /// Nobody holds, as far as is known: asking.
    Probing {
        /// Questions so far.
        asked: u8,
        /// The forwarding table stands.
        ready: bool,
        /// An arbiter answered.
        vouched: bool,
    },
    /// Held without a lease.
    Master {
        /// Held on from a lease, and not taken.
        sticky: bool,
    },
}

/// The machine of one VIP group on one director.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fallback {
    terms: Terms,
    state: State,
    fit: bool,
    /// A majority was last heard of.
    contact: Mono,
    /// A holder was last heard of.
    sign: Mono,
    /// When to look next, except while idle.
    wake: Mono,
    /// An arbiter last answered a holder.
    arbiter: Mono,
    /// Another's claim was last contradicted.
    defended: Option<Mono>,
    /// Nothing is emitted from here on, unless the segment is listened to.
    fresh_until: Mono,
}

impl Fallback {
    /// A machine that begins to listen `now`.
    #[must_use]
    pub fn new(terms: Terms, now: Mono) -> Self {
        Self {
            terms,
            state: State::Idle,
            fit: false,
            contact: now,
            sign: now,
            wake: now,
            arbiter: now,
            defended: None,
            fresh_until: Mono(0),
        }
    }

    /// What it was told.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Takes new terms. Who holds goes on, unless the policy does not allow it any more.
    #[must_use = "a holder that may not hold must be silenced"]
    pub fn change(&mut self, now: Mono, terms: Terms) -> Option<Effect> {
        let before = std::mem::replace(&mut self.terms, terms);
        let State::Master { sticky } = self.state else {
            self.state = State::Idle;
            return None;
        };
        let allowed = match terms.policy {
            Policy::Strict => false,
            Policy::Sticky => sticky,
            Policy::Vrrp => true,
        };
        if !allowed {
            return self.leave(now);
        }
        (before != terms).then_some(Effect::Claim)
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether the group is held without a lease.
    #[must_use]
    pub fn is_master(&self) -> bool {
        matches!(self.state, State::Master { .. })
    }

    /// Whether no majority was heard of for the time that the policy asks for.
    #[must_use]
    pub fn is_orphan(&self, now: Mono) -> bool {
        now >= self.contact.after(self.terms.patience)
    }

    /// The segment was just listened to, and what was heard was fed to this machine.
    pub fn listened(&mut self, now: Mono) {
        self.fresh_until = now.after(FRESH);
    }

    /// Whether anything may be sent that says that this node has the addresses.
    #[must_use]
    pub fn may_emit(&self, now: Mono) -> bool {
        self.is_master() && now < self.fresh_until
    }

    /// When a holder, or somebody who says that it has the addresses, was last heard of; or this machine last stopped asking or holding.
    #[must_use]
    pub fn last_sign(&self) -> Mono {
        self.sign
    }

    /// When to feed [`Input::Timer`] next.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        match self.state {
            State::Idle if self.terms.policy == Policy::Vrrp && self.fit => Some(self.claim_at()),
            State::Idle => None,
            State::Master { .. } if !self.terms.arbiters => None,
            State::Probing { .. } | State::Master { .. } => Some(self.wake),
        }
    }

    /// Advances the machine by one input.
    #[must_use = "a holder that should be silent must be silenced"]
    pub fn step(&mut self, now: Mono, input: Input) -> Option<Effect> {
        match input {
            Input::Contact => {
                self.contact = now;
                // A holder goes on until a leader asks for its promise: the leader may be one that cannot hold.
                if matches!(self.state, State::Probing { .. }) {
                    self.state = State::Idle;
                }
                None
            }
            Input::Asked => {
                self.contact = now;
                self.leave(now)
            }
            Input::Lease => {
                self.contact = now;
                self.state = State::Idle;
                None
            }
            Input::Expired => self.expired(now),
            Input::Fit(fit) => {
                self.fit = fit;
                if fit { None } else { self.leave(now) }
            }
            Input::Heard { priority, source } => self.heard(now, (priority, source)),
            Input::Sighted => self.sighted(now),
            Input::Arbiter => {
                self.arbiter = now;
                if let State::Probing { vouched, .. } = &mut self.state {
                    *vouched = true;
                }
                None
            }
            Input::Ready => {
                if let State::Probing { ready, .. } = &mut self.state {
                    *ready = true;
                }
                None
            }
            Input::Suspended => {
                self.contact = now;
                self.leave(now)
            }
            Input::Timer => self.look(now),
        }
    }

    /// Every way out of holding and asking.
    fn leave(&mut self, now: Mono) -> Option<Effect> {
        let was_master = self.is_master();
        self.state = State::Idle;
        self.sign = now;
        was_master.then_some(Effect::Silence)
    }

    fn expired(&mut self, now: Mono) -> Option<Effect> {
        self.contact = now;
        if self.terms.policy == Policy::Strict || !self.fit {
            return None;
        }
        self.state = State::Master { sticky: true };
        self.become_master(now);
        Some(Effect::Claim)
    }

    fn become_master(&mut self, now: Mono) {
        self.arbiter = now;
        self.wake = now;
        self.defended = None;
    }

    fn heard(&mut self, now: Mono, other: (u8, IpAddr)) -> Option<Effect> {
        if self.is_master() && other <= (self.terms.priority, self.terms.source) {
            // RFC 9568 §6.4.3: it gives way when it hears of this one.
            return Some(Effect::Reassert);
        }
        self.leave(now)
    }

    fn sighted(&mut self, now: Mono) -> Option<Effect> {
        let again = self.defended.is_some_and(|at| now < at.after(DEFEND_INTERVAL));
        if !self.is_master() || again {
            return self.leave(now);
        }
        self.defended = Some(now);
        Some(Effect::Reassert)
    }

    /// When to begin to ask.
    fn claim_at(&self) -> Mono {
        let Terms { patience, priority, rank, version, interval, .. } = self.terms;
        // RFC 9568 §6.1, `Active_Down_Interval`.
        let down = 3 * interval + skew(priority, version, interval);
        self.contact.after(patience).max(self.sign.after(down + STAGGER * u32::from(rank)))
    }

    fn look(&mut self, now: Mono) -> Option<Effect> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        match self.state {
            State::Idle => {
                self.state = State::Probing { asked: 1, ready: false, vouched: false };
                self.wake = now.after(ASK_EVERY);
                Some(Effect::Ask { addresses: true })
            }
            State::Probing { asked, ready, vouched } => {
                let cut_off = self.terms.arbiters && !vouched;
                if asked >= QUESTIONS && cut_off {
                    // Again after VRRP's time.
                    return self.leave(now);
                }
                if asked >= QUESTIONS && ready {
                    self.state = State::Master { sticky: false };
                    self.become_master(now);
                    return Some(Effect::Claim);
                }
                let asked = asked.saturating_add(1);
                self.state = State::Probing { asked, ready, vouched };
                self.wake = now.after(ASK_EVERY);
                Some(Effect::Ask { addresses: true })
            }
            State::Master { .. } => {
                if now >= self.arbiter.after(ARBITER_PATIENCE) {
                    return self.leave(now);
                }
                self.wake = now.after(ARBITER_EVERY);
                Some(Effect::Ask { addresses: false })
            }
        }
    }
}

#[cfg(test)]
mod tests;
