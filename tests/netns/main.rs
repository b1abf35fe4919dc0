//! Real agents between network namespaces, on any Linux: what needs no IPVS.
//!
//! A document with a VIP and no service floats that VIP on a kernel without IPVS too; with a service, its directors are not eligible there, and
//! say so. Everything about forwarding is in the `lab` suite.

mod beside;
mod disasters;
mod discovery;
mod documents;
mod drift;
mod failback;
mod gate;
mod groups;
mod guard;
mod holder;
mod identity;
mod interchange;
mod ipv6;
mod keepalived;
mod machines;
mod members;
mod migration;
mod odd;
mod others;
mod quiet;
mod responder;
mod timing;
mod trace;
mod upgrade;
mod watcher;
mod without_quorum;
