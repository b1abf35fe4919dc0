//! Timing: how long voters promise, how long a holder may rely on it, how often it asks.
//!
//! A promise of P on the voter's clock outlives a lease of L on the holder's clock, counted from the moment *before* the request was sent, as long
//! as `L / (1 - d) + a <= P / (1 + d)`, where `d` is how far either oscillator may be off and `a` how late an emission may follow the look at the
//! clock. Unless something else is asked for, `L = 0.9 P - 10 ms`: with `d` = 2 % that leaves 20 ms for `a` at P = 200 ms. See [`Span::checked`] for
//! every rule.

use std::time::Duration;

/// The longest promise that any voter makes, and so the longest silence that a restarted voter needs when it cannot know what it promised.
pub const PROMISE_MAX: Duration = Duration::from_millis(2000);

/// The shortest promise that may be asked for. Its lease of 44 ms leaves 34 before the release may begin: four beats of 7.5 ms, and the way to a
/// voter and back.
pub const PROMISE_MIN: Duration = Duration::from_millis(60);

/// A VIP's removal must have reached the kernel when the lease ends; 10 ms is a slow netlink call on a busy machine.
const RELEASE_MARGIN: Duration = Duration::from_millis(10);

/// How far an oscillator may be off, in hundredths.
const DRIFT_PERCENT: u32 = 2;

/// How late an emission may follow the look at the clock that allowed it.
const EMISSION: Duration = Duration::from_millis(10);

/// Named timing; the fleet's nodes should all run the same one, but a voter promises whatever span it is asked for, up to [`PROMISE_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// 100 ms promises: real-time scheduling and a quiet network.
    Fast,
    /// 200 ms promises.
    #[default]
    Default,
    /// 600 ms promises: nothing is asked of the machine.
    Relaxed,
    /// 2 s promises: stretched segments, emulated machines.
    Wan,
}

impl Profile {
    /// Every profile, from the quickest to the slowest.
    pub const ALL: [Self; 4] = [Self::Fast, Self::Default, Self::Relaxed, Self::Wan];

    /// The name in `agent.toml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Default => "default",
            Self::Relaxed => "relaxed",
            Self::Wan => "wan",
        }
    }

    /// The profile of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// What a holder asks for and counts by.
    #[must_use]
    pub const fn span(self) -> Span {
        let (promise, beat, lease) = match self {
            Self::Fast => (100, 15, 80),
            Self::Default => (200, 25, 170),
            Self::Relaxed => (600, 75, 530),
            Self::Wan => (2000, 250, 1790),
        };
        Span {
            promise: Duration::from_millis(promise),
            lease: Duration::from_millis(lease),
            beat: Duration::from_millis(beat),
        }
    }

    /// Its spans.
    #[must_use]
    pub fn timing(self) -> Timing {
        Timing::of(self.span())
    }
}

/// What a holder asks the voters for, and what it counts by while they have promised that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// P: what a holder asks of the voters, counted by each voter from receipt.
    pub promise: Duration,
    /// L: how long a holder relies on a promise, counted from before the request was sent. Below `promise`.
    pub lease: Duration,
    /// How often a leader that may hold asks again.
    pub beat: Duration,
}

/// A rule of timing that spans break. It says which, with the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleBroken {
    /// P is out of range.
    #[error(
        "a promise of {promise:?} is out of range: {PROMISE_MIN:?} to {PROMISE_MAX:?}, because no voter promises for longer and a shorter one leaves no time for three beats and the removal of an address"
    )]
    Promise {
        /// P.
        promise: Duration,
    },
    /// L would outlive P on clocks that drift apart.
    #[error(
        "a lease of {lease:?} could outlive a promise of {promise:?}: with clocks {DRIFT_PERCENT} % apart each way and emissions {EMISSION:?} late it may be at most {most:?}"
    )]
    Lease {
        /// L.
        lease: Duration,
        /// P.
        promise: Duration,
        /// The longest L that the rule allows, to the next lower millisecond.
        most: Duration,
    },
    /// Too few beats in a lease.
    #[error(
        "a beat of {beat:?} is too slow for a lease of {lease:?}: three in a row may be lost before the release begins, {RELEASE_MARGIN:?} before the lease ends, so at most {most:?}"
    )]
    Beat {
        /// The beat.
        beat: Duration,
        /// L.
        lease: Duration,
        /// The longest beat that the rule allows, to the next lower millisecond.
        most: Duration,
    },
    /// More datagrams than the network and the voters should be asked to bear.
    #[error("a beat of {beat:?} is out of range: at least 2ms")]
    Restless {
        /// The beat.
        beat: Duration,
    },
}

impl Span {
    /// What goes with that promise unless something else is asked for: `L = 0.9 P - 10 ms`, eight beats in P.
    #[must_use]
    pub fn of(promise: Duration) -> Self {
        let lease = (promise * 9 / 10).saturating_sub(Duration::from_millis(10));
        Self { promise, lease, beat: promise / 8 }
    }

    /// The span, if it breaks no rule of timing.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks.
    pub fn checked(self) -> Result<Self, RuleBroken> {
        let Self { promise, lease, beat } = self;
        if promise < PROMISE_MIN || promise > PROMISE_MAX {
            return Err(RuleBroken::Promise { promise });
        }
        let most = self.longest_lease();
        if lease > most {
            return Err(RuleBroken::Lease { lease, promise, most: whole_millis(most) });
        }
        let most = lease.saturating_sub(RELEASE_MARGIN) / 4;
        if beat > most {
            return Err(RuleBroken::Beat { beat, lease, most: whole_millis(most) });
        }
        if beat < Duration::from_millis(2) {
            return Err(RuleBroken::Restless { beat });
        }
        Ok(self)
    }

    /// The longest L that P allows, which is how long after a request was sent its promise cannot have ended, on a holder's clock that is off by as much as may be
    /// and with an emission that is as late as may be: `L / (1 - d) + a <= P / (1 + d)`.
    #[must_use]
    pub fn longest_lease(self) -> Duration {
        let most = (self.promise * 100 / (100 + DRIFT_PERCENT)).saturating_sub(EMISSION);
        most * (100 - DRIFT_PERCENT) / 100
    }

    /// A lease with less left than this is not claimed under; the next renewal is awaited.
    pub(super) fn claim_slack(self) -> Duration {
        self.lease / 4
    }
}

fn whole_millis(span: Duration) -> Duration {
    Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// Between which promises a holder chooses by itself, from how much of its leases is left when they are renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Adaptive {
    /// Never less.
    pub floor: Duration,
    /// Never more.
    pub ceiling: Duration,
    /// How long every renewal must have come early before a shorter promise is tried.
    pub quiet: Duration,
}

impl Adaptive {
    /// From the quickest profile's promise to the longest that there is.
    pub const WIDEST: Self = Self {
        floor: Duration::from_millis(100),
        ceiling: PROMISE_MAX,
        quiet: Duration::from_secs(600),
    };
}

/// Spans of the lease plane. Only `span` and `promise_max` bear on safety; the rest is pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timing {
    /// What is asked for at first, and always unless `adaptive`.
    pub span: Span,
    /// Whether a holder asks for longer or shorter promises as it sees fit.
    pub adaptive: Option<Adaptive>,
    /// The longest promise this node makes, whatever it is asked for.
    pub promise_max: Duration,
    /// How long before the end of an unrenewed lease the release begins, until [`super::Input::ReleaseMargin`] says otherwise.
    pub release_margin: Duration,
    /// How long a leader may ask for promises without claiming; then it lets others try.
    pub patience: Duration,
    /// How long after a promise's end the most preferred director campaigns.
    pub stagger_first: Duration,
    /// How much longer each further one waits.
    pub stagger_step: Duration,
    /// How much longer than that a node waits that may not hold.
    pub stagger_witness: Duration,
    /// How long after a campaign that led nowhere the next one comes.
    pub retry: Duration,
    /// How often a relinquishment is repeated: it is not acknowledged, and a lost one costs the successor up to P.
    pub relinquish_every: Duration,
    /// How often a relinquishment is sent in all; at least 1.
    pub relinquish_times: u8,
}

impl Timing {
    /// The pace that goes with a span.
    #[must_use]
    pub fn of(span: Span) -> Self {
        let promise = span.promise;
        Self {
            span,
            adaptive: None,
            promise_max: PROMISE_MAX,
            release_margin: RELEASE_MARGIN,
            patience: promise * 10,
            stagger_first: promise / 100,
            stagger_step: promise / 20,
            stagger_witness: promise * 3 / 10,
            retry: promise / 5,
            relinquish_every: promise / 100,
            relinquish_times: 10,
        }
    }

    /// The longest promise that this node asks for.
    #[must_use]
    pub fn longest(&self) -> Span {
        self.adaptive.map_or(self.span, |adaptive| Span::of(adaptive.ceiling))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P, h, L in milliseconds: what the documentation states.
    const TABLE: [(Profile, u64, u64, u64); 4] = [
        (Profile::Fast, 100, 15, 80),
        (Profile::Default, 200, 25, 170),
        (Profile::Relaxed, 600, 75, 530),
        (Profile::Wan, 2000, 250, 1790),
    ];

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_profiles_are_the_documented_table() {
        for (profile, promise, beat, lease) in TABLE {
            let span = profile.span();
            assert_eq!(span, Span { promise: ms(promise), lease: ms(lease), beat: ms(beat) });
            assert_eq!(span.lease, Span::of(span.promise).lease, "{profile:?}");
            assert_eq!(Profile::named(profile.name()), Some(profile));
        }
        assert_eq!(Profile::named("quick"), None);
    }

    #[test]
    fn a_lease_ends_before_its_promises_with_clocks_two_percent_apart_each_way() {
        let profiles = Profile::ALL.map(Profile::span).into_iter();
        for span in profiles.chain((60..=2000).map(|promise| Span::of(ms(promise)))) {
            let lease_at_most = span.lease.as_secs_f64() / 0.98;
            let promise_at_least = span.promise.as_secs_f64() / 1.02;
            assert!(lease_at_most + 0.010 <= promise_at_least, "{span:?}");
            let longest_at_most = span.longest_lease().as_secs_f64() / 0.98;
            assert!(longest_at_most + 0.010 <= promise_at_least + 1e-8, "{span:?}");
            assert!(span.lease <= span.longest_lease(), "{span:?}");
            assert!(span.beat * 4 <= span.lease, "{span:?}: three beats may be lost");
            assert_eq!(span.checked(), Ok(span), "what the formula gives is allowed");
        }
    }

    #[test]
    fn a_span_that_breaks_a_rule_is_refused_with_the_rule() {
        let broken = |promise, lease, beat| {
            let span = Span { promise: ms(promise), lease: ms(lease), beat: ms(beat) };
            span.checked().unwrap_err().to_string()
        };
        insta::assert_snapshot!(broken(59, 40, 7), @"a promise of 59ms is out of range: 60ms to 2s, because no voter promises for longer and a shorter one leaves no time for three beats and the removal of an address");
        insta::assert_snapshot!(broken(2001, 40, 7), @"a promise of 2.001s is out of range: 60ms to 2s, because no voter promises for longer and a shorter one leaves no time for three beats and the removal of an address");
        insta::assert_snapshot!(broken(200, 190, 25), @"a lease of 190ms could outlive a promise of 200ms: with clocks 2 % apart each way and emissions 10ms late it may be at most 182ms");
        insta::assert_snapshot!(broken(200, 170, 41), @"a beat of 41ms is too slow for a lease of 170ms: three in a row may be lost before the release begins, 10ms before the lease ends, so at most 40ms");
        insta::assert_snapshot!(broken(200, 170, 1), @"a beat of 1ms is out of range: at least 2ms");
    }

    #[test]
    fn each_rule_allows_what_it_names_as_the_most() {
        for promise in 60..=2000 {
            let span = Span::of(ms(promise));
            let Err(RuleBroken::Lease { most, .. }) =
                (Span { lease: span.promise, ..span }).checked()
            else {
                panic!("a lease as long as its promise is refused");
            };
            let longest = Span { lease: most, ..span };
            assert_eq!(longest.checked(), Ok(longest));
            let too_long = Span { lease: most + ms(1), ..span };
            assert!(too_long.checked().is_err(), "{too_long:?}");
        }
    }
}
