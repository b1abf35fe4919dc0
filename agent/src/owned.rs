//! The owner record: what this agent put into its machine's kernel, on disk *before* it is put there.
//!
//! A restarted agent reads it to know its own services from an operator's. It is written whole, beside the old one, and renamed over it, so a
//! power cut leaves the old record or the new one. A record that is *ahead* of the kernel is harmless (removing what is not there is no
//! error); one that is behind would make our own services look foreign.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use lvsmesh_core::model::Protocol;
use lvsmesh_core::plan::{Owned, Raised, ServiceKey, SyncDaemon, SyncRole, Sysctl, Timeout, path};
use serde::{Deserialize, Serialize};

/// Name of the record below the data directory.
pub const FILE: &str = "owned.json";

/// The form that this version writes.
const VERSION: u32 = 1;

/// The record of one data directory.
#[derive(Clone, Debug)]
pub struct OwnerRecord {
    path: PathBuf,
}

/// Why the record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum OwnedError {
    /// It is there and cannot be read.
    #[error("reading {} failed", path.display())]
    Read {
        /// The record.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Another version of the program wrote it.
    #[error("{} has form {found}, this program knows up to {VERSION}", path.display())]
    Newer {
        /// The record.
        path: PathBuf,
        /// Its form.
        found: u32,
    },
    /// It could not be replaced.
    #[error("writing {} failed", path.display())]
    Write {
        /// The record.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl OwnedError {
    /// What an operator can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Read { path, .. } => {
                format!("check the owner and the mode of {}", path.display())
            }
            Self::Damaged { path, .. } => format!(
                "move {} away and start again: the services it listed will be shown as foreign unless they are in the desired state, \
                 and sysctls it would have restored stay as they are",
                path.display()
            ),
            Self::Newer { .. } => {
                "run the version of lvs-agent that wrote it, or a later one".to_owned()
            }
            Self::Write { path, .. } => {
                format!("check free space and the mode of the directory of {}", path.display())
            }
        }
    }
}

impl OwnerRecord {
    /// The record below a data directory, which must exist by the first [`Self::store`].
    #[must_use]
    pub fn below(data_dir: &Path) -> Self {
        Self { path: data_dir.join(FILE) }
    }

    /// Reads what is ours; nothing if there is no record.
    ///
    /// # Errors
    ///
    /// If there is a record that cannot be read, is damaged, or is of a later form.
    pub fn load(&self) -> Result<Owned, OwnedError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Owned::default()),
            Err(source) => return Err(OwnedError::Read { path: self.path.clone(), source }),
        };
        let damaged = |source| OwnedError::Damaged { path: self.path.clone(), source };
        let version: Version = serde_json::from_slice(&bytes).map_err(damaged)?;
        if version.version > VERSION {
            return Err(OwnedError::Newer { path: self.path.clone(), found: version.version });
        }
        let record: Record = serde_json::from_slice(&bytes).map_err(damaged)?;
        Ok(record.into())
    }

    /// Replaces the record; it is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// If the file or its directory cannot be written. The old record is then still there.
    pub fn store(&self, owned: &Owned) -> Result<(), OwnedError> {
        self.replace(owned).map_err(|source| OwnedError::Write { path: self.path.clone(), source })
    }

    fn replace(&self, owned: &Owned) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(&Record::from(owned))?;
        text.push(b'\n');
        let beside = self.path.with_extension("json.new");
        let mut file = File::create(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        // The rename is only durable with its directory.
        let directory = self.path.parent().unwrap_or_else(|| Path::new("."));
        File::open(directory)?.sync_all()
    }
}

/// Read first, so that a later form is named as such and not as damage.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    services: BTreeSet<Service>,
    addresses: BTreeSet<Address>,
    sysctls: BTreeMap<String, Value>,
    /// Absent in records of earlier versions, as are the daemons.
    #[serde(default)]
    timeouts: BTreeMap<Kind, Value>,
    #[serde(default)]
    daemons: BTreeSet<Daemon>,
    #[serde(default)]
    tunnels: BTreeSet<String>,
    #[serde(default)]
    gue_ports: BTreeSet<Port>,
    #[serde(default)]
    rules: BTreeSet<Rule>,
    #[serde(default)]
    routes: BTreeSet<Route>,
    #[serde(default)]
    marks: bool,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
struct Port {
    ipv6: bool,
    port: u16,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
struct Rule {
    source: IpAddr,
    protocol: Transport,
    first: u16,
    last: u16,
    table: u32,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
struct Route {
    table: u32,
    gateway: IpAddr,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Tcp,
    TcpFin,
    Udp,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum Role {
    Master,
    Backup,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
struct Daemon {
    role: Role,
    interface: String,
    sync_id: u32,
    max_length: u16,
    group: Option<IpAddr>,
    port: u16,
    ttl: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    before: i64,
    ours: i64,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(untagged, deny_unknown_fields)]
enum Service {
    Address { protocol: Transport, address: IpAddr, port: u16 },
    Mark { ipv6: bool, mark: u32 },
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum Transport {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
struct Address {
    interface: String,
    address: IpAddr,
}

impl From<&Owned> for Record {
    fn from(owned: &Owned) -> Self {
        Self {
            version: VERSION,
            services: owned.services.iter().map(Service::from).collect(),
            addresses: owned
                .addresses
                .iter()
                .map(|(interface, address)| Address {
                    interface: interface.clone(),
                    address: *address,
                })
                .collect(),
            sysctls: owned
                .sysctls
                .iter()
                .map(|(name, &Raised { before, ours })| (name.0.clone(), Value { before, ours }))
                .collect(),
            timeouts: owned
                .timeouts
                .iter()
                .map(|(which, &Raised { before, ours })| {
                    let kind = match which {
                        Timeout::Tcp => Kind::Tcp,
                        Timeout::TcpFin => Kind::TcpFin,
                        Timeout::Udp => Kind::Udp,
                    };
                    (kind, Value { before, ours })
                })
                .collect(),
            daemons: owned.daemons.iter().map(Daemon::from).collect(),
            tunnels: owned.paths.tunnels.clone(),
            gue_ports: owned
                .paths
                .ports
                .iter()
                .map(|&path::GuePort { ipv6, port }| Port { ipv6, port })
                .collect(),
            rules: owned
                .paths
                .rules
                .iter()
                .map(|&path::Rule { source, protocol, first, last, table }| Rule {
                    source,
                    protocol: protocol.into(),
                    first,
                    last,
                    table,
                })
                .collect(),
            routes: owned
                .paths
                .routes
                .iter()
                .map(|&path::Route { table, gateway }| Route { table, gateway })
                .collect(),
            marks: owned.marks,
        }
    }
}

impl From<Record> for Owned {
    fn from(record: Record) -> Self {
        Self {
            services: record.services.into_iter().map(ServiceKey::from).collect(),
            addresses: record.addresses.into_iter().map(|a| (a.interface, a.address)).collect(),
            sysctls: record
                .sysctls
                .into_iter()
                .map(|(name, Value { before, ours })| (Sysctl(name), Raised { before, ours }))
                .collect(),
            timeouts: record
                .timeouts
                .into_iter()
                .map(|(kind, Value { before, ours })| {
                    let which = match kind {
                        Kind::Tcp => Timeout::Tcp,
                        Kind::TcpFin => Timeout::TcpFin,
                        Kind::Udp => Timeout::Udp,
                    };
                    (which, Raised { before, ours })
                })
                .collect(),
            daemons: record.daemons.into_iter().map(SyncDaemon::from).collect(),
            marks: record.marks,
            paths: path::Ours {
                tunnels: record.tunnels,
                ports: record
                    .gue_ports
                    .into_iter()
                    .map(|Port { ipv6, port }| path::GuePort { ipv6, port })
                    .collect(),
                rules: record
                    .rules
                    .into_iter()
                    .map(|Rule { source, protocol, first, last, table }| path::Rule {
                        source,
                        protocol: protocol.into(),
                        first,
                        last,
                        table,
                    })
                    .collect(),
                routes: record
                    .routes
                    .into_iter()
                    .map(|Route { table, gateway }| path::Route { table, gateway })
                    .collect(),
            },
        }
    }
}

impl From<&SyncDaemon> for Daemon {
    fn from(daemon: &SyncDaemon) -> Self {
        let SyncDaemon { role, interface, sync_id, max_length, group, port, ttl } = daemon.clone();
        let role = match role {
            SyncRole::Master => Role::Master,
            SyncRole::Backup => Role::Backup,
        };
        Self { role, interface, sync_id, max_length, group, port, ttl }
    }
}

impl From<Daemon> for SyncDaemon {
    fn from(daemon: Daemon) -> Self {
        let Daemon { role, interface, sync_id, max_length, group, port, ttl } = daemon;
        let role = match role {
            Role::Master => SyncRole::Master,
            Role::Backup => SyncRole::Backup,
        };
        Self { role, interface, sync_id, max_length, group, port, ttl }
    }
}

impl From<Protocol> for Transport {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
        }
    }
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
            Transport::Sctp => Self::Sctp,
        }
    }
}

impl From<&ServiceKey> for Service {
    fn from(key: &ServiceKey) -> Self {
        match *key {
            ServiceKey::Address { protocol, address, port } => {
                Self::Address { protocol: protocol.into(), address, port }
            }
            ServiceKey::Mark { ipv6, mark } => Self::Mark { ipv6, mark },
        }
    }
}

impl From<Service> for ServiceKey {
    fn from(service: Service) -> Self {
        match service {
            Service::Address { protocol, address, port } => {
                Self::Address { protocol: protocol.into(), address, port }
            }
            Service::Mark { ipv6, mark } => Self::Mark { ipv6, mark },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> Owned {
        Owned {
            services: BTreeSet::from([
                ServiceKey::Address {
                    protocol: Protocol::Tcp,
                    address: "192.168.3.100".parse().unwrap(),
                    port: 80,
                },
                ServiceKey::Address {
                    protocol: Protocol::Sctp,
                    address: "2001:db8::1".parse().unwrap(),
                    port: 0,
                },
                ServiceKey::Mark { ipv6: true, mark: 7 },
            ]),
            addresses: BTreeSet::from([("lo".to_owned(), "192.168.3.100".parse().unwrap())]),
            sysctls: BTreeMap::from([(
                Sysctl("net/ipv4/conf/all/arp_ignore".to_owned()),
                Raised { before: 0, ours: 1 },
            )]),
            timeouts: BTreeMap::from([(Timeout::TcpFin, Raised { before: 120, ours: 60 })]),
            daemons: BTreeSet::from([SyncDaemon {
                role: SyncRole::Backup,
                interface: "eth0".to_owned(),
                sync_id: 7,
                max_length: 0,
                group: Some([224, 0, 0, 81].into()),
                port: 8848,
                ttl: 1,
            }]),
            marks: true,
            paths: path::Ours {
                tunnels: BTreeSet::from(["lvs-ipip".to_owned()]),
                ports: BTreeSet::from([path::GuePort { ipv6: true, port: 6080 }]),
                rules: BTreeSet::from([path::Rule {
                    source: "192.168.3.3".parse().unwrap(),
                    protocol: Protocol::Udp,
                    first: 53,
                    last: 54,
                    table: 7401,
                }]),
                routes: BTreeSet::from([path::Route {
                    table: 7401,
                    gateway: "2001:db8::1".parse().unwrap(),
                }]),
            },
        }
    }

    #[test]
    fn what_was_stored_is_what_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let record = OwnerRecord::below(directory.path());
        assert_eq!(record.load().unwrap(), Owned::default(), "no record is an empty one");

        record.store(&everything()).unwrap();
        assert_eq!(record.load().unwrap(), everything());
        record.store(&Owned::default()).unwrap();
        assert_eq!(record.load().unwrap(), Owned::default());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_record_of_an_earlier_version_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let record = OwnerRecord::below(directory.path());
        let text = r#"{"version": 1, "services": [], "addresses": [{"interface": "lo", "address": "192.0.2.1"}], "sysctls": {}}"#;
        fs::write(directory.path().join(FILE), text).unwrap();
        let owned = record.load().unwrap();
        assert_eq!(owned.addresses.len(), 1);
        assert!(owned.timeouts.is_empty() && owned.daemons.is_empty() && owned.paths.is_empty());
    }

    #[test]
    fn a_damaged_record_is_refused_by_name_and_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let record = OwnerRecord::below(directory.path());
        record.store(&everything()).unwrap();
        let path = directory.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap();

        let whole = text.trim_end().len();
        for cut in [0, 1, whole / 2, whole - 1] {
            fs::write(&path, &text[..cut]).unwrap();
            let error = record.load().unwrap_err();
            assert!(matches!(error, OwnedError::Damaged { .. }), "cut at {cut}: {error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert!(error.hint().contains("move"), "{}", error.hint());
        }
    }

    #[test]
    fn a_record_of_a_later_form_is_not_called_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let record = OwnerRecord::below(directory.path());
        fs::write(directory.path().join(FILE), r#"{"version": 2, "tunnels": []}"#).unwrap();
        assert!(matches!(record.load(), Err(OwnedError::Newer { found: 2, .. })));
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_with_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let record = OwnerRecord::below(&directory.path().join("absent"));
        let error = record.store(&everything()).unwrap_err();
        assert!(error.to_string().contains("absent/owned.json"), "{error}");
    }
}
