//! What the lease thread counts; read by the metrics page.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lvsmesh_core::time::{Mono, nanos};

use super::heard::Reason;

/// Counts since the agent started. The lease thread writes, anyone reads.
#[derive(Debug, Default)]
pub struct Counters {
    /// Lease datagrams sent.
    pub datagrams_sent: Counter,
    /// Lease datagrams of members received.
    pub datagrams_received: Counter,
    /// Datagrams dropped because their code was wrong or their key unknown.
    pub auth_failures: Counter,
    /// Datagrams dropped because they could not be read.
    pub malformed: Counter,
    /// Adverts sent.
    pub adverts_sent: Counter,
    /// Gratuitous ARP frames and unsolicited neighbour advertisements sent.
    pub garps_sent: Counter,
    /// ARP requests and neighbour solicitations answered.
    pub answers_sent: Counter,
    /// Adverts heard from routers that are not members.
    pub foreign_adverts: Counter,
    odd_adverts: [Counter; Reason::ALL.len()],
    /// ARP and neighbour advertisements in which another machine said that it has a VIP.
    pub sightings: Counter,
    /// VIP addresses added or refreshed.
    pub address_refreshes: Counter,
    /// Claims.
    pub claims: Counter,
    /// Releases.
    pub releases: Counter,
    /// Times that the thread has gone through its loop: at least one a second.
    pub turns: Counter,
    /// Promises to others that ended early because the holder, or its guard, said that it had stopped.
    pub promises_voided: Counter,
    /// Those of them of which a guard said so.
    pub promises_voided_by_guards: Counter,
    /// Emissions that the lease clock forbade at the last moment.
    pub withheld: Counter,
    /// What the deadline in the packet path has stopped.
    pub stopped: Total,
    /// Emissions that the kernel refused.
    pub emission_errors: Counter,
    /// Times that the thread lost its real-time priority for never pausing.
    pub demotions: Counter,
    /// When the lease ends; no count.
    pub(super) lease_until: Moment,
    /// What promises are asked for, or would be; no count.
    pub promise: Length,
}

impl Counters {
    /// Adverts heard that are not as they should be, by what is wrong with them.
    #[must_use]
    pub fn odd_adverts(&self, reason: Reason) -> &Counter {
        &self.odd_adverts[reason as usize]
    }
}

/// A moment that the lease thread moves; 0 means never.
#[derive(Debug, Default)]
pub(super) struct Moment(AtomicU64);

impl Moment {
    /// Moves it.
    pub(super) fn set(&self, to: Option<Mono>) {
        // Relaxed: it is shown, nothing is decided by it.
        self.0.store(to.map_or(0, |mono| mono.0), Ordering::Relaxed);
    }

    /// Where it is.
    pub(super) fn get(&self) -> Mono {
        Mono(self.0.load(Ordering::Relaxed))
    }
}

/// A count that somebody else keeps.
#[derive(Debug, Default)]
pub struct Total(AtomicU64);

impl Total {
    pub(super) fn set(&self, to: u64) {
        // Relaxed: it is shown, nothing is decided by it.
        self.0.store(to, Ordering::Relaxed);
    }

    /// The count when it was last looked at.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A length of time that the lease thread changes.
#[derive(Debug, Default)]
pub struct Length(AtomicU64);

impl Length {
    pub(super) fn set(&self, to: Duration) {
        // Relaxed: it is shown, nothing is decided by it.
        self.0.store(nanos(to), Ordering::Relaxed);
    }

    /// How long; 0 before the thread's first step.
    #[must_use]
    pub fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// One count.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn add(&self) {
        // Relaxed: each count stands for itself.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The count.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
