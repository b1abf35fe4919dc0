//! What a new document changed, found once when it is applied, so that whoever follows one state after another need not look for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::Document;

/// The names of pools and services that were added, changed or removed. It follows from the documents and is no part of what is agreed: a state
/// that came out of a snapshot has none and is the same state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Step(Option<Arc<Known>>);

#[derive(Debug)]
struct Known {
    /// The document before; kept, so that no other one can be at its address.
    before: Arc<Document>,
    pools: BTreeSet<String>,
    services: BTreeSet<String>,
}

impl Step {
    pub(super) fn between(before: &Arc<Document>, after: &Document) -> Self {
        let pools = differing(&before.pools, &after.pools, |pool| &pool.name);
        let services = differing(&before.services, &after.services, |service| &service.name);
        Self(Some(Arc::new(Known { before: Arc::clone(before), pools, services })))
    }

    /// The names of pools and of services that are not what they were in `document`; `None` if that is not the one before.
    pub(crate) fn since(
        &self,
        document: &Arc<Document>,
    ) -> Option<(&BTreeSet<String>, &BTreeSet<String>)> {
        let known = self.0.as_ref().filter(|known| Arc::ptr_eq(&known.before, document))?;
        Some((&known.pools, &known.services))
    }
}

impl PartialEq for Step {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Step {}

fn differing<T: PartialEq>(before: &[T], after: &[T], name: fn(&T) -> &String) -> BTreeSet<String> {
    let old: BTreeMap<&String, &T> = before.iter().map(|item| (name(item), item)).collect();
    let new: BTreeSet<&String> = after.iter().map(name).collect();
    let changed = after.iter().filter(|item| old.get(name(item)) != Some(item)).map(name);
    let removed = before.iter().map(name).filter(|name| !new.contains(name));
    changed.chain(removed).cloned().collect()
}
