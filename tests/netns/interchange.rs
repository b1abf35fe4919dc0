//! `lvsctl import` and `export` beside the real keepalived, whose samples, manual page and parser they are held against.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lvsmesh_tests::Lab;
use lvsmesh_tests::document::LVS_2;
use lvsmesh_tests::process::program;
use serde::Deserialize;

const SAMPLES: &str = "/usr/share/doc/keepalived/samples";

#[derive(Deserialize)]
struct Report {
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    line: usize,
    words: String,
    fate: String,
}

fn lvsctl(arguments: &[&str]) -> (String, String) {
    let output = Command::new(program("lvsctl")).args(arguments).output().expect("lvsctl starts");
    let Output { status, stdout, stderr } = output;
    let (out, err) = (
        String::from_utf8_lossy(&stdout).into_owned(),
        String::from_utf8_lossy(&stderr).into_owned(),
    );
    assert!(status.success(), "lvsctl {arguments:?}: {status}\n{err}");
    (out, err)
}

fn import(file: &Path, directory: &Path, more: &[&str]) -> (PathBuf, Report) {
    let (document, report) = (directory.join("document.yaml"), directory.join("report.json"));
    let (file, to) = (file.to_string_lossy(), report.to_string_lossy());
    let mut arguments = vec!["import", "keepalived", &file, "--report", &to];
    arguments.extend(more);
    let (out, err) = lvsctl(&arguments);
    assert_eq!(err, "", "{file}");
    std::fs::write(&document, out).expect("the directory is writable");
    let text = std::fs::read_to_string(report).expect("the report is there");
    (document, serde_json::from_str(&text).expect("the report is JSON"))
}

/// What keepalived says about a configuration.
fn keepalived(file: &Path) -> String {
    let mut command = Command::new("keepalived");
    command.args(["--config-test", "--use-file"]).arg(file);
    let output = command.output().expect("keepalived is installed: tests/install peers");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn every_sample_of_keepalived_is_read_and_no_line_is_dropped() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut samples: Vec<PathBuf> = std::fs::read_dir(SAMPLES)
        .expect("keepalived's documentation is installed: tests/install peers")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().contains("keepalived.conf."))
        .collect();
    samples.sort();
    assert!(samples.len() >= 20, "{samples:?}");
    let mut carried = 0;
    for sample in samples {
        let more = ["--vip-interface", "eth0", "--id", "high"];
        let (document, report) = import(&sample, directory.path(), &more);
        let text = std::fs::read_to_string(&sample).expect("the sample is readable");
        let reported: BTreeSet<usize> = report.lines.iter().map(|line| line.line).collect();
        for (index, line) in text.lines().enumerate() {
            let line = line.split(['#', '!']).next().unwrap_or_default();
            let says_something = line.chars().any(|c| !c.is_whitespace() && !"{}".contains(c));
            assert!(
                !says_something || reported.contains(&(index + 1)),
                "{}:{}: `{line}` was dropped",
                sample.display(),
                index + 1
            );
        }
        // A document that breaks a rule is refused here.
        let (rules, _) = lvsctl(&["export", "ipvsadm", "--file", &document.to_string_lossy()]);
        carried += rules.lines().filter(|line| line.starts_with("-A")).count();
    }
    assert!(carried >= 15, "{carried} services of all samples");
}

/// Each word of a block in a block of its own, as keepalived needs them.
fn block(name: &str, word: &str, index: usize) -> String {
    let server = |inside: String| {
        format!("virtual_server 10.0.0.1 80 {{\nreal_server 10.0.0.2 80 {{\n{inside}}}\n}}\n")
    };
    match name {
        "top" => format!("{word} 1\n"),
        "real_server" => server(format!("{word} 1\n")),
        "url" => server(format!("HTTP_GET {{\nurl {{\n{word} 1\n}}\n}}\n")),
        "host" => server(format!("SMTP_CHECK {{\nhost {{\n{word} 1\n}}\n}}\n")),
        check if check.ends_with("_CHECK") || check.ends_with("_GET") => {
            server(format!("{check} {{\n{word} 1\n}}\n"))
        }
        "authentication" => {
            format!("vrrp_instance X{index} {{\nauthentication {{\n{word} 1\n}}\n}}\n")
        }
        "virtual_server" => {
            let line = if word == "real_server" { String::new() } else { format!("{word} 1\n") };
            format!("virtual_server 10.0.0.1 80 {{\n{line}real_server 10.0.0.2 80 {{\n}}\n}}\n")
        }
        "global_defs" | "SSL" | "garp_group" => format!("{name} {{\n{word} 1\n}}\n"),
        block => format!("{block} X{index} {{\n{word} 1\n}}\n"),
    }
}

#[test]
fn the_words_said_to_be_keepalives_are_keepalives_and_none_is_unknown_to_the_import() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("k.conf");
    let list = include_str!("../data/keepalived-2.2.7-words.txt");
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let (name, words) = line.split_once(": ").expect("a block and its words");
        // One nonsense word more shows that keepalived, and the import, would have said so.
        let all: Vec<&str> = words.split(' ').chain(["nonsense"]).collect();
        let blocks: Vec<String> =
            all.iter().zip(0..).map(|(word, index)| block(name, word, index)).collect();
        std::fs::write(&file, blocks.concat()).expect("the directory is writable");
        let (_, report) = import(&file, directory.path(), &["--vip-interface", "lo"]);
        let unknown: BTreeSet<&str> = report
            .lines
            .iter()
            .filter(|line| line.fate == "unknown")
            .filter_map(|line| line.words.split(' ').next())
            .collect();
        assert_eq!(unknown, BTreeSet::from(["nonsense"]), "{name}");

        // A keepalived takes its time: all words of a block in one file, except where one swallows what follows.
        let alone = matches!(name, "top" | "HTTP_GET" | "SSL_GET" | "url");
        let files = if alone { blocks } else { vec![blocks.concat()] };
        let mut said = String::new();
        for text in files {
            std::fs::write(&file, text).expect("the directory is writable");
            said += &keepalived(&file);
        }
        for word in all {
            let complaint = format!("Unknown keyword '{word}'");
            assert_eq!(said.contains(&complaint), word == "nonsense", "{name}: {word}\n{said}");
        }
    }
}

#[test]
fn the_reference_deployment_goes_to_lvsmesh_and_back_to_keepalived() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/data"));
    let nodes = ["lvs-1=", "lvs-2="].map(str::to_owned);
    let files = ["keepalived-master.conf", "keepalived-backup.conf"].map(|file| root.join(file));
    let [one, other] = [0, 1].map(|index| format!("{}{}", nodes[index], files[index].display()));
    let (document, report) = lvsctl(&["import", "keepalived", "--node", &one, "--node", &other]);
    assert!(
        report.contains("nat_mask 255.255.255.0") && report.contains("nb_get_retry 3"),
        "{report}"
    );
    let yaml = directory.path().join("document.yaml");
    std::fs::write(&yaml, document).expect("the directory is writable");
    let yaml = yaml.to_string_lossy().into_owned();

    let (rules, _) = lvsctl(&["export", "ipvsadm", "--file", &yaml]);
    assert_eq!(
        rules,
        "-A -t 192.168.3.100:80 -s wlc -p 50\n\
         -a -t 192.168.3.100:80 -r 192.168.3.3:80 -g -w 3\n\
         -a -t 192.168.3.100:80 -r 192.168.3.102:80 -g -w 3\n"
    );
    let (back, _) = lvsctl(&["export", "keepalived", "--node", "lvs-2", "--file", &yaml]);
    assert!(back.contains("priority 99") && back.contains("router_id lvs-2"), "{back}");
    let file = directory.path().join("back.conf");
    std::fs::write(&file, back).expect("the directory is writable");
    // Where there is an `eth0`.
    let lab = Lab::new(&[LVS_2]);
    let said = lab.node(LVS_2.0).namespace.inside(|| keepalived(&file));
    assert_eq!(said, "", "keepalived takes the configuration without a word");
    let (file, vip) = (file.to_string_lossy().into_owned(), "192.168.3.100");
    let (again, _) = lvsctl(&["import", "keepalived", &file]);
    assert!(again.contains(vip), "{again}");
}
