//! The pure part of lvsmesh: nothing here reads a clock, opens a socket, starts a thread or rolls dice.
//!
//! In the order in which data flows:
//!
//! 1. [`model`]: the nouns of the desired state, and [`document`]: a YAML tree becomes them, every fault with its path;
//! 2. [`command`] and [`state`]: what a log entry can ask, and the only writer of replicated state;
//! 3. [`placement`]: replicated state and one node give that node's plan;
//! 4. [`plan`]: the observed kernel and the plan give ordered operations, each with its reason;
//! 5. beside them, machines that take `(now, input)` and give effects: [`lease`] (who may hold, until when), [`check`] (up or down),
//!    [`discovery`] (what a source's answers mean), [`failback`] (when the VIPs move back); and the wire forms of [`vrrp`], [`arp`] and [`ndp`].
//!
//! What is absent is the point: no tokio, no netlink, no protobuf, no Raft, no logging, no hash maps, no randomness.
#![warn(missing_docs)]

pub mod arp;
pub mod check;
pub mod command;
pub mod discovery;
pub mod document;
pub mod failback;
pub mod lease;
pub mod membership;
pub mod model;
pub mod ndp;
pub mod placement;
pub mod plan;
pub mod state;
pub mod time;
pub mod vrrp;
