//! Adverts that no router of this group's configuration would take: counted by reason, and shown until nobody has sent one for a while.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lvsmesh_core::time::Mono;
use lvsmesh_core::vrrp::Mismatch;

/// Why an advert is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It cannot be read: length, version, type, checksum.
    Malformed,
    /// It came through a router, or was forged behind one.
    Ttl,
    /// Another VRRP version.
    Version,
    /// Another password, one where there is none, none where there is one.
    Authentication,
    /// Another interval, in version 2.
    Interval,
    /// Another list of addresses.
    Addresses,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Malformed,
        Self::Ttl,
        Self::Version,
        Self::Authentication,
        Self::Interval,
        Self::Addresses,
    ];

    /// The metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Ttl => "ttl",
            Self::Version => "version",
            Self::Authentication => "authentication",
            Self::Interval => "interval",
            Self::Addresses => "addresses",
        }
    }
}

impl From<Mismatch> for Reason {
    fn from(mismatch: Mismatch) -> Self {
        match mismatch {
            Mismatch::Version => Self::Version,
            Mismatch::Authentication => Self::Authentication,
            Mismatch::Interval => Self::Interval,
            Mismatch::Addresses => Self::Addresses,
        }
    }
}

/// One is shown until it has not been seen again for so long.
const SHOWN: Duration = Duration::from_secs(60);
/// Senders and reasons that are shown at most: whoever forges more is counted all the same.
const MOST: usize = 16;

/// What one group has heard and should not have.
#[derive(Clone, Debug, Default)]
pub(super) struct Oddities {
    seen: BTreeMap<(IpAddr, Reason), Oddity>,
}

#[derive(Clone, Debug)]
struct Oddity {
    /// Of the first, so that the line stays the same while they come.
    text: String,
    last: Mono,
}

impl Oddities {
    /// Takes note of one. Says whether it is a new one, to be logged.
    pub(super) fn note(&mut self, now: Mono, source: IpAddr, reason: Reason, text: &str) -> bool {
        self.seen.retain(|_, oddity| now.since(oddity.last) < SHOWN);
        if let Some(known) = self.seen.get_mut(&(source, reason)) {
            known.last = now;
            return false;
        }
        if self.seen.len() >= MOST {
            return false;
        }
        self.seen.insert((source, reason), Oddity { text: text.to_owned(), last: now });
        true
    }

    /// What is odd about a router's adverts, for people.
    pub(super) fn of(&self, source: IpAddr) -> Option<&str> {
        let of = self.seen.iter().find(|((other, _), _)| *other == source);
        of.map(|(_, oddity)| oddity.text.as_str())
    }

    /// One line for each that is still shown.
    pub(super) fn lines(&self, now: Mono, group: &str) -> impl Iterator<Item = String> {
        let shown = self.seen.iter().filter(move |(_, oddity)| now.since(oddity.last) < SHOWN);
        shown.map(move |((source, reason), oddity)| {
            let fate = match reason {
                Reason::Malformed | Reason::Ttl => "are dropped",
                Reason::Version | Reason::Authentication | Reason::Interval | Reason::Addresses => {
                    "do not fit this group"
                }
            };
            format!("vips/{group}: VRRP adverts of {source} {fate}: {}", oddity.text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sender_and_reason_is_shown_once_and_for_a_minute() {
        let at = |seconds| Mono(1).after(Duration::from_secs(seconds));
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut oddities = Oddities::default();
        assert!(oddities.note(at(0), one, Reason::Ttl, "TTL 254 instead of 255"));
        assert!(!oddities.note(at(1), one, Reason::Ttl, "TTL 253 instead of 255"));
        assert!(oddities.note(at(2), other, Reason::Addresses, "addresses A instead of B"));
        let lines = |oddities: &Oddities, now| oddities.lines(now, "web").collect::<Vec<_>>();
        assert_eq!(
            lines(&oddities, at(3)),
            [
                "vips/web: VRRP adverts of 192.0.2.1 are dropped: TTL 254 instead of 255",
                "vips/web: VRRP adverts of 192.0.2.2 do not fit this group: addresses A instead of B",
            ]
        );
        assert_eq!(oddities.of(other), Some("addresses A instead of B"));
        assert_eq!(lines(&oddities, at(61)).len(), 1);
        assert!(oddities.note(at(70), one, Reason::Ttl, "TTL 1 instead of 255"), "a new one");
    }

    #[test]
    fn a_flood_of_senders_is_not_remembered() {
        let mut oddities = Oddities::default();
        for last in 0..=255 {
            oddities.note(Mono(1), IpAddr::from([192, 0, 2, last]), Reason::Malformed, "");
        }
        assert_eq!(oddities.lines(Mono(1), "web").count(), MOST);
    }
}
