//! keepalived's configuration, of any age.

mod lex;
mod merge;
mod read;
mod take;
mod translate;
mod tree;
mod words;

use std::sync::Arc;

pub(crate) use read::{Files, Text};

use super::Import;
use super::assemble::{Names, assemble};
use super::fates::Fates;
use super::report::{Fate, Place, Report};
use tree::Node;
use words::{Context, Inner};

/// One director's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// As the fleet calls the director, if that is known.
    pub(crate) name: Option<String>,
    pub(crate) text: Text,
}

/// Turns one configuration, or those of several directors of one cluster, into a document.
///
/// `id` is what keepalived is started with as `--config-id`.
pub(crate) fn import(
    sources: &[Source],
    files: &dyn Files,
    id: Option<&str>,
    names: &Names,
) -> Import {
    let mut report = Report::default();
    let mut fates = Fates::default();
    let mut directors = Vec::new();
    let mut trees = Vec::new();
    let mut order: Vec<Arc<str>> = Vec::new();
    let mut next = 0;
    for source in sources {
        let reader = read::Reader::new(files, id, next, &mut report);
        let (nodes, opened, after) = reader.read(&source.text);
        next = after;
        let label: Arc<str> = source.text.name.as_str().into();
        directors.push(take::director(source.name.clone(), &label, &nodes, &mut fates));
        trees.push(nodes);
        order.extend(opened.into_iter().filter(|file| !order.contains(file)).collect::<Vec<_>>());
    }
    let places = Places::of(&trees);
    let draft = merge::merge(directors, &places, &mut fates, &mut report);
    let document = assemble(draft, names, &mut fates, &mut report);
    for nodes in &trees {
        settle(nodes, Inner::Words(Context::Top), None, &fates, &mut report);
    }
    report.arrange(&order);
    Import { document, report }
}

/// Where each statement stands.
#[derive(Debug, Default)]
struct Places(std::collections::BTreeMap<usize, Place>);

impl Places {
    fn of(trees: &[Vec<Node>]) -> Self {
        let mut places = Self::default();
        let mut left: Vec<&Node> = trees.iter().flatten().collect();
        while let Some(node) = left.pop() {
            places.0.insert(node.id, node.place.clone());
            left.extend(&node.children);
        }
        places
    }

    /// `keepalived.conf:12`.
    fn name(&self, id: usize) -> String {
        self.0.get(&id).map(ToString::to_string).unwrap_or_default()
    }
}

/// Puts every statement into the report: with what was found out about it, else with what its word says, else as unknown.
///
/// `above` is a block's fate that its lines share, unless they have a worse one of their own.
fn settle(
    nodes: &[Node],
    inner: Inner,
    above: Option<(Fate, &str)>,
    fates: &Fates,
    report: &mut Report,
) {
    for node in nodes {
        let word = match inner {
            Inner::Words(context) => context.word(node.keyword()),
            Inner::Nothing | Inner::Lines => None,
        };
        let own = fates.get(node.id);
        let stated = match (word, inner) {
            (Some(word), _) => (word.fate, word.note),
            (None, Inner::Lines) => (Fate::Taken, ""),
            (None, Inner::Nothing) => (Fate::Unknown, "no block belongs here"),
            (None, Inner::Words(_)) => (Fate::Unknown, "keepalived has no such word here"),
        };
        let (fate, note) = match (own, above) {
            (Some(own), None) => own,
            (Some(own), Some(above)) => {
                if own.0 >= above.0 {
                    own
                } else {
                    above
                }
            }
            (None, Some(above)) => {
                if stated.0 >= above.0 {
                    stated
                } else {
                    above
                }
            }
            (None, None) => stated,
        };
        report.add(node.place.clone(), node.text(), fate, note);
        if !node.block {
            continue;
        }
        let inside = word.map_or(Inner::Lines, |word| word.inner);
        let why = format!("belongs to line {}", node.place.line);
        let shared = match inside {
            // Lines of a list have no word of their own that says anything.
            Inner::Lines if fate != Fate::Taken => Some((fate, note)),
            _ if fate.is_loss() && (own.is_some() || above.is_some() || word.is_none()) => {
                Some((fate, why.as_str()))
            }
            Inner::Lines | Inner::Nothing | Inner::Words(_) => None,
        };
        settle(&node.children, inside, shared, fates, report);
    }
}

#[cfg(test)]
mod tests;
