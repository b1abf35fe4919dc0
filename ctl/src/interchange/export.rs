//! A document becomes another program's configuration.

pub(crate) mod ipvsadm;
pub(crate) mod keepalived;

/// A configuration, and what of the document it cannot say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exported {
    pub(crate) text: String,
    /// A line each.
    pub(crate) notes: Vec<String>,
}

#[cfg(test)]
mod tests;
