//! The suite that every log store passes, and what only one of them can show.

mod device;
mod faults;

use std::path::PathBuf;

use prost011::Message as _;
use raft::eraftpb::HardState;
use raft::{GetEntriesContext, StorageError};
use tempfile::TempDir;

use super::*;

/// A device that a store can be opened on again and again.
trait Bench: Sized {
    type Store: LogStore;
    fn new() -> Self;
    fn open(&self) -> Self::Store;
}

struct RedbBench(TempDir);

impl RedbBench {
    fn file(&self) -> PathBuf {
        self.0.path().join("raft.redb")
    }
}

impl Bench for RedbBench {
    type Store = RedbStore;

    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> RedbStore {
        RedbStore::open(&self.file()).unwrap()
    }
}

struct MemoryBench(Disk);

impl Bench for MemoryBench {
    type Store = MemoryStore;

    fn new() -> Self {
        Self(Disk::default())
    }

    fn open(&self) -> MemoryStore {
        self.0.crash();
        MemoryStore::open(&self.0)
    }
}

/// Runs each claim on every store.
macro_rules! suite {
    ($($claim:ident),+ $(,)?) => {
        mod redb_file {
            $(#[test] fn $claim() { super::$claim::<super::RedbBench>(); })+
        }
        mod memory {
            $(#[test] fn $claim() { super::$claim::<super::MemoryBench>(); })+
        }
    };
}

suite!(
    a_new_store_is_empty_and_belongs_to_nobody,
    a_store_is_installed_once,
    a_joiner_starts_from_nothing,
    what_was_written_is_there_after_opening_again,
    newer_entries_replace_older_ones_and_all_after_them,
    entries_come_up_to_a_size_but_at_least_one,
    terms_are_known_from_the_entry_before_the_first,
    a_received_snapshot_replaces_the_log,
    compaction_keeps_the_tail_and_serves_the_snapshot,
    a_snapshot_is_wanted_for_whoever_it_does_not_know,
    a_configuration_moves_with_its_index,
    a_batch_with_a_gap_is_a_programming_error,
);

const CONTEXT: fn() -> GetEntriesContext = || GetEntriesContext::empty(false);

fn entry(index: u64, term: u64, data: &str) -> Entry {
    Entry { index, term, data: data.as_bytes().to_vec(), ..Entry::default() }
}

fn conf(voters: &[u64], learners: &[u64]) -> ConfState {
    ConfState { voters: voters.to_vec(), learners: learners.to_vec(), ..ConfState::default() }
}

fn snapshot(index: u64, term: u64, conf_state: ConfState, data: &str) -> Snapshot {
    let mut snapshot = Snapshot { data: data.as_bytes().to_vec(), ..Snapshot::default() };
    let meta = snapshot.mut_metadata();
    meta.index = index;
    meta.term = term;
    meta.set_conf_state(conf_state);
    snapshot
}

fn hard(term: u64, vote: u64, commit: u64) -> Option<HardState> {
    Some(HardState { term, vote, commit })
}

/// A store that starts at index 1 with voter 1, and has entries 2 to 6 of term 2, committed up to 5 and applied up to 4.
fn founded<B: Bench>(bench: &B) -> B::Store {
    let mut store = bench.open();
    store
        .install(NodeId(1), Some(&snapshot(FIRST_INDEX, FIRST_TERM, conf(&[1], &[]), "start")))
        .unwrap();
    let entries = (2..=6).map(|index| entry(index, 2, &format!("e{index}"))).collect();
    store
        .write(&Batch { entries, hard_state: hard(2, 1, 5), applied: Some(4), ..Batch::default() })
        .unwrap();
    store
}

fn read(store: &impl LogStore) -> Vec<(u64, u64, String)> {
    let (first, last) = (store.first_index().unwrap(), store.last_index().unwrap());
    store
        .entries(first, last + 1, None, CONTEXT())
        .unwrap()
        .into_iter()
        .map(|entry| (entry.index, entry.term, String::from_utf8(entry.data).unwrap()))
        .collect()
}

fn a_new_store_is_empty_and_belongs_to_nobody<B: Bench>() {
    let store = B::new().open();
    assert_eq!(store.id(), None);
    assert_eq!((store.first_index().unwrap(), store.last_index().unwrap()), (1, 0));
    assert_eq!(store.term(0).unwrap(), 0);
    assert!(!store.initial_state().unwrap().initialized());
    assert_eq!(store.stored_snapshot().unwrap(), None);
}

fn a_store_is_installed_once<B: Bench>() {
    let bench = B::new();
    drop(founded(&bench));
    let mut store = bench.open();
    let error = store.install(NodeId(7), None).unwrap_err();
    assert!(matches!(error, StoreError::Occupied { id: NodeId(1), .. }), "{error}");
    assert_eq!(store.id(), Some(NodeId(1)));
}

fn a_joiner_starts_from_nothing<B: Bench>() {
    let bench = B::new();
    let seed = snapshot(0, 0, ConfState::default(), "seed");
    bench.open().install(NodeId(4), Some(&seed)).unwrap();
    let mut store = bench.open();
    assert_eq!(store.stored_snapshot().unwrap().unwrap().data, b"seed");
    store.snapshot(0, 4).unwrap_err();
    assert_eq!(store.take_wanted(), BTreeSet::from([4]));
    assert_eq!(store.id(), Some(NodeId(4)));
    assert_eq!((store.first_index().unwrap(), store.last_index().unwrap()), (1, 0));
    assert!(!store.initial_state().unwrap().initialized());
}

fn what_was_written_is_there_after_opening_again<B: Bench>() {
    let bench = B::new();
    let before = read(&founded(&bench));
    let store = bench.open();
    assert_eq!(read(&store), before);
    assert_eq!(before.len(), 5);
    let state = store.initial_state().unwrap();
    assert_eq!(state.hard_state, HardState { term: 2, vote: 1, commit: 5 });
    assert_eq!(state.conf_state, conf(&[1], &[]));
    assert_eq!(store.applied(), 4);
    assert_eq!(store.stored_snapshot().unwrap().unwrap().data, b"start");
}

fn newer_entries_replace_older_ones_and_all_after_them<B: Bench>() {
    let bench = B::new();
    let mut store = founded(&bench);
    let batch = Batch {
        entries: vec![entry(6, 3, "other")],
        hard_state: hard(3, 2, 5),
        ..Batch::default()
    };
    store.write(&batch).unwrap();
    let batch =
        Batch { entries: vec![entry(7, 3, "next"), entry(8, 3, "last")], ..Batch::default() };
    store.write(&batch).unwrap();
    store
        .write(&Batch {
            entries: vec![entry(7, 4, "cut")],
            hard_state: hard(4, 0, 5),
            ..Batch::default()
        })
        .unwrap();
    let tail = vec![(6, 3, "other".to_owned()), (7, 4, "cut".to_owned())];
    assert_eq!(read(&store)[4..], tail);
    drop(store);
    assert_eq!(read(&bench.open())[4..], tail);
}

fn entries_come_up_to_a_size_but_at_least_one<B: Bench>() {
    let store = founded(&B::new());
    let count = |size: Option<u64>| store.entries(2, 7, size, CONTEXT()).unwrap().len();
    let one = entry(2, 2, "e2").encoded_len() as u64;
    assert_eq!(count(None), 5);
    assert_eq!(count(Some(0)), 1);
    assert_eq!(count(Some(2 * one)), 2);
    assert_eq!(count(Some(3 * one - 1)), 2);
    let error = store.entries(1, 3, None, CONTEXT()).unwrap_err();
    assert_eq!(error, raft::Error::Store(StorageError::Compacted));
}

fn terms_are_known_from_the_entry_before_the_first<B: Bench>() {
    let store = founded(&B::new());
    let table = [
        (1, Ok(1)),
        (2, Ok(2)),
        (6, Ok(2)),
        (7, Err(StorageError::Unavailable)),
        (0, Err(StorageError::Compacted)),
    ];
    for (index, expected) in table {
        assert_eq!(store.term(index), expected.map_err(raft::Error::Store), "index {index}");
    }
}

fn a_received_snapshot_replaces_the_log<B: Bench>() {
    let bench = B::new();
    let mut store = founded(&bench);
    store
        .write(&Batch {
            snapshot: Some(snapshot(20, 5, conf(&[1, 2], &[3]), "all")),
            entries: vec![entry(21, 5, "after")],
            hard_state: hard(6, 0, 20),
            ..Batch::default()
        })
        .unwrap();
    drop(store);
    let store = bench.open();
    assert_eq!(read(&store), [(21, 5, "after".to_owned())]);
    assert_eq!(store.term(20).unwrap(), 5);
    assert_eq!(store.applied(), 20);
    let state = store.initial_state().unwrap();
    assert_eq!((state.hard_state.term, state.hard_state.commit), (6, 20));
    assert_eq!(state.conf_state, conf(&[1, 2], &[3]));
    assert_eq!(store.stored_snapshot().unwrap().unwrap().data, b"all");
}

fn compaction_keeps_the_tail_and_serves_the_snapshot<B: Bench>() {
    let bench = B::new();
    let mut store = founded(&bench);
    store.compact(&snapshot(4, 2, conf(&[1], &[]), "four"), 1).unwrap();
    let check = |store: &B::Store| {
        assert_eq!(store.first_index().unwrap(), 4);
        assert_eq!(read(store).len(), 3);
        assert_eq!(store.term(3).unwrap(), 2);
        assert_eq!(
            store.entries(3, 4, None, CONTEXT()).unwrap_err(),
            raft::Error::Store(StorageError::Compacted)
        );
        let served = store.snapshot(0, 1).unwrap();
        assert_eq!((served.get_metadata().index, served.data.as_slice()), (4, b"four".as_slice()));
    };
    check(&store);
    drop(store);
    check(&bench.open());
}

fn a_snapshot_is_wanted_for_whoever_it_does_not_know<B: Bench>() {
    let mut store = founded(&B::new());
    assert_eq!(store.snapshot(0, 1).unwrap().data, b"start");
    assert_eq!(store.take_wanted(), BTreeSet::new());
    let later = raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable);
    assert_eq!(store.snapshot(0, 9).unwrap_err(), later);
    assert_eq!(store.snapshot(3, 1).unwrap_err(), later);
    assert_eq!(store.take_wanted(), BTreeSet::from([1, 9]));
    assert_eq!(store.take_wanted(), BTreeSet::new());
    store.compact(&snapshot(4, 2, conf(&[1], &[9]), "four"), 0).unwrap();
    assert_eq!(store.snapshot(3, 9).unwrap().data, b"four");
}

fn a_configuration_moves_with_its_index<B: Bench>() {
    let bench = B::new();
    let mut store = founded(&bench);
    store
        .write(&Batch { applied: Some(5), conf_state: Some(conf(&[1], &[2])), ..Batch::default() })
        .unwrap();
    drop(store);
    let store = bench.open();
    assert_eq!(store.applied(), 5);
    assert_eq!(store.initial_state().unwrap().conf_state, conf(&[1], &[2]));
}

fn a_batch_with_a_gap_is_a_programming_error<B: Bench>() {
    let batches = [
        Batch { entries: vec![entry(8, 2, "gap")], ..Batch::default() },
        Batch { entries: vec![entry(1, 2, "covered")], ..Batch::default() },
        Batch { applied: Some(6), ..Batch::default() },
        Batch { hard_state: hard(2, 1, 7), ..Batch::default() },
    ];
    for batch in batches {
        let mut store = founded(&B::new());
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.write(&batch)));
        assert!(outcome.is_err(), "{batch:?} was written");
    }
}

#[test]
fn a_write_that_fails_leaves_all_or_nothing_and_is_never_half_there() {
    for (fault, written) in [(Fault::BeforeWrite, false), (Fault::AtSync, true)] {
        let bench = MemoryBench::new();
        let mut store = founded(&bench);
        bench.0.fail(fault);
        let batch = Batch {
            entries: vec![entry(7, 2, "e7")],
            hard_state: hard(9, 3, 6),
            ..Batch::default()
        };
        store.write(&batch).unwrap_err();
        assert_eq!(store.last_index().unwrap() == 7, written);
        let store = bench.open();
        assert_eq!(store.last_index().unwrap(), 6, "{fault:?}: it survived a crash");
        assert_eq!(store.initial_state().unwrap().hard_state.term, 2);
    }
}

#[test]
fn a_disk_that_lies_forgets_in_a_crash() {
    let bench = MemoryBench::new();
    let mut store = founded(&bench);
    bench.0.hold_syncs(true);
    store.write(&Batch { entries: vec![entry(7, 2, "e7")], ..Batch::default() }).unwrap();
    assert_eq!(store.last_index().unwrap(), 7);
    assert_eq!(bench.open().last_index().unwrap(), 6);
}

#[test]
fn two_processes_cannot_have_one_log() {
    let bench = RedbBench::new();
    let store = founded(&bench);
    let error = RedbStore::open(&bench.file()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("raft.redb"), "{error}");
    drop(store);
    bench.open();
}

#[test]
fn only_its_user_can_read_the_log() {
    use std::os::unix::fs::PermissionsExt;
    let bench = RedbBench::new();
    drop(founded(&bench));
    let mode = std::fs::metadata(bench.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_damaged_log_is_not_opened() {
    let bench = RedbBench::new();
    drop(founded(&bench));
    let whole = std::fs::read(bench.file()).unwrap();

    let damages: [(&str, Vec<u8>); 3] = [
        ("zeroes in place of its header", [&[0; 512], &whole[512..]].concat()),
        ("text", b"not a log at all, but long enough to look like something".repeat(100)),
        ("half of it", whole[..whole.len() / 2].to_vec()),
    ];
    for (what, bytes) in damages {
        std::fs::write(bench.file(), bytes).unwrap();
        let error =
            RedbStore::open(&bench.file()).err().unwrap_or_else(|| panic!("{what}: opened"));
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error:?}");
        assert!(error.to_string().contains("raft.redb"), "{what}: {error}");
        assert!(error.hint().unwrap().contains("lvs-agent join"), "{what}: {error}");
    }
}

#[test]
fn a_flipped_byte_is_refused_or_harmless() {
    let bench = RedbBench::new();
    drop(founded(&bench));
    let before = read(&bench.open());
    let whole = std::fs::read(bench.file()).unwrap();
    // Every byte that is in use, sparsely; the rest of the file is free pages.
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let mut refused = 0;
    for at in used.iter().step_by((used.len() / 60).max(1)) {
        let mut bytes = whole.clone();
        bytes[*at] ^= 0x40;
        std::fs::write(bench.file(), bytes).unwrap();
        match RedbStore::open(&bench.file()) {
            Err(error) => {
                assert!(matches!(error, StoreError::Damaged { .. }), "byte {at}: {error:?}");
                refused += 1;
            }
            Ok(store) => assert_eq!(read(&store), before, "byte {at} changed the log"),
        }
    }
    assert!(refused > 0, "no flipped byte was ever noticed");
}

#[test]
fn a_log_that_contradicts_itself_is_not_opened() {
    type Spoil = fn(&mut Outline);
    let spoils: [(&str, Spoil); 4] = [
        ("commit index 9", |outline| outline.hard_state.commit = 9),
        ("applied index 6", |outline| outline.applied = 6),
        ("entry 3 is of term 1", |outline| outline.terms[1] = 1),
        ("current term is 1", |outline| outline.hard_state.term = 1),
    ];
    let whole = Outline {
        truncated: (1, 1),
        terms: [2, 2, 2, 2, 2].into(),
        hard_state: HardState { term: 2, vote: 1, commit: 5 },
        applied: 4,
        snapshot_index: 1,
        ..Outline::default()
    };
    let check = |outline: &Outline| outline.check().and_then(|()| outline.check_terms());
    assert_eq!(check(&whole), Ok(()));
    for (fault, spoil) in spoils {
        let mut outline = whole.clone();
        spoil(&mut outline);
        let found = check(&outline).unwrap_err();
        assert!(found.contains(fault), "{found} does not mention {fault}");
    }
}
