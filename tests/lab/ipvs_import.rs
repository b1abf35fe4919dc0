//! A running keepalived's configuration, imported, asks for exactly what is in the kernel already.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lvsmesh_core::command::{self, Apply, Candidate};
use lvsmesh_core::document::{self, Value};
use lvsmesh_core::model::{NodeId, Role};
use lvsmesh_core::placement::place;
use lvsmesh_core::plan::{Table, ipvs};
use lvsmesh_core::state::State;
use lvsmesh_kernel::Linux;
use lvsmesh_tests::document::{LVS_1, LVS_2, RS_1};
use lvsmesh_tests::lab::Node;
use lvsmesh_tests::pages::Pages;
use lvsmesh_tests::process::{Process, program};
use lvsmesh_tests::{Lab, eventually, scaled};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");

/// JSON in the core's own form.
fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => {
            Value::Integer(number.as_i64().expect("documents have whole numbers").into())
        }
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(value).collect()),
        Json::Object(entries) => {
            Value::Map(entries.iter().map(|(key, item)| (key.clone(), value(item))).collect())
        }
    }
}

/// The table that a fleet of one director wants under the document that `lvsctl import` makes.
fn wanted(arguments: &[&str]) -> Table {
    let output = Command::new(program("lvsctl"))
        .args(["import", "-o", "json"])
        .args(arguments)
        .output()
        .expect("lvsctl starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json = serde_json::from_slice(&output.stdout).expect("a document in JSON");
    let document = document::decode(&value(&json)).expect("a sound document");
    let (address, none) = ([192, 168, 3, 101].into(), SocketAddr::from(([192, 168, 3, 101], 1)));
    let mut state = State::init(
        document.fleet.name.clone(),
        Candidate {
            name: LVS_1.0.to_owned(),
            roles: BTreeSet::from([Role::Director]),
            addresses: vec![address],
            grpc: none,
            lease: none,
        },
    );
    let apply = Apply {
        document,
        expected_revision: None,
        author: "test".into(),
        message: String::new(),
        unix_ms: 0,
    };
    let outcome = state.apply(1, command::Command::Apply(apply));
    assert!(matches!(outcome, command::Outcome::Applied { .. }), "{outcome:?}");
    place(&state, NodeId(1), true).table
}

/// The table that the node's kernel has, read by the agents' own code.
fn observed(node: &Node) -> Table {
    node.namespace.inside(|| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut linux = Linux::open().expect("a kernel");
            linux.ipvs().await.expect("IPVS").list().await.expect("a table").table
        })
    })
}

fn ipvsadm(node: &Node, option: &str) -> String {
    let output = node
        .namespace
        .inside(|| Command::new("ipvsadm").arg(option).output())
        .expect("ipvsadm is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_running_keepalived_is_taken_over_without_a_change_to_ipvs() {
    Lab::require_ipvs();
    let lab = Lab::new(&[LVS_1, LVS_2, RS_1]);
    let _pages = [LVS_2, RS_1].map(|(name, _)| Pages::serve(lab.node(name), 80));
    let director = lab.node(LVS_1.0);
    let directory = lab.directory(LVS_1.0);
    let master = Path::new(DATA).join("keepalived-master.conf");
    let mut command = Command::new("keepalived");
    command.args(["--dont-fork", "--log-console", "--log-detail", "--use-file"]).arg(&master);
    for (option, file) in [("--pid", "k"), ("--vrrp_pid", "v"), ("--checkers_pid", "c")] {
        command.arg(option).arg(directory.join(file));
    }
    let log = directory.join("keepalived.log");
    let keepalived = Process::start(&director.namespace, "keepalived", &mut command, &log)
        .expect("keepalived starts");
    eventually("keepalived has both real servers", scaled(Duration::from_secs(60)), || {
        let listing = ipvsadm(director, "-Ln");
        (listing.matches("Route   3").count() == 2).then_some(())
    });

    let kernel = observed(director);
    let named = |name: &str, file: &str| format!("{name}={DATA}/{file}");
    let (one, other) =
        (named(LVS_1.0, "keepalived-master.conf"), named(LVS_2.0, "keepalived-backup.conf"));
    let from_files = wanted(&["keepalived", "--node", &one, "--node", &other]);
    let rules = directory.join("rules.txt");
    std::fs::write(&rules, ipvsadm(director, "-Sn")).expect("the lab's directory is writable");
    let rules = rules.to_string_lossy();
    let from_rules = wanted(&["ipvsadm", "--vip-interface", "eth0", &rules]);

    for (source, table) in [("keepalived.conf", from_files), ("ipvsadm -Sn", from_rules)] {
        let diff = ipvs::diff(Some(&kernel), &table, &BTreeSet::new(), source);
        let ops = [diff.services, diff.additions, diff.reductions, diff.removals].concat();
        assert_eq!(ops, [], "{source}");
        assert_eq!(diff.foreign, BTreeSet::new(), "{source}");
        assert_eq!(diff.record.len(), 1, "{source}: the service is adopted");
    }
    drop(keepalived);
}
