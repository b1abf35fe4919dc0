//! Deadlines, and how slow the machine under test is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lvsmesh_kernel::raw::real_time;

/// Whether those who ask, answer and watch come before everybody else.
static URGENT: AtomicBool = AtomicBool::new(false);

/// Has probes, echoes and captures that are started from here on run before ordinary processes, so that a benchmark measures what it looks at and not
/// its own turn at the processor.
pub fn at_real_time() {
    URGENT.store(true, Ordering::Relaxed);
}

/// Puts the calling thread before ordinary processes, if [`at_real_time`] was called.
pub(crate) fn hasten() {
    /// Above the agents' 10 and below what the kernel itself needs.
    const PRIORITY: i32 = 30;
    /// None of these computes for as long at a stretch.
    const LIMIT: Duration = Duration::from_secs(5);

    if URGENT.load(Ordering::Relaxed) {
        let _this_thread =
            real_time(PRIORITY, LIMIT, LIMIT).expect("root may have real-time priority");
    }
}

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
