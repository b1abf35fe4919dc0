//! The real kernel.

use std::collections::{BTreeMap, BTreeSet};

use lvsmesh_core::plan::{Action, Globals, Observed, ServiceKey, ServiceSpec, Table};

use crate::address::Addresses;
use crate::error::{Errno, KernelError};
use crate::ipvs::Ipvs;
use crate::{Kernel, Scope, fou, nft, path, sysctl};

/// The Linux kernel of this machine, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Linux {
    addresses: Addresses,
    /// Opened when it is first needed, and again when the module was unloaded and loaded meanwhile.
    ipvs: Option<Ipvs>,
}

impl Linux {
    /// Opens the connection to links and addresses; IPVS is opened when it is first asked for. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptors left.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self { addresses: Addresses::open()?, ipvs: None })
    }

    /// Links and addresses.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// IPVS, opened if it is not.
    ///
    /// # Errors
    ///
    /// [`KernelError::IpvsMissing`] if the kernel has none.
    pub async fn ipvs(&mut self) -> Result<&mut Ipvs, KernelError> {
        if self.ipvs.is_none() {
            self.ipvs = Some(Ipvs::open().await?);
        }
        Ok(self.ipvs.as_mut().expect("it was opened above"))
    }

    /// IPVS, opened again if the module was unloaded and loaded since; `None` if the kernel has none.
    async fn present(&mut self) -> Result<Option<&mut Ipvs>, KernelError> {
        if let Some(ipvs) = &mut self.ipvs
            && let Err(error) = ipvs.info().await
            // The family that was opened is gone. A module that was loaded again has another.
            && error.errno() == Some(Errno::ENOENT)
        {
            self.ipvs = None;
        }
        match self.ipvs().await {
            Ok(ipvs) => Ok(Some(ipvs)),
            Err(KernelError::IpvsMissing) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Kernel for Linux {
    async fn observe(&mut self, what: &Scope) -> Result<Observed, KernelError> {
        let ipvs = if what.ipvs { self.present().await? } else { None };
        let table = match ipvs {
            Some(ipvs) => Some(ipvs.list().await?.table),
            None => None,
        };
        let globals = if what.globals {
            match self.present().await? {
                Some(ipvs) => Some(Globals {
                    timeouts: ipvs.timeouts().await?,
                    daemons: ipvs.daemons().await?,
                }),
                None => None,
            }
        } else {
            None
        };
        let addresses = self.addresses.addresses().await?;
        let mut observed = Observed { table, addresses, globals, ..Observed::default() };
        if what.paths {
            observed.paths = path::observe(&self.addresses).await?;
        }
        if what.gue {
            observed.paths.ports = fou::list().await?;
        }
        if what.marks {
            observed.marks = nft::observe().await?;
        }
        for name in &what.sysctls {
            if let Some(value) = sysctl::read(name)? {
                observed.sysctls.insert(name.clone(), value);
            }
        }
        Ok(observed)
    }

    async fn perform(&mut self, action: &Action) -> Result<(), KernelError> {
        match action {
            Action::AddService(..)
            | Action::SetService(..)
            | Action::RemoveService(_)
            | Action::AddDestination(..)
            | Action::SetDestination(..)
            | Action::RemoveDestination(..)
            | Action::SetTimeout { .. }
            | Action::StartDaemon(_)
            | Action::StopDaemon(_) => self.ipvs().await?.perform(action).await,
            Action::AddAddress { interface, address } => {
                self.addresses.add(interface, *address).await
            }
            Action::RemoveAddress { interface, address } => {
                self.addresses.remove(interface, *address).await
            }
            Action::SetSysctl { name, value } => sysctl::write(name, *value),
            Action::Path(action) => path::perform(&self.addresses, action).await,
            Action::SetMarks(rules) => nft::set(rules).await,
            Action::ClearMarks => nft::clear().await,
        }
    }

    async fn perform_all(&mut self, actions: &[&Action]) -> Vec<Result<(), KernelError>> {
        let mut outcomes = Vec::with_capacity(actions.len());
        for run in actions.chunk_by(|one, other| one.is_about_ipvs() == other.is_about_ipvs()) {
            match run {
                [first, ..] if first.is_about_ipvs() && self.ipvs().await.is_ok() => {
                    let ipvs = self.ipvs.as_mut().expect("it was opened above");
                    outcomes.extend(ipvs.perform_all(run).await);
                }
                // Without IPVS each says so.
                _ => {
                    for action in run {
                        outcomes.push(self.perform(action).await);
                    }
                }
            }
        }
        outcomes
    }

    async fn services(&mut self) -> Result<Option<BTreeMap<ServiceKey, ServiceSpec>>, KernelError> {
        match self.present().await? {
            Some(ipvs) => ipvs.services().await.map(Some),
            None => Ok(None),
        }
    }

    async fn read_services(
        &mut self,
        keys: &BTreeSet<ServiceKey>,
    ) -> Result<Option<Table>, KernelError> {
        match self.present().await? {
            Some(ipvs) => ipvs.read(keys).await.map(Some),
            None => Ok(None),
        }
    }
}
