//! What a step asks for, without allocating.

use super::Effect;

/// The effects of one step, in the order in which they must be performed.
///
/// The capacity is a bound that no step can pass: it sends one HOLD round and two relinquishment rounds (8 + 16 datagrams with
/// [`super::VOTERS_MAX`] voters) and one answer, decides every parked request and the one that came (10), ends two tenures (4), leaves a term
/// (1), and moves a tenure on (4). A full list is a fault in this module and stops the thread, whose lease then runs out.
#[derive(Clone, Debug)]
pub struct Effects {
    list: [Effect; Self::CAPACITY],
    len: usize,
}

impl Effects {
    /// How many effects one step can have.
    pub const CAPACITY: usize = 48;

    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: [Effect::Campaign; Self::CAPACITY], len: 0 }
    }

    /// The effects, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Effect] {
        &self.list[..self.len]
    }

    /// Walks through the effects, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Effect> {
        self.as_slice().iter()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) const fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn push(&mut self, effect: Effect) {
        assert!(self.len < Self::CAPACITY, "a step has more effects than the bound allows");
        self.list[self.len] = effect;
        self.len += 1;
    }
}

impl Default for Effects {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Effects {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Effects {}

impl<'a> IntoIterator for &'a Effects {
    type Item = &'a Effect;
    type IntoIter = std::slice::Iter<'a, Effect>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
