//! `lvsctl`, run on a machine of a lab, and what it says.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde::Deserialize;

use crate::netns::Namespace;
use crate::pki::Files;
use crate::process::program;

/// Where lvsctl runs, whom it asks, and as whom.
#[derive(Clone, Debug)]
pub struct Lvsctl {
    /// Where it runs.
    pub namespace: Namespace,
    /// `ADDRESS:PORT` of agents, tried in this order.
    pub endpoints: Vec<String>,
    /// An operator's certificate; none: `--insecure`.
    pub identity: Option<Files>,
    /// For the documents that it applies.
    pub directory: PathBuf,
    /// An OTLP receiver for its own spans.
    pub otlp: Option<String>,
}

/// How a run of lvsctl ended.
#[derive(Clone, Debug)]
pub struct Run {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it complained about.
    pub err: String,
}

impl Run {
    /// Expects success and returns what was printed.
    ///
    /// # Panics
    ///
    /// With any other exit code than 0.
    #[must_use]
    pub fn succeeded(self) -> String {
        assert_eq!(self.code, 0, "lvsctl failed\n{}{}", self.out, self.err);
        self.out
    }
}

impl Lvsctl {
    /// Runs lvsctl to its end.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(program("lvsctl"));
        for endpoint in &self.endpoints {
            command.arg("--endpoint").arg(endpoint);
        }
        match &self.identity {
            Some(Files { ca, cert, key }) => {
                command.arg("--ca").arg(ca).arg("--cert").arg(cert).arg("--key").arg(key);
            }
            None => {
                command.arg("--insecure");
            }
        }
        if let Some(endpoint) = &self.otlp {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        }
        command.args(arguments).env("HOME", &self.directory).env_remove("LVSCTL_ENDPOINTS");
        let Output { status, stdout, stderr } =
            self.namespace.inside(|| command.output()).expect("lvsctl can be started");
        Run {
            code: status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&stdout).into_owned(),
            err: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// `lvsctl apply -f` of a text, with more arguments.
    ///
    /// # Panics
    ///
    /// If the document cannot be written.
    #[must_use]
    pub fn apply(&self, document: &str, more: &[&str]) -> Run {
        let file = self.directory.join("document.yaml");
        std::fs::write(&file, document).expect("the lab's directory is writable");
        let file = file.to_string_lossy();
        let mut arguments = vec!["apply", "-f", &file];
        arguments.extend(more);
        self.run(&arguments)
    }

    /// `lvsctl status -o json`, if any agent answers.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        let run = self.run(&["status", "-o", "json"]);
        // A fleet without a quorum has a status too, and an exit code of its own.
        serde_json::from_str(&run.out).ok()
    }
}

/// `lvsctl status -o json`, as far as tests look at it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "the fields are StatusResponse's in control.proto, which explains them"
)]
pub struct Status {
    pub fleet: String,
    pub leader: String,
    pub quorum: bool,
    pub revision: u64,
    pub vips: Vec<VipStatus>,
    pub services: Vec<ServiceStatus>,
    pub nodes: Vec<NodeStatus>,
    pub warnings: Vec<String>,
    pub pools: Vec<PoolStatus>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are VipStatus's in control.proto, which explains them")]
pub struct VipStatus {
    pub name: String,
    pub holder: String,
    pub epoch: u64,
    pub promise_ms: u64,
    pub gated: bool,
    pub ungated_reason: String,
    pub also_on: Vec<String>,
    pub authority: String,
    pub failback: Option<FailbackStatus>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "the fields are FailbackStatus's in control.proto, which explains them"
)]
pub struct FailbackStatus {
    pub to: String,
    pub waits_for: String,
    pub remaining_ms: u64,
    pub reason: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "the fields are ServiceStatus's in control.proto, which explains them"
)]
pub struct ServiceStatus {
    pub name: String,
    pub ready: u32,
    pub total: u32,
    pub real_servers: Vec<RealServerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "the fields are RealServerStatus's in control.proto, which explains them"
)]
pub struct RealServerStatus {
    pub address: String,
    pub weight: u32,
    pub serving: bool,
    pub node: String,
    pub reason: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "the fields are PoolStatus's in control.proto, which explains them"
)]
pub struct PoolStatus {
    pub name: String,
    pub source: String,
    pub state: String,
    pub reason: String,
    pub real_servers: u32,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
#[expect(
    missing_docs,
    reason = "the fields are NodeStatus's in control.proto, which explains them"
)]
pub struct NodeStatus {
    pub id: u64,
    pub name: String,
    pub raft: String,
    pub reachable: bool,
    pub revision: u64,
    pub converged: bool,
    pub warnings: Vec<String>,
    pub foreign: Vec<String>,
    pub drift_repaired: u64,
    pub last_drift: String,
    pub operations: u64,
}

impl Status {
    /// A node by its name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeStatus> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Everything that it warns of, the fleet's and the nodes', in one text.
    #[must_use]
    pub fn complaints(&self) -> String {
        let nodes = self.nodes.iter().flat_map(|node| &node.warnings);
        self.warnings.iter().chain(nodes).map(|line| format!("{line}\n")).collect()
    }
}
