//! The real kernel.

use lvsmesh_core::plan::{Action, Observed, Table};

use crate::address::Addresses;
use crate::error::{Errno, KernelError};
use crate::ipvs::Ipvs;
use crate::{Kernel, Scope, sysctl};

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

    /// The table; `None` if the kernel has no IPVS.
    async fn table(&mut self) -> Result<Option<Table>, KernelError> {
        let listed = match self.ipvs().await {
            Ok(ipvs) => ipvs.list().await,
            Err(KernelError::IpvsMissing) => return Ok(None),
            Err(error) => return Err(error),
        };
        match listed {
            Ok(listing) => Ok(Some(listing.table)),
            // The family that was opened is gone. A module that was loaded again has another.
            Err(error) if error.errno() == Some(Errno::ENOENT) => {
                self.ipvs = None;
                match self.ipvs().await {
                    Ok(ipvs) => ipvs.list().await.map(|listing| Some(listing.table)),
                    Err(KernelError::IpvsMissing) => Ok(None),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }
}

impl Kernel for Linux {
    async fn observe(&mut self, what: &Scope) -> Result<Observed, KernelError> {
        let mut observed = Observed {
            table: if what.ipvs { self.table().await? } else { None },
            addresses: self.addresses.addresses().await?,
            ..Observed::default()
        };
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
            | Action::RemoveDestination(..) => self.ipvs().await?.perform(action).await,
            Action::AddAddress { interface, address } => {
                self.addresses.add(interface, *address).await
            }
            Action::RemoveAddress { interface, address } => {
                self.addresses.remove(interface, *address).await
            }
            Action::SetSysctl { name, value } => sysctl::write(name, *value),
        }
    }
}
