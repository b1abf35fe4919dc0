//! The kernel's IPVS table, over the generic netlink family `IPVS`.

mod codec;
mod config;
mod connections;
mod socket;
mod statistics;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use codec::{Attributes, Malformed};
pub use connections::{Connection, Connections};
pub use lvsmesh_core::plan::globals::Timeouts;
use lvsmesh_core::plan::{
    Action, Counters, Destination, ServiceKey, ServiceSpec, Table, VirtualService,
};
pub use lvsmesh_core::plan::{SyncDaemon, SyncRole};
use nix::errno::Errno;
use socket::{ATTEMPTS, Failure, IN_FLIGHT, Request, Socket};
pub use statistics::Statistics;

use crate::TIMEOUT;
use crate::error::{KernelError, describe};
use crate::genl::Family;

/// `IPVS_GENL_VERSION`, <linux/ip_vs.h>.
const VERSION: u8 = 1;

const LIST: &str = "list";

/// `IPVS_CMD_*`, <linux/ip_vs.h>.
#[derive(Clone, Copy)]
enum Command {
    NewService = 1,
    SetService = 2,
    DelService = 3,
    GetService = 4,
    NewDest = 5,
    SetDest = 6,
    DelDest = 7,
    GetDest = 8,
    NewDaemon = 9,
    DelDaemon = 10,
    GetDaemon = 11,
    SetConfig = 12,
    GetConfig = 13,
    GetInfo = 15,
    Zero = 16,
}

/// The kernel's IPVS as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Version of IPVS itself: major, minor, patch. 1.2.1 since 2005.
    pub version: (u8, u8, u8),
    /// Buckets of the connection table.
    pub connection_table_size: u32,
}

/// The table, with what the kernel counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Services and destinations.
    pub table: Table,
    /// Counters of each destination. Up to two seconds old: the kernel's estimator brings them up to date.
    pub counters: BTreeMap<(ServiceKey, SocketAddr), Counters>,
    /// Statistics of each service.
    pub services: BTreeMap<ServiceKey, Statistics>,
    /// Statistics of each destination.
    pub destinations: BTreeMap<(ServiceKey, SocketAddr), Statistics>,
}

/// A connection to the IPVS of the network namespace of the thread that opened it. Every request needs CAP_NET_ADMIN, reading too.
#[derive(Debug)]
pub struct Ipvs {
    socket: Socket,
    family: u16,
}

impl Ipvs {
    /// Opens the connection. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`KernelError::IpvsMissing`] if the kernel has no IPVS: the look-up of its family gives `ENOENT`.
    pub async fn open() -> Result<Self, KernelError> {
        const OPERATION: &str = "open";
        const OBJECT: &str = "the generic netlink family `IPVS`";

        let socket = Socket::open().map_err(|failure| error(OPERATION, OBJECT, failure))?;
        match Family::open("IPVS", VERSION).await {
            Ok(family) => Ok(Self { socket, family: family.id() }),
            Err(Errno::ENOENT) => Err(KernelError::IpvsMissing),
            Err(Errno::ETIMEDOUT) => Err(error(OPERATION, OBJECT, Failure::TimedOut)),
            Err(errno) => Err(error(OPERATION, OBJECT, Failure::Errno(errno))),
        }
    }

    /// Asks for version and size of the connection table.
    ///
    /// # Errors
    ///
    /// If the request is refused or unanswered. `ENOENT`: the module was unloaded since; open anew.
    pub async fn info(&mut self) -> Result<Info, KernelError> {
        const OPERATION: &str = "read";
        const OBJECT: &str = "IPVS information";

        let request = self.request(Command::GetInfo, Attributes::new());
        let answers = self.socket.ask(&request).await.map_err(|f| error(OPERATION, OBJECT, f))?;
        match answers.first() {
            Some(answer) => {
                codec::decode_info(answer).map_err(|f| error(OPERATION, OBJECT, f.into()))
            }
            None => {
                let detail = Failure::Malformed("it is empty".into());
                Err(error(OPERATION, OBJECT, detail))
            }
        }
    }

    /// Lists all services with their destinations and counters: one listing of the services, then one of each service's destinations.
    ///
    /// A service that is removed between the two appears without destinations.
    ///
    /// # Errors
    ///
    /// If a request is refused or unanswered, or the list changes during each of several readings. `ENOENT`: the module was unloaded since.
    pub async fn list(&mut self) -> Result<Listing, KernelError> {
        let mut listing = Listing::default();
        let services = self.services_with_statistics().await?;
        for (key, (spec, statistics)) in services {
            listing.services.insert(key, statistics);
            let destinations = self.list_destinations(key, &mut listing).await?;
            listing.table.insert(key, VirtualService { spec, destinations });
        }
        Ok(listing)
    }

    /// Lists all services without their destinations: one listing, however many there are.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub async fn services(&mut self) -> Result<BTreeMap<ServiceKey, ServiceSpec>, KernelError> {
        let services = self.services_with_statistics().await?;
        Ok(services.into_iter().map(|(key, (spec, _))| (key, spec)).collect())
    }

    async fn services_with_statistics(
        &mut self,
    ) -> Result<BTreeMap<ServiceKey, (ServiceSpec, Statistics)>, KernelError> {
        const OBJECT: &str = "IPVS services";

        let request = self.request(Command::GetService, Attributes::new());
        let answers = self.socket.list(&request).await.map_err(|f| error(LIST, OBJECT, f))?;
        let mut services = BTreeMap::new();
        for answer in &answers {
            match codec::decode_service(answer).map_err(|f| error(LIST, OBJECT, f.into()))? {
                Some((key, spec, statistics)) => {
                    services.insert(key, (spec, statistics));
                }
                None => tracing::debug!(
                    "an IPVS service of a protocol that is neither TCP, UDP nor SCTP is left out of the table"
                ),
            }
        }
        Ok(services)
    }

    /// Reads those of the named services that there are, with their destinations.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub async fn read(&mut self, keys: &BTreeSet<ServiceKey>) -> Result<Table, KernelError> {
        let mut table = Table::new();
        for &key in keys {
            let request = self.request(Command::GetService, codec::encode_service(key, None));
            let object = describe(&Action::RemoveService(key)).1;
            let answers = match self.socket.ask(&request).await {
                Ok(answers) => answers,
                Err(Failure::Errno(Errno::ESRCH)) => continue,
                Err(failure) => return Err(error("read", &object, failure)),
            };
            let service = answers.first().map(codec::decode_service).transpose();
            match service.map_err(|malformed| error("read", &object, malformed.into()))?.flatten() {
                Some((_, spec, _)) => {
                    let mut uncounted = Listing::default();
                    let destinations = self.list_destinations(key, &mut uncounted).await?;
                    table.insert(key, VirtualService { spec, destinations });
                }
                None => {
                    let detail = Failure::Malformed("it names no service".into());
                    return Err(error("read", &object, detail));
                }
            }
        }
        Ok(table)
    }

    async fn list_destinations(
        &mut self,
        key: ServiceKey,
        listing: &mut Listing,
    ) -> Result<BTreeMap<SocketAddr, Destination>, KernelError> {
        const OBJECT: &str = "IPVS destinations";

        let request = self.request(Command::GetDest, codec::encode_service(key, None));
        let answers = self.socket.list(&request).await.map_err(|f| error(LIST, OBJECT, f))?;
        let mut destinations = BTreeMap::new();
        for answer in &answers {
            let (real, settings, counters, statistics) = codec::decode_destination(key, answer)
                .map_err(|malformed| error(LIST, OBJECT, malformed.into()))?;
            destinations.insert(real, settings);
            listing.counters.insert((key, real), counters);
            listing.destinations.insert((key, real), statistics);
        }
        Ok(destinations)
    }

    /// Adds a service.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is one with that key, `ENOENT` if the kernel has no such scheduler or persistence engine, `EINVAL` for an IPv6
    /// prefix length outside 1 to 128.
    pub async fn add_service(
        &mut self,
        key: ServiceKey,
        spec: &ServiceSpec,
    ) -> Result<(), KernelError> {
        self.perform(&Action::AddService(key, spec.clone())).await
    }

    /// Changes a service's settings, all of them; connections stay.
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is none; otherwise as for [`add_service`](Self::add_service).
    pub async fn set_service(
        &mut self,
        key: ServiceKey,
        spec: &ServiceSpec,
    ) -> Result<(), KernelError> {
        self.perform(&Action::SetService(key, spec.clone())).await
    }

    /// Removes a service and its destinations.
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is none.
    pub async fn remove_service(&mut self, key: ServiceKey) -> Result<(), KernelError> {
        self.perform(&Action::RemoveService(key)).await
    }

    /// Performs any of the actions on services and destinations.
    ///
    /// # Errors
    ///
    /// As [`Kernel::perform`](crate::Kernel::perform) says; `EOPNOTSUPP` for an action that is not about IPVS.
    pub async fn perform(&mut self, action: &Action) -> Result<(), KernelError> {
        let outcome = self.perform_all(&[action]).await.pop();
        outcome.expect("there is one outcome for each action")
    }

    /// Performs actions on services and destinations in order, many on their way at a time. There is one outcome for each; a refusal does
    /// not stop those that come after it.
    ///
    /// Refusals are those of [`perform`](Self::perform). When answers were lost or late, every action that they may have been about has that
    /// failure ([`KernelError::is_uncertain`]): it may have been performed.
    pub async fn perform_all(&mut self, actions: &[&Action]) -> Vec<Result<(), KernelError>> {
        let mut outcomes = Vec::with_capacity(actions.len());
        for some in actions.chunks(IN_FLIGHT) {
            let mut requests = Vec::with_capacity(some.len());
            let sent: Vec<_> = some
                .iter()
                .map(|action| self.encode(action).map(|request| requests.push(request)).is_some())
                .collect();
            let mut answers = self.socket.submit(&requests).await.into_iter();
            outcomes.extend(some.iter().zip(sent).map(|(action, sent)| {
                let outcome = match sent {
                    true => answers.next().expect("there is one for each request"),
                    false => Err(Failure::Errno(Errno::EOPNOTSUPP)),
                };
                outcome.map_err(|failure| {
                    let (operation, object) = describe(action);
                    error(operation, &object, failure)
                })
            }));
        }
        outcomes
    }

    /// `None`: not about IPVS.
    fn encode(&self, action: &Action) -> Option<Request> {
        use codec::{encode_destination, encode_service};

        let (command, attributes) = match action {
            Action::AddService(key, spec) => {
                (Command::NewService, encode_service(*key, Some(spec)))
            }
            Action::SetService(key, spec) => {
                (Command::SetService, encode_service(*key, Some(spec)))
            }
            Action::RemoveService(key) => (Command::DelService, encode_service(*key, None)),
            Action::AddDestination(key, real, settings) => {
                (Command::NewDest, encode_destination(*key, *real, Some(settings)))
            }
            Action::SetDestination(key, real, settings) => {
                (Command::SetDest, encode_destination(*key, *real, Some(settings)))
            }
            Action::RemoveDestination(key, real) => {
                (Command::DelDest, encode_destination(*key, *real, None))
            }
            Action::SetTimeout { which, seconds } => {
                let mut timeouts = Timeouts::default();
                *timeouts.get_mut(*which) = *seconds;
                (Command::SetConfig, codec::config::encode_timeouts(timeouts))
            }
            Action::StartDaemon(daemon) => {
                (Command::NewDaemon, codec::config::encode_daemon(daemon))
            }
            Action::StopDaemon(role) => (Command::DelDaemon, codec::config::encode_role(*role)),
            Action::AddAddress { .. }
            | Action::RemoveAddress { .. }
            | Action::SetSysctl { .. }
            | Action::Path(_)
            | Action::SetMarks(_)
            | Action::ClearMarks => {
                return None;
            }
        };
        Some(self.request(command, attributes))
    }

    fn request(&self, command: Command, attributes: Attributes) -> Request {
        Request { family: self.family, command: command as u8, version: VERSION, attributes }
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.0)
    }
}

fn error(operation: &'static str, object: &str, failure: Failure) -> KernelError {
    match failure {
        Failure::Errno(errno) => KernelError::refused(operation, object, errno),
        Failure::TimedOut => {
            KernelError::TimedOut { operation, object: object.into(), after: TIMEOUT }
        }
        Failure::Unsteady => {
            KernelError::Unsteady { operation, object: object.into(), attempts: ATTEMPTS }
        }
        Failure::Malformed(detail) => {
            KernelError::Malformed { operation, object: object.into(), detail }
        }
    }
}
