//! What the guard has to know at every moment, in memory that it shares with the agent: it outlives the agent, and costs the lease thread no system call.

use std::io;
use std::path::Path;
use std::time::Duration;

use lvsmesh_kernel::raw::SharedWords;

/// Name of the file below the run directory.
const FILE: &str = "guard.page";

const TERM: usize = 0;
const LAST_SEQ: usize = 1;
const HOLDING: usize = 2;
const TURNS: usize = 3;
const LEASE: usize = 4;

/// The shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Page(SharedWords);

impl Page {
    /// Makes a new one; the agent does, once no older guard is left.
    pub(super) fn create(run_dir: &Path) -> io::Result<Self> {
        SharedWords::create(&run_dir.join(FILE)).map(Self)
    }

    pub(super) fn open(run_dir: &Path) -> io::Result<Self> {
        SharedWords::open(&run_dir.join(FILE)).map(Self)
    }

    /// The tenure in which HOLDs may have been sent, and the newest of them; `None`: there is nothing to relinquish. To be written before the first
    /// HOLD of that number is sent.
    ///
    /// An agent may die between the two words. HOLDs are counted through all terms of one run: a new number with an old term voids nothing of a
    /// tenure that is not over, and a new term with an old number nothing at all. The number comes first, so that only the former can be.
    pub fn set_tenure(&self, tenure: Option<(u64, u64)>) {
        match tenure {
            Some((term, last_seq)) => {
                self.0.set(LAST_SEQ, last_seq);
                self.0.set(TERM, term);
            }
            None => self.0.set(TERM, 0),
        }
    }

    /// Term and number, as [`set_tenure`](Self::set_tenure) left them.
    pub(super) fn tenure(&self) -> Option<(u64, u64)> {
        let term = self.0.get(TERM);
        (term != 0).then(|| (term, self.0.get(LAST_SEQ)))
    }

    /// Whether the VIPs are claimed: only then a standstill matters.
    pub fn set_holding(&self, holding: bool) {
        self.0.set(HOLDING, holding.into());
    }

    pub(super) fn holding(&self) -> bool {
        self.0.get(HOLDING) != 0
    }

    /// A holder that stands still for so long has lost its lease: L. To be written before a HOLD is sent.
    pub fn set_lease(&self, lease: Duration) {
        self.0.set(LEASE, u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX));
    }

    /// L, as [`set_lease`](Self::set_lease) left it; `None`: nothing was asked for yet.
    pub(super) fn lease(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.0.get(LEASE))).filter(|lease| !lease.is_zero())
    }

    /// The lease thread goes through its loop once more.
    pub fn turn(&self) {
        self.0.set(TURNS, self.0.get(TURNS).wrapping_add(1));
    }

    pub(super) fn turns(&self) -> u64 {
        self.0.get(TURNS)
    }
}

/// Looks at a page in even intervals and says when nothing has moved for long enough.
#[derive(Debug, Default)]
pub(super) struct Standstill {
    turns: u64,
    looks: u32,
}

/// So many looks without a turn in between make a standstill. Counting looks and not time means that a guard which was itself not given the
/// processor takes its own lateness for no one else's.
pub(super) const LOOKS: u32 = 8;

impl Standstill {
    /// Whether the agent stands still.
    pub(super) fn look(&mut self, page: &Page) -> bool {
        let turns = page.turns();
        if turns != self.turns || !page.holding() {
            *self = Self { turns, looks: 0 };
        } else {
            self.looks += 1;
        }
        self.looks >= LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        Page::create(tempfile::tempdir().unwrap().path()).unwrap()
    }

    #[test]
    fn a_tenure_is_read_as_it_was_written_and_from_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (page, other) =
            (Page::create(directory.path()).unwrap(), Page::open(directory.path()).unwrap());
        assert_eq!(other.tenure(), None);
        page.set_tenure(Some((7, 31)));
        page.set_holding(true);
        assert_eq!((other.tenure(), other.holding()), (Some((7, 31)), true));
        assert_eq!(other.lease(), None);
        page.set_lease(Duration::from_millis(170));
        assert_eq!(other.lease(), Some(Duration::from_millis(170)));
        page.set_tenure(None);
        page.set_holding(false);
        assert_eq!((other.tenure(), other.holding()), (None, false));
    }

    #[test]
    fn only_a_holder_that_makes_no_turn_stands_still() {
        let page = page();
        let mut standstill = Standstill::default();
        for _ in 0..100 {
            assert!(!standstill.look(&page), "it holds nothing");
        }
        page.set_holding(true);
        for _ in 0..100 {
            page.turn();
            assert!(!standstill.look(&page), "it moves");
        }
        for _ in 1..LOOKS {
            assert!(!standstill.look(&page), "not for long enough");
        }
        assert!(standstill.look(&page));
        page.turn();
        assert!(!standstill.look(&page), "it moves again");
    }
}
