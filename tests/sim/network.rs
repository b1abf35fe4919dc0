//! Links between nodes: what they cut, lose, delay and repeat.

use crate::rng::Rng;
use crate::world::{MS, NODES, Time};

/// What travels apart: lease datagrams and Raft's streams may fail independently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plane {
    Lease,
    Raft,
}

/// The network as it is at a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    /// How many faults cut each plane from a node to a node.
    cuts: [[[u8; NODES]; NODES]; 2],
    /// Messages lost in a thousand.
    pub(crate) loss: u64,
    /// Messages in a thousand that take up to a quarter of a second.
    pub(crate) spikes: u64,
}

impl Network {
    /// Cuts a link, or undoes one cut of it.
    pub(crate) fn cut(&mut self, plane: Plane, from: usize, to: usize, on: bool) {
        let count = &mut self.cuts[plane as usize][from][to];
        *count = if on { *count + 1 } else { *count - 1 };
    }

    /// When a message that is sent now arrives: never, once, or twice.
    pub(crate) fn send(
        &self,
        now: Time,
        plane: Plane,
        from: usize,
        to: usize,
        rng: &mut Rng,
    ) -> impl Iterator<Item = Time> + use<> {
        let cut = self.cuts[plane as usize][from][to] > 0 || rng.permille(self.loss);
        let mut arrival = || {
            let delay = rng.of(MS / 20..MS);
            let spike = if rng.permille(self.spikes) { rng.of(0..250 * MS) } else { 0 };
            now + delay + spike
        };
        let first = (!cut).then(&mut arrival);
        let second = first.map(|_| arrival());
        // Only datagrams are repeated by a network.
        let repeated = plane == Plane::Lease && rng.permille(10);
        first.into_iter().chain(second.filter(|_| repeated))
    }
}
