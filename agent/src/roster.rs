//! Which run of which agent speaks for a node.
//!
//! *In*: the number that each run of an agent draws at its start, as peers' calls carry it. *Out*: whether it is the one that answers at the node's
//! own address. A machine whose disk is a copy of another's has that one's name, key and certificate, but not its address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lvsmesh_core::model::NodeId;

/// A verdict other than "it is the node" is asked for again after this.
const STALE: Duration = Duration::from_secs(5);
/// A copy that was not heard of for this long is no longer warned of.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Runs remembered of one node: the present one, and a few that are refused.
const MOST_RUNS: usize = 4;

/// What the node's own address says about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It answers there.
    Original,
    /// Another one answers there.
    Copy(SocketAddr),
    /// Nobody answers there, or one that does not say: no reason to refuse.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    incarnation: u64,
    standing: Standing,
    at: Instant,
}

/// Runs by node. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Roster(Arc<Mutex<BTreeMap<NodeId, Vec<Run>>>>);

impl Roster {
    /// What is known of a run; `None` if its node's address is to be asked (again).
    #[must_use]
    pub fn standing(&self, node: NodeId, incarnation: u64, now: Instant) -> Option<Standing> {
        let runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let run = runs.get(&node)?.iter().find(|run| run.incarnation == incarnation)?;
        let lasts = run.standing == Standing::Original || now.duration_since(run.at) < STALE;
        lasts.then_some(run.standing)
    }

    /// Notes what the address said. There is one original at most: what was it before is asked about again.
    pub fn note(&self, node: NodeId, incarnation: u64, standing: Standing, now: Instant) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = nodes.entry(node).or_default();
        runs.retain(|run| {
            run.incarnation != incarnation
                && !(standing == Standing::Original && run.standing == Standing::Original)
        });
        runs.push(Run { incarnation, standing, at: now });
        if runs.len() > MOST_RUNS {
            // The original is not among the oldest for long: it is noted anew when it is replaced only.
            let oldest = runs.iter().position(|run| run.standing != Standing::Original);
            runs.remove(oldest.unwrap_or(0));
        }
    }

    /// Nodes of which a copy was heard lately, with the address of the original.
    #[must_use]
    pub fn copied(&self, now: Instant) -> BTreeMap<NodeId, SocketAddr> {
        let nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let copies = nodes.iter().flat_map(|(node, runs)| runs.iter().map(move |run| (node, run)));
        copies
            .filter(|(_, run)| now.duration_since(run.at) < REMEMBERED)
            .filter_map(|(node, run)| match run.standing {
                Standing::Copy(original) => Some((*node, original)),
                Standing::Original | Standing::Unknown => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(2);

    fn address() -> SocketAddr {
        ([192, 0, 2, 2], 7400).into()
    }

    #[test]
    fn an_original_stays_one_and_every_other_verdict_is_asked_for_again() {
        let (roster, now) = (Roster::default(), Instant::now());
        assert_eq!(roster.standing(NODE, 7, now), None);
        roster.note(NODE, 7, Standing::Original, now);
        roster.note(NODE, 8, Standing::Copy(address()), now);
        roster.note(NODE, 9, Standing::Unknown, now);
        assert_eq!(roster.standing(NODE, 8, now), Some(Standing::Copy(address())));
        assert_eq!(roster.standing(NODE, 9, now), Some(Standing::Unknown));
        assert_eq!(roster.copied(now), BTreeMap::from([(NODE, address())]));

        let later = now + STALE;
        assert_eq!(roster.standing(NODE, 7, later), Some(Standing::Original));
        assert_eq!(roster.standing(NODE, 8, later), None);
        assert_eq!(roster.standing(NODE, 9, later), None);
        assert_eq!(roster.copied(later).len(), 1, "a warning stands for a while");
        assert!(roster.copied(now + REMEMBERED).is_empty());
    }

    #[test]
    fn a_restarted_original_takes_the_place_of_its_predecessor() {
        let (roster, now) = (Roster::default(), Instant::now());
        roster.note(NODE, 7, Standing::Original, now);
        roster.note(NODE, 8, Standing::Original, now);
        assert_eq!(roster.standing(NODE, 7, now), None, "whether it is still there must be asked");
        assert_eq!(roster.standing(NODE, 8, now), Some(Standing::Original));
    }

    #[test]
    fn many_copies_do_not_push_the_original_out() {
        let (roster, now) = (Roster::default(), Instant::now());
        roster.note(NODE, 7, Standing::Original, now);
        for incarnation in 10..30 {
            roster.note(NODE, incarnation, Standing::Copy(address()), now);
        }
        assert_eq!(roster.standing(NODE, 7, now), Some(Standing::Original));
        let runs = roster.0.lock().unwrap();
        assert_eq!(runs[&NODE].len(), MOST_RUNS);
    }
}
