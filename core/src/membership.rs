//! Who votes: the fleet's members against Raft's configuration.
//!
//! *In*: the members, the configuration that is in force, and how far each log has come. *Out*: the next single change, or none.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Member, NodeId};

/// At most this many directors vote: a sixth would make every commit wait for a fourth disk and tolerate no more failures than five do.
pub const MOST_DIRECTORS: usize = 5;

/// With fewer directors than this, realservers vote as witnesses: two voters tolerate no failure, three tolerate one.
pub const FEWEST_VOTERS: usize = 3;

/// A learner may be made a voter when at most this many committed entries are missing from its log. Until then its vote would only be another
/// one to wait for.
pub const CAUGHT_UP: u64 = 64;

/// One step from one configuration to the next. Each changes at most one voter, so that majorities before and after it share a node
/// (Ongaro, *Consensus: Bridging Theory and Practice*, §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// Send the log to a node, without a vote.
    AddLearner(NodeId),
    /// Give a learner a vote.
    Promote(NodeId),
    /// Take a voter's vote, and keep sending it the log.
    Demote(NodeId),
    /// Forget a node.
    Remove(NodeId),
    /// Lead no more, in favour of this voter: the leader is the one to be removed or demoted, and its successor will do that.
    HandOver(NodeId),
}

/// Raft's view of a configuration, on the leader.
#[derive(Clone, Copy, Debug)]
pub struct Configuration<'a> {
    /// Who votes.
    pub voters: &'a BTreeSet<NodeId>,
    /// Who gets the log without a vote.
    pub learners: &'a BTreeSet<NodeId>,
    /// Who leads; the one that asks.
    pub leader: NodeId,
    /// Newest entry of each node's log that the leader knows to be its own; a node that it has not heard from is absent or at 0.
    pub matched: &'a BTreeMap<NodeId, u64>,
    /// Whom the leader has heard from lately, itself included. What is known of the log of any other is how it was once.
    pub heard: &'a BTreeSet<NodeId>,
    /// The commit index.
    pub commit: u64,
}

/// Who ought to vote: the directors with the lowest ids, up to [`MOST_DIRECTORS`], and realservers from the lowest id as long as there are
/// fewer than [`FEWEST_VOTERS`]. Empty only if there are no members.
#[must_use]
pub fn voters<'a>(members: impl IntoIterator<Item = &'a Member>) -> BTreeSet<NodeId> {
    let (directors, others): (BTreeMap<NodeId, &Member>, BTreeMap<NodeId, &Member>) = members
        .into_iter()
        .map(|member| (member.id, member))
        .partition(|(_, member)| member.is_director());
    let mut voters: BTreeSet<NodeId> = directors.into_keys().take(MOST_DIRECTORS).collect();
    let witnesses = FEWEST_VOTERS.saturating_sub(voters.len());
    voters.extend(others.into_keys().take(witnesses));
    voters
}

/// The change that brings Raft's configuration one step closer to the members; `None` if it is there, or must wait for a learner to catch up.
///
/// Adds before it takes away, so that the number of failures that the fleet survives is on no step lower than before and after it:
///
/// 1. members that Raft does not know become learners;
/// 2. learners that ought to vote, have caught up and are heard from become voters;
/// 3. nodes that are no members are removed, learners first, and of the voters first those that are silent. This does not wait for a learner that
///    has not caught up: what was removed may be dead, and then it only makes majorities harder to reach;
/// 4. voters that ought not to vote become learners, once everyone who ought to vote does.
///
/// No vote is taken if too few of those who keep theirs are heard from: what is left could decide nothing. The leader never takes away its own
/// vote; it hands over first, to a voter that it hears, the one whose log is closest to its own. The last voter stays.
#[must_use]
pub fn next_change<'a>(
    members: impl IntoIterator<Item = &'a Member>,
    now: Configuration<'_>,
) -> Option<Change> {
    let members: Vec<&Member> = members.into_iter().collect();
    let wanted = voters(members.iter().copied());
    let members: BTreeSet<NodeId> = members.iter().map(|member| member.id).collect();

    if let Some(unknown) =
        members.iter().find(|id| !now.voters.contains(id) && !now.learners.contains(id))
    {
        return Some(Change::AddLearner(*unknown));
    }
    if let Some(ready) =
        wanted.iter().find(|id| now.learners.contains(id) && now.has_caught_up(**id))
    {
        return Some(Change::Promote(*ready));
    }
    if let Some(gone) = now.learners.iter().find(|id| !members.contains(id)) {
        return Some(Change::Remove(*gone));
    }
    // The leader goes last: its removal waits for a successor, and nobody else's should wait for that.
    let last = |id: &NodeId| (*id == now.leader, now.heard.contains(id), *id);
    if let Some(gone) =
        now.voters.iter().filter(|id| !members.contains(id)).copied().min_by_key(last)
    {
        return now.take_vote(gone, Change::Remove(gone), &wanted);
    }
    if !wanted.is_subset(now.voters) {
        return None;
    }
    let surplus = now.voters.iter().filter(|id| !wanted.contains(id)).copied().min_by_key(last)?;
    now.take_vote(surplus, Change::Demote(surplus), &wanted)
}

impl Configuration<'_> {
    fn has_caught_up(&self, id: NodeId) -> bool {
        let matched = self.matched.get(&id).copied().unwrap_or(0);
        self.heard.contains(&id) && matched > 0 && matched.saturating_add(CAUGHT_UP) >= self.commit
    }

    /// Whether those who still vote without that voter could decide anything: whether a majority of them is heard from.
    #[must_use]
    pub fn can_spare(&self, voter: NodeId) -> bool {
        let left = self.voters.iter().filter(|id| **id != voter);
        let heard = left.clone().filter(|id| self.heard.contains(id)).count();
        heard > left.count() / 2
    }

    fn take_vote(
        &self,
        voter: NodeId,
        change: Change,
        wanted: &BTreeSet<NodeId>,
    ) -> Option<Change> {
        if voter != self.leader {
            return self.can_spare(voter).then_some(change);
        }
        self.voters
            .iter()
            .filter(|id| **id != self.leader && self.has_caught_up(**id))
            .max_by_key(|id| {
                let matched = self.matched.get(id).copied().unwrap_or(0);
                (wanted.contains(id), matched, std::cmp::Reverse(**id))
            })
            .map(|successor| Change::HandOver(*successor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;

    fn member(id: u64, roles: &[Role]) -> Member {
        let octet = u8::try_from(id).unwrap();
        Member {
            id: NodeId(id),
            name: format!("node-{id}"),
            roles: roles.iter().copied().collect(),
            addresses: vec![[192, 0, 2, octet].into()],
            grpc: ([192, 0, 2, octet], 7400).into(),
            lease: ([192, 0, 2, octet], 7401).into(),
        }
    }

    /// `1d 2r 3dr`: directors, realservers, both.
    fn fleet(text: &str) -> Vec<Member> {
        text.split_whitespace()
            .map(|word| {
                let id = word.trim_end_matches(['d', 'r']).parse().unwrap();
                let mut roles = Vec::new();
                if word.contains('d') {
                    roles.push(Role::Director);
                }
                if word.contains('r') {
                    roles.push(Role::RealServer);
                }
                member(id, &roles)
            })
            .collect()
    }

    fn ids(text: &str) -> BTreeSet<NodeId> {
        text.split_whitespace().map(|id| NodeId(id.parse().unwrap())).collect()
    }

    fn change(text: &str) -> Option<Change> {
        let (verb, id) = text.split_once(' ')?;
        let id = NodeId(id.parse().unwrap());
        Some(match verb {
            "learn" => Change::AddLearner(id),
            "promote" => Change::Promote(id),
            "demote" => Change::Demote(id),
            "remove" => Change::Remove(id),
            "hand-over" => Change::HandOver(id),
            other => panic!("no such verb: {other}"),
        })
    }

    /// The next change where everything up to entry 100 is committed.
    fn next_of(
        members: &str,
        voters: &str,
        learners: &str,
        leader: u64,
        matched: &BTreeMap<NodeId, u64>,
        heard: &BTreeSet<NodeId>,
    ) -> Option<Change> {
        let now = Configuration {
            voters: &ids(voters),
            learners: &ids(learners),
            leader: NodeId(leader),
            matched,
            heard,
            commit: 100,
        };
        next_change(&fleet(members), now)
    }

    #[test]
    fn directors_vote_and_realservers_fill_up_to_three() {
        let table = [
            ("", ""),
            ("1d", "1"),
            ("1d 2r", "1 2"),
            ("1d 2dr 3r", "1 2 3"),
            ("1d 2d 3r 4r", "1 2 3"),
            ("1d 4d 3r 2r", "1 2 4"),
            ("1d 2r 3r 4r", "1 2 3"),
            ("1r 2r 3r 4r", "1 2 3"),
            ("1d 2d 3d 4r", "1 2 3"),
            ("1d 2d 3d 4d", "1 2 3 4"),
            ("7d 6d 5d 4d 3d 2d 1r", "2 3 4 5 6"),
        ];
        for (members, expected) in table {
            assert_eq!(voters(&fleet(members)), ids(expected), "members {members}");
        }
    }

    #[test]
    fn changes_come_one_at_a_time_and_add_before_they_take_away() {
        // members, voters, learners, leader, whose log is at the commit index (100), expected
        let table = [
            ("1d", "1", "", 1, "1", "-"),
            ("1d 2d", "1", "", 1, "1", "learn 2"),
            ("1d 2d", "1", "2", 1, "1", "-"),
            ("1d 2d", "1", "2", 1, "1 2", "promote 2"),
            ("1d 2d 3r", "1 2", "3", 1, "1 2 3", "promote 3"),
            ("1d 2d 3r 4r", "1 2 3", "4", 1, "1 2 3 4", "-"),
            // An emptied disk came back as 4: learn, then vote, then the old id goes.
            ("1d 2d 4r", "1 2 3", "", 1, "1 2", "learn 4"),
            ("1d 2d 4r", "1 2 3", "4", 1, "1 2 4", "promote 4"),
            ("1d 2d 4r", "1 2 3 4", "", 1, "1 2 4", "remove 3"),
            // A dead node's vote is not kept for a learner that does not catch up.
            ("1d 2d 4r", "1 2 3", "4", 1, "1 2", "remove 3"),
            // Learners go before voters.
            ("1d 2d", "1 2 3", "4", 1, "1 2 3 4", "remove 4"),
            // A third director makes the witness a learner, but only once it votes itself.
            ("1d 2d 3r 4d", "1 2 3", "4", 1, "1 2 3", "-"),
            ("1d 2d 3r 4d", "1 2 3", "4", 1, "1 2 3 4", "promote 4"),
            ("1d 2d 3r 4d", "1 2 3 4", "", 1, "1 2 3 4", "demote 3"),
            // The leader hands over before its vote goes, and after everyone else's.
            ("2d 3r", "1 2 3", "", 1, "1 2 3", "hand-over 2"),
            ("2d 3r", "1 2 3", "", 1, "1 3", "hand-over 3"),
            ("2d 3r", "1 2 3", "", 1, "1", "-"),
            ("3d", "1 2 3", "", 1, "1 2 3", "remove 2"),
            ("1d 2d 3r 4d", "1 2 3 4", "", 3, "1 2 3 4", "hand-over 1"),
            // The last voter stays.
            ("2d", "1", "2", 1, "1", "-"),
            ("2d", "1", "2", 1, "1 2", "promote 2"),
        ];
        for (members, voters, learners, leader, level, expected) in table {
            let matched: BTreeMap<NodeId, u64> =
                ids(level).into_iter().map(|id| (id, 100)).collect();
            let heard = ids(&format!("{voters} {learners}"));
            let found = next_of(members, voters, learners, leader, &matched, &heard);
            assert_eq!(
                found,
                change(expected),
                "members {members}, voters {voters}, learners {learners}, leader {leader}, level {level}"
            );
        }
    }

    #[test]
    fn a_learner_far_behind_gets_no_vote() {
        let propose = |matched| {
            next_change(
                &fleet("1d 2d"),
                Configuration {
                    voters: &ids("1"),
                    learners: &ids("2"),
                    leader: NodeId(1),
                    matched: &BTreeMap::from([(NodeId(1), 1000), (NodeId(2), matched)]),
                    heard: &ids("1 2"),
                    commit: 1000,
                },
            )
        };
        assert_eq!(propose(1000 - CAUGHT_UP), Some(Change::Promote(NodeId(2))));
        assert_eq!(propose(1000 - CAUGHT_UP - 1), None);
    }

    #[test]
    fn who_is_silent_gets_no_vote_and_loses_it_first_and_nobody_is_spared_whom_the_others_need() {
        // members, voters, learners, leader, heard, expected; everybody's log was at the commit index once
        let table = [
            // The witness 3 is dead and removed, and the one that would follow it reboots.
            ("1d 2d 4r", "1 2 3", "4", 1, "1 2", "remove 3"),
            ("1d 2d 4r", "1 2", "4", 1, "1 2", "-"),
            ("1d 2d 4r", "1 2", "4", 1, "1 2 4", "promote 4"),
            // Of two that go the silent one goes first, and is not waited for.
            ("1d 4d", "1 2 3 4", "", 1, "1 2 4", "remove 3"),
            ("1d 4d", "1 2 4", "", 1, "1 2 4", "remove 2"),
            // 3 is dead: without 2 the leader would be alone of two.
            ("1d 3d", "1 2 3", "", 1, "1 2", "-"),
            ("1d 2d", "1 2 3", "", 1, "1 2", "remove 3"),
            ("1d", "1 2", "", 1, "1 2", "remove 2"),
            // Five directors, two dead: a witness that votes still is needed until one is back.
            ("1d 2d 3d 4d 6r", "1 2 3 4 6", "", 1, "1 2 6", "-"),
            ("1d 2d 3d 4d 6r", "1 2 3 4 6", "", 1, "1 2 3 6", "demote 6"),
            // Nobody hands over to a dead one, however good its log was.
            ("2d 3r", "1 2 3", "", 1, "1 3", "hand-over 3"),
            ("2d 3r", "1 2 3", "", 1, "1", "-"),
        ];
        for (members, voters, learners, leader, heard, expected) in table {
            let matched = (1..=6).map(|id| (NodeId(id), 100)).collect();
            let found = next_of(members, voters, learners, leader, &matched, &ids(heard));
            assert_eq!(
                found,
                change(expected),
                "members {members}, voters {voters}, learners {learners}, heard {heard}"
            );
        }
    }

    #[test]
    fn every_fleet_settles_and_its_leader_never_loses_its_vote() {
        // Every pair of fleets of up to four nodes with these roles: from one's configuration to the other's.
        let kinds = ["", "d", "r", "dr"];
        let fleets: Vec<Vec<Member>> = (1..256usize)
            .map(|code| {
                let text: Vec<String> = (0..4)
                    .filter_map(|node| {
                        let kind = kinds[code >> (2 * node) & 3];
                        (!kind.is_empty()).then(|| format!("{}{kind}", node + 1))
                    })
                    .collect();
                fleet(&text.join(" "))
            })
            .collect();
        for from in &fleets {
            for to in &fleets {
                settle(from, to);
            }
        }
    }

    fn settle(from: &[Member], to: &[Member]) {
        let mut voting = voters(from);
        let mut learning: BTreeSet<NodeId> =
            from.iter().map(|member| member.id).filter(|id| !voting.contains(id)).collect();
        let mut leader = *voting.first().unwrap();
        for _ in 0..32 {
            let matched: BTreeMap<NodeId, u64> =
                voting.iter().chain(&learning).map(|id| (*id, 10)).collect();
            let now = Configuration {
                voters: &voting,
                learners: &learning,
                leader,
                matched: &matched,
                heard: &matched.keys().copied().collect(),
                commit: 10,
            };
            let Some(next) = next_change(to, now) else { break };
            match next {
                Change::AddLearner(id) => assert!(!voting.contains(&id) && learning.insert(id)),
                Change::Promote(id) => assert!(learning.remove(&id) && voting.insert(id)),
                Change::Demote(id) => {
                    assert!(id != leader && voting.remove(&id) && learning.insert(id));
                }
                Change::Remove(id) => {
                    assert!(id != leader && (voting.remove(&id) || learning.remove(&id)));
                }
                Change::HandOver(id) => {
                    assert!(id != leader && voting.contains(&id));
                    leader = id;
                }
            }
            assert!(voting.contains(&leader), "the leader lost its vote");
        }
        assert_eq!(voting, voters(to), "from {from:?} to {to:?}");
        let learners: BTreeSet<NodeId> =
            to.iter().map(|member| member.id).filter(|id| !voting.contains(id)).collect();
        assert_eq!(learning, learners, "from {from:?} to {to:?}");
    }
}
