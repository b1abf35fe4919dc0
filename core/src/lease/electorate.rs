//! The voters, and what each has promised to this node in its current tenure.

use std::collections::BTreeSet;

use super::VOTERS_MAX;
use crate::model::NodeId;
use crate::time::Mono;

/// The applied configuration. Fixed in size, so that counting promises allocates nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Electorate {
    /// Ascending by id; the first `len` are used.
    voters: [Voter; VOTERS_MAX],
    len: usize,
}

/// One voter, as this node knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Voter {
    pub(super) id: NodeId,
    /// The send stamp of the newest HOLD that it acknowledged in this tenure.
    pub(super) acked: Option<Mono>,
    /// Until when this node may rely on what it promised.
    pub(super) until: Mono,
    pub(super) applied: u64,
    pub(super) eligible: bool,
}

impl Electorate {
    /// Those voters; what the ones that stay have promised is kept. A configuration that is too large becomes an empty one, under which
    /// nobody holds: refusing to hold is the safe answer to what was never meant to be.
    pub(super) fn replaced_by(&self, ids: &BTreeSet<NodeId>) -> Self {
        let mut next = Self::default();
        if ids.len() <= VOTERS_MAX {
            for (slot, id) in next.voters.iter_mut().zip(ids) {
                *slot = self.get(*id).copied().unwrap_or(Voter { id: *id, ..Voter::default() });
            }
            next.len = ids.len();
        }
        next
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Voter> {
        self.voters[..self.len].iter()
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Voter> {
        self.iter().find(|voter| voter.id == id)
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Voter> {
        self.voters[..self.len].iter_mut().find(|voter| voter.id == id)
    }

    pub(super) fn contains(&self, id: NodeId) -> bool {
        self.get(id).is_some()
    }

    /// Whether that node alone is a majority.
    pub(super) fn is_only(&self, id: NodeId) -> bool {
        self.len == 1 && self.contains(id)
    }

    /// Starts a tenure: what was promised in an earlier one counts no more.
    pub(super) fn forget_promises(&mut self) {
        for voter in &mut self.voters[..self.len] {
            *voter = Voter { id: voter.id, ..Voter::default() };
        }
    }

    /// The newest moment of `me`'s clock since which a majority, `me` included, has promised. `me` promises itself at `now`.
    pub(super) fn promised_since(&self, me: NodeId, now: Mono) -> Option<Mono> {
        self.by_majority(me, now, |voter| voter.acked)
    }

    /// Until when `me` may rely on what a majority, `me` included, has promised. `me` relies on itself until `own`.
    pub(super) fn promised_until(&self, me: NodeId, own: Mono) -> Option<Mono> {
        self.by_majority(me, own, |voter| voter.acked.map(|_| voter.until))
    }

    /// The latest moment that a majority has reached: `me`, whose own counts as `own`, and of the others those that are furthest.
    fn by_majority(
        &self,
        me: NodeId,
        own: Mono,
        moment: impl Fn(&Voter) -> Option<Mono>,
    ) -> Option<Mono> {
        if !self.contains(me) {
            return None;
        }
        let others_needed = self.len / 2;
        if others_needed == 0 {
            return Some(own);
        }
        let mut moments = [None; VOTERS_MAX];
        for (slot, voter) in moments.iter_mut().zip(self.iter().filter(|voter| voter.id != me)) {
            *slot = moment(voter);
        }
        // `None` sorts before every moment, so it comes last here.
        moments.sort_unstable_by(|a, b| b.cmp(a));
        moments[others_needed - 1]
    }

    /// Whatever was promised so far is relied on until then at most.
    pub(super) fn rely_until(&mut self, most: Mono) {
        for voter in &mut self.voters[..self.len] {
            voter.until = voter.until.min(most);
        }
    }

    /// Who should follow `me`: the eligible voter that is furthest along, the lower id first, among those heard since `fresh`.
    pub(super) fn successor(&self, me: NodeId, fresh: Mono) -> Option<NodeId> {
        self.iter()
            .filter(|voter| voter.id != me && voter.eligible)
            .filter(|voter| voter.acked.is_some_and(|at| at >= fresh))
            .max_by_key(|voter| (voter.applied, std::cmp::Reverse(voter.id)))
            .map(|voter| voter.id)
    }

    pub(super) fn for_each_end(&mut self, f: &mut impl FnMut(&mut Mono)) {
        self.voters[..self.len].iter_mut().map(|voter| &mut voter.until).for_each(f);
    }

    pub(super) fn for_each_stamp(&mut self, f: &mut impl FnMut(&mut Mono)) {
        self.voters[..self.len].iter_mut().filter_map(|voter| voter.acked.as_mut()).for_each(f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majoritys_date_is_that_of_its_oldest_promise() {
        let now = Mono(100);
        // Voters 1.., of which 1 asks; the others' stamps; the date.
        let table: [(&[Option<u64>], Option<u64>); 8] = [
            (&[], Some(100)),
            (&[None], None),
            (&[Some(40)], Some(40)),
            (&[Some(40), None], Some(40)),
            (&[Some(40), Some(60)], Some(60)),
            (&[Some(40), Some(60), None], Some(40)),
            (&[Some(40), Some(60), Some(50), None], Some(50)),
            (&[None, None, Some(50), None], None),
        ];
        for (others, expected) in table {
            let ids = (1..=1 + others.len() as u64).map(NodeId).collect();
            let mut electorate = Electorate::default().replaced_by(&ids);
            for (id, stamp) in (2..).map(NodeId).zip(others) {
                electorate.get_mut(id).unwrap().acked = stamp.map(Mono);
            }
            let date = electorate.promised_since(NodeId(1), now);
            assert_eq!(date, expected.map(Mono), "{others:?}");
            assert_eq!(electorate.promised_since(NodeId(99), now), None, "no voter, no date");
        }
    }

    #[test]
    fn nobody_holds_under_more_voters_than_there_is_room_for() {
        let ids = (1..=10).map(NodeId).collect();
        let electorate = Electorate::default().replaced_by(&ids);
        assert_eq!(electorate.promised_since(NodeId(1), Mono(1)), None);
    }
}
