//! A state of the fleet, and the form in which millions of them are kept.

use super::{NODES, SLOTS};

/// One state of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Number of each node's machine.
    pub(super) machines: [u16; NODES],
    pub(super) rafts: [Raft; NODES],
    /// Ticks for which the lease of a crashed run of the node still counts.
    pub(super) ghosts: [u8; NODES],
    pub(super) crashes: u8,
    /// Sorted; unused slots are `Packet::NONE`.
    pub(super) packets: [Packet; SLOTS],
}

/// What a Raft needs in order to elect leaders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Raft {
    pub(super) term: u8,
    /// Node number plus one; 0: none.
    pub(super) voted: u8,
    /// Bit set of the grants of this term.
    pub(super) grants: u8,
    pub(super) leads: bool,
}

/// One message under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Packet {
    pub(super) kind: Kind,
    pub(super) from: u8,
    pub(super) to: u8,
    pub(super) term: u8,
    /// HOLD, RELINQUISH: sequence. Only the order among one sender's sequences matters.
    pub(super) seq: u8,
    /// HOLD, ACK: ticks since the HOLD was sent; at most 7.
    pub(super) age: u8,
    /// HOLD: whether it asks for the scope's other span.
    pub(super) other: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Hold,
    Ack,
    Relinquish,
    VoteRequest,
    ForcedVoteRequest,
    Grant,
    CampaignNow,
    /// No packet; sorts last.
    None,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Hold,
        Self::Ack,
        Self::Relinquish,
        Self::VoteRequest,
        Self::ForcedVoteRequest,
        Self::Grant,
        Self::CampaignNow,
        Self::None,
    ];
}

impl Packet {
    pub(super) const NONE: Self =
        Self { kind: Kind::None, from: 0, to: 0, term: 0, seq: 0, age: 0, other: false };
}

/// A state in the form in which millions are kept.
pub(crate) type Packed = [u64; 3];

impl State {
    pub(crate) fn packed(&self) -> Packed {
        let fold =
            |bits: u32, fields: &[u64]| fields.iter().fold(0, |all, field| all << bits | field);
        let machines = self.machines.map(u64::from);
        let rafts = self.rafts.map(|raft| {
            let Raft { term, voted, grants, leads } = raft;
            fold(3, &[term.into(), voted.into(), grants.into(), leads.into()])
        });
        let ghosts = self.ghosts.map(u64::from);
        let packets = self.packets.map(|packet| u64::from(packet.packed()));
        [
            fold(16, &machines) << 16 | fold(4, &ghosts) << 4 | u64::from(self.crashes),
            fold(12, &rafts),
            fold(16, &packets),
        ]
    }

    #[allow(clippy::cast_possible_truncation, reason = "the masks keep what was put in")]
    pub(crate) fn unpacked(packed: Packed) -> Self {
        let field =
            |word: usize, shift: usize, bits: u32| (packed[word] >> shift) & ((1 << bits) - 1);
        let mut state = Self {
            machines: [0; NODES],
            rafts: [Raft::default(); NODES],
            ghosts: [0; NODES],
            crashes: field(0, 0, 4) as u8,
            packets: [Packet::NONE; SLOTS],
        };
        for node in 0..NODES {
            let back = NODES - 1 - node;
            state.machines[node] = field(0, 16 + 16 * back, 16) as u16;
            state.ghosts[node] = field(0, 4 + 4 * back, 4) as u8;
            let at = |part: usize| field(1, 12 * back + 3 * part, 3) as u8;
            state.rafts[node] = Raft { term: at(3), voted: at(2), grants: at(1), leads: at(0) > 0 };
        }
        for slot in 0..SLOTS {
            state.packets[slot] = Packet::unpacked(field(2, 16 * (SLOTS - 1 - slot), 16) as u16);
        }
        state
    }
}

impl Packet {
    pub(super) fn packed(&self) -> u16 {
        let kind = Kind::ALL.iter().position(|kind| *kind == self.kind).unwrap();
        let fields = [self.from, self.to, self.term].map(u16::from);
        let small =
            fields.into_iter().fold(u16::try_from(kind).unwrap(), |all, field| all << 2 | field);
        small << 7 | u16::from(self.seq) << 4 | u16::from(self.other) << 3 | u16::from(self.age)
    }

    #[allow(clippy::cast_possible_truncation, reason = "the masks keep what was put in")]
    pub(super) fn unpacked(packed: u16) -> Self {
        let at = |shift: u16, bits: u16| ((packed >> shift) & ((1 << bits) - 1)) as u8;
        let kind = Kind::ALL[usize::from(at(13, 3))];
        let [from, to, term] = [at(11, 2), at(9, 2), at(7, 2)];
        Self { kind, from, to, term, seq: at(4, 3), age: at(0, 3), other: at(3, 1) > 0 }
    }
}

/// One step of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Begin,
    Tick,
    Timer(u8),
    /// A node asks for the scope's other span from now on, or for the usual one again.
    Ask(u8, bool),
    Campaign(u8),
    Abdicate(u8),
    /// A leader gives its lease up and leads on until it has handed over.
    HandOver(u8),
    /// A leader's Raft steps down by itself.
    StepDown(u8),
    Crash(u8),
    /// The same, and a guard relinquishes.
    Guarded(u8),
    /// The machine learns its Raft's view.
    Tell(u8),
    /// A leader orders another director to campaign at once.
    Transfer(u8),
    /// The packet in that slot.
    Lose(u8),
    Deliver(u8),
}

impl Packet {
    pub(super) fn has_seq(&self) -> bool {
        matches!(self.kind, Kind::Hold | Kind::Relinquish)
    }
}
