//! When to probe a real server, and what its answers mean.
//!
//! *In*: results of probes. *Out*: when the next probe is due, and transitions. The schedule is keepalived's: a probe each `interval`; after
//! a failure further tries `delay_before_retry` apart; down when the first and all `retries` have failed; then a probe each `interval`
//! again, and up at the first that succeeds. Never probed means up: a director that starts empties no pool.

use std::time::Duration;

use crate::model;
use crate::time::Mono;

/// What is known about a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// No probe has ended yet, or none that decides; counts as up.
    Unknown,
    /// The last decision was up.
    Up,
    /// The last decision was down.
    Down,
}

/// A decision that others must hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It answers again.
    Up,
    /// It does not; why the last probe failed, and how many failed before.
    Down(String),
}

/// The checks of one real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    settings: model::Check,
    health: Health,
    /// Probes that have failed in a row, while that could still lead to a decision.
    failures: u32,
    /// `None` while a probe is under way.
    due: Option<Mono>,
}

impl Check {
    /// Checks that begin with a probe at `first`. `known_down`: the fleet holds it for down already, so only its return is news.
    #[must_use]
    pub fn new(settings: model::Check, known_down: bool, first: Mono) -> Self {
        let health = if known_down { Health::Down } else { Health::Unknown };
        Self { settings, health, failures: 0, due: Some(first) }
    }

    /// What is known.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// When the next probe is due; `None` while one is under way.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        self.due
    }

    /// How long a probe may take before it has failed.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// Notes that a probe has been started; exactly one [`Check::record`] follows.
    pub fn start(&mut self) {
        self.due = None;
    }

    /// Takes a probe's result, which came at `now`: `Err` says why it failed, in a few words.
    #[must_use = "a transition that nobody hears of changes no table"]
    pub fn record(&mut self, result: Result<(), String>, now: Mono) -> Option<Transition> {
        let failure = match result {
            Ok(()) => {
                self.failures = 0;
                self.due = Some(now.after(self.settings.interval));
                let was = std::mem::replace(&mut self.health, Health::Up);
                return (was == Health::Down).then_some(Transition::Up);
            }
            Err(failure) => failure,
        };
        match self.health {
            Health::Down => {
                self.due = Some(now.after(self.settings.interval));
                None
            }
            Health::Unknown | Health::Up if self.failures < self.settings.retries => {
                self.failures += 1;
                self.due = Some(now.after(self.settings.delay_before_retry));
                None
            }
            Health::Unknown | Health::Up => {
                let probes = self.failures + 1;
                self.failures = 0;
                self.health = Health::Down;
                self.due = Some(now.after(self.settings.interval));
                let times =
                    if probes == 1 { "1 probe".to_owned() } else { format!("{probes} probes") };
                Some(Transition::Down(format!("{failure} ({times} in a row)")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CheckKind;

    const T0: Mono = Mono(1_000_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    /// The reference deployment's: every 6 s, 3 s to answer, 3 retries 3 s apart.
    fn settings(retries: u32) -> model::Check {
        model::Check {
            kind: CheckKind::Tcp,
            port: None,
            interval: 6 * SECOND,
            timeout: 3 * SECOND,
            retries,
            delay_before_retry: 3 * SECOND,
        }
    }

    /// Feeds results (`.` answered, `x` refused), each at the moment its probe is due, and writes down what came of it: the moment in
    /// seconds, and the transition.
    fn run(mut check: Check, results: &str) -> String {
        let mut told = String::new();
        for result in results.chars() {
            let due = check.deadline().expect("no probe is under way");
            check.start();
            assert_eq!(check.deadline(), None, "one probe at a time");
            let result = if result == '.' { Ok(()) } else { Err("refused".to_owned()) };
            let transition = match check.record(result, due) {
                None => String::new(),
                Some(Transition::Up) => "up".into(),
                Some(Transition::Down(why)) => format!("down: {why}"),
            };
            told += &format!("{}{transition} ", due.since(T0).as_secs());
        }
        told.trim_end().to_owned()
    }

    #[test]
    fn the_schedule_is_keepaliveds() {
        #[rustfmt::skip]
        let cases = [
            ("well",                            3, false, "...",        "0 6 12"),
            ("one failure",                     3, false, ".x..",       "0 6 9 15"),
            ("retries run out",                 3, false, ".xxxx",      "0 6 9 12 15down: refused (4 probes in a row)"),
            ("a success in between",            3, false, "xxx.xxxx",   "0 3 6 9 15 18 21 24down: refused (4 probes in a row)"),
            ("down is probed at the interval",  1, false, "xxxx.",      "0 3down: refused (2 probes in a row) 9 15 21up"),
            ("no retries",                      0, false, "x.x",        "0down: refused (1 probe in a row) 6up 12down: refused (1 probe in a row)"),
            ("a new leader knows it is down",   3, true,  "xx.",        "0 6 12up"),
            ("unknown to up is no news",        3, false, ".",          "0"),
        ];
        for (why, retries, known_down, results, expected) in cases {
            assert_eq!(
                run(Check::new(settings(retries), known_down, T0), results),
                expected,
                "{why}"
            );
        }
    }

    #[test]
    fn unknown_lasts_until_a_probe_decides() {
        let mut check = Check::new(settings(1), false, T0);
        assert_eq!((check.health(), check.timeout()), (Health::Unknown, 3 * SECOND));
        assert_eq!(check.record(Err("refused".into()), T0), None);
        assert_eq!(check.health(), Health::Unknown);
        assert!(check.record(Err("refused".into()), T0).is_some());
        assert_eq!(check.health(), Health::Down);
        assert_eq!(check.record(Ok(()), T0), Some(Transition::Up));
        assert_eq!(check.health(), Health::Up);
    }
}
