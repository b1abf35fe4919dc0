//! When a holder emits what, for one VIP group. It decides about pace only; whether anything may be emitted is asked of the lease each time.

use std::time::Duration;

use lvsmesh_core::model::Garp;
use lvsmesh_core::time::Mono;

/// Gratuitous ARP and unsolicited neighbour advertisements after a claim, from the claim on. Close together at first, because the silence lasts until one arrives; one after the second
/// for which Linux keeps a neighbour entry from being replaced (`neigh/default/locktime`); the last ones for whoever joined late.
const ANNOUNCEMENTS: [Duration; 9] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(60),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_millis(1200),
    Duration::from_millis(2500),
    Duration::from_secs(5),
];

/// Between those that a group wants beyond these.
const FURTHER: Duration = Duration::from_secs(1);

/// A VIP's lifetime is renewed this often.
const REFRESH: Duration = Duration::from_millis(500);

/// A VIP outlives its last refresh by this (and by up to a second: the kernel looks about once a second). Whole seconds.
pub(super) const LIFETIME: Duration = Duration::from_secs(2);

/// What is due, in the order in which it is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) refresh: bool,
    pub(super) advert: bool,
    pub(super) announcement: bool,
}

/// The schedule of one claim.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Announcements are counted from here.
    origin: Mono,
    announced: u8,
    refresh_at: Mono,
    advert_at: Mono,
    announce_at: Mono,
    advert_interval: Duration,
    garp: Garp,
    /// There is an address on the interface, whose lifetime has to be renewed.
    refreshing: bool,
}

impl Schedule {
    /// A claim at `now`: everything is due.
    pub(super) fn new(now: Mono, advert_interval: Duration, garp: Garp, refreshing: bool) -> Self {
        Self {
            origin: now,
            announced: 0,
            refresh_at: if refreshing { now } else { Mono(u64::MAX) },
            advert_at: now,
            announce_at: now,
            advert_interval,
            garp,
            refreshing,
        }
    }

    /// Everything is due again, and the announcements start over: somebody else was heard, or the address or the link was gone.
    pub(super) fn reassert(&mut self, now: Mono) {
        *self = Self::new(now, self.advert_interval, self.garp, self.refreshing);
    }

    /// The next moment at which something is due. `announcing`: an announcement is under way, and the next one waits for its end.
    pub(super) fn deadline(&self, announcing: bool) -> Mono {
        let next = self.refresh_at.min(self.advert_at);
        if announcing { next } else { next.min(self.announce_at) }
    }

    /// When the next announcement of those after a claim is due, if there is one.
    fn announcement(&self) -> Option<Mono> {
        if self.announced >= self.garp.repeat {
            return None;
        }
        let number = usize::from(self.announced);
        let after = ANNOUNCEMENTS.get(number).copied().unwrap_or_else(|| {
            let further = number.saturating_sub(ANNOUNCEMENTS.len()) + 1;
            ANNOUNCEMENTS[ANNOUNCEMENTS.len() - 1]
                + FURTHER * u32::try_from(further).unwrap_or(u32::MAX)
        });
        Some(self.origin.after(after))
    }

    /// Takes what is due. What was missed is not made up for: one advert late is one advert.
    pub(super) fn take(&mut self, now: Mono, announcing: bool) -> Due {
        let due = Due {
            refresh: self.refresh_at <= now,
            advert: self.advert_at <= now,
            announcement: self.announce_at <= now && !announcing,
        };
        if due.refresh {
            self.refresh_at = now.after(REFRESH);
        }
        if due.advert {
            // Counted from when it was due, so that lateness does not add up; unless it is a whole interval late.
            let next = self.advert_at.after(self.advert_interval);
            self.advert_at = if next > now { next } else { now.after(self.advert_interval) };
        }
        if due.announcement {
            while self.announcement().is_some_and(|at| at <= now) {
                self.announced = self.announced.saturating_add(1);
            }
            self.announce_at = match self.announcement() {
                Some(at) => at,
                None if self.garp.refresh.is_zero() => Mono(u64::MAX),
                None => now.after(self.garp.refresh),
            };
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Mono = Mono(1_000_000_000);

    fn at(ms: u64) -> Mono {
        T0.after(Duration::from_millis(ms))
    }

    fn new() -> Schedule {
        Schedule::new(T0, Duration::from_secs(1), Garp::default(), true)
    }

    /// Runs a schedule at its own deadlines, and lists the milliseconds at which `which` was due.
    fn run(until: u64, garp: Garp, which: fn(Due) -> bool) -> Vec<u64> {
        let mut schedule = Schedule::new(T0, Duration::from_secs(1), garp, true);
        let mut moments = vec![];
        loop {
            let now = schedule.deadline(false);
            if now > at(until) {
                return moments;
            }
            let due = schedule.take(now, false);
            assert_ne!(
                due,
                Due::default(),
                "a deadline at which nothing is due would make the thread spin"
            );
            assert!(schedule.deadline(false) > now, "a deadline that stays in the past would, too");
            if which(due) {
                moments.push(u64::try_from(now.since(T0).as_millis()).unwrap());
            }
        }
    }

    #[test]
    fn a_claim_makes_everything_due_at_once() {
        let mut schedule = new();
        assert_eq!(
            schedule.take(T0, false),
            Due { refresh: true, advert: true, announcement: true }
        );
        assert_eq!(schedule.take(T0, false), Due::default());
    }

    #[test]
    fn what_is_on_no_interface_is_not_refreshed() {
        let mut schedule = Schedule::new(T0, Duration::from_secs(1), Garp::default(), false);
        let due = Due { refresh: false, advert: true, announcement: true };
        assert_eq!(schedule.take(T0, false), due);
        schedule.reassert(at(10));
        assert_eq!(schedule.take(at(10), false), due);
        assert!(!schedule.take(at(100_000), false).refresh);
        assert!(schedule.deadline(false) < Mono(u64::MAX));
    }

    #[test]
    fn announcements_are_dense_first_and_rare_later() {
        assert_eq!(
            run(70_000, Garp::default(), |due| due.announcement),
            [0, 20, 60, 150, 300, 700, 1200, 2500, 5000, 35_000, 65_000]
        );
    }

    #[test]
    fn a_group_says_how_often_it_is_announced_and_whether_it_is_reminded_of() {
        let garp = |repeat, refresh| Garp {
            repeat,
            refresh: Duration::from_secs(refresh),
            ..Garp::default()
        };
        assert_eq!(run(70_000, garp(2, 0), |due| due.announcement), [0, 20]);
        assert_eq!(run(30_000, garp(1, 10), |due| due.announcement), [0, 10_000, 20_000, 30_000]);
        let many = run(70_000, garp(11, 0), |due| due.announcement);
        assert_eq!(many[8..], [5000, 6000, 7000]);
    }

    #[test]
    fn the_next_announcement_waits_for_the_end_of_the_last() {
        let mut schedule = new();
        assert!(schedule.take(T0, false).announcement);
        assert_eq!(schedule.deadline(false), at(20));
        assert_eq!(schedule.deadline(true), at(500), "the next refresh");
        assert!(!schedule.take(at(30), true).announcement);
        assert!(schedule.take(at(40), false).announcement);
    }

    #[test]
    fn adverts_and_refreshes_keep_their_interval() {
        assert_eq!(run(3_000, Garp::default(), |due| due.advert), [0, 1000, 2000, 3000]);
        assert_eq!(run(2_000, Garp::default(), |due| due.refresh), [0, 500, 1000, 1500, 2000]);
    }

    #[test]
    fn a_late_thread_does_not_make_up_for_what_it_missed() {
        let mut schedule = new();
        schedule.take(T0, false);
        assert_eq!(
            schedule.take(at(4_200), false),
            Due { refresh: true, advert: true, announcement: true }
        );
        assert_eq!(schedule.take(at(4_201), false), Due::default());
        assert_eq!(schedule.deadline(false), at(4_700), "the next refresh");
        assert!(!schedule.take(at(5_199), false).advert);
        assert!(schedule.take(at(5_200), false).advert);
    }

    #[test]
    fn a_small_delay_of_an_advert_does_not_add_up() {
        let mut schedule = new();
        schedule.take(T0, false);
        assert!(schedule.take(at(1_030), false).advert);
        assert!(!schedule.take(at(1_999), false).advert);
        assert!(schedule.take(at(2_000), false).advert);
    }

    #[test]
    fn reasserting_starts_over() {
        let mut schedule = new();
        schedule.take(at(10_000), false);
        schedule.reassert(at(10_100));
        assert_eq!(
            schedule.take(at(10_100), false),
            Due { refresh: true, advert: true, announcement: true }
        );
        assert_eq!(schedule.deadline(false), at(10_120));
    }
}
