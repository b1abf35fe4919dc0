//! Programs that other people wrote, beside which a fleet must live.

mod frr;
mod keepalived;
mod name_server;
mod receiver;
mod tshark;

use std::path::PathBuf;
use std::process::Command;

pub use frr::Frr;
pub use keepalived::{Instance, Keepalived};
pub use name_server::NameServer;
pub use receiver::{Receiver, Span};
pub use tshark::{Dissected, Tshark};

use crate::lab::Node;
use crate::process::Process;

fn start(node: &Node, name: &str, command: &mut Command, log: PathBuf) -> Process {
    Process::start(&node.namespace, name, command, &log).unwrap_or_else(|error| panic!("{error}"))
}
