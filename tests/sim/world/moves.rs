//! What operators do once all is mended: they move the VIPs to another director and, as soon as they have arrived, straight back.

use lvsmesh_core::lease::Input;

use super::{Event, MS, NODES, SETTLED, Time, Violation, World};
use crate::node::Machine;

/// Somebody holds again by then. Nothing fails any more, but disks, tables and threads are slow at times.
const HELD_WITHIN: Time = 600 * MS;

/// The moves of one run.
#[derive(Debug, Default)]
pub(super) struct Journey {
    under_way: Option<Move>,
    /// Where the VIPs came from, and go next.
    back: Option<usize>,
}

/// A move that has been asked for.
#[derive(Debug)]
struct Move {
    from: usize,
    to: usize,
    since: Time,
    /// The holder has let go.
    released: bool,
}

impl World {
    /// Moves the VIPs, if somebody holds them and somebody else could; asks again later if not.
    pub(super) fn planned_move(&mut self) {
        let wait = match (holder(&self.machines, self.now), &self.journey.under_way) {
            (Some(from), None) => {
                let able = self.successors(from);
                let back = self.journey.back.take().filter(|to| able.contains(to));
                let anyone = (!able.is_empty()).then(|| able[self.rng.index(able.len())]);
                if let Some(to) = back.or(anyone) {
                    self.note(from, || format!("an operator moves the VIPs to node {}", to + 1));
                    self.journey.under_way =
                        Some(Move { from, to, since: self.now, released: false });
                    let successor = Some(self.machines[to].id);
                    self.lease_input(from, Input::Abdicate { successor });
                    return;
                }
                10 * MS
            }
            (_, Some(_)) => return,
            (None, None) => 10 * MS,
        };
        if self.now + wait < SETTLED {
            self.schedule(self.now + wait, Event::Move);
        }
    }

    /// After a move somebody holds again soon, nearly always who was meant to, and then the next one begins.
    pub(super) fn under_way(&mut self) -> Result<(), Violation> {
        let Some(Move { from, to, since, released }) = self.journey.under_way.as_mut() else {
            return Ok(());
        };
        let (from, to, took) = (*from, *to, self.now - *since);
        let holder = holder(&self.machines, self.now);
        *released |= holder != Some(from);
        let released = *released;
        if took > HELD_WITHIN {
            let (from, to, took) = (from + 1, to + 1, took / MS);
            return Err(Violation::new(format!(
                "nobody holds {took} ms after a planned move from node {from} to node {to} began"
            )));
        }
        if let Some(holder) = holder.filter(|_| released) {
            self.summary.moves += 1;
            self.summary.diverted += u64::from(holder != to);
            self.summary.slowest_move = self.summary.slowest_move.max(took);
            self.note(holder, || format!("the VIPs have arrived after {} ms", took / MS));
            self.journey = Journey { under_way: None, back: Some(from) };
            let next = self.now + self.rng.of(0..80 * MS);
            if next < SETTLED {
                self.schedule(next, Event::Move);
            }
        }
        Ok(())
    }

    /// The directors to which an agent would move the VIPs: they vote, could hold, and have everything that is committed.
    fn successors(&self, holder: usize) -> Vec<usize> {
        let Some(agent) = self.machines[holder].agent.as_ref() else { return Vec::new() };
        let view = agent.raft.view();
        let able = |node: &usize| {
            let machine = &self.machines[*node];
            *node != holder
                && view.leading
                && view.voters.contains(&machine.id)
                && view.matched.get(&machine.id).is_some_and(|at| *at >= view.commit)
                && machine.agent.as_ref().is_some_and(|agent| agent.told.standing.eligible)
        };
        (0..NODES).filter(able).collect()
    }
}

/// Whose running agent may emit.
fn holder(machines: &[Machine], now: Time) -> Option<usize> {
    machines.iter().position(|machine| {
        let local = machine.clock.local(now);
        machine.agent.as_ref().is_some_and(|agent| agent.lease.may_emit(local))
    })
}
