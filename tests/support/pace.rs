//! Deadlines, and how slow the machine under test is.

use std::time::{Duration, Instant};

/// How many times slower than a real machine this one is: `LVSMESH_SLOW`, 1 if it is not set. `tests/vm/boot` sets 10 for an emulated machine.
#[must_use]
pub fn slow() -> u32 {
    std::env::var("LVSMESH_SLOW").ok().and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}

/// A deadline for something that takes at most `span` on a real machine.
#[must_use]
pub fn scaled(span: Duration) -> Duration {
    span.saturating_mul(slow())
}

/// The timing profile for the agents' leases: an emulated machine cannot renew a lease of 170 ms, nor
/// reliably one of 530 ms beside other work.
#[must_use]
pub fn profile() -> &'static str {
    if slow() > 2 { "wan" } else { "default" }
}

/// Asks again and again until there is an answer.
///
/// # Panics
///
/// If there is none `span` (scaled) after the first question; says what it waited for, and how long.
pub fn eventually<T>(what: &str, span: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    match within(span, &mut ask) {
        Some(answer) => answer,
        None => panic!("not within {:?}: {what}", scaled(span)),
    }
}

/// As [`eventually`], for those who can live without an answer.
pub fn within<T>(span: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + scaled(span);
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Checks that something stays true for `span`, which is not scaled: what is watched has timers of its own.
///
/// # Panics
///
/// As soon as `fault` says what is wrong.
pub fn throughout(what: &str, span: Duration, mut fault: impl FnMut() -> Option<String>) {
    let start = Instant::now();
    while start.elapsed() < span {
        if let Some(fault) = fault() {
            panic!("{what}: {fault} after {:?}", start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Prints a line, which the test harness shows if the test fails.
#[expect(clippy::print_stdout, reason = "the test harness collects what is printed")]
pub fn note(line: &str) {
    println!("{line}");
}
