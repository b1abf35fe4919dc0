//! The program itself against an agent that says what the test wants.

#![expect(clippy::unwrap_used, reason = "a test program")]

mod agent;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use lvsmesh_proto::v1;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::process::Command;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic::{Code, Status};

use agent::{Agent, Mood, nobody, serve, start};

struct Run {
    code: i32,
    out: String,
    err: String,
}

fn lvsctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lvsctl"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

async fn run(arguments: &[&str]) -> Run {
    finish(lvsctl(arguments)).await
}

async fn finish(mut command: Command) -> Run {
    let output = command.output().await.unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

const DOCUMENT: &str = "\
fleet: {name: blue}
vips:
- {name: web, addresses: [192.168.3.100], interface: eth0, vrrp: {vrid: 51}}
pools:
- {name: web, real_servers: [{address: 192.168.3.3, port: 80}]}
services:
- {name: web, vip: web, port: 80, protocol: tcp, pool: web}
";

fn file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lvs.yaml");
    std::fs::write(&path, text).unwrap();
    (directory, path.to_str().unwrap().to_owned())
}

fn refusal(code: Code, message: &str, trailer: (&'static str, Vec<u8>)) -> Mood {
    let mut metadata = MetadataMap::new();
    if trailer.0.ends_with("-bin") {
        metadata.insert_bin(trailer.0, MetadataValue::from_bytes(&trailer.1));
    } else {
        metadata.insert(trailer.0, MetadataValue::try_from(trailer.1).unwrap());
    }
    Mood::Refuses(Box::new(Status::with_metadata(code, message, metadata)))
}

fn no_quorum() -> Mood {
    refusal(Code::Unavailable, "no leader was found", ("lvsmesh-reason", b"no-quorum".to_vec()))
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_sends_the_document_and_says_what_changed() {
    let (agent, seen) = start(Mood::Well).await;
    let (_directory, path) = file(DOCUMENT);
    let connection = ["--insecure", "--endpoint", &agent];
    let applied =
        run(&[&connection[..], &["apply", "-f", &path, "-m", "first", "--expected-revision", "3"]]
            .concat())
        .await;
    assert_eq!(
        (applied.code, applied.out.as_str()),
        (0, "revision 4: 1 change\n  services/web: added\n"),
        "{}",
        applied.err
    );
    let asked = seen.lock().unwrap().applied.take().unwrap();
    assert_eq!(asked.expected_revision, Some(3));
    assert_eq!((asked.message.as_str(), asked.dry_run), ("first", false));
    assert_eq!(asked.document.unwrap().services[0].name, "web");
    assert!(asked.unverified_author.contains('@'), "{}", asked.unverified_author);

    let pending =
        run(&[&connection[..], &["apply", "-f", &path, "--dry-run", "-o", "json"]].concat()).await;
    assert_eq!(pending.code, 3, "{}", pending.err);
    let answer: serde_json::Value = serde_json::from_str(&pending.out).unwrap();
    assert_eq!(answer["dry_run"], true);
    assert!(seen.lock().unwrap().applied.take().unwrap().dry_run);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_document_is_refused_without_asking_anybody() {
    let (agent, seen) = start(Mood::Well).await;
    let (_directory, path) = file(&DOCUMENT.replace("protocol: tcp", "protocol: tcpp"));
    let refused = run(&["--insecure", "--endpoint", &agent, "apply", "-f", &path]).await;
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(refused.err.contains("services[0].protocol: "), "{}", refused.err);
    assert_eq!(seen.lock().unwrap().calls, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_exits_with_5_and_says_who_changed_what() {
    let revision = v1::Revision {
        revision: 4,
        author: "operator/ann".into(),
        changes: vec!["services/web: scheduler wlc -> rr".into()],
        ..v1::Revision::default()
    };
    let since = v1::HistoryResponse { revisions: vec![revision], stale: false }.encode_to_vec();
    let (agent, seen) =
        start(refusal(Code::Aborted, "at revision 4, not 3", ("lvsmesh-conflict-bin", since)))
            .await;
    let (other, others) = start(Mood::Well).await;
    let (_directory, path) = file(DOCUMENT);
    let run =
        run(&["--insecure", "--endpoint", &agent, "--endpoint", &other, "apply", "-f", &path])
            .await;
    assert_eq!(run.code, 5);
    assert!(run.err.contains("operator/ann") && run.err.contains("wlc -> rr"), "{}", run.err);
    assert_eq!((seen.lock().unwrap().calls, others.lock().unwrap().calls), (1, 0), "no is no");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_the_status_is_shown_and_the_exit_code_is_6() {
    let (agent, _) = start(Mood::Alone).await;
    let run = run(&["--insecure", "--endpoint", &agent, "status"]).await;
    assert_eq!(run.code, 6);
    assert!(run.out.contains("no quorum") && run.out.contains("fleet     blue"), "{}", run.out);
    assert!(run.err.starts_with("error: no quorum"), "{}", run.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_degraded_fleet_is_shown_and_the_exit_code_is_3() {
    let (agent, _) = start(Mood::Lame).await;
    let run = run(&["--insecure", "--endpoint", &agent, "status"]).await;
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.out.contains("fleet     blue"), "{}", run.out);
    assert_eq!(run.err, "degraded: node rs-1 is unreachable\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_may_have_been_made_is_not_made_again() {
    let unconfirmed = ("lvsmesh-reason", b"unconfirmed".to_vec());
    let (cut_off, seen) = start(refusal(Code::Unavailable, "not confirmed", unconfirmed)).await;
    let (well, others) = start(Mood::Well).await;
    let (_directory, path) = file(DOCUMENT);
    let endpoints = ["--insecure", "--endpoint", &cut_off, "--endpoint", &well];
    let run = run(&[&endpoints[..], &["apply", "-f", &path]].concat()).await;
    assert_eq!(run.code, 6, "{}", run.err);
    assert!(run.err.contains("not confirmed"), "{}", run.err);
    assert_eq!((seen.lock().unwrap().calls, others.lock().unwrap().calls), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_tried_in_turn() {
    let (well, seen) = start(Mood::Well).await;
    let (alone, _) = start(no_quorum()).await;
    let endpoints = format!("{},{alone},{well}", nobody().await);
    let mut command = lvsctl(&["--insecure", "failover", "--to", "lvs-2"]);
    command.env("LVSCTL_ENDPOINTS", &endpoints);
    let moved = finish(command).await;
    assert_eq!(moved.out, "the VIPs moved from `lvs-1` to `lvs-2` (epoch 5)\n", "{}", moved.err);
    assert_eq!((moved.code, seen.lock().unwrap().calls), (0, 1));

    let nowhere =
        run(&["--insecure", "--endpoint", &nobody().await, "--endpoint", &alone, "failover"]).await;
    assert_eq!(nowhere.code, 6, "{}", nowhere.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_down_or_silent_is_told_apart() {
    let down = run(&["--insecure", "--endpoint", &nobody().await, "status"]).await;
    assert_eq!(down.code, 1);
    assert!(down.err.contains("cannot reach an agent: 127.0.0.1:"), "{}", down.err);
    assert!(down.err.contains("onnection refused"), "{}", down.err);

    let (silent, _) = start(Mood::Hangs).await;
    let late = run(&["--insecure", "--endpoint", &silent, "--timeout", "200ms", "history"]).await;
    assert_eq!(late.code, 8, "{}", late.err);
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().join("fleet.snapshot").display().to_string();
    let connection = ["--insecure", "--endpoint", &silent, "--timeout", "200ms"];
    let late = run(&[&connection[..], &["snapshot", "save", &name]].concat()).await;
    assert_eq!(late.code, 8, "{}", late.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_not_removed_unasked() {
    let (agent, seen) = start(Mood::Well).await;
    let refused = run(&["--insecure", "--endpoint", &agent, "node", "remove", "web-1"]).await;
    assert_eq!((refused.code, seen.lock().unwrap().calls), (2, 0), "{}", refused.err);
    let removed =
        run(&["--insecure", "--endpoint", &agent, "node", "remove", "web-1", "--yes"]).await;
    assert_eq!((removed.code, seen.lock().unwrap().calls), (0, 1), "{}", removed.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_prints_every_status_that_comes() {
    let (agent, _) = start(Mood::Well).await;
    let run = run(&["--insecure", "--endpoint", &agent, "status", "--watch"]).await;
    assert_eq!(run.code, 0, "{}", run.err);
    let revisions: Vec<&str> =
        run.out.lines().filter(|line| line.starts_with("revision")).collect();
    assert_eq!(revisions, ["revision  1", "revision  2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_carried_on() {
    let (agent, seen) = start(Mood::Well).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut command = lvsctl(&["--insecure", "--endpoint", &agent, "version"]);
    command.env("TRACEPARENT", format!("00-{trace}-00f067aa0ba902b7-01"));
    assert_eq!(finish(command).await.code, 0);
    let carried = seen.lock().unwrap().traceparent.take().unwrap();
    assert!(carried.starts_with(&format!("00-{trace}-")), "{carried}");
    assert!(!carried.contains("00f067aa0ba902b7"), "its own span comes in between: {carried}");

    assert_eq!(run(&["--insecure", "--endpoint", &agent, "version"]).await.code, 0);
    assert_eq!(seen.lock().unwrap().traceparent, None, "nobody asked for a trace");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_come_in_pieces_and_all_means_every_director() {
    let (agent, seen) = start(Mood::Well).await;
    let connection = ["--insecure", "--endpoint", &agent];
    let ask = async |more: &[&str]| run(&[&connection[..], more].concat()).await;

    let conns = ask(&["ipvs", "conns", "--node", "lvs-1"]).await;
    let expected = "\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 14:59  ESTABLISHED 192.0.2.9:1        192.0.2.1:80       192.0.2.3:80
TCP 14:59  ESTABLISHED 192.0.2.9:2        192.0.2.1:80       192.0.2.3:80
";
    assert_eq!((conns.code, conns.out.as_str()), (0, expected), "{}", conns.err);

    let timeouts = ask(&["ipvs", "timeouts"]).await;
    assert_eq!(timeouts.out, "Timeout (tcp tcpfin udp): 900 120 300\n");
    let timeouts = ask(&["ipvs", "timeouts", "--all"]).await;
    assert_eq!(
        timeouts.out,
        "lvs-1: Timeout (tcp tcpfin udp): 900 120 300\nlvs-2: Timeout (tcp tcpfin udp): 900 120 300\n"
    );
    let json = ask(&["ipvs", "stats", "--all", "-o", "json"]).await;
    let answer: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(answer["nodes"].as_array().map(Vec::len), Some(2), "{answer}");
    assert!(answer["merged"]["services"].is_array(), "{answer}");

    let zeroed = ask(&["ipvs", "zero", "--all", "-f", "7"]).await;
    assert_eq!(
        zeroed.out,
        "counters of node `lvs-1` are zero\ncounters of node `lvs-2` are zero\n"
    );
    let all = ask(&["ipvs", "zero", "--node", "lvs-1"]).await;
    assert_eq!(all.code, 0, "{}", all.err);
    let mark = v1::IpvsService { mark: 7, ..Default::default() };
    assert_eq!(seen.lock().unwrap().zeroed, [Some(mark.clone()), Some(mark), None]);
    for wrong in [["-t", "www:80"], ["-f", "0"]] {
        let refused = ask(&[&["ipvs", "zero"], &wrong[..]].concat()).await;
        assert_eq!(refused.code, 2, "{}", refused.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_table_is_restored_and_what_was_kept_is_told() {
    let (agent, seen) = start(Mood::Well).await;
    let connection = ["--insecure", "--endpoint", &agent, "ipvs", "restore", "-f"];
    let (_directory, path) = file("-A -t 192.0.2.1:80 -s rr\n");
    let restore = async |more: &[&str]| run(&[&connection[..], &[&path], more].concat()).await;

    let restored = restore(&["--node", "lvs-1"]).await;
    assert_eq!(
        (restored.code, restored.out.as_str()),
        (0, "add 192.0.2.1\nnode `lvs-1`: 1 added, 0 stood already\n"),
        "{}",
        restored.err
    );
    let shown = restore(&["--node", "lvs-1", "--dry-run"]).await;
    assert_eq!((shown.code, shown.out.starts_with("would add 192.0.2.1\n")), (3, true));
    let kept = restore(&["--node", "full"]).await;
    assert_eq!(kept.code, 1);
    assert!(kept.err.contains("tcp 192.0.2.1:80: stands"), "{}", kept.err);

    let calls = seen.lock().unwrap().calls;
    let (_directory, path) = file("-A -t 192.0.2.1:80\n-a -t 192.0.2.2:80 -r 192.0.2.3\n-C\n");
    let faulty = run(&[&connection[..], &[&path, "--node", "lvs-1"]].concat()).await;
    assert_eq!(faulty.code, 1);
    for fault in ["line 2: its service was not added above", "line 3: only -A and -a"] {
        assert!(faulty.err.contains(fault), "{}", faulty.err);
    }
    assert_eq!(seen.lock().unwrap().calls, calls, "nobody was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_has_its_name_only_once_it_is_whole() {
    let (endpoint, _) = start(Mood::Well).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.snapshot");
    let name = file.to_str().unwrap();
    let save = ["--endpoint", &endpoint, "--insecure", "snapshot", "save", name, "--stale"];
    let cut = run(&save).await;
    assert_eq!(cut.code, 1, "{}", cut.err);
    assert!(cut.err.contains("what the agent sent: it is "), "{}", cut.err);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "half a file is none");

    let saved = run(&["--endpoint", &endpoint, "--insecure", "snapshot", "save", name]).await;
    assert_eq!((saved.code, saved.err.as_str()), (0, ""), "{}", saved.out);
    // No agent is asked from here on.
    let shown = run(&["snapshot", "inspect", name, "-o", "json"]).await;
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(shown.out.contains("\"taken_by\": \"lvs-1\""), "{}", shown.out);
    let nothing = run(&["--endpoint", &endpoint, "--insecure", "snapshot", "restore", name]).await;
    assert_eq!(nothing.code, 1, "{}", nothing.out);
    assert!(nothing.err.contains("holds no desired state"), "{}", nothing.err);
    std::fs::write(&file, "fleet: {name: blue}").unwrap();
    for command in ["inspect", "restore"] {
        let foreign = run(&["snapshot", command, name]).await;
        assert_eq!(foreign.code, 1, "{}", foreign.out);
        assert!(foreign.err.contains("it is no snapshot of lvsmesh"), "{}", foreign.err);
    }
    let (endpoint, _) = start(no_quorum()).await;
    let refused = run(&["--endpoint", &endpoint, "--insecure", "snapshot", "save", name]).await;
    assert_eq!(refused.code, 6, "{}", refused.err);
}

#[tokio::test]
async fn other_programs_files_are_read_without_asking_anybody() {
    let text = "vrrp_instance V {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress {\n  192.0.2.1\n }\n frob\n}\n";
    let (directory, path) = file(text);
    let report = directory.path().join("report.json");
    let report = report.to_str().unwrap();

    let read = run(&["import", "keepalived", "--fleet", "blue", &path]).await;
    assert_eq!(read.code, 0, "{}", read.err);
    assert!(read.out.contains("- \"192.0.2.1\""), "{}", read.out);
    assert!(read.err.contains("lvs.yaml:7  unknown"), "{}", read.err);
    let strict = run(&["import", "keepalived", "--strict", "--report", report, &path]).await;
    assert_eq!((strict.code, strict.err.as_str()), (3, ""));
    assert!(std::fs::read_to_string(report).unwrap().contains(r#""fate": "unknown""#));

    let document = write(directory.path(), "document.yaml", &read.out);
    let document = document.to_str().unwrap();
    let back = run(&["export", "keepalived", "--file", document]).await;
    assert_eq!(back.code, 0, "{}", back.err);
    assert!(back.out.contains("virtual_router_id 7"), "{}", back.out);

    for (wrong, code) in [
        (&["import", "keepalived", "/nowhere/k.conf"][..], 1),
        (&["import", "keepalived"], 2),
        (&["import", "keepalived", "--node", "LVS 1=k.conf"], 2),
        (&["import", "keepalived", "--fleet", "B L", &path], 2),
        (&["import", "ipvsadm", &path], 2),
    ] {
        let refused = run(wrong).await;
        assert_eq!((refused.code, refused.out.as_str()), (code, ""), "{wrong:?}: {}", refused.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_table_is_imported_through_its_agent() {
    let (agent, _) = start(Mood::Well).await;
    let asked = ["--insecure", "--endpoint", &agent, "import", "kernel", "--node", "lvs-1"];
    let read = run(&[&asked[..], &["--vip-interface", "eth0"]].concat()).await;
    assert_eq!(read.code, 0, "{}", read.err);
    assert!(read.out.contains("services: []") && read.err.contains("nothing was read"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_early_is_no_failure() {
    let (agent, _) = start(Mood::Well).await;
    let mut command = lvsctl(&["--insecure", "--endpoint", &agent, "status"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_exits_with_2_and_help_with_0() {
    assert_eq!(run(&["aply"]).await.code, 2);
    assert_eq!(run(&["--insecure", "--endpoint", "http://x", "status"]).await.code, 2);
    let missing = run(&["status"]).await;
    assert_eq!(missing.code, 2);
    assert!(missing.err.contains("--ca, --cert, --key missing"), "{}", missing.err);
    let help = run(&["--help"]).await;
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    assert!(help.out.contains("Exit codes"), "{}", help.out);
}

/// A certificate authority and what it signs.
struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    /// A certificate for that DNS name, and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_on_both_sides() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let (cert, key) = ours.sign("lvsmesh");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(Certificate::from_pem(&ours.1))
        .timeout(Duration::from_secs(5));
    let agent = serve(Agent::default(), Some(tls)).await.to_string();

    let directory = tempfile::tempdir().unwrap();
    let ask = async |ca: &Authority, signer: &Authority| {
        let (cert, key) = signer.sign("ann");
        let files = [("ca", &ca.1), ("cert", &cert), ("key", &key)]
            .map(|(name, text)| write(directory.path(), name, text).display().to_string());
        let [ca, cert, key] = &files;
        run(&["--endpoint", &agent, "--ca", ca, "--cert", cert, "--key", key, "version"]).await
    };

    let known = ask(&ours, &ours).await;
    assert_eq!(known.code, 0, "{}", known.err);
    assert!(known.out.contains("node lvs-1 of fleet blue"), "{}", known.out);
    // Whether the program's first words or the agent's refusal come first is a race; what it makes of either is the same.
    for _ in 0..5 {
        let stranger = ask(&ours, &foreign).await;
        assert_eq!(stranger.code, 9, "{}", stranger.err);
        assert!(stranger.err.contains("received fatal alert"), "{}", stranger.err);
    }
    let impostor = ask(&foreign, &ours).await;
    assert_eq!(impostor.code, 9, "{}", impostor.err);
}
