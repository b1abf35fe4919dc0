//! Rules of the repository that no compiler checks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use lvsmesh_tests::process::program;

fn root() -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    std::fs::canonicalize(root).expect("the workspace is where its tests were built")
}

/// Files of a kind, `target` and hidden directories left out, with their text.
fn files(extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)
            .expect("the workspace is readable")
            .map(|entry| entry.expect("it stays readable"))
        {
            let path = entry.path();
            let name = entry.file_name();
            let hidden = name.to_string_lossy().starts_with('.') || name == "target";
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !hidden {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = std::fs::read_to_string(&path)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no file *.{extension} in {}", root().display());
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// What a member of the workspace depends on, build and test dependencies left out.
fn dependencies(member: &str) -> BTreeSet<String> {
    let manifest = root().join(member).join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest)
        .unwrap_or_else(|error| panic!("{}: {error}", manifest.display()));
    let section = text.split("\n[").find_map(|section| section.strip_prefix("dependencies]"));
    let lines =
        section.unwrap_or_default().lines().filter(|line| !line.trim_start().starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(key, _)| key.trim().trim_end_matches(".workspace").to_owned())
        .collect()
}

#[test]
fn crates_depend_on_each_other_in_one_direction() {
    let ours = |member: &str| -> BTreeSet<String> {
        dependencies(member).into_iter().filter(|name| name.starts_with("lvsmesh-")).collect()
    };
    let set = |names: &[&str]| {
        names.iter().map(|name| format!("lvsmesh-{name}")).collect::<BTreeSet<_>>()
    };
    for (member, allowed) in [
        ("core", set(&[])),
        ("proto", set(&["core"])),
        ("kernel", set(&["core"])),
        ("agent", set(&["core", "proto", "kernel"])),
        ("ctl", set(&["core", "proto"])),
    ] {
        let excess: Vec<_> = ours(member).difference(&allowed).cloned().collect();
        assert_eq!(excess, Vec::<String>::new(), "{member} must not depend on these");
    }
}

#[test]
fn the_core_has_no_way_out() {
    let allowed: BTreeSet<String> =
        ["ipnet", "serde", "thiserror"].iter().map(ToString::to_string).collect();
    let excess: Vec<_> = dependencies("core").difference(&allowed).cloned().collect();
    assert_eq!(
        excess,
        Vec::<String>::new(),
        "core must stay free of runtimes, sockets, clocks and logs"
    );
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    // A table, a codec or recorded data may have a reason; it is named here.
    let excused = [
        // Its first two hundred lines are the inputs and effects, which are read as one list; the rest is one round of raft-rs's protocol.
        "agent/src/raft/node.rs",
        // One table of conversations with the node above.
        "agent/src/raft/node/tests.rs",
    ];
    let long: Vec<_> = files("rs")
        .iter()
        .filter(|(path, text)| {
            text.lines().count() > 700 && !excused.contains(&shown(path).as_str())
        })
        .map(|(path, text)| format!("{}: {} lines", shown(path), text.lines().count()))
        .collect();
    assert_eq!(long, Vec::<String>::new(), "split these where they have two reasons to change");
}

#[test]
fn what_is_left_to_do_has_a_number() {
    // In two pieces, so that this file does not find itself.
    let word = concat!("TO", "DO");
    let nameless: Vec<_> = ["rs", "proto", "toml", "md"]
        .into_iter()
        .flat_map(files)
        .flat_map(|(path, text)| {
            let lines = text.lines().enumerate().filter(|(_, line)| {
                line.match_indices(word).any(|(at, _)| !line[at + word.len()..].starts_with("(#"))
            });
            lines.map(|(number, _)| format!("{}:{}", shown(&path), number + 1)).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(nameless, Vec::<String>::new(), "write {word}(#42), with the issue's number");
}

#[test]
fn tests_are_never_left_out() {
    let marks = [concat!("#[", "ignore"), concat!("#[", "should_panic")];
    let marked: Vec<_> = files("rs")
        .iter()
        .filter(|(_, text)| marks.iter().any(|mark| text.contains(mark)))
        .map(|(path, _)| shown(path))
        .collect();
    assert_eq!(marked, Vec::<String>::new());
}

/// A row of the table that no test shows is a promise.
#[test]
fn every_case_of_a_disaster_names_tests_that_there_are() {
    let file = root().join("docs/disasters.md");
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let tests: BTreeSet<String> =
        files("rs").iter().flat_map(|(_, text)| test_functions(text)).collect();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| **")).collect();
    assert!(rows.len() >= 10, "only {} cases", rows.len());
    for row in rows {
        let shown_by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let names: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "nothing shows: {row}");
        for name in names {
            assert!(tests.contains(name), "no test is named {name}");
        }
    }
    for rules in text.split("Shown by ").skip(1) {
        let named: Vec<&str> = rules.split("\n\n").next().unwrap_or_default().split('`').collect();
        for name in named.iter().skip(1).step_by(2) {
            assert!(tests.contains(*name), "no test is named {name}");
        }
    }
}

/// The names of functions that have an attribute `test` or `tokio::test`, or that `proptest!` makes tests of.
fn test_functions(text: &str) -> Vec<String> {
    let mut marked = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim_start) {
        if line == "#[test]" || line.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some(name) = line.trim_start_matches("async ").strip_prefix("fn ") {
            let name = name.split(['(', '<']).next().unwrap_or_default();
            if std::mem::take(&mut marked) {
                names.push(name.to_owned());
            }
        }
    }
    names
}

#[test]
fn only_functions_that_are_tests_count() {
    let text = "#[test]\n#[track_caller]\nfn one() {\n}\nfn two() {}\n    #[tokio::test(start_paused = true)]\n    async fn three() {}\n";
    assert_eq!(test_functions(text), ["one", "three"]);
}

#[test]
fn the_commented_configuration_is_the_one_that_the_agent_prints() {
    let file = root().join("deploy/config/agent.toml");
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let output = Command::new(program("lvs-agent"))
        .arg("--print-default-config")
        .output()
        .expect("the agent's program can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), text);
}

#[test]
fn scripts_can_be_run_and_stop_at_their_first_fault() {
    for script in [
        ".ci/run",
        "tests/run",
        "tests/install",
        "tests/vm/boot",
        "tests/vm/suites",
        "deploy/quickstart",
    ] {
        let file = root().join(script);
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{script}: {error}"));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&file).expect("it was just read").permissions(),
        );
        assert!(mode & 0o111 != 0, "{script} is not executable");
        assert!(
            text.starts_with("#!/usr/bin/env bash\n"),
            "{script} does not say that it is bash's"
        );
        assert!(
            text.contains("\nexec ") || text.contains("pipefail"),
            "{script} goes on after a fault in a pipe"
        );
    }
}
