//! A kernel in memory: it keeps what is put into it and refuses what Linux refuses, with the same error numbers.

mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lvsmesh_core::model::Scheduler;
use lvsmesh_core::plan::globals::Timeouts;
use lvsmesh_core::plan::{
    Action, Address, Destination, Globals, Method, Observed, ServiceKey, ServiceSpec, SyncDaemon,
    Sysctl, Table, VirtualService,
};
use lvsmesh_core::plan::{marks, path};

use crate::error::{Errno, KernelError, describe};
use crate::{Kernel, Scope};

/// A kernel in memory. Clones share it: a test keeps one, to change things behind the agent's back and to see what the agent did.
#[derive(Clone, Debug)]
pub struct FakeKernel {
    state: Arc<Mutex<FakeState>>,
}

/// What a [`FakeKernel`] holds; tests may change all of it.
#[derive(Clone, Debug)]
pub struct FakeState {
    /// The IPVS table; `None`: a kernel without IPVS.
    pub table: Option<Table>,
    /// Timeouts and daemons of IPVS.
    pub globals: Globals,
    /// Network interfaces.
    pub interfaces: BTreeSet<String>,
    /// Their addresses.
    pub addresses: BTreeSet<Address>,
    /// Sysctls that exist.
    pub sysctls: BTreeMap<Sysctl, i64>,
    /// Tunnels' ends and ways back.
    pub paths: path::Seen,
    /// Firewall marks; absent at first.
    pub marks: marks::Seen,
    /// Operations that succeeded, in order.
    pub performed: Vec<Action>,
    /// Operations to come before one fails (0: the next), and with which error; then it is `None` again.
    pub fail_after: Option<(usize, Errno)>,
    /// Schedulers of which this kernel has no module: whatever names one is refused.
    pub missing_schedulers: BTreeSet<String>,
    /// The next observation, of whatever part, fails with this; then it is `None` again.
    pub fail_observation: Option<Errno>,
    /// Operations from here on of which the answers are lost: they are performed, and reported as uncertain (`ENOBUFS`).
    pub lose_answers: usize,
    /// Operations to come before the process dies: from then on nothing is performed and nothing answered. `None`: it lives.
    pub dies_after: Option<usize>,
    /// What was read of the table, for tests of how little that is.
    pub reads: Reads,
    /// How many times everything else was read.
    pub host_reads: usize,
}

/// What was read of the table since this was last set to its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// The whole table, this many times.
    pub whole: usize,
    /// The list of services, this many times.
    pub lists: usize,
    /// Single services, in order.
    pub services: Vec<ServiceKey>,
}

impl FakeKernel {
    /// A kernel with IPVS, `lo` with its own addresses, the other `interfaces`, and for each of them, `all` and `default` the sysctls
    /// `arp_ignore` and `arp_announce` at 0 and `send_redirects` at 1; it does not route; and the settings of IPVS at their defaults.
    #[must_use]
    pub fn new(interfaces: &[&str]) -> Self {
        let mut state = FakeState {
            table: Some(Table::new()),
            globals: Globals {
                timeouts: Timeouts { tcp: 900, tcp_fin: 120, udp: 300 },
                daemons: vec![],
            },
            interfaces: interfaces.iter().copied().chain(["lo"]).map(Into::into).collect(),
            addresses: BTreeSet::new(),
            sysctls: BTreeMap::new(),
            paths: path::Seen { ports: Some(BTreeMap::new()), ..path::Seen::default() },
            marks: marks::Seen::Absent,
            performed: Vec::new(),
            fail_after: None,
            missing_schedulers: BTreeSet::new(),
            fail_observation: None,
            lose_answers: 0,
            dies_after: None,
            reads: Reads::default(),
            host_reads: 0,
        };
        for (address, prefix) in [(IpAddr::from([127, 0, 0, 1]), 8), (IpAddr::from(LOOPBACK6), 128)]
        {
            let interface = "lo".into();
            state.addresses.insert(Address { interface, address, prefix, marked: false });
        }
        for interface in state.interfaces.iter().map(String::as_str).chain(["all", "default"]) {
            for (key, value) in [("arp_ignore", 0), ("arp_announce", 0), ("send_redirects", 1)] {
                state.sysctls.insert(Sysctl(format!("net/ipv4/conf/{interface}/{key}")), value);
            }
        }
        for name in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            state.sysctls.insert(Sysctl(name.into()), 0);
        }
        for setting in lvsmesh_core::model::ipvs::SETTINGS {
            let name = Sysctl(format!("net/ipv4/vs/{}", setting.name));
            state.sysctls.insert(name, setting.default);
        }
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The same kernel, without IPVS.
    #[must_use]
    pub fn without_ipvs(self) -> Self {
        let mut state = self.state();
        state.table = None;
        state.sysctls.retain(|name, _| !name.0.starts_with("net/ipv4/vs/"));
        drop(state);
        self
    }

    /// What it holds, locked while the guard lives: drop it before the next `await`.
    pub fn state(&self) -> MutexGuard<'_, FakeState> {
        // A test that panicked while it held the lock has failed already; the others may go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the `nth` operation from here on fail with `errno`; 1 is the next one. It changes nothing then.
    ///
    /// # Panics
    ///
    /// If `nth` is 0.
    pub fn fail(&self, nth: usize, errno: Errno) {
        assert!(nth > 0, "operations are counted from 1");
        self.state().fail_after = Some((nth - 1, errno));
    }
}

const LOOPBACK6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

impl Kernel for FakeKernel {
    async fn observe(&mut self, what: &Scope) -> Result<Observed, KernelError> {
        let mut state = self.state();
        state.readable("addresses")?;
        state.reads.whole += usize::from(what.ipvs);
        state.host_reads += 1;
        Ok(Observed {
            table: if what.ipvs { state.table.clone() } else { None },
            addresses: state.addresses.clone(),
            globals: state.table.as_ref().filter(|_| what.globals).map(|_| state.globals.clone()),
            sysctls: what
                .sysctls
                .iter()
                .filter_map(|name| Some((name.clone(), *state.sysctls.get(name)?)))
                .collect(),
            marks: if what.marks { state.marks.clone() } else { marks::Seen::Unasked },
            paths: path::Seen {
                ports: state.paths.ports.clone().filter(|_| what.gue),
                ..if what.paths { state.paths.clone() } else { path::Seen::default() }
            },
        })
    }

    async fn perform(&mut self, action: &Action) -> Result<(), KernelError> {
        let mut state = self.state();
        match &mut state.dies_after {
            Some(0) => return Err(silence(action)),
            Some(left) => *left -= 1,
            None => {}
        }
        let outcome = match state.fail_after.take() {
            Some((0, errno)) => Err(Refusal::Errno(errno)),
            later => {
                state.fail_after = later.map(|(left, errno)| (left - 1, errno));
                state.apply(action)
            }
        };
        match outcome {
            Ok(()) => {
                state.performed.push(action.clone());
                if state.lose_answers > 0 {
                    state.lose_answers -= 1;
                    let (operation, object) = describe(action);
                    return Err(KernelError::refused(operation, object, Errno::ENOBUFS));
                }
                Ok(())
            }
            Err(Refusal::NoIpvs) => Err(KernelError::IpvsMissing),
            Err(Refusal::Errno(errno)) => {
                let (operation, object) = describe(action);
                Err(KernelError::refused(operation, object, errno))
            }
        }
    }

    async fn perform_all(&mut self, actions: &[&Action]) -> Vec<Result<(), KernelError>> {
        let mut outcomes = Vec::with_capacity(actions.len());
        for action in actions {
            outcomes.push(self.perform(action).await);
        }
        outcomes
    }

    async fn services(&mut self) -> Result<Option<BTreeMap<ServiceKey, ServiceSpec>>, KernelError> {
        let mut state = self.state();
        state.readable("IPVS services")?;
        state.reads.lists += 1;
        let table = state.table.as_ref();
        Ok(table
            .map(|table| table.iter().map(|(key, service)| (*key, service.spec.clone())).collect()))
    }

    async fn read_services(
        &mut self,
        keys: &BTreeSet<ServiceKey>,
    ) -> Result<Option<Table>, KernelError> {
        let mut state = self.state();
        state.readable("IPVS services")?;
        state.reads.services.extend(keys);
        let table = state.table.as_ref();
        Ok(table.map(|table| {
            let named = keys.iter().filter_map(|key| Some((*key, table.get(key)?.clone())));
            named.collect()
        }))
    }
}

fn silence(action: &Action) -> KernelError {
    let (operation, object) = describe(action);
    KernelError::TimedOut { operation, object, after: crate::TIMEOUT }
}

enum Refusal {
    NoIpvs,
    Errno(Errno),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl FakeState {
    fn readable(&mut self, object: &str) -> Result<(), KernelError> {
        match self.fail_observation.take() {
            Some(errno) => Err(KernelError::refused("list", object, errno)),
            None if self.dies_after == Some(0) => Err(KernelError::TimedOut {
                operation: "list",
                object: object.into(),
                after: crate::TIMEOUT,
            }),
            None => Ok(()),
        }
    }

    fn apply(&mut self, action: &Action) -> Result<(), Refusal> {
        match action {
            Action::AddService(key, spec) => self.add_service(*key, spec),
            Action::SetService(key, spec) => {
                self.service(*key)?;
                self.valid_spec(*key, spec)?;
                self.service(*key)?.spec = spec.clone();
                Ok(())
            }
            Action::RemoveService(key) => {
                self.service(*key)?;
                self.table()?.remove(key);
                Ok(())
            }
            Action::AddDestination(key, real, settings) => {
                let service = self.service(*key)?;
                valid_destination(*key, *real, settings)?;
                if service.destinations.contains_key(real) {
                    return Err(Errno::EEXIST.into());
                }
                service.destinations.insert(*real, *settings);
                Ok(())
            }
            Action::SetDestination(key, real, settings) => {
                let service = self.service(*key)?;
                valid_destination(*key, *real, settings)?;
                match service.destinations.get_mut(real) {
                    Some(destination) => *destination = *settings,
                    None => return Err(Errno::ENOENT.into()),
                }
                Ok(())
            }
            Action::RemoveDestination(key, real) => {
                let removed = self.service(*key)?.destinations.remove(real);
                removed.map(|_| ()).ok_or(Errno::ENOENT.into())
            }
            Action::AddAddress { interface, address } => self.add_address(interface, *address),
            Action::RemoveAddress { interface, address } => {
                self.remove_address(interface, *address)
            }
            Action::SetSysctl { name, value } => match self.sysctls.get_mut(name) {
                Some(current) => {
                    *current = *value;
                    Ok(())
                }
                None => Err(Errno::ENOENT.into()),
            },
            Action::SetTimeout { which, seconds } => {
                self.table()?;
                // 0 leaves it as it is (`ip_vs_set_timeout`).
                if *seconds != 0 {
                    *self.globals.timeouts.get_mut(*which) = *seconds;
                }
                Ok(())
            }
            Action::Path(action) => self.path(action),
            Action::SetMarks(rules) => {
                self.marks = marks::Seen::Present { rules: Some(rules.clone()) };
                Ok(())
            }
            Action::ClearMarks => match std::mem::replace(&mut self.marks, marks::Seen::Absent) {
                marks::Seen::Present { .. } => Ok(()),
                marks::Seen::Absent | marks::Seen::Unable(_) | marks::Seen::Unasked => {
                    Err(Errno::ENOENT.into())
                }
            },
            Action::StartDaemon(daemon) => self.start_daemon(daemon),
            Action::StopDaemon(role) => {
                self.table()?;
                let before = self.globals.daemons.len();
                self.globals.daemons.retain(|daemon| daemon.role != *role);
                if self.globals.daemons.len() == before { Err(Errno::ESRCH.into()) } else { Ok(()) }
            }
        }
    }

    /// `start_sync_thread` (ip_vs_sync.c): a second one of a role is refused, the length is fitted.
    fn start_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), Refusal> {
        let mixed = self.table()?.iter().any(|(key, service)| {
            service.destinations.keys().any(|real| real.is_ipv6() != is_ipv6(*key))
        });
        if mixed {
            return Err(Errno::EINVAL.into());
        }
        if !self.interfaces.contains(&daemon.interface) {
            return Err(Errno::ENODEV.into());
        }
        if self.globals.daemons.iter().any(|running| running.role == daemon.role) {
            return Err(Errno::EEXIST.into());
        }
        let mut running = daemon.clone();
        running.max_length =
            if running.max_length == 0 { 1472 } else { running.max_length.min(1472) };
        running.group = running.group.or(Some([224, 0, 0, 81].into()));
        running.port = if running.port == 0 { 8848 } else { running.port };
        running.ttl = running.ttl.max(1);
        self.globals.daemons.push(running);
        Ok(())
    }

    fn table(&mut self) -> Result<&mut Table, Refusal> {
        self.table.as_mut().ok_or(Refusal::NoIpvs)
    }

    fn service(&mut self, key: ServiceKey) -> Result<&mut VirtualService, Refusal> {
        self.table()?.get_mut(&key).ok_or(Errno::ESRCH.into())
    }

    fn add_service(&mut self, key: ServiceKey, spec: &ServiceSpec) -> Result<(), Refusal> {
        if self.table()?.contains_key(&key) {
            return Err(Errno::EEXIST.into());
        }
        self.valid_spec(key, spec)?;
        let service = VirtualService { spec: spec.clone(), destinations: BTreeMap::new() };
        self.table()?.insert(key, service);
        Ok(())
    }

    fn valid_spec(&self, key: ServiceKey, spec: &ServiceSpec) -> Result<(), Errno> {
        if self.missing_schedulers.contains(&spec.scheduler) {
            return Err(Errno::ENOENT);
        }
        valid_spec(key, spec)
    }

    fn add_address(&mut self, interface: &str, address: IpAddr) -> Result<(), Refusal> {
        if !self.interfaces.contains(interface) {
            return Err(Errno::ENODEV.into());
        }
        // IPv4 tells addresses of different prefix lengths apart, IPv6 does not (inet_insert_ifa, ipv6_add_addr).
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let taken = self.addresses.iter().any(|other| {
            other.interface == interface
                && other.address == address
                && (other.prefix == prefix || address.is_ipv6())
        });
        if taken {
            return Err(Errno::EEXIST.into());
        }
        let interface = interface.into();
        self.addresses.insert(Address { interface, address, prefix, marked: true });
        Ok(())
    }

    fn remove_address(&mut self, interface: &str, address: IpAddr) -> Result<(), Refusal> {
        if !self.interfaces.contains(interface) {
            return Err(Errno::ENODEV.into());
        }
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let before = self.addresses.len();
        self.addresses.retain(|other| {
            (other.interface.as_str(), other.address, other.prefix) != (interface, address, prefix)
        });
        if self.addresses.len() == before { Err(Errno::EADDRNOTAVAIL.into()) } else { Ok(()) }
    }
}

/// What `ip_vs_add_service` and `ip_vs_edit_service` refuse (net/netfilter/ipvs/ip_vs_ctl.c).
fn valid_spec(key: ServiceKey, spec: &ServiceSpec) -> Result<(), Errno> {
    if !Scheduler::ALL.iter().any(|scheduler| scheduler.name() == spec.scheduler) {
        return Err(Errno::ENOENT);
    }
    if spec.engine.as_deref().is_some_and(|engine| engine != "sip") {
        return Err(Errno::ENOENT);
    }
    if is_ipv6(key) && !(1..=128).contains(&spec.netmask) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// What `ip_vs_genl_set_cmd`, `ip_vs_add_dest` and `ip_vs_edit_dest` refuse.
fn valid_destination(
    key: ServiceKey,
    real: SocketAddr,
    settings: &Destination,
) -> Result<(), Errno> {
    if real.is_ipv6() != is_ipv6(key) && !matches!(settings.method, Method::Tunnel(_)) {
        return Err(Errno::EINVAL);
    }
    if i32::try_from(settings.weight).is_err() || settings.lower > settings.upper {
        return Err(Errno::ERANGE);
    }
    Ok(())
}

fn is_ipv6(key: ServiceKey) -> bool {
    match key {
        ServiceKey::Address { address, .. } => address.is_ipv6(),
        ServiceKey::Mark { ipv6, .. } => ipv6,
    }
}
