//! The lease: until when the leader may answer for the fleet's VIPs.
//!
//! *In*: datagrams of the lease plane, what Raft says, requests to vote, the clock. *Out*: datagrams, permission to vote, claims and
//! releases. Raft decides who leads; this machine decides until when, and lets nobody vote a leader in while another's lease may run.
//!
//! The rules and why they hold: `docs/adr/0002-lease-decides-until-when.md`. In short:
//!
//! - A *voter* that acknowledges a HOLD promises that, for the span it names, it helps nobody else to be elected (`gate`).
//! - A *holder* may rely on a majority's promises for a shorter span, counted from before it asked (`tenure`).
//! - When a promise ends, somebody campaigns; who and when is a matter of pace, never of safety (`pace`).
//!
//! One value of [`Lease`] plays all three parts, because a node that promised must know it when it votes: one thread decides both.

mod adapt;
mod asked;
mod effects;
mod electorate;
mod gate;
mod machine;
mod pace;
pub mod profile;
mod tenure;
pub mod wire;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::NodeId;
use crate::time::Mono;
pub use effects::Effects;
pub use gate::Promise;
pub use machine::{Faults, Lease, LeaseConfig, Phase, Status};
pub use profile::{Adaptive, Profile, RuleBroken, Span, Timing};
pub use wire::Message;

/// The largest configuration under which anybody holds: five voters, and room for changes under way.
pub const VOTERS_MAX: usize = 9;

/// Something that happened outside the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The moment named by [`Lease::deadline`] has come (or any other moment: spurious ones are harmless).
    Timer,
    /// An authenticated datagram of a fleet member arrived.
    Datagram {
        /// Its sender, from the authenticated header.
        from: NodeId,
        /// Its content.
        message: Message,
    },
    /// Raft's view changed.
    Raft(RaftView),
    /// Raft heard from the leader of its term (an append or heartbeat). Liveness only: never part of a promise.
    LeaderHeard,
    /// The *applied* Raft configuration: every voter. One change at a time, or majorities of successive ones might not meet. A node that is
    /// not in it neither holds nor campaigns; it promises all the same, because its own view may be the one that lags.
    Voters(BTreeSet<NodeId>),
    /// The index that this node's state machine has reached; acknowledgements carry it, so that a holder can name a good successor.
    Applied(u64),
    /// How early this node campaigns after a promise ends (0 = most preferred director), and whether it may hold at all.
    Standing(Standing),
    /// Raft wants to take a step that could elect a leader; it waits for [`Effect::Pass`].
    Gate(GateRequest),
    /// The forwarding table for this epoch is in place: the claim may proceed.
    TableReady {
        /// The epoch of the [`Effect::Prepare`] that asked for it.
        epoch: u64,
    },
    /// Give the lease up now: planned move, clean stop, carrier lost.
    Abdicate {
        /// Whom Raft's leadership goes to; the others wait a little longer. An order to campaign, not a right to hold.
        successor: Option<NodeId>,
    },
    /// Ask for that span from the next HOLD on. With [`Timing::adaptive`] the machine comes to it by itself; this is for whoever checks that it may.
    Ask(Span),
    /// Begin the release of a lease that is not renewed so long before its end, instead of [`Timing::release_margin`]. It bears on nothing but how long a
    /// holder may wait for a late renewal: whoever has nothing to take off an interface, because every emission asks, may wait to the end.
    ReleaseMargin(Duration),
    /// The machine was suspended, or its clock went back: whatever it held is void.
    Suspended,
}

/// What Raft says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaftView {
    /// Current term.
    pub term: u64,
    /// Leader of that term, if known.
    pub leader: Option<NodeId>,
    /// Whether this node leads *and* has committed an entry of its own term.
    pub settled: bool,
}

/// Whether and how eagerly a node may become holder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standing {
    /// A director whose interfaces have carrier, whose plan is computed and whose kernel can do what the plan needs.
    pub eligible: bool,
    /// Position among those who campaign: directors by preference from 0; witnesses after every director.
    pub rank: u8,
    /// Only a realserver that votes: campaigns late, never holds.
    pub witness: bool,
}

/// A Raft step that could elect a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateRequest {
    /// Chosen by the caller; comes back in [`Effect::Pass`] or [`Effect::Drop`].
    pub ticket: u64,
    /// Who would lead.
    pub candidate: NodeId,
    /// The term in which it would lead.
    pub term: u64,
    /// Whether this step casts a vote (a real vote, or turning a won pre-vote into a candidacy), rather than only asking around.
    pub binding: bool,
}

/// Something that the caller must now do, in the order given: a [`Effect::Release`] must have reached the kernel before the
/// [`Effect::Send`] of a relinquishment that follows it, and before a [`Effect::Pass`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Send a datagram.
    Send {
        /// To this node.
        to: NodeId,
        /// This message.
        message: Message,
    },
    /// Let Raft take the step of that ticket.
    Pass(u64),
    /// Never take the step of that ticket: a newer request replaced it, or it is void.
    Drop(u64),
    /// Let Raft campaign. (The self-vote of a won pre-vote still goes through the gate.)
    Campaign,
    /// Make Raft step down from this term.
    StepDown {
        /// The term that is over for this node.
        term: u64,
    },
    /// Make Raft hand its leadership of this term to that voter, and step down in any case: when the voter has taken it, or has not in time.
    HandOver {
        /// The term that is over for this node.
        term: u64,
        /// Who is to campaign now.
        to: NodeId,
    },
    /// A lease was won: program what must stand before the VIP is claimed, then answer [`Input::TableReady`].
    Prepare {
        /// This tenure's number: the Raft term.
        epoch: u64,
    },
    /// Hold: VIP, advert, gratuitous ARP, in that order, each only while [`Lease::may_emit`].
    Claim {
        /// This tenure's number.
        epoch: u64,
        /// End of the lease as known now; [`Effect::Extend`] moves it.
        until: Mono,
    },
    /// The lease runs longer.
    Extend {
        /// New end.
        until: Mono,
    },
    /// Let go at once: nothing may be emitted any more. An unrenewed lease is released [`Timing::release_margin`] before it ends, or as [`Input::ReleaseMargin`] says.
    Release {
        /// The tenure that is over.
        epoch: u64,
        /// Why.
        why: Loss,
    },
}

/// Why a tenure ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// No majority acknowledged in time.
    Expired,
    /// Raft has another leader or a higher term.
    Deposed,
    /// Asked to.
    Abdicated,
    /// Suspended, or the clock went back.
    Suspended,
    /// No longer eligible.
    Ineligible,
}
