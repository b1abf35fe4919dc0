//! BIND, a name server.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::start;
use crate::lab::{Lab, Node};
use crate::pace;
use crate::process::Process;

/// A real BIND with one zone, `lab.test`.
#[derive(Debug)]
pub struct NameServer {
    process: Option<Process>,
    directory: PathBuf,
    serial: u32,
}

impl NameServer {
    /// Starts it on port 53 of a machine's address, with the zone's records as lines of a zone file.
    ///
    /// # Panics
    ///
    /// If it cannot be started (the package is missing) or does not answer within 20 s (scaled).
    #[must_use]
    pub fn start(lab: &Lab, node: &Node, records: &str) -> Self {
        let directory = lab.directory(&node.name);
        let path = directory.display();
        let config = format!(
            "options {{\n  directory \"{path}\";\n  pid-file \"{path}/named.pid\";\n  session-keyfile \"{path}/session.key\";\n  \
             listen-on port 53 {{ {}; }};\n  listen-on-v6 {{ none; }};\n  recursion no;\n  dnssec-validation no;\n}};\ncontrols {{ }};\n\
             zone \"lab.test\" {{ type primary; file \"{path}/lab.test.zone\"; }};\n",
            node.address
        );
        std::fs::write(directory.join("named.conf"), config)
            .expect("the lab's directory is writable");
        let mut server = Self { process: None, directory, serial: 0 };
        server.write(records);
        server.resume(node);
        server
    }

    /// Replaces the zone's records of a server that is down.
    ///
    /// # Panics
    ///
    /// If the lab's directory is not writable.
    pub fn write(&mut self, records: &str) {
        self.serial += 1;
        let mut zone = format!(
            "$TTL 0\n@ IN SOA ns hostmaster {} 3600 600 86400 0\n@ IN NS ns\nns IN A 127.0.0.1\n",
            self.serial
        );
        let _infallible = writeln!(zone, "{records}");
        std::fs::write(self.directory.join("lab.test.zone"), zone)
            .expect("the lab's directory is writable");
    }

    /// Replaces the zone's records and waits until they are in force.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn publish(&mut self, records: &str) {
        self.write(records);
        let process = self.process.as_ref().expect("the name server runs");
        process.signal(Signal::SIGHUP);
        let loaded = format!("zone lab.test/IN: loaded serial {}", self.serial);
        pace::eventually("the zone is loaded", Duration::from_secs(20), || {
            process.output().contains(&loaded).then_some(())
        });
    }

    /// Kills it: questions are refused from now on.
    pub fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end(Signal::SIGKILL);
        }
    }

    /// Starts it again.
    pub fn resume(&mut self, node: &Node) {
        let log = self.directory.join("named.log");
        // Only what this start says counts.
        let _absent = std::fs::remove_file(&log);
        let mut command = Command::new("named");
        command.args(["-g", "-4", "-n", "1", "-c"]).arg(self.directory.join("named.conf"));
        let process = start(node, "named", &mut command, log);
        pace::eventually("the name server runs", Duration::from_secs(20), || {
            process.output().lines().any(|line| line.ends_with(" running")).then_some(())
        });
        self.process = Some(process);
    }
}
