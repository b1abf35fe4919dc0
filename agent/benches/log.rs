//! What the log store costs, beside the least that any log must do: `cargo bench -p lvsmesh-agent --bench log`. It reports and judges nothing.
//!
//! One of each in turn, so that what else the disk does is shared fairly: an entry of 300 bytes with its hard state as a leader's commit writes it, a
//! vote, and an append of 300 bytes with a checksum to a preallocated file and one `fdatasync`, which is what a write-ahead log of one's own would
//! come down to. Then a compaction with a snapshot of one and of sixteen megabytes. The files are made below `LVSMESH_BENCH_DIR`, or else where
//! cargo keeps temporary files: on a disk, or it means nothing.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark reports")]

use std::fs::File;
use std::hash::Hasher as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lvsmesh_agent::raft::storage::{Batch, LogStore, RedbStore};
use lvsmesh_core::model::NodeId;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};

const ROUNDS: u64 = 1000;
const ENTRY_BYTES: usize = 300;
const SEGMENT_BYTES: usize = 4 << 20;

fn main() {
    let parent = std::env::var_os("LVSMESH_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = tempfile::Builder::new().prefix("log-").tempdir_in(parent).unwrap();
    let mut store = RedbStore::open(&dir.path().join("raft.redb")).unwrap();
    store.install(NodeId(1), Some(&snapshot(1, 0))).unwrap();
    let mut votes = RedbStore::open(&dir.path().join("votes.redb")).unwrap();
    votes.install(NodeId(1), Some(&snapshot(1, 0))).unwrap();
    let segment = File::create_new(dir.path().join("segment.wal")).unwrap();
    segment.write_all_at(&vec![0; SEGMENT_BYTES], 0).unwrap();
    segment.sync_all().unwrap();

    let (mut commit, mut vote, mut append) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let index = round + 2;
        let entry = Entry { index, term: 2, data: vec![7; ENTRY_BYTES], ..Entry::default() };
        let hard_state = Some(HardState { term: 2, vote: 1, commit: index - 1 });
        let batch = Batch { entries: vec![entry], hard_state, ..Batch::default() };
        commit.push(time(|| store.write(&batch).unwrap()));

        let hard_state = Some(HardState { term: round + 2, vote: 1 + round % 3, commit: 1 });
        let batch = Batch { hard_state, ..Batch::default() };
        vote.push(time(|| votes.write(&batch).unwrap()));

        let at = round * (ENTRY_BYTES as u64 + 16);
        append.push(time(|| {
            let mut record = vec![7; ENTRY_BYTES];
            let mut sum = std::hash::DefaultHasher::new();
            sum.write(&record);
            record.extend_from_slice(&sum.finish().to_be_bytes());
            segment.write_all_at(&record, at).unwrap();
            segment.sync_data().unwrap();
        }));
    }
    report("redb: an entry and its hard state", commit);
    report("redb: a vote", vote);
    report("append and fdatasync: the floor", append);

    for (first, megabytes) in [(2, 1), (12, 16)] {
        let times = (first..first + 10).map(|index| {
            store.write(&Batch { applied: Some(index), ..commit_up_to(ROUNDS) }).unwrap();
            let snapshot = snapshot(index, megabytes << 20);
            time(|| store.compact(&snapshot, 500).unwrap())
        });
        report(&format!("redb: a snapshot of {megabytes} MiB"), times.collect());
    }
}

fn commit_up_to(rounds: u64) -> Batch {
    let hard_state = Some(HardState { term: 2, vote: 1, commit: rounds + 1 });
    Batch { hard_state, ..Batch::default() }
}

fn snapshot(index: u64, bytes: usize) -> Snapshot {
    let mut snapshot = Snapshot { data: vec![7; bytes], ..Snapshot::default() };
    let meta = snapshot.mut_metadata();
    (meta.index, meta.term) = (index, if index == 1 { 1 } else { 2 });
    meta.set_conf_state(ConfState { voters: vec![1], ..ConfState::default() });
    snapshot
}

fn time(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at =
        |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!(
        "{what:36}  median {:7.2} ms  p99 {:7.2} ms  longest {:7.2} ms",
        at(50),
        at(99),
        at(100)
    );
}
