//! What this node proposed and has not seen committed. An entry is known by its index and term: no two entries share both.

use std::collections::VecDeque;

/// What was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Proposal,
    Change,
}

#[derive(Clone, Copy, Debug)]
struct Wish {
    index: u64,
    term: u64,
    request: u64,
    kind: Kind,
}

/// By rising index.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending(VecDeque<Wish>);

impl Pending {
    pub(super) fn push(&mut self, index: u64, term: u64, request: u64, kind: Kind) {
        self.0.push_back(Wish { index, term, request, kind });
    }

    /// An entry was committed. Returns the request that it answers, if any, and those that it proves lost. A change that raft-rs replaced by an
    /// empty entry is lost.
    pub(super) fn settle(&mut self, index: u64, term: u64, kind: Kind) -> (Option<u64>, Vec<u64>) {
        let mut lost = Vec::new();
        while let Some(wish) = self.0.front().copied() {
            if wish.index > index {
                break;
            }
            self.0.pop_front();
            if wish.index == index && wish.term == term && wish.kind == kind {
                return (Some(wish.request), lost);
            }
            lost.push(wish.request);
        }
        (None, lost)
    }

    /// A snapshot replaced the log up to `index`: what became of these cannot be known any more.
    pub(super) fn covered(&mut self, index: u64) -> Vec<u64> {
        let covered = self.0.iter().take_while(|wish| wish.index <= index).count();
        self.0.drain(..covered).map(|wish| wish.request).collect()
    }

    /// Those whose entries another leader's have replaced. `holds` says whether the log has an entry of this index and term.
    pub(super) fn overwritten(&mut self, holds: impl Fn(u64, u64) -> bool) -> Vec<u64> {
        let mut lost = Vec::new();
        while let Some(wish) = self.0.back().copied() {
            if holds(wish.index, wish.term) {
                break;
            }
            self.0.pop_back();
            lost.push(wish.request);
        }
        lost.reverse();
        lost
    }
}
