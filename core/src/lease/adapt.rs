//! How long a promise to ask for, where that is left to the holder. Nothing here bears on safety: what a promise is worth is counted by what its HOLD
//! asked for, see `asked`.
//!
//! A silent holder is noticed when its promises end, so P is the one thing that can be turned: short enough for a quick failover, long enough for
//! machines and a network that are late at times. What shows it is how much of a lease is left when it is renewed.
//!
//! A lease that runs out shows nothing by itself: that is what a cut link looks like, which no longer promise would mend. It counts if this node was late
//! itself, or if the acknowledgements come after all. And a lease that was given for a HOLD of another length says nothing about this one.

use std::time::Duration;

use super::Lease;
use super::profile::{Adaptive, Span};
use super::tenure::Ack;
use crate::time::Mono;

/// A renewal with less than this of the lease left, in percent, is late.
const LATE_PERCENT: u32 = 35;

/// An acknowledgement after the loss that is older than this part of a lease, in percent, came too late for it. Where the way there and back takes so long, leases
/// run out between one renewal and the next.
const TOO_LATE_PERCENT: u32 = 100 - LATE_PERCENT;

/// Two late renewals within this time, and further apart than a lease, are answered by a longer promise.
const TOGETHER: Duration = Duration::from_secs(10);

/// What a holder has seen of its renewals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Adapting {
    /// A beat found little left of a lease that was given then; whether it is renewed after all is not known yet.
    low: Option<Mono>,
    /// The last late renewal that no longer promise has answered yet.
    late: Option<Mono>,
    /// Since when the oldest lease is looked for; `None`: it is begun with the next beat.
    since: Option<Mono>,
    /// How old a lease has been at a beat, at most, since then.
    oldest: Duration,
    /// The last term that ended because its lease ran out, or because none was won.
    expired: u64,
    /// The last term whose loss a longer promise has answered: everything that comes late comes late together.
    answered: u64,
}

impl Adapting {
    /// A beat of a holder whose lease was given at `given` and ends at `until`. Returns what is to be asked for from now on, if that is something else.
    pub(super) fn beat(
        &mut self,
        now: Mono,
        (given, until): (Mono, Mono),
        span: Span,
        limits: Adaptive,
    ) -> Option<Span> {
        let since = *self.since.get_or_insert(now);
        self.oldest = self.oldest.max(now.since(given));
        if until.remaining(now) < span.lease * LATE_PERCENT / 100 {
            let before = self.low.replace(given);
            let renewed = before.is_some_and(|before| before < given);
            return if renewed { self.renewed_late(now, span, limits) } else { None };
        }
        if self.low.take().is_some() {
            return self.renewed_late(now, span, limits);
        }
        let shorter = Span::of((span.promise * 9 / 10).max(limits.floor));
        let quiet = since.after(limits.quiet) <= now;
        if !quiet || span.promise <= limits.floor {
            return None;
        }
        let fits = self.oldest <= shorter.lease / 2;
        self.look_anew();
        fits.then_some(shorter)
    }

    fn renewed_late(&mut self, now: Mono, span: Span, limits: Adaptive) -> Option<Span> {
        self.look_anew();
        let Some(before) = self.late else {
            self.late = Some(now);
            return None;
        };
        if now < before.after(span.lease) {
            // The same disturbance.
            return None;
        }
        self.late = Some(now);
        if now <= before.after(TOGETHER) { self.lengthen(span, limits) } else { None }
    }

    /// The lease of that term was lost because something was late, and nothing was cut. Returns what to ask for next time.
    fn lost(&mut self, term: u64, span: Span, limits: Adaptive) -> Option<Span> {
        let before = std::mem::replace(&mut self.answered, term);
        if before < term { self.lengthen(span, limits) } else { None }
    }

    fn lengthen(&mut self, span: Span, limits: Adaptive) -> Option<Span> {
        let Self { expired, answered, .. } = *self;
        *self = Self { expired, answered, ..Self::default() };
        let longer = (span.promise * 3 / 2).min(limits.ceiling);
        (longer > span.promise).then(|| Span::of(longer))
    }

    /// The oldest lease is looked for anew.
    fn look_anew(&mut self) {
        (self.since, self.oldest) = (None, Duration::ZERO);
    }

    /// A tenure begins: what was seen of an earlier one's leases says nothing about its own.
    pub(super) fn begin(&mut self) {
        self.look_anew();
        self.low = None;
    }

    /// The tenure of that term is over, because its lease ran out or because none was won.
    pub(super) fn expired(&mut self, term: u64) {
        self.expired = term;
    }
}

impl Lease {
    /// Before a HOLD is sent: what should it ask for?
    pub(super) fn adapt(&mut self, now: Mono) {
        let (Some(limits), Some(tenure)) = (self.config.timing.adaptive, self.tenure.as_ref())
        else {
            return;
        };
        // A single voter has its own promise, which is never late.
        if self.voters.is_only(self.config.id) {
            return;
        }
        let given = self.voters.promised_since(self.config.id, now);
        let (Some(given), Some(until)) = (given, tenure.until) else { return };
        if given < tenure.asked.since() {
            return;
        }
        let next = self.adapting.beat(now, (given, until), tenure.asked.span, limits);
        self.wanted = next.unwrap_or(self.wanted);
    }

    /// The lease ran out because this node came late to renew it.
    pub(super) fn lost_for_lateness(&mut self, term: u64) {
        if let Some(limits) = self.config.timing.adaptive {
            let next = self.adapting.lost(term, self.wanted, limits);
            self.wanted = next.unwrap_or(self.wanted);
        }
    }

    /// An acknowledgement in a tenure whose lease ran out, or was never won. If most of a lease would have run out meanwhile, then the way there and back takes
    /// too long for leases of that length. One that is older than any lease tells of a voter that was away.
    pub(super) fn acked_too_late(&mut self, now: Mono, ack: Ack) {
        let Some(limits) = self.config.timing.adaptive else { return };
        let age = now.since(ack.echo);
        let too_late = age >= self.wanted.lease * TOO_LATE_PERCENT / 100;
        let expired = self.tenure.is_none() && ack.term == self.adapting.expired;
        if expired && too_late && age <= Span::of(limits.ceiling).lease {
            self.lost_for_lateness(ack.term);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Mono;

    const LIMITS: Adaptive = Adaptive::WIDEST;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Beats of a holder whose lease is so many milliseconds old at each; what was asked for in the end, and how often that changed.
    fn beats(ages: impl IntoIterator<Item = u64>, mut span: Span) -> (Span, usize) {
        let mut adapting = Adapting::default();
        let (mut now, mut changes) = (Mono(10_000_000_000), 0);
        for age in ages {
            now = now.after(span.beat);
            let given = now.before(ms(age));
            if let Some(next) = adapting.beat(now, (given, given.after(span.lease)), span, LIMITS) {
                span = next;
                changes += 1;
            }
        }
        (span, changes)
    }

    #[test]
    fn two_late_renewals_within_ten_seconds_lengthen_the_promise_and_one_does_not() {
        let span = Span::of(ms(200));
        // 170 ms: late from an age of 111 on.
        assert_eq!(beats([25, 120, 25, 25], span), (span, 0));
        assert_eq!(
            beats([25, 115, 140, 165, 25], span),
            (span, 0),
            "one late renewal, seen thrice"
        );
        assert_eq!(beats([25, 110, 25, 110, 25, 110, 25], span), (span, 0));
        let quick = [120, 25, 120, 25, 25, 25];
        assert_eq!(beats(quick, span), (span, 0), "one disturbance");
        let apart = [120].into_iter().chain(std::iter::repeat_n(25, 8)).chain([120, 25]);
        assert_eq!(beats(apart, span), (Span::of(ms(300)), 1));
        let apart = [120].into_iter().chain(std::iter::repeat_n(25, 500)).chain([120, 25]);
        assert_eq!(beats(apart, span), (span, 0), "12.5 s apart");
    }

    #[test]
    fn a_way_that_is_long_all_the_time_lengthens_the_promise_until_it_is_short_beside_it() {
        let (span, _) = beats(std::iter::repeat_n(150, 1_000), Span::of(ms(200)));
        assert_eq!(span, Span::of(ms(300)), "150 of 260 ms are early enough");
    }

    #[test]
    fn a_cut_link_is_no_reason_for_a_longer_promise() {
        let span = Span::of(ms(200));
        assert_eq!(beats([25, 50, 75, 100, 125, 150, 175, 200], span), (span, 0));
    }

    #[test]
    fn a_promise_is_never_longer_than_the_ceiling() {
        let late = [1_999, 25].into_iter().cycle().take(100);
        // Every renewal is late for as long as that is possible: 1790 ms are.
        let (span, changes) = beats(late, Span::of(ms(200)));
        assert_eq!(span, Span::of(ms(2000)));
        assert_eq!(changes, 6, "200, 300, 450, 675, 1012.5, 1518.75, 2000");
    }

    #[test]
    fn ten_quiet_minutes_shorten_the_promise_step_by_step_to_the_floor() {
        let minutes = |minutes: u64, age: u64| {
            let beats = 60_000 * minutes / 25;
            std::iter::repeat_n(age, usize::try_from(beats).unwrap())
        };
        let span = Span::of(ms(200));
        assert_eq!(beats(minutes(9, 30), span), (span, 0));
        assert_eq!(beats(minutes(11, 30), span), (Span::of(ms(180)), 1));
        let (span, changes) = beats(minutes(400, 30), span);
        assert_eq!((span, changes), (Span::of(ms(100)), 7));
    }

    #[test]
    fn a_promise_is_not_shortened_below_twice_what_the_oldest_lease_took() {
        let minutes = 60_000 * 300 / 12;
        // A lease of 60 ms every now and then: 120 ms of lease, and so 145 of promise, are the least.
        let ages = (0..minutes).map(|beat| if beat % 4_000 == 0 { 60 } else { 25 });
        let (span, _) = beats(ages, Span::of(ms(200)));
        assert!(span.lease >= ms(120) && span.lease < ms(135), "{span:?}");
    }

    #[test]
    fn a_lease_that_is_lost_for_lateness_lengthens_at_once() {
        let mut adapting = Adapting::default();
        let span = Span::of(ms(200));
        assert_eq!(adapting.lost(7, span, LIMITS), Some(Span::of(ms(300))));
        assert_eq!(adapting.lost(7, span, LIMITS), None, "once for all that came late");
        assert_eq!(adapting.lost(8, Span::of(LIMITS.ceiling), LIMITS), None);
    }
}
