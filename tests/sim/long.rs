//! Long runs that add up: each goes on where the last one stopped.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::run_all;
use crate::world::END;

/// Seeds of long runs: none of those that every test run has.
const FIRST: u64 = 1_000_000;
/// After so many the ledger is written.
const BATCH: u64 = 500;
const HOUR: u64 = 3600 * 1_000_000_000;

/// What ran so far without a violation, a line for each batch: `FROM..TO`, and since some time the commit that was checked out.
fn ledger() -> PathBuf {
    let given = std::env::var_os("LVSMESH_LEDGER").map(PathBuf::from);
    given.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sim.ledger"))
}

/// The next seed, and how many ran.
fn done(text: &str) -> (u64, u64) {
    text.lines().fold((FIRST, 0), |(next, count), line| {
        let (seeds, _commit) = line.split_once(' ').unwrap_or((line, ""));
        let (from, to) = seeds.split_once("..").expect("a line of the ledger is FROM..TO COMMIT");
        let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
        (next.max(to), count + (to - from))
    })
}

fn hours(seeds: u64) -> f64 {
    seeds as f64 * END as f64 / HOUR as f64
}

#[test]
fn a_ledger_says_where_to_go_on() {
    assert_eq!(done(""), (FIRST, 0));
    assert_eq!(done("1000000..1000500\n1000500..1001000 0123abc\n"), (1_001_000, 1000));
}

/// How many hours a run is to add, if it is to be a long one.
pub(crate) fn wanted() -> Option<f64> {
    let text = std::env::var("LVSMESH_FLEET_HOURS").ok()?;
    Some(text.parse().expect("LVSMESH_FLEET_HOURS is a number"))
}

/// What is checked out, which is what runs unless somebody edits.
fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let said = output.ok().filter(|output| output.status.success());
    said.map_or("unknown".to_owned(), |said| {
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    })
}

/// Goes on until that many hours were added.
pub(crate) fn run(wanted: f64) {
    let path = ledger();
    let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    // Two runs at once would go through the same seeds and count them twice.
    file.try_lock().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let commit = commit();
    let (mut next, before) = done(&std::fs::read_to_string(&path).unwrap());
    let mut ran = 0;
    while hours(ran) < wanted {
        let batch = next..next + BATCH;
        if let Err((seed, violation)) = run_all(&batch, false) {
            panic!(
                "seed {seed}: {violation}\nto see it again: LVSMESH_SEED={seed} cargo test -p lvsmesh-tests --test sim a_fleet -- --nocapture"
            );
        }
        next = batch.end;
        ran += BATCH;
        writeln!(file, "{}..{} {commit}", batch.start, batch.end).unwrap();
        println!(
            "{:.2} fleet-hours in this run, {:.2} in all ({})",
            hours(ran),
            hours(before + ran),
            path.display()
        );
    }
}
