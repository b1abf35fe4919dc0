//! What must hold, and what was seen so far.

use std::collections::BTreeMap;

use lvsmesh_core::model::NodeId;
use lvsmesh_core::placement;
use lvsmesh_core::state::State;

use crate::node::{Applied, Machine};
use crate::world::{NODES, Time, Violation, state_of};

/// Every so many entries, whole states are compared and not only what each entry came to.
const COMPARED: u64 = 8;

/// The simulator's own memory of what nodes have said and done.
#[derive(Default)]
pub(crate) struct Check {
    /// Who led each term.
    leaders: BTreeMap<u64, usize>,
    /// Every entry that some node has applied, as the first one had it.
    log: BTreeMap<u64, Applied>,
    /// Some of the states that followed, by applied index.
    states: BTreeMap<u64, State>,
    /// How far each node has come in its present run.
    reached: [u64; NODES],
    /// Where each acknowledged request is in the log.
    acknowledged: BTreeMap<u64, u64>,
    /// The newest entry that an operation which is over has written, or read the state after. The log is the order in which operations take effect;
    /// they are linearizable (Herlihy and Wing) if that is also the order of those of which one was over when the other began.
    seen: u64,
    /// What was seen when a request began that is not over.
    begun: BTreeMap<u64, u64>,
    /// Reads that were answered.
    reads: u64,
}

impl Check {
    pub(crate) fn restarted(&mut self, node: usize) {
        self.reached[node] = 0;
    }

    pub(crate) fn terms(&self) -> u64 {
        self.leaders.len() as u64
    }

    pub(crate) fn entries(&self) -> u64 {
        self.log.len() as u64
    }

    pub(crate) fn reads(&self) -> u64 {
        self.reads
    }

    /// A client asks for a change.
    pub(crate) fn begins(&mut self, request: u64) {
        self.begun.insert(request, self.seen);
    }

    /// A client is told that its change is entry `index`.
    fn ends(&mut self, request: u64, index: u64) -> Result<(), Violation> {
        let Some(before) = self.begun.remove(&request) else { return Ok(()) };
        if index <= before {
            return Err(Violation::new(format!(
                "request {request} is entry {index}, and began after entry {before} was seen"
            )));
        }
        self.seen = self.seen.max(index);
        Ok(())
    }

    /// A client is told the state after entry `index`.
    pub(crate) fn read(&mut self, node: usize, index: u64) -> Result<(), Violation> {
        self.reads += 1;
        if index < self.seen {
            let (node, seen) = (node + 1, self.seen);
            return Err(Violation::new(format!(
                "node {node} answered a read with the state after entry {index}, and entry {seen} had been seen"
            )));
        }
        self.seen = index;
        Ok(())
    }

    /// A node leads a term: nobody else ever did.
    pub(crate) fn leads(&mut self, node: usize, term: u64) -> Result<(), Violation> {
        let first = *self.leaders.entry(term).or_insert(node);
        if first == node {
            return Ok(());
        }
        let (first, node) = (first + 1, node + 1);
        Err(Violation::new(format!("nodes {first} and {node} both led term {term}")))
    }

    /// A node applied an entry: it is the one that every other node applied there, it came to the same, and none was skipped.
    pub(crate) fn applied(
        &mut self,
        node: usize,
        applied: Applied,
        state: &State,
    ) -> Result<(), Violation> {
        let (index, name) = (applied.index, node + 1);
        let from = std::mem::replace(&mut self.reached[node], index);
        if let Some((skipped, _)) = self.log.range(from + 1..index).next() {
            let what = format!("node {name} applied entry {index} and not entry {skipped}");
            return Err(Violation::new(what));
        }
        if let Some(request) = applied.request {
            let before = *self.acknowledged.entry(request).or_insert(index);
            if before != index {
                let what = format!("request {request} is both entry {before} and entry {index}");
                return Err(Violation::new(what));
            }
            self.ends(request, index)?;
        }
        if let Some(first) = self.log.get(&index) {
            let same = Applied { request: first.request, ..applied } == *first;
            if !same {
                return Err(Violation::new(format!("node {name} has another entry {index}")));
            }
        } else {
            if let Some((later, _)) = self.log.range(index..).next() {
                let what = format!("entry {index} came to light after entry {later}");
                return Err(Violation::new(what));
            }
            self.log.insert(index, applied);
        }
        if index.is_multiple_of(COMPARED) { self.compare(node, state) } else { Ok(()) }
    }

    /// A node started over from a snapshot.
    pub(crate) fn restored(&mut self, node: usize, state: &State) -> Result<(), Violation> {
        self.reached[node] = state.applied();
        self.compare(node, state)
    }

    /// States after the same entry are the same.
    fn compare(&mut self, node: usize, state: &State) -> Result<(), Violation> {
        let first = self.states.entry(state.applied()).or_insert_with(|| state.clone());
        if first == state {
            return Ok(());
        }
        let (node, index) = (node + 1, state.applied());
        Err(Violation::new(format!("node {node} has another state after entry {index}")))
    }

    /// Everything was mended long ago: all have come to the same, and one director holds.
    pub(crate) fn at_the_end(&self, machines: &[Machine], now: Time) -> Result<(), Violation> {
        let last = self.log.keys().next_back().copied().unwrap_or(0);
        let mut newest: Option<&State> = None;
        for (node, machine) in machines.iter().enumerate() {
            let node = node + 1;
            let Some(state) = state_of(machine) else {
                return Err(Violation::new(format!("node {node} does not run")));
            };
            let first = newest.get_or_insert(state);
            if *first != state || state.applied() < last {
                let (applied, revision) = (state.applied(), state.revision());
                return Err(Violation::new(format!(
                    "node {node} is at entry {applied}, revision {revision}; the newest entry is {last}"
                )));
            }
        }
        for (request, index) in &self.acknowledged {
            if !self.log.contains_key(index) {
                return Err(Violation::new(format!("the acknowledged request {request} is lost")));
            }
        }
        let holders: Vec<NodeId> = machines
            .iter()
            .filter(|machine| machine.emits(now))
            .map(|machine| machine.id)
            .collect();
        let (Some(state), [holder]) = (newest, holders.as_slice()) else {
            return Err(Violation::new(format!("{holders:?} hold, long after all was mended")));
        };
        let plan = placement::place(state, *holder, true);
        if plan.table.len() != state.document().services.len() {
            return Err(Violation::new(format!("holder {holder} would not forward")));
        }
        Ok(())
    }
}
