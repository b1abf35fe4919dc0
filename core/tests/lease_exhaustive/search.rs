//! Breadth-first search, with the way to each state.

use std::hash::{BuildHasherDefault, Hasher};

use crate::model::{Action, Model, Packed, Scope, State};

/// What a search came to.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) with_one_holder: usize,
    pub(crate) leaders_at_once: usize,
    /// Distinct (node, term) in which a lease was won.
    pub(crate) tenures: usize,
    machines: usize,
    seconds: f64,
    /// The shortest way to two leases at once.
    pub(crate) violation: Option<Vec<String>>,
}

impl Found {
    pub(crate) fn summary(&self) -> String {
        let verdict = if self.violation.is_some() { "two leases at once" } else { "exhausted" };
        format!(
            "{verdict} after {} states ({} machines); {} with one lease; up to {} leaders; {} tenures; {:.1} s",
            self.states,
            self.machines,
            self.with_one_holder,
            self.leaders_at_once,
            self.tenures,
            self.seconds
        )
    }
}

/// Visits every reachable state, or stops at the first with two leases.
pub(crate) fn search(scope: Scope) -> Found {
    let begun = std::time::Instant::now();
    let mut model = Model::new(scope);
    let mut seen = Seen::default();
    let mut way: Vec<(u32, Action)> = vec![(0, Action::Begin)];
    seen.insert(model.initial().packed());
    let mut found = Found {
        states: 0,
        with_one_holder: 0,
        leaders_at_once: 0,
        tenures: 0,
        machines: 0,
        seconds: 0.0,
        violation: None,
    };
    let mut next = 0;
    while next < seen.states.len() && found.violation.is_none() {
        let state = State::unpacked(seen.states[next]);
        let (holders, leaders) = model.holders_and_leaders(&state);
        found.with_one_holder += usize::from(holders == 1);
        found.leaders_at_once = found.leaders_at_once.max(leaders);
        if holders > 1 {
            found.violation = Some(trace(&model, &seen, &way, next));
        }
        let from = u32::try_from(next).unwrap();
        model.successors(&state, |action, successor| {
            if seen.insert(successor.packed()) {
                way.push((from, action));
            }
        });
        next += 1;
    }
    found.states = seen.states.len();
    found.machines = model.machines();
    found.tenures = model.tenures();
    found.seconds = begun.elapsed().as_secs_f64();
    found
}

fn trace(model: &Model, seen: &Seen, way: &[(u32, Action)], to: usize) -> Vec<String> {
    let mut steps = Vec::new();
    let mut at = to;
    while at != 0 {
        let (before, action) = way[at];
        at = before as usize;
        steps.push(model.describe(&State::unpacked(seen.states[at]), action));
    }
    steps.reverse();
    steps
}

/// The states seen, each stored once; the table holds their numbers.
#[derive(Default)]
struct Seen {
    states: Vec<Packed>,
    /// Number plus one of a state, at the first free place from where its hash points; 0: free. A power of two long.
    table: Vec<u32>,
}

impl Seen {
    /// Adds a state; false if it was there.
    fn insert(&mut self, state: Packed) -> bool {
        if self.states.len() * 2 >= self.table.len() {
            self.grow();
        }
        let Err(place) = self.place(&state) else { return false };
        self.states.push(state);
        self.table[place] = u32::try_from(self.states.len()).unwrap();
        true
    }

    /// Where a state is, or else the free place where it belongs.
    fn place(&self, state: &Packed) -> Result<usize, usize> {
        let mask = self.table.len() - 1;
        let mut place = hash(state) & mask;
        loop {
            match self.table[place] {
                0 => return Err(place),
                number if self.states[number as usize - 1] == *state => return Ok(place),
                _ => place = (place + 1) & mask,
            }
        }
    }

    fn grow(&mut self) {
        let length = (self.table.len() * 2).max(1 << 16);
        let states = std::mem::take(&mut self.states);
        self.table = vec![0; length];
        let mask = length - 1;
        for (number, state) in (1..).zip(&states) {
            let mut place = hash(state) & mask;
            while self.table[place] != 0 {
                place = (place + 1) & mask;
            }
            self.table[place] = number;
        }
        self.states = states;
    }
}

#[allow(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
fn hash(state: &Packed) -> usize {
    let mut hasher = Mix::default();
    state.iter().for_each(|word| hasher.write_u64(*word));
    hasher.finish() as usize
}

/// A quick hash for keys that nobody chooses in order to collide.
pub(crate) type Quick = BuildHasherDefault<Mix>;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        let mixed = self.0 ^ (self.0 >> 32);
        mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    }
}
