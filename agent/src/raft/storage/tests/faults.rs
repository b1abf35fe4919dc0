//! What the redb store has after its device has failed it: power cuts at any byte, a disk that is full at any write, syncs that fail.

use raft::eraftpb::HardState;

use super::device::{Change, Device, Trouble, one_lost, torn};
use super::*;

/// One write to a store.
type Writes = fn(&mut RedbStore) -> Result<(), StoreError>;
/// What a reader sees.
type Seen = (Vec<(u64, u64, String)>, HardState, u64, ConfState);

fn seen(store: &RedbStore) -> Seen {
    let state = store.initial_state().unwrap();
    (read(store), state.hard_state, store.applied(), state.conf_state)
}

fn open(device: &Device) -> Result<RedbStore, StoreError> {
    RedbStore::on(device.clone(), Path::new("(device)"))
}

struct DeviceBench(Device);

impl Bench for DeviceBench {
    type Store = RedbStore;

    fn new() -> Self {
        Self(Device::default())
    }

    fn open(&self) -> RedbStore {
        open(&self.0).unwrap()
    }
}

/// The writes that a node makes: entries with a vote, a commit index with a configuration, an overwritten tail, a compaction.
fn writes() -> Vec<(&'static str, Writes)> {
    vec![
        ("entries and a vote", |store| {
            let entries = vec![entry(7, 3, &"x".repeat(300)), entry(8, 3, "e8")];
            store.write(&Batch { entries, hard_state: hard(3, 2, 6), ..Batch::default() })
        }),
        ("a configuration", |store| {
            let conf_state = Some(conf(&[1, 2], &[3]));
            store.write(&Batch {
                hard_state: hard(2, 1, 6),
                applied: Some(6),
                conf_state,
                ..Batch::default()
            })
        }),
        ("another leader's entry", |store| {
            let entries = vec![entry(6, 3, "other")];
            store.write(&Batch { entries, hard_state: hard(3, 0, 5), ..Batch::default() })
        }),
        ("a compaction", |store| store.compact(&snapshot(4, 2, conf(&[1], &[]), "four"), 1)),
    ]
}

/// The device before a write, the write's changes by span, and what a reader sees before and after it.
fn recorded(write: Writes) -> (Vec<u8>, Vec<Vec<Change>>, Seen, Seen) {
    let bench = DeviceBench::new();
    drop(founded(&bench));
    let mut store = bench.open();
    let (base, before) = (bench.0.synced(), seen(&store));
    assert_eq!(base, bench.0.now(), "what was written before is synced");
    bench.0.record();
    write(&mut store).unwrap();
    let (spans, after) = (bench.0.recorded(), seen(&store));
    // What follows without a sync belongs to the close, and is lost with the power.
    std::mem::forget(store);
    (base, spans, before, after)
}

#[test]
fn a_power_cut_at_any_byte_of_a_write_leaves_all_of_it_or_nothing() {
    for (number, (what, write)) in writes().into_iter().enumerate() {
        // More of the first, which is the commonest. All of them take minutes: LVSMESH_EVERY_BYTE=1.
        let step = match std::env::var_os("LVSMESH_EVERY_BYTE") {
            Some(_) => 1,
            None if number == 0 => 16,
            None => 64,
        };
        let (mut base, spans, before, after) = recorded(write);
        let (mut acknowledged, mut images) = (false, 0);
        for span in &spans {
            let mut check = |image: &[u8]| {
                images += 1;
                let store = open(&Device::holding(image.to_vec()))
                    .unwrap_or_else(|error| panic!("{what}, image {images}: {error}"));
                let found = seen(&store);
                assert!(
                    found == before || found == after,
                    "{what}, image {images}: neither what was there nor what was written"
                );
                assert!(!acknowledged || found == after, "{what}, image {images}: it is lost");
            };
            torn(&base, span, step, &mut check);
            one_lost(&base, span, &mut check);
            let device = Device::holding(base);
            span.iter().for_each(|change| device.put(change));
            base = device.now();
            // A later span only adds to what is there by then.
            acknowledged = seen(&open(&Device::holding(base.clone())).unwrap()) == after;
        }
        assert!(acknowledged, "{what}: it is not there though it was acknowledged");
        assert!(images > 100, "{what}: only {images} power cuts were tried");
    }
}

#[test]
fn a_disk_that_is_full_at_any_write_loses_nothing_and_takes_no_more() {
    for (what, write) in writes() {
        let mut failures = 0;
        for first in 0.. {
            let bench = DeviceBench::new();
            drop(founded(&bench));
            let mut store = bench.open();
            let before = seen(&store);
            bench.0.trouble(Trouble::From(first));
            let Err(error) = write(&mut store) else {
                bench.0.trouble(Trouble::None);
                break;
            };
            failures += 1;
            assert!(matches!(error, StoreError::Io { .. }), "{what}, operation {first}: {error}");
            // The disk has room again; what it has of the failed write nobody knows, so nothing more is asked of it.
            bench.0.trouble(Trouble::None);
            let error = write(&mut store).unwrap_err();
            assert!(matches!(error, StoreError::GivenUp { .. }), "{what}: {error}");
            assert!(error.hint().unwrap().contains("check the disk"));
            let lost = bench.0.synced();
            drop(store);
            let after = {
                let (base, spans, ..) = recorded(write);
                let device = Device::holding(base);
                spans.iter().flatten().for_each(|change| device.put(change));
                seen(&open(&device).unwrap())
            };
            // The agent is started again, with and without a power cut.
            for image in [bench.0.now(), lost] {
                let device = Device::holding(image);
                let mut store = open(&device)
                    .unwrap_or_else(|error| panic!("{what}, operation {first}: {error}"));
                let found = seen(&store);
                assert!(found == before || found == after, "{what}, operation {first}");
                if found == before {
                    write(&mut store).unwrap();
                    assert_eq!(seen(&store), after, "{what}, operation {first}");
                }
            }
        }
        assert!(failures >= 3, "{what}: only {failures} operations could fail");
    }
}

#[test]
fn a_disk_that_cannot_grow_takes_what_fits_and_then_refuses_once_and_for_all() {
    let bench = DeviceBench::new();
    let mut store = founded(&bench);
    bench.0.trouble(Trouble::Full);
    let mut written = 6;
    let error = loop {
        let next = entry(written + 1, 2, &"x".repeat(5000));
        match store.write(&Batch { entries: vec![next], ..Batch::default() }) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100_000, "it grows without growing");
    };
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(
        std::error::Error::source(&error).unwrap().to_string().contains("No space left"),
        "{error:?}"
    );
    drop(store);
    // Started with the disk still full: it votes and takes what fits.
    let mut store = open(&bench.0).unwrap();
    assert_eq!(store.last_index().unwrap(), written, "what was acknowledged is there");
    store.write(&Batch { hard_state: hard(9, 3, 6), ..Batch::default() }).unwrap();
    assert_eq!(store.initial_state().unwrap().hard_state.vote, 3);
    store.compact(&snapshot(4, 2, conf(&[1], &[]), "four"), 0).unwrap();
}

#[test]
fn a_sync_that_fails_is_not_tried_again() {
    for (what, write) in writes() {
        let bench = DeviceBench::new();
        drop(founded(&bench));
        let mut store = bench.open();
        let before = seen(&store);
        bench.0.trouble(Trouble::Sync);
        let error = write(&mut store).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{what}: {error}");
        // A second sync would succeed, and say nothing about the pages that the first one lost.
        let error = write(&mut store).unwrap_err();
        assert!(matches!(error, StoreError::GivenUp { .. }), "{what}: {error}");
        let survived = bench.0.synced();
        drop(store);
        let store = open(&Device::holding(survived)).unwrap();
        assert_eq!(seen(&store), before, "{what}: what was never synced is not there");
    }
}
