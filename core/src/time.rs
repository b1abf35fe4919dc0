//! The only notion of time in this crate: nanoseconds of `CLOCK_MONOTONIC_RAW`, handed in by the caller.

use std::time::Duration;

/// A moment on one machine's `CLOCK_MONOTONIC_RAW`, in nanoseconds.
///
/// Not slewed by NTP, stops during suspend, means nothing on another machine. Exhaustive checks use a few ticks instead of
/// nanoseconds: nothing here assumes a unit except the conversions from [`Duration`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// The moment `span` later; saturates at the end of time (584 years of uptime).
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }

    /// The moment `span` earlier; saturates at boot.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How long until this moment, seen from `now`; zero if it has passed.
    #[must_use]
    pub fn remaining(self, now: Self) -> Duration {
        self.since(now)
    }
}

/// A span in nanoseconds; spans over 584 years saturate.
#[must_use]
pub fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
