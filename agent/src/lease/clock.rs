//! The lease thread's clocks.

use std::io;
use std::time::Duration;

use lvsmesh_core::time::Mono;
use lvsmesh_kernel::clock::raw_now;
use nix::time::{ClockId, clock_gettime};

/// More than this between `CLOCK_BOOTTIME` and `CLOCK_MONOTONIC` is a suspend; their readings a few instructions apart are not.
const SUSPENDED: Duration = Duration::from_millis(1);

/// `CLOCK_MONOTONIC_RAW`, and what tells that it stood still.
#[derive(Debug)]
pub(super) struct Clock {
    newest: Mono,
    /// At most this much had the machine been suspended when it was last looked at.
    offset: Duration,
}

impl Clock {
    pub(super) fn new() -> io::Result<Self> {
        let mut clock = Self { newest: Mono(0), offset: Duration::ZERO };
        clock.offset = suspended()?.1;
        clock.newest = raw_now();
        Ok(clock)
    }

    /// Now.
    #[expect(clippy::unused_self, reason = "whoever has a clock has looked at it once")]
    pub(super) fn now(&self) -> Mono {
        raw_now()
    }

    /// Whether the machine was suspended since [`jumped`](Self::jumped) was last asked, which is still to say so.
    pub(super) fn was_suspended(&self) -> bool {
        suspended().map_or(true, |(least, _)| least > self.offset + SUSPENDED)
    }

    /// Whether the machine was suspended, or the clock went back, since this was last asked.
    pub(super) fn jumped(&mut self) -> bool {
        let now = self.now();
        let back = now < self.newest;
        self.newest = now;
        let Ok((least, most)) = suspended() else { return true };
        let jumped = back || least > self.offset + SUSPENDED;
        // The smallest upper bound of a run of readings is the sharpest.
        self.offset = if jumped { most } else { self.offset.min(most) };
        jumped
    }
}

/// Bounds of how long the machine has been suspended since boot. The truth is between them, however long the thread was kept from running
/// between the readings.
fn suspended() -> io::Result<(Duration, Duration)> {
    let before = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    let boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    let after = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok((boot.saturating_sub(after), boot.saturating_sub(before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_does_not_go_back_and_a_running_machine_is_not_suspended() {
        let mut clock = Clock::new().unwrap();
        let mut last = clock.now();
        for _ in 0..10_000 {
            assert!(!clock.was_suspended());
            assert!(!clock.jumped());
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn a_clock_that_went_back_is_noticed_once() {
        let mut clock = Clock::new().unwrap();
        clock.newest = clock.now().after(Duration::from_secs(3600));
        assert!(clock.jumped());
        assert!(!clock.jumped());
    }
}
