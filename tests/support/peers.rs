//! Programs that other people wrote, beside which a fleet must live.

mod keepalived;
mod name_server;
mod receiver;

use std::path::PathBuf;
use std::process::Command;

pub use keepalived::Keepalived;
pub use name_server::NameServer;
pub use receiver::{Receiver, Span};

use crate::lab::Node;
use crate::process::Process;

fn start(node: &Node, name: &str, command: &mut Command, log: PathBuf) -> Process {
    Process::start(&node.namespace, name, command, &log).unwrap_or_else(|error| panic!("{error}"))
}
