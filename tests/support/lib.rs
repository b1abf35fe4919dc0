//! Fleets in network namespaces, made and watched from one process.
//!
//! ```text
//!   Lab      namespaces, a switch between them, links that can be cut        netns, link, lab
//!   Fleet    agents, certificates, lvsctl, on the nodes of a lab             pki, agent, ctl, fleet
//!   peers    keepalived, FRR, tshark, a name server, an OTLP receiver                     process, peers
//!   load     pages and their clients, open connections, one datagram a millisecond  pages, connections, probe
//!   truth    frames at the switch, route events and addresses in a node      capture, monitor, link, watcher
//! ```
//!
//! Everything ends with the value that made it, also when a test panics: a namespace lives as long as its descriptor, and a process that is
//! still inside one when its lab ends is killed by its pid. Nothing waits for a fixed time: [`pace::eventually`] waits for a condition, and
//! its deadline grows with `LVSMESH_SLOW` where the kernel under test is an emulated one.
//!
//! The programs under test are the ones beside the test program (`target/debug/lvs-agent`, `lvsctl`): build the workspace first.

pub mod agent;
pub mod capture;
pub mod connections;
pub mod ctl;
pub mod document;
pub mod fleet;
pub mod lab;
pub mod link;
pub mod monitor;
pub mod netns;
pub mod pace;
pub mod pages;
pub mod peers;
pub mod pki;
pub mod probe;
pub mod process;
pub mod reference;
pub mod watcher;

pub use fleet::Fleet;
pub use lab::Lab;
pub use pace::{eventually, scaled};
