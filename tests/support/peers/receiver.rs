//! Rotel, an OTLP receiver.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::start;
use crate::lab::{Lab, Node};
use crate::pace;
use crate::process::Process;

/// Rotel, from its wheel, in the virtual environment that `tests/run` makes.
#[derive(Debug)]
pub struct Receiver {
    process: Process,
    /// What to tell exporters.
    pub endpoint: String,
}

impl Receiver {
    /// Starts it on a machine and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it is not installed, or does not listen within 20 s (scaled).
    #[must_use]
    pub fn start(lab: &Lab, node: &Node) -> Self {
        let (grpc, http) = (format!("{}:4317", node.address), format!("{}:4318", node.address));
        let mut command = Command::new(rotel());
        command.args(["start", "--otlp-grpc-endpoint", &grpc, "--otlp-http-endpoint", &http]);
        command.args([
            "--exporter",
            "blackhole",
            "--debug-log",
            "traces",
            "--debug-log-verbosity",
            "detailed",
        ]);
        let process =
            start(node, "rotel", &mut command, lab.directory(&node.name).join("rotel.log"));
        pace::eventually("the OTLP receiver listens", Duration::from_secs(20), || {
            node.namespace.inside(|| std::net::TcpStream::connect(&grpc)).ok()
        });
        Self { process, endpoint: format!("http://{grpc}") }
    }

    /// The spans that have arrived.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        spans(&self.process.output())
    }
}

/// A span, as the receiver printed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Hexadecimal.
    pub trace: String,
    /// Hexadecimal.
    pub id: String,
    /// Hexadecimal; empty for a root.
    pub parent: String,
    /// What was done.
    pub name: String,
    /// What it was done to.
    pub attributes: BTreeMap<String, String>,
    /// Who did it: `service.name`, `service.instance.id` and so on.
    pub resource: BTreeMap<String, String>,
}

fn rotel() -> PathBuf {
    let ours = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/venv"));
    let root = std::env::var_os("LVSMESH_VENV").map_or_else(ours, PathBuf::from);
    let pythons = std::fs::read_dir(root.join("lib")).into_iter().flatten().filter_map(Result::ok);
    let found = pythons
        .map(|python| python.path().join("site-packages/rotel/rotel-agent"))
        .find(|file| file.is_file());
    found.unwrap_or_else(|| {
        let root = root.display();
        panic!("no rotel in {root}: tests/run puts it there, as do `python3 -m venv {root}` and `{root}/bin/pip install rotel`")
    })
}

/// Reads what Rotel prints of traces with `--debug-log-verbosity detailed`.
fn spans(text: &str) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut resource = BTreeMap::new();
    let mut in_resource = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("ResourceSpans #") {
            resource = BTreeMap::new();
            in_resource = true;
        } else if line.starts_with("ScopeSpans #") {
            in_resource = false;
        } else if line.starts_with("Span #") {
            spans.push(Span { resource: resource.clone(), ..Span::default() });
        } else if let Some((name, value)) =
            line.strip_prefix("-> ").and_then(|pair| pair.split_once(": "))
        {
            // `Str(lvs-1)`: the kind of the value does not matter here.
            let value = value
                .split_once('(')
                .and_then(|(_, value)| value.strip_suffix(')'))
                .unwrap_or(value);
            let attributes = if in_resource {
                Some(&mut resource)
            } else {
                spans.last_mut().map(|span| &mut span.attributes)
            };
            if let Some(attributes) = attributes {
                attributes.insert(name.to_owned(), value.to_owned());
            }
        } else if let (Some((name, value)), Some(span)) = (line.split_once(':'), spans.last_mut()) {
            let field = match name.trim() {
                "Trace ID" => &mut span.trace,
                "Parent ID" => &mut span.parent,
                "ID" => &mut span.id,
                "Name" => &mut span.name,
                _ => continue,
            };
            value.trim().clone_into(field);
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rotel 0.0.1a15, `--debug-log traces --debug-log-verbosity detailed`, 2026-11-22; shortened.
    const PRINTED: &str = "ResourceSpans #0
Resource SchemaURL:
Resource attributes:
     -> service.instance.id: Str(lvs-1)
     -> service.name: Str(lvs-agent)
ScopeSpans #0
ScopeSpans SchemaURL:
InstrumentationScope x
Span #0
    Trace ID       : 4d356d8af8302d0261cf89d6ba41ca44
    Parent ID      : 16a3e12c21d57277
    ID             : 9888a846f6c4ab27
    Name           : raft.propose
    Kind           : SPAN_KIND_INTERNAL
Start time: 1795374199403854460
    Status code    : STATUS_CODE_UNSET
    Status message :
Attributes:
     -> revision: Int(3)
";

    #[test]
    fn a_span_is_read_with_its_parent_and_its_resource() {
        let spans = spans(PRINTED);
        assert_eq!(spans.len(), 1);
        assert_eq!(spans[0].name, "raft.propose");
        assert_eq!(spans[0].trace, "4d356d8af8302d0261cf89d6ba41ca44");
        assert_eq!(
            (spans[0].id.as_str(), spans[0].parent.as_str()),
            ("9888a846f6c4ab27", "16a3e12c21d57277")
        );
        assert_eq!(spans[0].resource["service.instance.id"], "lvs-1");
        assert_eq!(spans[0].attributes["revision"], "3");
    }
}
