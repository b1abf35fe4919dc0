//! The clocks that decide who may hold a VIP, and until when.

use std::time::Duration;

use lvsmesh_core::time::{Mono, nanos};
use nix::time::{ClockId, clock_gettime};

/// Reads `CLOCK_MONOTONIC_RAW`: not slewed by NTP, stops while the machine is suspended (clock_gettime(2)).
///
/// # Panics
///
/// If the kernel is older than Linux 2.6.28, which has no such clock.
#[must_use]
pub fn raw_now() -> Mono {
    Mono(nanos(read(ClockId::CLOCK_MONOTONIC_RAW)))
}

/// Reads `CLOCK_BOOTTIME`: time since the machine was started, with what it was suspended for, slewed by NTP.
///
/// # Panics
///
/// If the kernel is older than Linux 2.6.39.
#[must_use]
pub fn boot_now() -> Duration {
    read(ClockId::CLOCK_BOOTTIME)
}

/// How long the machine has been suspended since it was started: `CLOCK_BOOTTIME` less `CLOCK_MONOTONIC`.
///
/// A lease clock does not see suspension; one who compares this with an earlier reading does. The two clocks are read one after the other:
/// a difference below some milliseconds is only the time in between.
///
/// # Panics
///
/// If the kernel is older than Linux 2.6.39.
#[must_use]
pub fn suspended_for() -> Duration {
    // In this order, so that what passes in between makes the result smaller: it must not look like a suspension.
    let with = read(ClockId::CLOCK_BOOTTIME);
    let without = read(ClockId::CLOCK_MONOTONIC);
    with.saturating_sub(without)
}

fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).expect("Linux has this clock").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward() {
        let first = raw_now();
        let mut last = first;
        while last == first {
            last = raw_now();
        }
        assert!(last > first);
        assert!(last.since(first) < Duration::from_secs(10), "{first:?} {last:?}: nanoseconds");
    }

    #[test]
    fn reading_the_clocks_is_no_suspension() {
        let before = suspended_for();
        let after = suspended_for();
        let apart = after.abs_diff(before);
        assert!(apart < Duration::from_millis(500), "{before:?} {after:?}");
    }
}
