//! Wireshark's dissector, as a judge of what is on the wire.

use std::process::Command;

use super::start;
use crate::lab::{Lab, Node};
use crate::process::Process;

/// A running tshark that dissects VRRP on `eth0` of a node.
#[derive(Debug)]
pub struct Tshark {
    process: Process,
}

/// An advert as the dissector sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dissected {
    /// Sender.
    pub source: String,
    /// Receiver, or group.
    pub destination: String,
    /// TTL or hop limit.
    pub ttl: String,
    /// 2 or 3.
    pub version: String,
    /// Virtual router id.
    pub vrid: String,
    /// Priority.
    pub priority: String,
    /// Addresses, as counted.
    pub count: String,
    /// 1: the checksum is right.
    pub checksum: String,
    /// What it complains of.
    pub complaints: String,
}

const FIELDS: [&str; 12] = [
    "ip.src",
    "ipv6.src",
    "ip.dst",
    "ipv6.dst",
    "ip.ttl",
    "ipv6.hlim",
    "vrrp.version",
    "vrrp.virt_rtr_id",
    "vrrp.prio",
    "vrrp.addr_count",
    "vrrp.checksum.status",
    "_ws.expert.message",
];

impl Tshark {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// If it cannot be started: the package is missing.
    #[must_use]
    pub fn start(lab: &Lab, node: &Node) -> Self {
        let directory = lab.directory(&node.name);
        let mut command = Command::new("tshark");
        command.args(["-i", "eth0", "-n", "-l", "-Q", "-f", "ip proto 112 or ip6 proto 112"]);
        command.args(["-T", "fields", "-E", "separator=|", "-E", "occurrence=a"]);
        command.args(FIELDS.iter().flat_map(|field| ["-e", field]));
        // Nobody's preferences but these.
        command.env("HOME", &directory);
        Self { process: start(node, "tshark", &mut command, directory.join("tshark.log")) }
    }

    /// What it has seen until now.
    #[must_use]
    pub fn adverts(&self) -> Vec<Dissected> {
        let output = self.process.output();
        output.lines().filter_map(dissected).collect()
    }

    /// Everything it said.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }
}

fn dissected(line: &str) -> Option<Dissected> {
    let values: Vec<&str> = line.split('|').collect();
    let [v4, v6, to_v4, to_v6, ttl, hops, version, vrid, priority, count, checksum, complaints] =
        values[..]
    else {
        return None;
    };
    let one = |v4: &str, v6: &str| if v4.is_empty() { v6.to_owned() } else { v4.to_owned() };
    Some(Dissected {
        source: one(v4, v6),
        destination: one(to_v4, to_v6),
        ttl: one(ttl, hops),
        version: version.to_owned(),
        vrid: vrid.to_owned(),
        priority: priority.to_owned(),
        count: count.to_owned(),
        checksum: checksum.to_owned(),
        complaints: complaints.to_owned(),
    })
}
