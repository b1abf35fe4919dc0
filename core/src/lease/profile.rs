//! Timing profiles: how long voters promise, how long a holder may rely on it, how often it asks.
//!
//! For every profile `lease = 0.9 * promise - 10 ms`. A promise of P on the voter's clock outlives a lease of L on the holder's clock, counted
//! from the moment *before* the request was sent, as long as `L / (1 - d) + a <= P / (1 + d)`, where `d` is how far either oscillator may be
//! off and `a` how late an emission may follow the look at the clock. With `d` = 2 % that leaves 20 ms for `a` in the default profile.

use std::time::Duration;

/// The longest promise that any voter makes, and so the longest silence that a restarted voter needs when it cannot know what it promised.
pub const PROMISE_MAX: Duration = Duration::from_millis(2000);

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

    /// Its spans.
    #[must_use]
    pub const fn timing(self) -> Timing {
        let (promise, beat, lease) = match self {
            Self::Fast => (100, 15, 80),
            Self::Default => (200, 25, 170),
            Self::Relaxed => (600, 75, 530),
            Self::Wan => (2000, 250, 1790),
        };
        Timing {
            promise: Duration::from_millis(promise),
            lease: Duration::from_millis(lease),
            beat: Duration::from_millis(beat),
            promise_max: PROMISE_MAX,
            // A VIP's removal must have reached the kernel when the lease ends; 10 ms is a slow netlink call on a busy machine.
            release_margin: Duration::from_millis(10),
            claim_slack: Duration::from_millis(lease / 4),
            patience: Duration::from_millis(promise * 10),
            stagger_first: Duration::from_millis(promise / 100),
            stagger_step: Duration::from_millis(promise / 20),
            stagger_witness: Duration::from_millis(promise * 3 / 10),
            retry: Duration::from_millis(promise / 5),
            relinquish_every: Duration::from_millis(promise / 100),
            relinquish_times: 10,
        }
    }
}

/// Spans of the lease plane. Only `promise`, `lease` and `promise_max` bear on safety; the rest is pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timing {
    /// P: what a holder asks of the voters, counted by each voter from receipt.
    pub promise: Duration,
    /// L: how long a holder relies on a promise, counted from before the request was sent. Below `promise`.
    pub lease: Duration,
    /// How often a leader that may hold asks again.
    pub beat: Duration,
    /// The longest promise this node makes, whatever it is asked for.
    pub promise_max: Duration,
    /// How long before the end of an unrenewed lease the release begins.
    pub release_margin: Duration,
    /// A lease with less left than this is not claimed under; the next renewal is awaited.
    pub claim_slack: Duration,
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

    #[test]
    fn the_profiles_are_the_documented_table() {
        for (profile, promise, beat, lease) in TABLE {
            let timing = profile.timing();
            assert_eq!(timing.promise, Duration::from_millis(promise), "{profile:?}");
            assert_eq!(timing.beat, Duration::from_millis(beat), "{profile:?}");
            assert_eq!(timing.lease, Duration::from_millis(lease), "{profile:?}");
            assert_eq!(lease, promise * 9 / 10 - 10, "{profile:?}");
            assert_eq!(Profile::named(profile.name()), Some(profile));
        }
        assert_eq!(Profile::named("quick"), None);
    }

    #[test]
    fn a_lease_ends_before_its_promises_with_clocks_two_percent_apart_each_way() {
        for profile in Profile::ALL {
            let timing = profile.timing();
            let lease_at_most = timing.lease.as_secs_f64() / 0.98;
            let promise_at_least = timing.promise.as_secs_f64() / 1.02;
            assert!(lease_at_most + 0.010 <= promise_at_least, "{profile:?}");
            assert!(timing.promise <= timing.promise_max, "{profile:?}");
            assert!(timing.beat * 4 <= timing.lease, "{profile:?}: three beats may be lost");
        }
    }
}
