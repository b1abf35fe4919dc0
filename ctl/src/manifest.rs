//! A file becomes a document, or a list of everything that is wrong with it, before anybody is asked.

use std::io::Read as _;
use std::path::Path;

use lvsmesh_core::document::{self, Value};
use lvsmesh_core::model::Document;
use serde_saphyr::DuplicateKeyPolicy;

use crate::failure::{Exit, Failure};
use crate::tree::Parsed;

/// Reads the document in `path`, or on standard input if that is `-`.
pub(crate) fn read(path: &Path) -> Result<Document, Failure> {
    let (name, text) = text(path)?;
    let tree = parse(&name, &text)?;
    document::decode(&tree).map_err(|faults| Failure::faults(&name, &faults))
}

/// The text in `path`, or on standard input if that is `-`, with what messages call it.
pub(crate) fn text(path: &Path) -> Result<(String, String), Failure> {
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text);
        ("standard input".to_owned(), read.map(|_| text))
    } else {
        (path.display().to_string(), std::fs::read_to_string(path))
    };
    let text =
        text.map_err(|error| Failure::new(Exit::Failed, format!("cannot read {name}: {error}")))?;
    Ok((name, text))
}

/// Reads YAML, of which JSON is a part. A key that is there twice stays in the tree, so that it is reported with all other faults.
fn parse(name: &str, text: &str) -> Result<Value, Failure> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // `no` is a word, not a truth value (YAML 1.2).
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Parsed>(text, options).map(|Parsed(tree)| tree).map_err(
        |error| {
            let place = error
                .location()
                .map(|at| format!("{name}:{}:{}", at.line(), at.column()))
                .unwrap_or_else(|| name.to_owned());
            let text = error.without_snippet().to_string();
            let first = text.lines().next().unwrap_or_default();
            Failure::new(Exit::Failed, format!("{place}: not valid YAML: {first}"))
        },
    )
}

#[cfg(test)]
mod tests;
