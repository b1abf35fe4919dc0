//! The daemon: owns every socket, clock, task and file; decides as little as it can.
//!
//! ```text
//!   peers ══ api/peer ══▶ raft::transport ─▶ ┌──────────────┐  gate, view, voters   ┌───────────────┐
//!   lvsctl ═ api/control ▶ writes ─────────▶ │ raft thread  │ ────────────────────▶ │ lease thread  │══ UDP, ARP, VRRP
//!                                            │ node, driver │ ◀──────────────────── │ core::lease   │── own netlink: VIP
//!   duties (leader only):                    └──────┬───────┘  pass, campaign, down └──────┬────────┘
//!    health, discovery, membership ─ propose ▲      │ watch<Arc<State>>        watch<Tenure>│   ▲ TableReady, Standing
//!                                                   ▼                                      ▼   │
//!                                            ┌─────────────────────────────────────────────────────┐
//!                                            │ reconcile: observe ─▶ core::plan ─▶ perform ─▶ record │─▶ watch<NodeReport>
//!                                            └─────────────────────────────────────────────────────┘        │
//!                                             report: readiness transitions to the leader ◀─────────────────┘
//! ```
//!
//! Every task has one owner ([`app`]) that joins it; every channel says its depth and what happens when it is full.

pub mod api;
pub mod app;
pub mod belonging;
pub mod bootstrap;
pub mod config;
pub mod discovery;
pub mod duties;
pub mod failback;
#[cfg(test)]
mod fixtures;
pub mod guard;
pub mod handover;
pub mod health;
pub mod identity;
mod leading;
pub mod lease;
pub mod links;
pub mod owned;
pub mod raft;
pub mod reconcile;
pub mod recover;
pub mod report;
pub mod roster;
pub mod seen;
pub mod standing;
pub mod telemetry;
pub mod tls;
pub mod writes;
