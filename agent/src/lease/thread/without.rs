//! What the thread does while it has no lease, under a policy that lets it hold all the same.

use std::collections::BTreeSet;

use lvsmesh_core::lease::{Effect, Effects, Input, Message, Phase, Standing};
use lvsmesh_core::model::NodeId;
use lvsmesh_core::vrrp::fallback::{self, Policy};

use super::super::group::{Group, Without};
use super::super::{Tenure, WithoutQuorum};
use super::Thread;

/// So many places further back is a node that hears a member hold without a lease, or has not listened for long enough: ten promises later (`Timing::stagger_step`). Without that, two
/// nodes that return together would elect one of themselves, and move the VIP for nothing. One whose log is behind must not be waited for for ever.
const STANDS_BACK: u8 = 200;

impl Thread {
    /// The fleet's policy, and who else it concerns.
    pub(super) fn allow(&mut self, order: WithoutQuorum) {
        let WithoutQuorum { policy, rank, directors } = order;
        self.without = Without { policy, rank, directors, ..self.without.clone() };
        self.tell_groups();
        // Arbiters are looked up.
        self.look_at = self.clock.now();
    }

    pub(super) fn tell_groups(&mut self) {
        let Standing { eligible, witness, .. } = self.standing;
        let votes = self.voters.contains(&self.lease.id());
        self.without.fit = eligible && !witness && votes && self.stopping.is_none();
        let without = self.without.clone();
        self.with_groups(|group, tools| group.allow(&without, tools));
    }

    /// A leader was heard of.
    pub(super) fn majority(&mut self) {
        self.with_groups(|group, tools| group.without(fallback::Input::Contact, tools));
    }

    /// Before a promise is made: who gets it may hold from then on.
    pub(super) fn give_way(&mut self, effects: &Effects) {
        let promises =
            |effect: &Effect| matches!(effect, Effect::Send { message: Message::Ack { .. }, .. });
        if effects.iter().any(promises) {
            self.with_groups(|group, tools| group.without(fallback::Input::Asked, tools));
        }
    }

    /// Whether no other director can hold without a lease: each has promised, and gave way before.
    pub(super) fn is_alone(&self) -> bool {
        let now = self.clock.now();
        let directors: &BTreeSet<NodeId> = &self.without.directors;
        self.without.policy == Policy::Strict
            || directors.iter().all(|director| self.lease.has_promised(*director, now))
    }

    /// The table that was asked for without a lease stands. Says whether it was that one.
    pub(super) fn table_without(&mut self, epoch: u64) {
        if self.unleased_epoch == Some(epoch) {
            self.with_groups(|group, tools| group.without(fallback::Input::Ready, tools));
        }
    }

    /// Brings what others see of this node in line with what the groups do without a lease.
    pub(super) fn settle(&mut self) {
        let now = self.clock.now();
        match self.lease.status(now).phase {
            Some(Phase::Preparing { .. } | Phase::Holding) => {
                self.unleased_epoch = None;
                return;
            }
            Some(Phase::Asking) | None => {}
        }
        let held = self.groups.iter().any(Group::is_held_without);
        let wanted = held || self.groups.iter().any(Group::is_asking);
        if held != self.holding {
            self.set_holding(held);
            self.keep_bound(lvsmesh_core::time::Mono(0), held);
        }
        let tenure = if wanted {
            // No lease has this number: its holder is another node, or none.
            let epoch = *self.unleased_epoch.get_or_insert(self.lease.status(now).voted_term);
            if held { Tenure::Holding { epoch } } else { Tenure::Preparing { epoch } }
        } else {
            self.unleased_epoch = None;
            Tenure::None
        };
        let news = self.tenure.send_if_modified(|before| {
            let changed = *before != tenure;
            *before = tenure;
            changed
        });
        if news {
            self.publish();
        }
    }

    /// Who holds without a lease is to get the next one: the others campaign after it.
    pub(super) fn prefer(&mut self) {
        let now = self.clock.now();
        let rank = if self.groups.iter().any(Group::is_held_without) {
            0
        } else if self.groups.iter().any(|group| group.hears_another(now)) {
            self.standing.rank.saturating_add(STANDS_BACK)
        } else {
            self.standing.rank
        };
        let standing = Standing { rank, ..self.standing };
        if self.told != standing {
            self.told = standing;
            self.step(Input::Standing(standing));
        }
    }
}
