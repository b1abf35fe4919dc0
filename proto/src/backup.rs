//! The file of a saved state: what `lvsctl snapshot` writes and reads.
//!
//! ```text
//!  0  16  "lvsmesh snapshot"
//! 16   4  layout, 1
//! 20   4  length of the header
//! 24   8  length of the state
//! 32   .  header: lvsmesh.internal.v1.SnapshotHeader
//!  .   .  state: lvsmesh.internal.v1.Snapshot
//!  .  32  SHA-256 over everything before it
//! ```
//!
//! Integers are big-endian. Lengths are exact: a file that is shorter or longer than they say is refused before its checksum is looked at, because
//! "cut short" says more than "wrong checksum".

use lvsmesh_core::state::State;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::convert::{self, DecodeError};
use crate::internal::v1::SnapshotHeader;

const MAGIC: &[u8; 16] = b"lvsmesh snapshot";
const LAYOUT: u32 = 1;
const FIXED: usize = 32;
const CHECKSUM: usize = 32;

/// A state, and where and when it was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Backup {
    /// Where and when.
    pub header: SnapshotHeader,
    /// Everything that the fleet had agreed on.
    pub state: State,
}

/// Why bytes are no whole snapshot file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// Something else altogether.
    #[error("it is no snapshot of lvsmesh: it does not begin with `lvsmesh snapshot`")]
    Foreign,
    /// Of another version.
    #[error("it has layout {found}, and layout {LAYOUT} is the only one known")]
    Layout {
        /// What it says.
        found: u32,
    },
    /// Cut short, or with something behind its end.
    #[error("it is {} bytes long and must have {expected}: {}", found, if found < expected { "it was cut short" } else { "something follows its end" })]
    Length {
        /// By its own lengths; at least the fixed part.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// A byte was changed since it was written.
    #[error("its checksum is wrong: it was changed or damaged since it was written")]
    Checksum,
    /// The checksum is right, but this version does not understand it.
    #[error("its content cannot be read by this version")]
    Content(#[from] DecodeError),
    /// Header and state contradict each other: no version writes that.
    #[error("its header says {field} {header}, its state {state}")]
    Contradiction {
        /// `fleet`, `revision`, `index`.
        field: &'static str,
        /// By the header.
        header: String,
        /// By the state.
        state: String,
    },
}

impl BackupError {
    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Foreign => "`lvsctl snapshot save FILE` writes snapshots",
            Self::Length { .. } | Self::Checksum => {
                "use another copy of the file, or save a new snapshot"
            }
            Self::Layout { .. } | Self::Content(_) | Self::Contradiction { .. } => {
                "use the lvsctl of the version that saved it, or a newer one"
            }
        }
    }
}

/// Writes a file. `fleet`, `index` and `revision` of the header are the state's, whatever they were.
#[must_use]
pub fn encode(header: SnapshotHeader, state: &State) -> Vec<u8> {
    let header = SnapshotHeader {
        fleet: state.fleet().to_owned(),
        index: state.applied(),
        revision: state.revision(),
        ..header
    };
    let (header, state) = (header.encode_to_vec(), convert::encode_snapshot(state));
    let header_length = u32::try_from(header.len()).unwrap_or(u32::MAX);
    let mut file = Vec::with_capacity(FIXED + header.len() + state.len() + CHECKSUM);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&LAYOUT.to_be_bytes());
    file.extend_from_slice(&header_length.to_be_bytes());
    file.extend_from_slice(&(state.len() as u64).to_be_bytes());
    file.extend_from_slice(&header);
    file.extend_from_slice(&state);
    let checksum = Sha256::digest(&file);
    file.extend_from_slice(&checksum);
    file
}

/// Reads a file, and checks all of it.
///
/// # Errors
///
/// What is wrong with it, in the order in which it helps most to know.
pub fn decode(file: &[u8]) -> Result<Backup, BackupError> {
    let found = file.len() as u64;
    let common = MAGIC.len().min(file.len());
    if file[..common] != MAGIC[..common] {
        return Err(BackupError::Foreign);
    }
    let Some(fixed) = file.first_chunk::<FIXED>() else {
        return Err(BackupError::Length { expected: (FIXED + CHECKSUM) as u64, found });
    };
    let (layout, header_length, state_length) = lengths(fixed);
    if layout != LAYOUT {
        return Err(BackupError::Layout { found: layout });
    }
    let expected = u64::from(header_length)
        .saturating_add(state_length)
        .saturating_add((FIXED + CHECKSUM) as u64);
    if expected != found {
        return Err(BackupError::Length { expected, found });
    }
    let (covered, checksum) = file.split_at(file.len() - CHECKSUM);
    if Sha256::digest(covered).as_slice() != checksum {
        return Err(BackupError::Checksum);
    }
    // Fits: the file does.
    let (header, state) = covered[FIXED..].split_at(header_length as usize);
    let header = SnapshotHeader::decode(header).map_err(DecodeError::from)?;
    let state = convert::decode_snapshot(state)?;
    let pairs = [
        ("fleet", header.fleet.clone(), state.fleet().to_owned()),
        ("revision", header.revision.to_string(), state.revision().to_string()),
        ("index", header.index.to_string(), state.applied().to_string()),
    ];
    for (field, header, state) in pairs {
        if header != state {
            return Err(BackupError::Contradiction { field, header, state });
        }
    }
    Ok(Backup { header, state })
}

/// Layout, length of the header, length of the state.
fn lengths(fixed: &[u8; FIXED]) -> (u32, u32, u64) {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let word = |at: usize| u32::try_from(number(&fixed[at..at + 4])).unwrap_or(u32::MAX);
    (word(16), word(20), number(&fixed[24..32]))
}

#[cfg(test)]
mod tests {
    use lvsmesh_core::command::{Apply, Candidate, Command};
    use lvsmesh_core::model::{Document, Fleet, Role};

    use super::*;

    fn state() -> State {
        let first = Candidate {
            name: "lvs-1".into(),
            roles: [Role::Director].into(),
            addresses: vec![[192, 0, 2, 1].into()],
            grpc: ([192, 0, 2, 1], 7400).into(),
            lease: ([192, 0, 2, 1], 7401).into(),
        };
        let mut state = State::init("web", first);
        state.apply(
            7,
            Command::Apply(Apply {
                document: Document {
                    fleet: Fleet { name: "web".into(), ..Fleet::default() },
                    ..Document::default()
                },
                expected_revision: None,
                author: "operator/ada".into(),
                message: "the first".into(),
                unix_ms: 1,
            }),
        );
        state
    }

    fn file() -> Vec<u8> {
        let header = SnapshotHeader {
            term: 3,
            epoch: 1,
            voters: vec![1],
            taken_by: "lvs-1".into(),
            ..SnapshotHeader::default()
        };
        encode(header, &state())
    }

    #[test]
    fn what_was_saved_is_read_back_and_its_header_is_the_states() {
        let backup = decode(&file()).unwrap();
        assert_eq!(backup.state, state());
        let SnapshotHeader { fleet, epoch, index, term, revision, .. } = backup.header;
        assert_eq!((fleet.as_str(), epoch, index, term, revision), ("web", 1, 7, 3, 1));
    }

    #[test]
    fn a_file_that_was_cut_at_any_byte_is_said_to_be_cut() {
        let whole = file();
        for length in 0..whole.len() {
            let error = decode(&whole[..length]).unwrap_err();
            let BackupError::Length { expected, found } = error else {
                panic!("cut at {length}: {error}")
            };
            assert!(found < expected, "cut at {length}");
            assert!(error.to_string().ends_with("it was cut short"), "{error}");
        }
        let error = decode(&[whole.as_slice(), b"x"].concat()).unwrap_err();
        assert!(error.to_string().ends_with("something follows its end"), "{error}");
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        let whole = file();
        for bit in 0..whole.len() * 8 {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn strangers_and_other_layouts_are_told_apart() {
        assert_eq!(decode(b"{\"fleet\": 1}"), Err(BackupError::Foreign));
        let mut newer = file();
        newer[19] = 2;
        assert_eq!(decode(&newer), Err(BackupError::Layout { found: 2 }));
    }

    #[test]
    fn a_header_of_another_state_is_refused_though_the_checksum_is_right() {
        let mut file = file();
        // The fleet's name in the header, which comes first, and a checksum to go with it.
        let at = file.windows(3).position(|bytes| bytes == b"web").unwrap();
        file[at] = b'W';
        let end = file.len() - CHECKSUM;
        let checksum = Sha256::digest(&file[..end]);
        file[end..].copy_from_slice(&checksum);
        let error = decode(&file).unwrap_err();
        assert_eq!(error.to_string(), "its header says fleet Web, its state web");
    }
}
