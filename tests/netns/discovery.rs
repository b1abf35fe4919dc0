//! Pools that are found: in a file, and by a real name server.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use lvsmesh_tests::document::{CLIENT, Document};
use lvsmesh_tests::peers::NameServer;
use lvsmesh_tests::{Fleet, eventually, pace};

/// A document whose only pool comes from `source`, YAML of one line.
fn found_by(source: &str) -> Document {
    let rest = format!(
        "pools:\n  - name: web\n    discovery: {source}\nservices:\n  - {{ name: web, vip: web, port: 80, protocol: tcp, pool: web }}\n"
    );
    Document { rest, ..Document::vip_alone() }
}

/// Real servers of the only service, as the status has them.
fn real_servers(fleet: &Fleet) -> BTreeSet<String> {
    let status = fleet.ctl.status().unwrap_or_default();
    status
        .services
        .iter()
        .flat_map(|service| &service.real_servers)
        .map(|server| server.address.clone())
        .collect()
}

fn becomes(fleet: &Fleet, what: &str, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
    eventually(&format!("{what}: {expected:?}"), Duration::from_secs(10), || {
        (real_servers(fleet) == expected).then_some(())
    });
}

/// Five intervals long nothing is removed, and the status says what is wrong.
fn keeps(fleet: &Fleet, what: &str, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
    let status = fleet.until(&format!("{what} is reported"), Duration::from_secs(15), |status| {
        status
            .pools
            .iter()
            .any(|pool| pool.name == "web" && pool.state != "synced" && !pool.reason.is_empty())
    });
    pace::note(&format!("{what}: {:?}", status.pools));
    pace::throughout(what, Duration::from_millis(2500), || {
        let found = real_servers(fleet);
        (found != expected).then(|| format!("{found:?} instead of {expected:?}"))
    });
}

fn publish(file: &Path, targets: &[&str]) {
    let text = serde_json::json!([{ "targets": targets, "labels": { "weight": "3" } }]).to_string();
    // As a careful writer does it: a reader sees the old file or the new one.
    let new = file.with_extension("new");
    std::fs::write(&new, text).expect("the lab's directory is writable");
    std::fs::rename(&new, file).expect("the lab's directory is writable");
}

#[test]
fn a_pool_follows_its_file_and_keeps_what_it_had_when_the_file_is_gone_or_wrong() {
    let fleet = Fleet::start();
    let file = fleet.lab.directory("discovery").join("web.json");
    publish(&file, &["192.168.3.3:80"]);
    fleet.apply(&found_by(&format!("{{ file: {{ path: {}, interval: 500ms }} }}", file.display())));
    becomes(&fleet, "the first set", &["192.168.3.3:80"]);
    publish(&file, &["192.168.3.3:80", "192.168.3.102:80"]);
    becomes(&fleet, "one more", &["192.168.3.3:80", "192.168.3.102:80"]);
    publish(&file, &["192.168.3.102:80"]);
    becomes(&fleet, "one less", &["192.168.3.102:80"]);

    publish(&file, &[]);
    keeps(&fleet, "an empty file", &["192.168.3.102:80"]);
    std::fs::write(&file, "[{\"targets\": [").expect("the lab's directory is writable");
    keeps(&fleet, "half a file", &["192.168.3.102:80"]);
    std::fs::remove_file(&file).expect("it was just written");
    keeps(&fleet, "no file", &["192.168.3.102:80"]);

    publish(&file, &["192.168.3.3:80"]);
    becomes(&fleet, "a good file again", &["192.168.3.3:80"]);
}

const ONE: &str = "_web._tcp IN SRV 0 3 80 rs-1\nrs-1 IN A 192.168.3.3";
const TWO: &str = "_web._tcp IN SRV 0 3 80 rs-1\n_web._tcp IN SRV 0 3 80 lvs-2\nrs-1 IN A 192.168.3.3\nlvs-2 IN A 192.168.3.102";

#[test]
fn a_pool_follows_dns_and_keeps_what_it_had_when_the_server_is_down_or_says_nothing() {
    let fleet = Fleet::start();
    let mut server = NameServer::start(&fleet.lab, fleet.client(), ONE);
    let source = format!(
        "{{ dns: {{ name: _web._tcp.lab.test, record: srv, servers: [\"{}\"], interval: 500ms }} }}",
        CLIENT.1
    );
    fleet.apply(&found_by(&source));
    becomes(&fleet, "the first set", &["192.168.3.3:80"]);
    server.publish(TWO);
    becomes(&fleet, "one more", &["192.168.3.3:80", "192.168.3.102:80"]);
    server.publish(ONE);
    becomes(&fleet, "one less", &["192.168.3.3:80"]);
    server.publish(TWO);
    becomes(&fleet, "one more again", &["192.168.3.3:80", "192.168.3.102:80"]);

    server.publish("rs-1 IN A 192.168.3.3");
    keeps(&fleet, "no such name", &["192.168.3.3:80", "192.168.3.102:80"]);
    server.publish("_web._tcp IN TXT nothing");
    keeps(&fleet, "an empty answer", &["192.168.3.3:80", "192.168.3.102:80"]);
    server.crash();
    keeps(&fleet, "no server", &["192.168.3.3:80", "192.168.3.102:80"]);

    server.write(ONE);
    server.resume(fleet.client());
    becomes(&fleet, "a server again", &["192.168.3.3:80"]);
}

#[test]
fn a_pool_follows_a_names_addresses() {
    let fleet = Fleet::start();
    let mut server = NameServer::start(&fleet.lab, fleet.client(), "web IN A 192.168.3.3");
    let source = format!(
        "{{ dns: {{ name: web.lab.test, record: a, port: 80, weight: 3, servers: [\"{}:53\"], interval: 500ms }} }}",
        CLIENT.1
    );
    fleet.apply(&found_by(&source));
    becomes(&fleet, "the first set", &["192.168.3.3:80"]);
    server.publish("web IN A 192.168.3.3\nweb IN A 192.168.3.102");
    becomes(&fleet, "one more", &["192.168.3.3:80", "192.168.3.102:80"]);
    server.publish("web IN A 192.168.3.102");
    becomes(&fleet, "one less", &["192.168.3.102:80"]);
}
