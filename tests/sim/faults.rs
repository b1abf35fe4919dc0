//! What goes wrong, when, and for how long: all of it decided at the start.

use crate::rng::Rng;
use crate::world::{HEALED, MS, NODES, Time};

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing gets from one set of nodes to the other. Sets are bits.
    Cut { from: u8, to: u8, lease: bool, raft: bool },
    /// The network loses messages.
    Loss { permille: u64 },
    /// The network is late with messages, and so reorders them.
    Spikes { permille: u64 },
    /// Threads wake up late.
    Sluggish { permille: u64 },
    /// The agent dies, and is started again.
    Kill { node: usize },
    /// The machine dies, with all that was not on its disk, and is started again.
    PowerCut { node: usize, offset: u64 },
    /// The next write to the disk fails, and may or may not be there afterwards.
    Disk { node: usize, synced: bool },
    /// The agent is stopped for a while; the clock is not.
    Pause { node: usize },
    /// The VIP's interface has no carrier.
    Carrier { node: usize },
    /// An operator moves the VIPs.
    Move { node: usize, successor: usize },
}

impl Fault {
    /// The node that a trace names; the first where it is about several.
    pub(crate) fn node(&self) -> usize {
        match self {
            Self::Kill { node }
            | Self::PowerCut { node, .. }
            | Self::Disk { node, .. }
            | Self::Pause { node }
            | Self::Carrier { node }
            | Self::Move { node, .. } => *node,
            Self::Cut { .. } | Self::Loss { .. } | Self::Spikes { .. } | Self::Sluggish { .. } => 0,
        }
    }
}

/// When each fault begins and ends. All have ended when the world is mended.
pub(crate) fn schedule(rng: &mut Rng) -> Vec<(Time, Fault, Time)> {
    let count = rng.of(4..20);
    (0..count)
        .map(|_| {
            let (fault, longest) = fault(rng);
            let at = rng.of(200 * MS..HEALED - 200 * MS);
            let until = (at + rng.of(10 * MS..longest * MS)).min(HEALED - 1);
            (at, fault, until)
        })
        .collect()
}

/// A fault, and how long it lasts at most, in milliseconds.
fn fault(rng: &mut Rng) -> (Fault, Time) {
    const ALL: u8 = (1 << NODES) - 1;
    let node = rng.index(NODES);
    let one = 1 << node;
    let planes = [(true, true), (true, true), (true, false), (false, true)][rng.index(4)];
    let (lease, raft) = planes;
    let cut = |from, to| Fault::Cut { from, to, lease, raft };
    let group = u8::try_from(rng.of(1..ALL.into())).unwrap();
    let pair = one | 1 << ((node + 1 + rng.index(NODES - 1)) % NODES);
    match rng.of(0..18) {
        0 => (cut(one, ALL), 1500),
        1 => (cut(ALL, one), 1500),
        2 => (cut(one, group), 1500),
        3 => (cut(group, ALL & !group), 1500),
        4 => (cut(group | one, group | one), 800),
        5 => (Fault::Loss { permille: rng.of(50..400) }, 2000),
        6 => (Fault::Spikes { permille: rng.of(50..400) }, 2000),
        7 => (Fault::Sluggish { permille: rng.of(50..500) }, 1500),
        8 | 9 => (Fault::Kill { node }, 1000),
        10 => (Fault::PowerCut { node, offset: rng.of(1_000_000_000..50_000_000_000) }, 1500),
        11 => (Fault::Disk { node, synced: rng.permille(500) }, 20),
        12 | 13 => (Fault::Pause { node }, 700),
        14 => (Fault::Carrier { node }, 1500),
        // Two that do not hear each other, while all others hear both: a promise made to one must bind its voters against the other.
        15 | 16 => (cut(pair, pair), 1500),
        _ => (Fault::Move { node, successor: rng.index(NODES) }, 20),
    }
}
