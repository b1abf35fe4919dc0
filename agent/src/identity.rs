//! What makes this machine a node: the file that `init` and `join` leave in the data directory.
//!
//! *In*: the data directory. *Out*: id, name, fleet and the fleet's lease key, or a refusal that names `init` and `join`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use lvsmesh_core::model::{NodeId, NodeName};
use serde::{Deserialize, Serialize};

use crate::lease::LeaseKey;

const FILE: &str = "identity.toml";
const HEADER: &str = "# Written by `lvs-agent init` or `lvs-agent join`; holds the fleet's lease key. Not to be edited or copied to another machine.\n";

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Given by the leader, never used again once the node is removed.
    pub id: NodeId,
    /// The name it was admitted under.
    pub name: NodeName,
    /// The fleet's name.
    pub fleet: String,
    /// Authenticates lease datagrams.
    pub lease_key: LeaseKey,
    /// How often the fleet was started anew from a survivor; nodes of another epoch are not believed.
    pub epoch: u64,
}

/// A lease key from the kernel's random number generator.
///
/// # Errors
///
/// If the kernel gives no random numbers.
pub fn random_key() -> io::Result<LeaseKey> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    Ok(LeaseKey { id: 1, secret })
}

/// Why a node has no identity, or cannot be given one.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The machine was never made a node.
    #[error("{} holds no identity: this machine is in no fleet", dir.display())]
    Absent {
        /// The data directory.
        dir: PathBuf,
    },
    /// It was made one already.
    #[error("{} holds the identity of node `{name}` of fleet `{fleet}` already", dir.display())]
    Present {
        /// The data directory.
        dir: PathBuf,
        /// Its name.
        name: NodeName,
        /// Its fleet.
        fleet: String,
    },
    /// The file is not what was written.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In one line.
        reason: String,
    },
    /// Others may read the lease key.
    #[error("{} may be read by others (mode {mode:04o}, not 0600), and it holds the fleet's lease key", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// `agent.toml` says otherwise.
    #[error("agent.toml names this node `{configured}`, but it was admitted as `{admitted}`")]
    Renamed {
        /// `name` in `agent.toml`.
        configured: NodeName,
        /// The identity's.
        admitted: NodeName,
    },
    /// The disk.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl IdentityError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Absent { .. } => Some(
                "`lvs-agent init --fleet NAME` starts a fleet; `lvs-agent join ADDRESS` adds this machine to the fleet of the agent there".to_owned(),
            ),
            Self::Present { dir, .. } => Some(format!(
                "to start over, stop the agent, empty {} and join again under the same name",
                dir.display()
            )),
            Self::Damaged { path, .. } => Some(format!(
                "stop the agent, empty {} and join again under the same name",
                path.parent().unwrap_or(path).display()
            )),
            Self::Exposed { path, .. } => Some(format!("chmod 0600 {}", path.display())),
            Self::Renamed { admitted, .. } => Some(format!(
                "set name = \"{admitted}\", or empty the data directory and join under the other name"
            )),
            Self::Io { .. } => None,
        }
    }
}

/// The file's layout.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    id: u64,
    name: String,
    fleet: String,
    lease_key_id: u32,
    lease_key: String,
    /// Left out while it is 0, which every release reads.
    #[serde(default, skip_serializing_if = "is_zero")]
    epoch: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Identity {
    /// Reads the identity that a node of this name was given.
    ///
    /// # Errors
    ///
    /// If there is none, it is damaged, others may read it, or it is another name's.
    pub fn load(dir: &Path, name: &str) -> Result<Self, IdentityError> {
        let identity = Self::read(dir)?.ok_or(IdentityError::Absent { dir: dir.to_owned() })?;
        if identity.name != name {
            return Err(IdentityError::Renamed {
                configured: name.to_owned(),
                admitted: identity.name,
            });
        }
        Ok(identity)
    }

    /// Refuses if there is an identity already, and makes the data directory, which only its owner may enter.
    ///
    /// # Errors
    ///
    /// If there is one, or the directory cannot be made.
    pub fn make_room(dir: &Path) -> Result<(), IdentityError> {
        if let Some(Self { name, fleet, .. }) = Self::read(dir)? {
            return Err(IdentityError::Present { dir: dir.to_owned(), name, fleet });
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| IdentityError::Io { doing: "make", path: dir.to_owned(), source })
    }

    /// Writes the file: whole or not at all, and on the disk when this returns. The last step of `init` and `join`, so that a machine that
    /// loses its power on the way is in no fleet rather than half in one.
    ///
    /// # Errors
    ///
    /// If the disk does not take it.
    pub fn store(&self, dir: &Path) -> Result<(), IdentityError> {
        let stored = Stored {
            id: self.id.0,
            name: self.name.clone(),
            fleet: self.fleet.clone(),
            lease_key_id: self.lease_key.id,
            lease_key: hex(&self.lease_key.secret),
            epoch: self.epoch,
        };
        let path = dir.join(FILE);
        let unfinished = dir.join(format!("{FILE}.new"));
        toml::to_string(&stored)
            .map_err(io::Error::other)
            .and_then(|text| write_synced(&unfinished, &format!("{HEADER}{text}")))
            .and_then(|()| fs::rename(&unfinished, &path))
            .and_then(|()| fs::File::open(dir)?.sync_all())
            .map_err(|source| IdentityError::Io { doing: "write", path, source })
    }

    /// Removes the file; nothing happens if there is none.
    ///
    /// # Errors
    ///
    /// If it is there and stays.
    pub fn remove(dir: &Path) -> Result<(), IdentityError> {
        let path = dir.join(FILE);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(IdentityError::Io { doing: "remove", path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn read(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = dir.join(FILE);
        let failed = |source| IdentityError::Io { doing: "read", path: path.clone(), source };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mode = fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Exposed { path, mode });
        }
        let damaged = |reason: String| IdentityError::Damaged { path: path.clone(), reason };
        let stored =
            toml::from_str::<Stored>(&text).map_err(|error| damaged(error.message().to_owned()))?;
        if stored.id == 0 {
            return Err(damaged("id 0 is no node's".to_owned()));
        }
        let secret = unhex(&stored.lease_key)
            .ok_or_else(|| damaged("lease_key is not 64 hexadecimal digits".to_owned()))?;
        Ok(Some(Self {
            id: NodeId(stored.id),
            name: stored.name,
            fleet: stored.fleet,
            lease_key: LeaseKey { id: stored.lease_key_id, secret },
            epoch: stored.epoch,
        }))
    }
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    // A leftover of an attempt that was cut short could have other permissions; `mode` applies to new files alone.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            id: NodeId(3),
            name: "lvs-1".into(),
            fleet: "web".into(),
            lease_key: random_key().unwrap(),
            epoch: 2,
        }
    }

    #[test]
    fn what_was_stored_is_read_back_and_nobody_else_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let identity = identity();
        identity.store(dir.path()).unwrap();

        assert_eq!(Identity::load(dir.path(), "lvs-1").unwrap(), identity);
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a leftover stays behind");
    }

    #[test]
    fn a_machine_without_identity_is_told_of_init_and_join() {
        let dir = tempfile::tempdir().unwrap();
        let error = Identity::load(dir.path(), "lvs-1").unwrap_err();
        assert!(matches!(error, IdentityError::Absent { .. }));
        let hint = error.hint().unwrap();
        assert!(hint.contains("init --fleet") && hint.contains("join ADDRESS"), "{hint}");
    }

    #[test]
    fn an_identity_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        Identity::make_room(&dir.path().join("a/b")).unwrap();
        identity().store(dir.path()).unwrap();
        let error = Identity::make_room(dir.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Present { .. }), "{error}");
    }

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        identity().store(dir.path()).unwrap();

        let error = Identity::load(dir.path(), "lvs-2").unwrap_err();
        assert!(matches!(error, IdentityError::Renamed { .. }), "{error}");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load(dir.path(), "lvs-1").unwrap_err();
        assert!(matches!(error, IdentityError::Exposed { mode: 0o640, .. }), "{error}");

        for text in ["id = 1", "id = 0\nname='a'\nfleet='f'\nlease_key_id=1\nlease_key='00'"] {
            fs::remove_file(&path).unwrap();
            write_synced(&path, text).unwrap();
            let error = Identity::load(dir.path(), "lvs-1").unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
        }
    }
}
