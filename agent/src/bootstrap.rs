//! One-shot commands: start a fleet, join one, leave one. Each does its work and exits; the daemon is `run`.
//!
//! *In*: `agent.toml`, and for `join` an agent of the fleet. *Out*: an identity and a log in the data directory; for `leave` a kernel without
//! anything of ours.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lvsmesh_core::command::Candidate;
use lvsmesh_core::document::level::LEVEL;
use lvsmesh_core::model::{Member, NodeId};
use lvsmesh_core::state::State;
use lvsmesh_kernel::{KernelError, Linux};
use lvsmesh_proto::internal::v1::{JoinRequest, JoinResponse};
use tonic::{Request, Status};

use crate::api::status::{self, CallError};
use crate::config::Config;
use crate::identity::{Identity, IdentityError, random_key};
use crate::lease::{self, LeaseKey};
use crate::links::Links;
use crate::owned::OwnerRecord;
use crate::raft::start::{self, FIRST_NODE};
use crate::raft::storage::{LogStore, RedbStore, StoreError};
use crate::reconcile::{self, TeardownError};
use crate::tls::{Connector, Credentials, TlsError};

/// Name of the log below the data directory.
const LOG: &str = "raft.redb";
/// Where an agent listens unless told otherwise.
const PORT: u16 = 7400;
/// Joining waits for an election, if one is under way.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The identity file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// There are none.
    #[error("agent.toml has no [tls], and --insecure was not given")]
    Insecure,
    /// The name is none.
    #[error("`{name}` is no name of a fleet: 1 to 63 characters of [a-z0-9-] are allowed")]
    Fleet {
        /// As given.
        name: String,
    },
    /// The address is none.
    #[error("`{address}` is no address of an agent")]
    Address {
        /// As given.
        address: String,
        /// Why, if it was looked up.
        #[source]
        source: Option<std::io::Error>,
    },
    /// The agent there did not admit this machine.
    #[error("the agent at {address} did not admit this machine: {reason}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// In its words, or the transport's.
        reason: String,
        /// What it says to do.
        hint: Option<String>,
    },
    /// Its answer makes no sense.
    #[error("the answer of the agent at {address} cannot be used: {reason}")]
    Answer {
        /// Where.
        address: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// No random numbers.
    #[error("the kernel gives no random numbers for the lease key")]
    Random(#[source] std::io::Error),
    /// Another process has the data directory.
    #[error("an agent runs on {}", dir.display())]
    Running {
        /// The data directory.
        dir: PathBuf,
    },
    /// What is in the kernel.
    #[error(transparent)]
    Teardown(#[from] TeardownError),
    /// The way to the kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Some of what is in the kernel.
    #[error("not everything could be undone:{}", .0.iter().map(|line| format!("\n  {line}")).collect::<String>())]
    Left(Vec<String>),
    /// What keeps VIPs silent that this node does not hold.
    #[error("a gate that an agent has left cannot be taken away")]
    Gate(#[source] std::io::Error),
    /// A file of the data directory.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl BootstrapError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Identity(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Insecure => Some(
                "name the files of a certificate in [tls]; --insecure runs without, and then anybody who reaches the port rules the fleet".to_owned(),
            ),
            Self::Refused { hint, .. } => hint.clone(),
            Self::Address { .. } => Some(format!("HOST or HOST:PORT; the port is {PORT} unless given")),
            Self::Running { .. } => Some("stop it first: `systemctl stop lvs-agent`".to_owned()),
            Self::Gate(_) => Some("`tc filter show dev IFACE egress` shows it as lvsmesh_gate; it keeps VIPs silent on this machine".to_owned()),
            Self::Left(_) => Some("run `lvs-agent leave` again; what is left is still on record".to_owned()),
            Self::Tls(_)
            | Self::Fleet { .. }
            | Self::Answer { .. }
            | Self::Random(_)
            | Self::Teardown(_)
            | Self::Kernel(_)
            | Self::Remove { .. } => None,
        }
    }
}

/// Where the log is.
#[must_use]
pub fn log_path(data_dir: &Path) -> PathBuf {
    data_dir.join(LOG)
}

/// The certificates of `agent.toml`, or none if that was asked for in words.
///
/// # Errors
///
/// If they cannot be used, or there are none and `insecure` is not set.
pub fn credentials(config: &Config, insecure: bool) -> Result<Option<Credentials>, BootstrapError> {
    match &config.tls {
        Some(files) => Ok(Some(Credentials::load(files, &config.name)?)),
        None if insecure => {
            tracing::warn!(
                "running without certificates: anybody who reaches the port rules the fleet"
            );
            Ok(None)
        }
        None => Err(BootstrapError::Insecure),
    }
}

/// Starts a fleet with this machine as its first node.
///
/// # Errors
///
/// If this machine is in a fleet already, or its disk does not take what must be written.
pub fn init(config: &Config, fleet: &str, insecure: bool) -> Result<Identity, BootstrapError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !(1..=63).contains(&fleet.len()) || !fleet.bytes().all(allowed) {
        return Err(BootstrapError::Fleet { name: fleet.to_owned() });
    }
    if let Some(credentials) = credentials(config, insecure)? {
        credentials.check_fleet(fleet)?;
    }
    let log = room_for_log(&config.data_dir)?;
    let identity = Identity {
        id: FIRST_NODE,
        name: config.name.clone(),
        fleet: fleet.to_owned(),
        lease_key: random_key().map_err(BootstrapError::Random)?,
        epoch: 0,
    };
    start::found(&log, fleet, candidate(config))?;
    identity.store(&config.data_dir)?;
    Ok(identity)
}

/// Joins the fleet of the agent at `address`.
///
/// # Errors
///
/// If this machine is in a fleet already, the agent cannot be reached or refuses, or the disk does not take what must be written.
pub async fn join(
    config: &Config,
    address: &str,
    insecure: bool,
) -> Result<Identity, BootstrapError> {
    let credentials = credentials(config, insecure)?;
    let connector = credentials.as_ref().map_or_else(Connector::insecure, Credentials::connector);
    // Before anything is asked for: an id that is given and not used is a voter that never comes.
    let log = room_for_log(&config.data_dir)?;
    let address = resolve(address).await?;
    let answer = ask(&Links::new(connector), address, config).await?;
    let unusable = |reason| BootstrapError::Answer { address, reason };
    let identity = identity(config, &answer).map_err(unusable)?;
    let seed = seed(answer).map_err(unusable)?;
    if let Some(credentials) = &credentials {
        credentials.check_fleet(&identity.fleet)?;
    } else {
        tracing::warn!("the fleet's lease key came in clear");
    }
    start::join(&log, identity.id, &seed)?;
    identity.store(&config.data_dir)?;
    Ok(identity)
}

/// Takes everything of ours out of this machine's kernel, then its identity and log off its disk. To be run once the node was removed.
///
/// # Errors
///
/// If an agent still runs here, or the kernel keeps something; then the identity stays, and so does the record of what is left.
pub async fn leave(config: &Config) -> Result<(), BootstrapError> {
    let path = log_path(&config.data_dir);
    // Holding the log keeps an agent from starting meanwhile.
    let log = match RedbStore::open(&path) {
        Ok(log) => Some(log),
        Err(StoreError::InUse { .. }) => {
            return Err(BootstrapError::Running { dir: config.data_dir.clone() });
        }
        // A damaged log is no reason to stay.
        Err(_) => None,
    };
    let mut kernel = Linux::open()?;
    let left = reconcile::teardown(&mut kernel, &OwnerRecord::below(&config.data_dir)).await?;
    if !left.is_empty() {
        return Err(BootstrapError::Left(left));
    }
    // Of an agent that died with its guard, and lets nothing pass: whoever has the addresses here from now on is to be heard.
    lease::remove_gates().map_err(BootstrapError::Gate)?;
    Identity::remove(&config.data_dir)?;
    drop(log);
    remove(path)
}

fn remove(path: PathBuf) -> Result<(), BootstrapError> {
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(BootstrapError::Remove { path, source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Where the log goes, in a data directory without identity and without a node's log. A log without an identity is what an attempt that was cut
/// short left, and nobody's.
fn room_for_log(data_dir: &Path) -> Result<PathBuf, BootstrapError> {
    Identity::make_room(data_dir)?;
    let path = log_path(data_dir);
    let leftover = match RedbStore::open(&path) {
        Ok(store) => store.id().is_some(),
        Err(StoreError::Damaged { .. }) => true,
        Err(error) => return Err(error.into()),
    };
    if leftover {
        tracing::info!(path = %path.display(), "removing the log of an attempt that was cut short");
        remove(path.clone())?;
    }
    Ok(path)
}

/// This machine, as it asks to be admitted.
#[must_use]
pub fn candidate(config: &Config) -> Candidate {
    Candidate {
        name: config.name.clone(),
        roles: config.roles.clone(),
        addresses: config.addresses.clone(),
        grpc: config.advertise.grpc,
        lease: config.advertise.lease,
    }
}

/// Where `agent.toml` differs from what the fleet was told when this node was admitted, one line each.
#[must_use]
pub fn differences(config: &Config, member: &Member) -> Vec<String> {
    let mut lines = Vec::new();
    let mut compare = |key: &str, here: String, there: String| {
        if here != there {
            lines.push(format!(
                "{key} is {here} in agent.toml, but the node was admitted with {there}"
            ));
        }
    };
    compare("roles", format!("{:?}", config.roles), format!("{:?}", member.roles));
    compare("addresses", format!("{:?}", config.addresses), format!("{:?}", member.addresses));
    compare("advertise.grpc", config.advertise.grpc.to_string(), member.grpc.to_string());
    compare("advertise.lease", config.advertise.lease.to_string(), member.lease.to_string());
    lines
}

async fn resolve(text: &str) -> Result<SocketAddr, BootstrapError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        return Ok(SocketAddr::new(ip, PORT));
    }
    let failed = |source| BootstrapError::Address { address: text.to_owned(), source };
    let target = if text.contains(':') { text.to_owned() } else { format!("{text}:{PORT}") };
    let mut found = tokio::net::lookup_host(target).await.map_err(|error| failed(Some(error)))?;
    found.next().ok_or_else(|| failed(None))
}

async fn ask(
    links: &Links,
    address: SocketAddr,
    config: &Config,
) -> Result<JoinResponse, BootstrapError> {
    let mut request =
        Request::new(JoinRequest { candidate: Some((&candidate(config)).into()), level: LEVEL });
    request.set_timeout(PATIENCE);
    let answer = tokio::time::timeout(PATIENCE, links.peer(address).join(request)).await;
    let status = match answer {
        Ok(Ok(response)) => return Ok(response.into_inner()),
        Ok(Err(status)) => status,
        Err(_) => Status::from(CallError::NoQuorum { waited_ms: PATIENCE.as_millis() }),
    };
    let hint = status
        .metadata()
        .get_bin(status::HINT)
        .and_then(|value| value.to_bytes().ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Err(BootstrapError::Refused { address, reason: status::one_line(&status), hint })
}

fn identity(config: &Config, answer: &JoinResponse) -> Result<Identity, String> {
    let key = answer.lease_key.as_ref().ok_or("there is no lease key in it")?;
    let secret = <[u8; 32]>::try_from(key.key.as_slice())
        .map_err(|_| format!("its lease key has {} bytes, not 32", key.key.len()))?;
    if answer.id == 0 {
        return Err("its id is 0".to_owned());
    }
    Ok(Identity {
        id: NodeId(answer.id),
        name: config.name.clone(),
        fleet: answer.fleet.clone(),
        lease_key: LeaseKey { id: key.id, secret },
        epoch: answer.epoch,
    })
}

/// The members, by whom this node is reached and reaches others until the leader has sent it the state.
fn seed(answer: JoinResponse) -> Result<State, String> {
    let members = answer.members.into_iter().map(Member::try_from).collect::<Result<_, _>>();
    start::seed(&answer.fleet, members.map_err(|error| status::chain(&error))?)
        .map_err(|error| status::chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path) -> Config {
        let path = dir.join("agent.toml");
        let data = dir.join("data");
        let text = format!(
            "name = \"lvs-1\"\nroles = [\"director\"]\naddresses = [\"192.0.2.1\"]\ndata_dir = {data:?}\n"
        );
        std::fs::write(&path, text).unwrap();
        Config::load(&path).unwrap()
    }

    #[test]
    fn a_fleet_starts_with_one_voter_that_is_its_first_member() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let identity = init(&config, "web", true).unwrap();
        assert_eq!(Identity::load(&config.data_dir, "lvs-1").unwrap(), identity);

        let store = RedbStore::open(&log_path(&config.data_dir)).unwrap();
        let snapshot = store.stored_snapshot().unwrap().unwrap();
        let state = lvsmesh_proto::convert::decode_snapshot(&snapshot.data).unwrap();
        assert_eq!(store.id(), Some(NodeId(1)));
        assert_eq!(snapshot.get_metadata().get_conf_state().voters, [1]);
        assert_eq!(state.fleet(), "web");
        assert!(differences(&config, state.member(NodeId(1)).unwrap()).is_empty());
    }

    #[test]
    fn without_certificates_and_without_a_word_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        assert!(matches!(init(&config, "web", false), Err(BootstrapError::Insecure)));
        assert!(!config.data_dir.exists());
    }

    #[test]
    fn a_second_fleet_is_refused_on_the_same_disk() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        init(&config, "web", true).unwrap();
        let error = init(&config, "mail", true).unwrap_err();
        assert!(error.to_string().contains("fleet `web`"), "{error}");
        assert!(error.hint().unwrap().contains("start over"));
    }

    #[test]
    fn what_an_attempt_left_that_was_cut_short_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        init(&config, "web", true).unwrap();
        Identity::remove(&config.data_dir).unwrap();
        init(&config, "mail", true).unwrap();
        assert_eq!(Identity::load(&config.data_dir, "lvs-1").unwrap().fleet, "mail");
    }

    #[test]
    fn a_fleets_name_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        for name in ["", "Web", "web farm", &"x".repeat(64)] {
            let error = init(&config, name, true).unwrap_err();
            assert!(matches!(error, BootstrapError::Fleet { .. }), "{name:?}: {error}");
        }
    }
}
