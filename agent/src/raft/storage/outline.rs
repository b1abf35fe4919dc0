//! What a store keeps in memory about its log: everything but the bytes. Answers most of Raft's questions without a read.

use std::collections::VecDeque;

use lvsmesh_core::model::NodeId;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{RaftState, StorageError};

use super::Batch;

/// Shape of a log. Follows every write, and says whether a log that was read is whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outline {
    /// Whose log it is.
    pub id: Option<NodeId>,
    /// Term, vote and commit index.
    pub hard_state: HardState,
    /// The configuration as of `applied`.
    pub conf_state: ConfState,
    /// Newest applied entry.
    pub applied: u64,
    /// Index and term of the entry before the first one; `(0, 0)` in an empty log.
    pub truncated: (u64, u64),
    /// Index of the stored snapshot; 0 if there is none. At least `truncated.0`.
    pub snapshot_index: u64,
    /// Every node in the stored snapshot's configuration: Raft ignores a snapshot that does not know its receiver.
    pub snapshot_nodes: Vec<u64>,
    /// Terms of the entries after `truncated`, without a gap.
    pub terms: VecDeque<u64>,
}

impl Outline {
    /// Index of the first entry that can be read, if the log has any.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.truncated.0 + 1
    }

    /// Index of the last entry; that of the snapshot if there is none after it.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.truncated.0 + self.terms.len() as u64
    }

    /// Term of an entry, or of the one before the first.
    ///
    /// # Errors
    ///
    /// `Compacted` below the log, `Unavailable` above it.
    pub fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.truncated.0 {
            return Ok(self.truncated.1);
        }
        let Some(offset) = index.checked_sub(self.first_index()) else {
            return Err(raft::Error::Store(StorageError::Compacted));
        };
        usize::try_from(offset)
            .ok()
            .and_then(|offset| self.terms.get(offset).copied())
            .ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    /// Checks a range that Raft asks for.
    ///
    /// # Errors
    ///
    /// `Compacted` if it begins below the log.
    ///
    /// # Panics
    ///
    /// If it ends above the log, which the contract of [`raft::Storage::entries`] excludes.
    pub fn check_range(&self, low: u64, high: u64) -> raft::Result<()> {
        if low < self.first_index() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(
            high <= self.last_index() + 1,
            "entries up to {high} were asked for, but the log ends at {}",
            self.last_index()
        );
        Ok(())
    }

    /// What Raft starts from.
    #[must_use]
    pub fn raft_state(&self) -> RaftState {
        RaftState::new(self.hard_state.clone(), self.conf_state.clone())
    }

    /// Whether the stored snapshot serves node `to`, which asked for one at `request_index` or later.
    #[must_use]
    pub fn snapshot_serves(&self, request_index: u64, to: u64) -> bool {
        self.snapshot_index >= request_index.max(1) && self.snapshot_nodes.contains(&to)
    }

    /// Follows a write.
    ///
    /// # Panics
    ///
    /// If the batch does not follow the log.
    pub fn record(&mut self, batch: &Batch) {
        if let Some(snapshot) = &batch.snapshot {
            self.replace(snapshot);
        }
        self.append(&batch.entries);
        if let Some(hard_state) = &batch.hard_state {
            self.hard_state = hard_state.clone();
        }
        if let Some(applied) = batch.applied {
            self.applied = applied;
        }
        if let Some(conf_state) = &batch.conf_state {
            self.conf_state = conf_state.clone();
        }
        if let Err(fault) = self.check() {
            panic!("a batch would break the log: {fault}");
        }
    }

    /// A copy without the terms, which may be many.
    #[must_use]
    pub fn clone_singles(&self) -> Self {
        Self {
            id: self.id,
            hard_state: self.hard_state.clone(),
            conf_state: self.conf_state.clone(),
            applied: self.applied,
            truncated: self.truncated,
            snapshot_index: self.snapshot_index,
            snapshot_nodes: Vec::new(),
            terms: VecDeque::new(),
        }
    }

    /// Starts over from a snapshot.
    pub fn replace(&mut self, snapshot: &Snapshot) {
        let meta = snapshot.get_metadata();
        self.truncated = (meta.index, meta.term);
        self.terms.clear();
        self.applied = meta.index;
        self.conf_state = meta.get_conf_state().clone();
        self.hard_state.commit = self.hard_state.commit.max(meta.index);
        self.hard_state.term = self.hard_state.term.max(meta.term);
        self.note_snapshot(snapshot);
    }

    /// Follows a compaction; returns the index up to which entries go.
    ///
    /// # Panics
    ///
    /// If the log does not reach the snapshot.
    pub fn compact(&mut self, snapshot: &Snapshot, keep: u64) -> u64 {
        let index = snapshot.get_metadata().index;
        assert!(
            index <= self.applied,
            "a snapshot at {index} is ahead of the applied index {}",
            self.applied
        );
        let upto = index.saturating_sub(keep).max(self.truncated.0);
        let term =
            self.term(upto).expect("it lies between the start of the log and its applied index");
        for _ in self.truncated.0..upto {
            self.terms.pop_front();
        }
        self.truncated = (upto, term);
        self.note_snapshot(snapshot);
        upto
    }

    /// Remembers what the stored snapshot is.
    pub fn note_snapshot(&mut self, snapshot: &Snapshot) {
        let meta = snapshot.get_metadata();
        let conf = meta.get_conf_state();
        self.snapshot_index = meta.index;
        self.snapshot_nodes = conf
            .voters
            .iter()
            .chain(&conf.voters_outgoing)
            .chain(&conf.learners)
            .copied()
            .collect();
    }

    /// Whether this can be the shape of a log.
    ///
    /// # Errors
    ///
    /// What cannot be, in one line.
    pub fn check(&self) -> Result<(), String> {
        let last = self.last_index();
        if self.hard_state.commit > last {
            return Err(format!(
                "the commit index {} is above the last entry {last}",
                self.hard_state.commit
            ));
        }
        if self.applied > self.hard_state.commit {
            return Err(format!(
                "the applied index {} is above the commit index {}",
                self.applied, self.hard_state.commit
            ));
        }
        if self.applied < self.truncated.0 {
            return Err(format!(
                "the applied index {} is below the start of the log {}",
                self.applied, self.truncated.0
            ));
        }
        if self.snapshot_index < self.truncated.0 || self.snapshot_index > self.applied {
            return Err(format!(
                "the snapshot at {} does not lie between the start of the log {} and the applied index {}",
                self.snapshot_index, self.truncated.0, self.applied
            ));
        }
        Ok(())
    }

    /// Whether the terms rise, and not above the current one. Looks at every entry: for a log that was just read.
    ///
    /// # Errors
    ///
    /// What cannot be, in one line.
    pub fn check_terms(&self) -> Result<(), String> {
        let mut before = self.truncated.1;
        for (term, index) in self.terms.iter().zip(self.first_index()..) {
            if *term < before {
                return Err(format!(
                    "entry {index} is of term {term}, the one before it of term {before}"
                ));
            }
            before = *term;
        }
        if before > self.hard_state.term {
            return Err(format!(
                "the last entry is of term {before}, but the current term is {}",
                self.hard_state.term
            ));
        }
        Ok(())
    }

    fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.truncated.0 && first.index <= self.last_index() + 1,
            "entry {} follows neither the start of the log {} nor its end {}",
            first.index,
            self.truncated.0,
            self.last_index()
        );
        while self.last_index() >= first.index {
            self.terms.pop_back();
        }
        for entry in entries {
            assert_eq!(entry.index, self.last_index() + 1, "entries of a batch have a gap");
            self.terms.push_back(entry.term);
        }
    }
}
