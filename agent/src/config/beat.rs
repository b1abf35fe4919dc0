//! The section `beat`: how long promises last, and what the lease thread asks of the scheduler.

use std::time::Duration;

use lvsmesh_core::lease::{Adaptive, Profile, RuleBroken, Span, Timing};

use super::section::Section;
use super::{boolean, text};

/// The lease's timing and scheduling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Timing; the same on every node.
    pub timing: Timing,
    /// Ask for `SCHED_RR`.
    pub realtime: bool,
    /// Have the kernel stop what is said after the lease's end, where it can.
    pub gate: bool,
}

/// The name of timing that the holder chooses by itself.
const ADAPTIVE: &str = "adaptive";

/// Reads the section. `None` after a fault.
pub(super) fn read(mut section: Section<'_>) -> Option<Beat> {
    let before = section.faults();
    let choice = section.or("profile", "default", choice);
    let promise = section.optional("promise_ms", millis);
    let lease = section.optional("lease_ms", millis);
    let beat = section.optional("beat_ms", millis);
    let realtime = section.optional("realtime", boolean).unwrap_or(false);
    let gate = section.optional("gate", boolean).unwrap_or(true);
    // Spans are checked against each other only where each can be read.
    let readable = section.faults() == before;
    let timing = choice.filter(|_| readable).and_then(|choice| match choice {
        Choice::Adaptive => {
            let given =
                [("promise_ms", promise), ("lease_ms", lease), ("beat_ms", beat)].into_iter();
            let mut chosen = true;
            for (key, _) in given.filter(|(_, value)| value.is_some()) {
                let message = format!(
                    "the profile `{ADAPTIVE}` chooses it; leave it out, or choose another profile"
                );
                section.fault(key, message);
                chosen = false;
            }
            let adaptive = Some(Adaptive::WIDEST);
            chosen.then(|| Timing { adaptive, ..Profile::Default.timing() })
        }
        Choice::Named(profile) => {
            let base = promise.map_or(profile.span(), Span::of);
            let span = Span {
                promise: base.promise,
                lease: lease.unwrap_or(base.lease),
                beat: beat.unwrap_or(base.beat),
            };
            let broken = |rule: RuleBroken| {
                let key = match rule {
                    RuleBroken::Promise { .. } => "promise_ms",
                    RuleBroken::Lease { .. } => "lease_ms",
                    RuleBroken::Beat { .. } | RuleBroken::Restless { .. } => "beat_ms",
                };
                section.fault(key, rule.to_string());
            };
            span.checked().map_err(broken).ok().map(Timing::of)
        }
    });
    section.finish();
    Some(Beat { timing: timing?, realtime, gate })
}

enum Choice {
    Named(Profile),
    Adaptive,
}

fn choice(value: toml::Value) -> Result<Choice, String> {
    let name = text(value)?;
    if name == ADAPTIVE {
        return Ok(Choice::Adaptive);
    }
    Profile::named(&name).map(Choice::Named).ok_or_else(|| {
        let known = Profile::ALL.map(Profile::name).join(", ");
        format!("`{name}` is not one of {known}, {ADAPTIVE}")
    })
}

fn millis(value: toml::Value) -> Result<Duration, String> {
    let toml::Value::Integer(number) = value else {
        return Err(format!("expected a number of milliseconds, found {}", value.type_str()));
    };
    let limit = Profile::Wan.span().promise;
    u64::try_from(number)
        .map(Duration::from_millis)
        .ok()
        .filter(|span| *span <= limit)
        .ok_or_else(|| format!("{number} is out of range: 0 to {}", limit.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigError};

    fn read(beat: &str) -> Result<Beat, String> {
        let text = format!(
            "name = \"node-1\"\nroles = [\"director\"]\naddresses = [\"192.0.2.1\"]\n[beat]\n{beat}"
        );
        let table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
        let read = Config::from_table(table);
        read.map(|config| config.beat)
            .map_err(|faults| ConfigError::Faults { path: "agent.toml".into(), faults }.to_string())
    }

    fn spans(beat: &str) -> (u64, u64, u64) {
        let Span { promise, lease, beat } = read(beat).unwrap().timing.span;
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap();
        (micros(promise), micros(lease), micros(beat))
    }

    #[test]
    fn a_profile_is_where_one_starts_and_each_span_can_be_given() {
        assert_eq!(spans(""), (200_000, 170_000, 25_000));
        assert_eq!(spans("profile = \"fast\""), (100_000, 80_000, 15_000));
        assert_eq!(spans("profile = \"fast\"\nbeat_ms = 10"), (100_000, 80_000, 10_000));
        assert_eq!(spans("promise_ms = 60"), (60_000, 44_000, 7_500));
        assert_eq!(
            spans("promise_ms = 300\nlease_ms = 200\nbeat_ms = 20"),
            (300_000, 200_000, 20_000)
        );
    }

    #[test]
    fn adaptive_starts_at_the_default_and_leaves_nothing_to_choose() {
        let timing = read("profile = \"adaptive\"").unwrap().timing;
        assert_eq!(timing.adaptive, Some(Adaptive::WIDEST));
        assert_eq!(timing.span, Profile::Default.span());
        let error = read("profile = \"adaptive\"\npromise_ms = 60\nbeat_ms = 7").unwrap_err();
        insta::assert_snapshot!(error, @r"
        agent.toml has 2 faults:
          beat.promise_ms: the profile `adaptive` chooses it; leave it out, or choose another profile
          beat.beat_ms: the profile `adaptive` chooses it; leave it out, or choose another profile
        ");
    }

    #[test]
    fn a_combination_that_breaks_a_rule_is_refused_with_the_rule() {
        let error = |beat: &str| read(beat).unwrap_err();
        insta::assert_snapshot!(error("promise_ms = 50"), @r"
        agent.toml has 1 fault:
          beat.promise_ms: a promise of 50ms is out of range: 60ms to 2s, because no voter promises for longer and a shorter one leaves no time for three beats and the removal of an address
        ");
        insta::assert_snapshot!(error("profile = \"fast\"\nlease_ms = 95"), @r"
        agent.toml has 1 fault:
          beat.lease_ms: a lease of 95ms could outlive a promise of 100ms: with clocks 2 % apart each way and emissions 10ms late it may be at most 86ms
        ");
        insta::assert_snapshot!(error("promise_ms = 60\nbeat_ms = 25"), @r"
        agent.toml has 1 fault:
          beat.beat_ms: a beat of 25ms is too slow for a lease of 44ms: three in a row may be lost before the release begins, 10ms before the lease ends, so at most 8ms
        ");
        insta::assert_snapshot!(error("promise_ms = -1\nlease_ms = 900"), @r"
        agent.toml has 1 fault:
          beat.promise_ms: -1 is out of range: 0 to 2000
        ");
    }
}
