//! Which words of a document older versions do not know.
//!
//! A node that meets a word that it does not know in a committed entry cannot go on: it would disagree with the others. So no such word is
//! committed before every node knows it. Versions are compared by one number, the feature level, which grows with each release that adds
//! words to the document or fields to the log.

use crate::model::{Document, Failback, NoQuorum};

/// The feature level of this version.
///
/// - 1: everything up to the release that did not say its level.
/// - 2: `fleet.failback: delayed | immediate` with `failback_delay`; `fleet.no_quorum` other than `strict`, `vips[].arbiters`.
pub const LEVEL: u32 = 2;

/// The level of versions that do not say it.
pub const FIRST_LEVEL: u32 = 1;

/// A word that not every version knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Where it stands: `fleet.failback`.
    pub path: String,
    /// As it is written there.
    pub word: String,
    /// The first feature level that knows it.
    pub level: u32,
}

/// Every word of the document that is newer than [`FIRST_LEVEL`].
#[must_use]
pub fn needs(document: &Document) -> Vec<Need> {
    let fleet = &document.fleet;
    let mut needs = Vec::new();
    let mut need = |path: &str, word: &str, level| {
        needs.push(Need { path: path.to_owned(), word: word.to_owned(), level });
    };
    if fleet.failback != Failback::Never {
        need("fleet.failback", fleet.failback.name(), 2);
    }
    if fleet.no_quorum != NoQuorum::Strict {
        need("fleet.no_quorum", fleet.no_quorum.name(), 2);
    }
    for (index, vip) in document.vips.iter().enumerate() {
        if let Some(arbiter) = vip.arbiters.first() {
            need(&format!("vips[{index}].arbiters"), &arbiter.to_string(), 2);
        }
    }
    needs
}

/// The feature level that a node must have to read the document.
#[must_use]
pub fn level(document: &Document) -> u32 {
    needs(document).iter().map(|need| need.level).max().unwrap_or(FIRST_LEVEL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Fleet;

    #[test]
    fn a_word_that_older_versions_do_not_know_is_named() {
        let with = |failback| Document {
            fleet: Fleet { failback, ..Fleet::default() },
            ..Document::default()
        };
        assert_eq!((needs(&with(Failback::Never)), level(&with(Failback::Never))), (vec![], 1));
        for failback in [Failback::Immediate, Failback::Delayed(Failback::DELAY)] {
            let need =
                Need { path: "fleet.failback".into(), word: failback.name().into(), level: 2 };
            assert_eq!((needs(&with(failback)), level(&with(failback))), (vec![need], 2));
        }
        for no_quorum in NoQuorum::ALL {
            let fleet = Fleet { no_quorum, ..Fleet::default() };
            let document = Document { fleet, ..Document::default() };
            let expected = if no_quorum == NoQuorum::Strict { 1 } else { 2 };
            assert_eq!(level(&document), expected, "{no_quorum:?}");
        }
        assert!(level(&with(Failback::Immediate)) <= LEVEL, "this version knows its own words");
    }
}
