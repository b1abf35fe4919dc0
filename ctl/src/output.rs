//! What a command has to say, in the form that was asked for.

use lvsmesh_core::document::Value;

use crate::failure::{Exit, Failure};
use crate::tree::Tree;

/// Forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people; may change.
    Table,
    /// For programs; names are those of the .proto files.
    Json,
    /// As JSON.
    Yaml,
}

/// A command's end, if nothing went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// For stdout.
    pub(crate) text: String,
    /// For stderr; may be empty.
    pub(crate) complaint: String,
    /// Most often [`Exit::Done`].
    pub(crate) exit: Exit,
}

impl Done {
    /// Text for stdout, and success.
    pub(crate) fn printed(text: String) -> Self {
        Self { text, complaint: String::new(), exit: Exit::Done }
    }

    /// The same, with another exit code.
    pub(crate) fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }
}

/// Puts an answer into the form that was asked for; `table` makes the table.
pub(crate) fn present(
    format: Format,
    tree: &Value,
    table: impl FnOnce() -> String,
) -> Result<String, Failure> {
    match format {
        Format::Table => Ok(table()),
        Format::Json => json(tree),
        Format::Yaml => yaml(tree),
    }
}

fn json(tree: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(&Tree(tree))
        .map(|text| text + "\n")
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot write JSON: {error}")))
}

pub(crate) fn yaml(tree: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(&Tree(tree))
        .map(|text| if text.ends_with('\n') { text } else { text + "\n" })
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot write YAML: {error}")))
}
