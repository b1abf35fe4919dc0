//! Steps that could elect a leader wait here for the lease.

use std::collections::BTreeMap;

use lvsmesh_core::lease::GateRequest;
use lvsmesh_core::model::NodeId;
use raft::eraftpb::{Message, MessageType};
use raft::{RawNode, StateRole};

use super::{LogStore, Node, NodeEffect};

/// The lease machine keeps one request of each candidate and drops the rest, so only a flood of forged ones gets here.
const MOST_PARKED: usize = 64;

/// A step that waits.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A message that is not handed to raft-rs yet.
    Message(Box<Message>),
    /// A campaign of this node.
    Campaign,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    /// With the term that the lease was asked about.
    parked: BTreeMap<u64, (Step, u64)>,
    last_ticket: u64,
}

impl Gate {
    /// Parks a step, and says what to ask the lease for.
    pub(super) fn park(
        &mut self,
        step: Step,
        candidate: NodeId,
        term: u64,
        binding: bool,
    ) -> GateRequest {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        self.parked.insert(ticket, (step, term));
        if self.parked.len() > MOST_PARKED {
            self.parked.pop_first();
        }
        GateRequest { ticket, candidate, term, binding }
    }

    pub(super) fn drop(&mut self, ticket: u64) {
        self.parked.remove(&ticket);
    }
}

/// Whether a message could elect a leader: who, in which term, and whether the step is binding.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "raft-rs's list; the node has refused what peers may not send"
)]
pub(super) fn asks_for<S: LogStore>(
    raw: &RawNode<S>,
    message: &Message,
) -> Option<(NodeId, u64, bool)> {
    let raft = &raw.raft;
    let own = NodeId(raft.id);
    match message.get_msg_type() {
        // Requests of older terms are refused or ignored whatever the lease says.
        MessageType::MsgRequestPreVote if message.term >= raft.term => {
            Some((NodeId(message.from), message.term, false))
        }
        MessageType::MsgRequestVote if message.term >= raft.term => {
            Some((NodeId(message.from), message.term, true))
        }
        // Only the answer that could complete the majority turns this node into a candidate.
        MessageType::MsgRequestPreVoteResponse
            if !message.reject && raft.state == StateRole::PreCandidate =>
        {
            let conf = raft.prs().conf().to_conf_state();
            let majority = conf.voters.len() / 2 + 1;
            let joint = !conf.voters_outgoing.is_empty();
            let (granted, _, _) = raft.prs().tally_votes();
            (joint || granted + 1 >= majority).then_some((own, message.term, true))
        }
        // An order that raft-rs would not follow must not be asked for: the lease counts the step as taken, in a term beyond the one that this
        // node may be about to win, and would never hold there.
        MessageType::MsgTimeoutNow if may_be_followed(raft, message) => {
            Some((own, candidacy(raft.term, message), true))
        }
        _ => None,
    }
}

/// Whether an order to campaign comes from the leader that this node follows, or could follow.
fn may_be_followed<S: LogStore>(raft: &raft::Raft<S>, order: &Message) -> bool {
    order.term > raft.term || (order.term == raft.term && raft.state != StateRole::Leader)
}

/// The term in which this node would campaign if it took a message now.
fn candidacy(term: u64, message: &Message) -> u64 {
    term.max(message.term) + 1
}

impl<S: LogStore> Node<S> {
    /// Asks around, or through the gate if asking around already elects.
    pub(super) fn campaign(&mut self, effects: &mut Vec<NodeEffect>) {
        if self.raw.raft.prs().is_singleton() {
            self.campaign_through_gate(effects);
        } else {
            self.hup();
        }
    }

    /// Campaigns once the lease allows it.
    pub(super) fn campaign_through_gate(&mut self, effects: &mut Vec<NodeEffect>) {
        let raft = &self.raw.raft;
        if !raft.promotable() || matches!(raft.state, StateRole::Leader | StateRole::Candidate) {
            return;
        }
        let (term, binding) = (raft.term + 1, raft.prs().is_singleton());
        let request = self.gate.park(Step::Campaign, self.id, term, binding);
        effects.push(NodeEffect::Gate(request));
    }

    /// Takes a parked step, unless it has become another one meanwhile: the lease allowed a leader in the term that was asked for, in no other.
    pub(super) fn pass(&mut self, ticket: u64, effects: &mut Vec<NodeEffect>) {
        let Some((step, term)) = self.gate.parked.remove(&ticket) else { return };
        let own_term = self.raw.raft.term;
        match step {
            Step::Campaign if own_term + 1 == term => self.hup(),
            Step::Campaign => {}
            Step::Message(message) => {
                let kind = message.get_msg_type();
                let another = (kind == MessageType::MsgTimeoutNow
                    && candidacy(own_term, &message) != term)
                    || (kind == MessageType::MsgRequestPreVoteResponse && own_term + 1 != term);
                if !another {
                    if kind == MessageType::MsgTimeoutNow {
                        self.follow(&message);
                    }
                    self.take(*message, effects);
                }
            }
        }
    }

    /// Gives up a campaign of this term in favour of one that the term's leader has ordered: raft-rs would rather ignore the order.
    fn follow(&mut self, order: &Message) {
        let raft = &mut self.raw.raft;
        if raft.term == order.term && raft.state != StateRole::Leader {
            raft.become_follower(order.term, order.from);
        }
    }

    fn hup(&mut self) {
        // raft-rs checks this only for campaigns of its own timer.
        if self.raw.raft.promotable()
            && let Err(error) = self.raw.campaign()
        {
            tracing::debug!(%error, "campaign not started");
        }
    }
}
