//! The rules of the lease machine, one by one, in both directions. Moments are milliseconds; the profile is the default one: P = 200, L = 170,
//! a beat every 25.

mod adaptive;
mod campaigns;
mod holder;
mod properties;
mod voter;

use std::collections::BTreeSet;
use std::time::Duration;

use lvsmesh_core::lease::wire::Speaker;
use lvsmesh_core::lease::{
    Effect, Effects, GateRequest, Input, Lease, LeaseConfig, Loss, Message, Phase, Profile,
    RaftView, Standing,
};
use lvsmesh_core::model::NodeId;
use lvsmesh_core::time::Mono;

const ME: NodeId = NodeId(1);
const X: NodeId = NodeId(2);
const Y: NodeId = NodeId(3);

fn ms(at: u64) -> Mono {
    Mono(at * 1_000_000)
}

fn span(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Node 1 of a fleet.
struct Node {
    lease: Lease,
}

impl Node {
    /// Starts at 0, never voted, with durable term 4 and no voters.
    fn blank() -> Self {
        let config = LeaseConfig::new(ME, Profile::Default.timing(), 4);
        Self { lease: Lease::new(config, Mono(0)) }
    }

    /// An eligible director of rank 0 among that many voters.
    fn director(voters: u64) -> Self {
        let mut node = Self::blank();
        node.at(0, voters_of(1..=voters));
        node.at(0, Input::Standing(Standing { eligible: true, rank: 0, witness: false }));
        node
    }

    /// One of three voters, that leads term 5 since 1000 and has asked once.
    fn leader() -> Self {
        let mut node = Self::director(3);
        let effects = node.at(1000, raft(5, Some(ME), true));
        assert_eq!(effects, vec![send(X, hold(5, 1, 1000)), send(Y, hold(5, 1, 1000))]);
        node
    }

    /// One of three voters, that holds since 1001 a lease that ends at 1170.
    fn holder() -> Self {
        let mut node = Self::leader();
        assert_eq!(node.at(1001, from(X, ack(5, 1, 1000))), vec![Effect::Prepare { epoch: 5 }]);
        let claim = Effect::Claim { epoch: 5, until: ms(1170) };
        assert_eq!(node.at(1001, Input::TableReady { epoch: 5 }), vec![claim]);
        node
    }

    fn at(&mut self, at: u64, input: Input) -> Vec<Effect> {
        let mut out = Effects::new();
        self.lease.step(ms(at), input, &mut out);
        out.as_slice().to_vec()
    }
}

fn voters_of(ids: impl IntoIterator<Item = u64>) -> Input {
    Input::Voters(ids.into_iter().map(NodeId).collect::<BTreeSet<_>>())
}

fn raft(term: u64, leader: Option<NodeId>, settled: bool) -> Input {
    Input::Raft(RaftView { term, leader, settled })
}

fn from(from: NodeId, message: Message) -> Input {
    Input::Datagram { from, message }
}

fn send(to: NodeId, message: Message) -> Effect {
    Effect::Send { to, message }
}

fn hold(term: u64, seq: u64, stamp: u64) -> Message {
    let promise = span(200);
    Message::Hold { group: 0, epoch: term, term, seq, stamp: ms(stamp), promise, hint: None }
}

fn ack(term: u64, seq: u64, echo: u64) -> Message {
    let (echo, applied, eligible) = (ms(echo), 0, false);
    Message::Ack { group: 0, epoch: term, term, seq, echo, applied, eligible }
}

fn nack(epoch: u64, term: u64) -> Message {
    Message::Nack { group: 0, epoch, term }
}

fn relinquish(term: u64, last_seq: u64, successor: Option<NodeId>) -> Message {
    let by = Speaker::Agent;
    Message::Relinquish { group: 0, epoch: term, term, last_seq, successor, by }
}

fn request(ticket: u64, candidate: NodeId, term: u64, binding: bool) -> Input {
    Input::Gate(GateRequest { ticket, candidate, term, binding })
}

fn busy(term: u64, remaining: u64) -> Message {
    Message::Busy { group: 0, epoch: 0, term, remaining: span(remaining) }
}

fn answered_yes(effects: &[Effect]) -> bool {
    matches!(effects, [Effect::Send { message: Message::Ack { .. }, .. }])
}
