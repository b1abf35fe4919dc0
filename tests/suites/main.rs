//! One suite for everything that calls itself a kernel: the one in memory, so that tests built on it mean something, and Linux.
//!
//! Linux is asked inside a network namespace of the test's own, on a thread of its own. Names tell what a test needs of the machine:
//! `fake_` nothing, `linux_` root, `ipvs_` root and a kernel with IPVS: without it they fail, so the runner selects them where there is one.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, in its helpers too")]

mod addresses;
mod config;
mod events;
mod gate;
mod golden;
mod ipvs;
mod ipvsadm;
mod lease_plane;
mod listing;
mod marks;
mod namespace;
mod plans;
mod questions;

use std::net::SocketAddr;

use lvsmesh_core::plan::Action;
use lvsmesh_kernel::{Errno, Kernel, KernelError};

/// Performs an action that must succeed.
#[track_caller]
fn done(action: &Action, outcome: Result<(), KernelError>) {
    if let Err(error) = outcome {
        panic!("{action:?}: {}", lvsmesh_kernel::chain(&error));
    }
}

/// Checks that an action was refused, and how.
#[track_caller]
fn refused(why: &str, outcome: Result<(), KernelError>, errno: Errno) {
    match outcome {
        Ok(()) => panic!("{why}: the kernel took it; expected {errno}"),
        Err(error) => assert_eq!(error.errno(), Some(errno), "{why}: {error}"),
    }
}

/// Performs actions that must all succeed, in order.
async fn perform<K: Kernel>(kernel: &mut K, actions: impl IntoIterator<Item = Action>) {
    for action in actions {
        let outcome = kernel.perform(&action).await;
        done(&action, outcome);
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}
