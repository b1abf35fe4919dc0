//! What a tenure asks for, over time: a promise is worth what its HOLD asked for, whatever is asked for by now.

use super::electorate::Electorate;
use super::{LeaseConfig, Span};
use crate::time::Mono;

/// What is asked for now, and what was before. Older requests than those two are worth nothing.
///
/// A voter that reads a HOLD with a shorter P promises less than before, and nobody knows when it reads it. So from the first of those on, promises
/// for older HOLDs are relied on no longer than ones for that would be. A HOLD with a longer P lengthens nothing before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Asked {
    /// What the newest HOLD asked for, or the first will.
    pub(super) span: Span,
    /// The stamp of the first HOLD that asked for it.
    since: Mono,
    /// What was asked for until then, and since when.
    before: Option<(Span, Mono)>,
    /// The stamp of the newest HOLD.
    last: Option<Mono>,
}

impl Asked {
    pub(super) fn new(now: Mono, span: Span) -> Self {
        Self { span, since: now, before: None, last: None }
    }

    /// The stamp of the first HOLD that asked for what is asked for now.
    pub(super) fn since(&self) -> Mono {
        self.since
    }

    /// Whether a HOLD was sent.
    pub(super) fn anything(&self) -> bool {
        self.last.is_some()
    }

    /// A HOLD with the stamp `now` is about to be sent, and should ask for `wanted`. Returns until when older promises may be relied on from now
    /// on, if that changes.
    pub(super) fn ask(&mut self, now: Mono, wanted: Span, config: &LeaseConfig) -> Option<Mono> {
        // Two HOLDs of one stamp could not be told apart by their acknowledgements.
        let told_apart = self.last.is_none_or(|last| last < now);
        let shorter = wanted.promise < self.span.promise || wanted.lease < self.span.lease;
        let mut most = None;
        if wanted != self.span && told_apart {
            self.before = Some((self.span, self.since)).filter(|_| self.last.is_some());
            (self.span, self.since) = (wanted, now);
            let capped = shorter && !config.faults.shorter_uncapped;
            most = capped.then(|| now.after(config.lease_span(wanted)));
        }
        self.last = Some(now);
        most
    }

    /// Until when an acknowledgement of the HOLD with that stamp may be relied on. `None`: that HOLD is too old to tell.
    pub(super) fn worth(&self, stamp: Mono, config: &LeaseConfig) -> Option<Mono> {
        let present = config.lease_span(self.span);
        if stamp >= self.since || config.faults.worth_of_present_span {
            return Some(stamp.after(present));
        }
        let (span, since) = self.before?;
        let then = stamp.after(config.lease_span(span));
        let uncapped = config.faults.shorter_uncapped;
        let most = if uncapped { then } else { self.since.after(present) };
        (stamp >= since).then_some(then.min(most))
    }

    /// Of the spans by which the lease that runs now may be counted, the shortest.
    pub(super) fn in_force(&self, now: Mono) -> Span {
        let counts = |(span, _): &(Span, Mono)| now < self.since.after(span.lease);
        let before = self.before.filter(counts).map_or(self.span, |(span, _)| span);
        if before.lease < self.span.lease { before } else { self.span }
    }

    /// Brings what behaves alike into one form, see [`Lease::normalize`](super::Lease::normalize): stamps of which nothing hangs any more become zero, the
    /// others are walked through.
    pub(super) fn normalize(&mut self, now: Mono, f: &mut impl FnMut(&mut Mono)) {
        let since = self.since;
        let present = self.span.lease;
        // No acknowledgement of an older HOLD would be worth anything, counted by either span.
        self.before = self.before.filter(|(span, _)| now < since.after(present.max(span.lease)));
        if self.before.is_none() {
            self.since = Mono(0);
        }
        self.last = self.last.map(|last| if last < now { Mono(0) } else { last });
        let before = self.before.iter_mut().map(|(_, since)| since);
        let stamps = [&mut self.since].into_iter().chain(before).chain(self.last.as_mut());
        stamps.filter(|stamp| stamp.0 > 0).for_each(f);
    }
}

/// The end of the lease that the voters' promises and this node's own give.
pub(super) fn given(
    asked: &Asked,
    voters: &Electorate,
    config: &LeaseConfig,
    now: Mono,
) -> Option<Mono> {
    voters.promised_until(config.id, now.after(config.lease_span(asked.span)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lease::Profile;
    use crate::model::NodeId;

    fn ms(millis: u64) -> Mono {
        Mono(millis * 1_000_000)
    }

    fn config() -> LeaseConfig {
        LeaseConfig::new(NodeId(1), Profile::Default.timing(), 0)
    }

    const DEFAULT: Span = Profile::Default.span();
    const FAST: Span = Profile::Fast.span();
    const RELAXED: Span = Profile::Relaxed.span();

    /// Asked for the first span since 1,000 ms, and for the second since 1,100 ms; what the switch made the most.
    fn asked(first: Span, second: Span) -> (Asked, Option<Mono>) {
        let mut asked = Asked::new(ms(1_000), first);
        assert_eq!(asked.ask(ms(1_000), first, &config()), None);
        let most = asked.ask(ms(1_100), second, &config());
        (asked, most)
    }

    #[test]
    fn an_acknowledgement_is_worth_what_its_hold_asked_for() {
        let (asked, most) = asked(DEFAULT, RELAXED);
        assert_eq!(most, None, "nothing older is worth less");
        assert_eq!(asked.worth(ms(1_050), &config()), Some(ms(1_050 + 170)));
        assert_eq!(asked.worth(ms(1_100), &config()), Some(ms(1_100 + 530)));
        assert_eq!(asked.worth(ms(999), &config()), None);
    }

    #[test]
    fn a_shorter_request_shortens_what_older_ones_are_worth() {
        let (asked, most) = asked(RELAXED, FAST);
        assert_eq!(most, Some(ms(1_100 + 80)));
        assert_eq!(asked.worth(ms(1_050), &config()), most, "as long as the newer one");
        assert_eq!(asked.worth(ms(1_120), &config()), Some(ms(1_120 + 80)));
    }

    #[test]
    fn a_longer_span_is_in_force_when_no_shorter_one_can_be_counted_any_more() {
        let (longer, _) = asked(DEFAULT, RELAXED);
        assert_eq!(longer.in_force(ms(1_100)), DEFAULT);
        assert_eq!(longer.in_force(ms(1_269)), DEFAULT);
        assert_eq!(longer.in_force(ms(1_270)), RELAXED);
        let (shorter, _) = asked(RELAXED, FAST);
        assert_eq!(shorter.in_force(ms(1_100)), FAST);
    }

    #[test]
    fn what_was_asked_for_before_the_last_change_but_one_is_worth_nothing() {
        let (mut asked, _) = asked(DEFAULT, RELAXED);
        asked.ask(ms(1_200), FAST, &config());
        assert_eq!(asked.worth(ms(1_099), &config()), None);
        assert_eq!(asked.worth(ms(1_100), &config()), Some(ms(1_200 + 80)));
    }

    #[test]
    fn two_requests_of_one_moment_ask_for_the_same() {
        let mut asked = Asked::new(ms(1_000), DEFAULT);
        asked.ask(ms(1_000), DEFAULT, &config());
        assert_eq!(asked.ask(ms(1_000), FAST, &config()), None);
        assert_eq!(asked.span, DEFAULT);
        let later = ms(1_000).after(Duration::from_nanos(1));
        assert_eq!(asked.ask(later, FAST, &config()), Some(later.after(FAST.lease)));
        assert_eq!(asked.span, FAST);
    }
}
