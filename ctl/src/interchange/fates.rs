//! What became of each statement, by its id, while it is still being found out.

use std::collections::BTreeMap;

use super::report::Fate;

/// Fates that differ from what a statement's word says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fates(BTreeMap<usize, (Fate, String)>);

impl Fates {
    /// Says what became of a statement. Of several sayings the one that an operator should care about most stands, the first of equals.
    pub(crate) fn set(&mut self, id: usize, fate: Fate, note: impl Into<String>) {
        match self.0.get(&id) {
            Some((before, _)) if *before >= fate => {}
            Some(_) | None => {
                self.0.insert(id, (fate, note.into()));
            }
        }
    }

    pub(crate) fn wrong(&mut self, id: usize, note: impl Into<String>) {
        self.set(id, Fate::Wrong, note);
    }

    pub(crate) fn changed(&mut self, id: usize, note: impl Into<String>) {
        self.set(id, Fate::Changed, note);
    }

    pub(crate) fn unsupported(&mut self, id: usize, note: impl Into<String>) {
        self.set(id, Fate::Unsupported, note);
    }

    pub(crate) fn get(&self, id: usize) -> Option<(Fate, &str)> {
        self.0.get(&id).map(|(fate, note)| (*fate, note.as_str()))
    }
}
