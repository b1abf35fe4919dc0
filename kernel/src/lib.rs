//! The lower half of lvsmesh: reads one machine's kernel and performs operations on it, over netlink, raw sockets and sysctls.
//!
//! Nothing here decides: [`lvsmesh_core::plan`] has said what to do, an [`Action`] at a time. Two things use
//! the crate in different ways:
//!
//! - the reconciler, through the trait [`Kernel`]: [`Linux`] is the real one, [`fake::FakeKernel`] keeps everything in memory and refuses
//!   what the real one refuses, with the same error numbers; one suite of tests runs against both;
//! - the lease thread, through [`route_socket`], [`gate`] and [`raw`]: blocking, pre-encoded, without allocation on the way out.
//!
//! Network namespaces: every socket, and `/proc/sys/net`, belongs to the namespace of the *thread* that opened it.
#![warn(missing_docs)]

pub mod address;
pub mod clock;
mod error;
pub mod fake;
mod fou;
pub mod gate;
pub mod gateway;
mod genl;
pub mod ipvs;
mod linux;
mod nft;
mod path;
pub mod raw;
pub mod record;
pub mod route_socket;
pub mod sysctl;
pub mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

pub use error::{Errno, KernelError, chain, ipvs_missing, load_ipvs};
pub use linux::Linux;
use lvsmesh_core::placement::NodePlan;
use lvsmesh_core::plan::globals::WantedGlobals;
use lvsmesh_core::plan::path::link_sysctls;
use lvsmesh_core::plan::{Action, Observed, Owned, ServiceKey, ServiceSpec, Sysctl, Table};

/// lvsmesh's mark on the addresses that it adds: `IFA_PROTO` 0x4C, the letter L (Linux 5.18 and later keep and show it; older kernels
/// ignore it). `rt_addrprotos(5)` gives 0 to 3 to the kernel; the rest is free.
pub const PROTOCOL_MARK: u8 = 0x4C;

/// How long the kernel may take over one answer. It answers in microseconds unless something holds its network lock.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// What an observation has to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The IPVS table; without it [`Observed::table`] is `None`.
    pub ipvs: bool,
    /// What belongs to IPVS as a whole; without it [`Observed::globals`] is `None`.
    pub globals: bool,
    /// These sysctls; one that does not exist is absent from [`Observed::sysctls`].
    pub sysctls: BTreeSet<Sysctl>,
    /// Tunnel devices, policy rules and routes.
    pub paths: bool,
    /// GUE ports.
    pub gue: bool,
    /// The nftables table of marks.
    pub marks: bool,
}

impl Scope {
    /// What has to be read in order to carry out a plan, and to undo what is recorded. `ipvs`: whether the table is asked for at all.
    #[must_use]
    pub fn of(ipvs: bool, plan: &NodePlan, owned: &Owned) -> Self {
        let paths = &plan.real_server.paths;
        let tunnels = paths.tunnels.values().flat_map(link_sysctls).map(|(name, _)| name);
        let wanted = plan.real_server.sysctls.keys().chain(plan.director.sysctls.keys());
        Self {
            ipvs,
            globals: plan.director.globals != WantedGlobals::default()
                || !owned.timeouts.is_empty()
                || !owned.daemons.is_empty(),
            sysctls: wanted.chain(owned.sysctls.keys()).cloned().chain(tunnels).collect(),
            paths: !paths.is_empty() || !owned.paths.is_empty(),
            gue: !paths.ports.is_empty() || !owned.paths.ports.is_empty(),
            marks: !plan.director.marks.is_empty() || owned.marks,
        }
    }
}

/// One machine's kernel, as the reconciler uses it.
pub trait Kernel: Send {
    /// Reads the addresses of all interfaces, and what `what` asks for.
    ///
    /// [`Observed::table`] is `None` if the kernel has no IPVS, which is no error: a realserver needs none. [`ipvs_missing`] says what to
    /// tell an operator whose node does. The parts are read one after another, not at one instant.
    ///
    /// # Errors
    ///
    /// If a request is refused, or unanswered for [`TIMEOUT`].
    fn observe(
        &mut self,
        what: &Scope,
    ) -> impl Future<Output = Result<Observed, KernelError>> + Send;

    /// Performs one operation, once, and returns when the kernel has acknowledged it.
    ///
    /// # Errors
    ///
    /// The kernel's, as it gives it. Adding what exists: `EEXIST`. Services: `ESRCH` if there is none, also for its destinations;
    /// `ENOENT` for a scheduler or persistence engine that the kernel does not have. Destinations: `ENOENT` if there is none, `ERANGE` for
    /// a lower threshold above the upper. Addresses: `ENODEV` without such an interface, `EADDRNOTAVAIL` on removing one that is not
    /// there. Sysctls: `ENOENT`. Tunnels: `EOPNOTSUPP` for a kind that the kernel does not have, `EEXIST` beside another one for the same
    /// packets. Routes: `ENETUNREACH` if the gateway is not on a network of this machine. [`KernelError::IpvsMissing`] for any IPVS operation on a kernel without IPVS.
    ///
    /// Cancelling the future leaves open whether the operation was performed; the next observation tells.
    fn perform(&mut self, action: &Action) -> impl Future<Output = Result<(), KernelError>> + Send;

    /// Performs several operations, one after another in their order, without waiting for one before the next is sent where the kernel's
    /// interface allows it. There is one outcome for each, in their order; a refusal stops none of the others.
    ///
    /// Refusals are those of [`perform`](Self::perform). Where [`KernelError::is_uncertain`], the operation may have been performed.
    ///
    /// Cancelling the future leaves open which of them were performed.
    fn perform_all(
        &mut self,
        actions: &[&Action],
    ) -> impl Future<Output = Vec<Result<(), KernelError>>> + Send;

    /// Lists the services of the IPVS table without their destinations; `None` if the kernel has no IPVS. What it costs does not depend on
    /// how many destinations there are.
    ///
    /// # Errors
    ///
    /// As [`observe`](Self::observe).
    fn services(
        &mut self,
    ) -> impl Future<Output = Result<Option<BTreeMap<ServiceKey, ServiceSpec>>, KernelError>> + Send;

    /// Reads the named services of the IPVS table, whole. One that does not exist is not in the answer, which is `None` if the kernel has
    /// no IPVS.
    ///
    /// # Errors
    ///
    /// As [`observe`](Self::observe).
    fn read_services(
        &mut self,
        keys: &BTreeSet<ServiceKey>,
    ) -> impl Future<Output = Result<Option<Table>, KernelError>> + Send;
}
