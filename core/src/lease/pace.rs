//! When to campaign. Nothing here bears on safety: a campaign at the wrong moment is stopped by the voters' gates, this node's included.

use std::time::Duration;

use super::{Effect, Effects, Lease};
use crate::model::NodeId;
use crate::time::Mono;

/// What decides when this node campaigns next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pace {
    /// Not before this moment.
    not_before: Mono,
    /// When Raft last heard from a leader of its term.
    leader_heard: Mono,
    /// Who should go first, in the words of the last holder.
    hint: Option<NodeId>,
    /// What the last holder asked for.
    heard: Duration,
}

impl Lease {
    /// How long promises are: this node's own, or the last holder's, if those are longer. Where messages take so long, elections do too.
    fn promises(&self) -> Duration {
        self.span().promise.max(self.pace.heard)
    }

    /// How long this node lets others go first.
    fn stagger(&self) -> Duration {
        let timing = &self.config.timing;
        let mut stagger = timing.stagger_first;
        if self.pace.hint != Some(self.config.id) {
            let behind_the_hinted = u32::from(self.pace.hint.is_some());
            stagger += timing.stagger_step * (u32::from(self.standing.rank) + behind_the_hinted);
        }
        if !self.standing.eligible {
            stagger += timing.stagger_witness;
        }
        stagger
    }

    /// The next moment at which this node campaigns, if it may at all.
    pub(super) fn campaign_at(&self) -> Option<Mono> {
        let me = self.config.id;
        if !self.voters.contains(me) || self.raft.leader == Some(me) || self.tenure.is_some() {
            return None;
        }
        let promised = self.promise.map_or(Mono(0), |promise| promise.until);
        let mut at = self.pace.not_before.max(promised).max(self.silent_until);
        if !self.standing.eligible {
            // It could not hold: it campaigns only where there is no leader, so that a fleet without an eligible director keeps a quiet one.
            let leaderless = self.pace.leader_heard.after(self.promises());
            at = at.max(leaderless.after(self.stagger()));
        }
        Some(at)
    }

    pub(super) fn campaign(&mut self, now: Mono, out: &mut Effects) {
        if self.campaign_at().is_none_or(|at| at > now) {
            return;
        }
        if self.voters.is_only(self.config.id) {
            // Raft elects a single voter in one step, with no vote that could pass the gate: the campaign is the vote.
            self.voted_term = self.voted_term.max(self.raft.term.saturating_add(1));
        }
        self.pace.hint = None;
        self.wait(now, self.retry());
        out.push(Effect::Campaign);
    }

    /// Votes are asked for, after asking around or because this node was told to: those who give theirs wait for as long as a promise lasts, and a
    /// disk may take a good part of that.
    pub(super) fn wait_for_votes(&mut self, now: Mono) {
        self.wait(now, self.retry().max(self.promises() / 2));
    }

    /// How long after a campaign the next one comes. A campaign voids the candidacy before it, so voters that take longer than the first wait to
    /// store and send their votes would never elect anybody: the wait doubles, up to sixteenfold, with each term since the last holder's or this start.
    fn retry(&self) -> Duration {
        let holders = self.promise.map_or(0, |promise| promise.term).max(self.config.term);
        let fruitless = self.raft.term.saturating_sub(holders).min(4);
        self.config.timing.retry.max(self.promises() / 5) * (1 << fruitless)
    }

    /// A promise was made: nothing to do before it ends.
    pub(super) fn follow(&mut self, until: Mono, promise: Duration, hint: Option<NodeId>) {
        self.pace.heard = promise;
        self.pace.hint = hint;
        self.pace.not_before = until.after(self.stagger());
    }

    /// The holder let go: somebody should follow it soon.
    ///
    /// Whoever was named is being told by Raft to campaign, once it has the leader's whole log: unasked it would lose to the others' priorities or
    /// logs. So it stands by itself only if the order does not come, and the others after it.
    pub(super) fn succeed(&mut self, now: Mono, successor: Option<NodeId>) {
        self.pace.hint = successor.or(self.pace.hint);
        let wait = match successor {
            Some(_) => self.promises() / 2 + self.stagger(),
            None => self.stagger() / 5,
        };
        self.pace.not_before = now.after(wait);
    }

    /// A vote was given: its winner gets the time to ask for promises.
    pub(super) fn wait_after_vote(&mut self, now: Mono) {
        self.wait(now, self.promises());
    }

    /// A lease was lost or given up: others go first.
    pub(super) fn back_off(&mut self, now: Mono) {
        self.wait(now, self.promises() * 2);
    }

    /// A voter holds this node's request back.
    pub(super) fn wait_for_busy(&mut self, now: Mono, remaining: Duration) {
        self.wait(now, remaining.min(self.config.timing.promise_max));
    }

    /// This node became a voter, or able to hold: a holder that there is makes itself heard within two beats.
    pub(super) fn listen_first(&mut self, now: Mono) {
        if self.standing.eligible {
            self.wait(now, self.config.timing.span.beat * 2);
        }
    }

    fn wait(&mut self, now: Mono, span: Duration) {
        self.pace.not_before = self.pace.not_before.max(now.after(span).after(self.stagger()));
    }

    pub(super) fn leader_heard(&mut self, now: Mono) {
        self.pace.leader_heard = now;
    }
}
