//! A YAML tree becomes a document.
