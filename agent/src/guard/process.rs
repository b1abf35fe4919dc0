//! The guard's own side: reads lines until the agent is gone, then cleans up.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead};
use std::path::Path;
use std::time::Duration;

use lvsmesh_core::plan::{Action, ServiceKey};
use lvsmesh_kernel::route_socket::{PreparedAddress, RouteSocket};
use lvsmesh_kernel::{Errno, Kernel, KernelError, Linux, chain};
use nix::sys::signal::{SigSet, Signal};

use super::lock::take_lock;
use super::{LOCK, Line, Vip};

/// How long a new guard waits for an old one: it has only to clean up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a guard could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum GuardFault {
    /// The lock.
    #[error("taking {LOCK} failed")]
    Lock(#[source] io::Error),
    /// The socket that removes addresses.
    #[error("opening a netlink socket failed")]
    Socket(#[source] Errno),
    /// Something is still in the kernel.
    #[error("{0} objects of a dead agent could not be removed")]
    Left(usize),
}

/// Runs the guard until the agent is gone. Call it before any thread is started: the signals that it blocks are the thread's.
///
/// # Errors
///
/// If it cannot start, or cannot remove everything.
pub fn main(run_dir: &Path) -> Result<(), GuardFault> {
    let mut deaf = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        deaf.add(signal);
    }
    if let Err(error) = deaf.thread_block() {
        tracing::warn!(%error, "the guard cannot block signals");
    }
    // Under memory pressure the agent goes first: only then is there something to do. Without the permission it is as likely as others.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::debug!(%error, "the guard cannot protect itself from the OOM killer");
    }
    let _lock = take_lock(run_dir, PATIENCE).map_err(GuardFault::Lock)?;
    let mut routes = RouteSocket::open().map_err(GuardFault::Socket)?;

    let Some(held) = listen(io::stdin().lock()) else { return Ok(()) };
    tracing::warn!(
        vips = held.vips.len(),
        services = held.services.len(),
        "the agent died; removing what it held"
    );
    match clean_up(&held, &mut routes) {
        0 => Ok(()),
        left => Err(GuardFault::Left(left)),
    }
}

/// What the agent held when it was last heard.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    vips: BTreeSet<Vip>,
    services: BTreeSet<ServiceKey>,
}

/// Reads lines until the end of the agent (what it held) or its `done` (nothing).
///
/// The pipe ends when the agent's last thread has let go of its file descriptors, so nothing it does can come after the clean-up.
fn listen(lines: impl BufRead) -> Option<Held> {
    let mut held = Held::default();
    for line in lines.lines() {
        match line.as_deref().map(str::parse) {
            Ok(Ok(Line::Hold(vip))) => {
                held.vips.insert(vip);
            }
            Ok(Ok(Line::Drop(vip))) => {
                held.vips.remove(&vip);
            }
            Ok(Ok(Line::Serve(key))) => {
                held.services.insert(key);
            }
            Ok(Ok(Line::Unserve(key))) => {
                held.services.remove(&key);
            }
            Ok(Ok(Line::Done)) => return None,
            Ok(Err(_)) => {
                tracing::warn!("the guard was told something that it does not understand");
            }
            Err(error) => {
                tracing::warn!(%error, "reading from the agent failed");
                break;
            }
        }
    }
    Some(held)
}

/// Removes addresses first: they are what attracts traffic. Returns how many objects are left.
fn clean_up(held: &Held, routes: &mut RouteSocket) -> usize {
    let mut left = 0;
    for &Vip { ifindex, address } in &held.vips {
        let mut prepared = PreparedAddress::new(ifindex, address, Duration::from_secs(1));
        if let Err(error) = routes.release(&mut prepared) {
            left += 1;
            tracing::error!(%address, ifindex, %error, "the guard could not remove a VIP");
        }
    }
    if held.services.is_empty() {
        return left;
    }
    match remove_services(&held.services) {
        Ok(failed) => left + failed,
        Err(error) => {
            tracing::error!(error = %chain(&error), "the guard could not reach IPVS");
            left + held.services.len()
        }
    }
}

fn remove_services(services: &BTreeSet<ServiceKey>) -> Result<usize, KernelError> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the guard could not start a runtime");
            return Ok(services.len());
        }
    };
    runtime.block_on(async {
        let mut kernel = Linux::open()?;
        let removals: Vec<Action> =
            services.iter().map(|key| Action::RemoveService(*key)).collect();
        let mut left = 0;
        for outcome in kernel.perform_all(&removals.iter().collect::<Vec<_>>()).await {
            match outcome {
                // ESRCH: there is none, which is the aim.
                Err(error) if error.errno() != Some(Errno::ESRCH) => {
                    left += 1;
                    tracing::error!(error = %chain(&error), "the guard could not remove a service");
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(left)
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn vip(last: u8) -> Vip {
        Vip { ifindex: 3, address: IpAddr::from([192, 0, 2, last]) }
    }

    #[test]
    fn what_is_held_at_the_end_is_what_was_held_and_not_dropped() {
        let told = "hold 3 192.0.2.1\nhold 3 192.0.2.2\nserve mark 4 7\ndrop 3 192.0.2.1\nserve mark 4 8\nunserve mark 4 7\n";
        let held = listen(told.as_bytes()).unwrap();
        assert_eq!(held.vips, BTreeSet::from([vip(2)]));
        assert_eq!(held.services, BTreeSet::from([ServiceKey::Mark { ipv6: false, mark: 8 }]));
    }

    #[test]
    fn an_agent_that_ends_on_purpose_leaves_nothing_to_do() {
        assert_eq!(listen(&b"hold 3 192.0.2.1\ndone\n"[..]), None);
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        let held = listen(&b"hold 3 192.0.2.1\nfly\n\nhold 3 192.0.2.2\n"[..]).unwrap();
        assert_eq!(held.vips, BTreeSet::from([vip(1), vip(2)]));
    }
}
