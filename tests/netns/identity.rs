//! Who may speak to whom.

use std::time::Duration;

use lvsmesh_tests::agent::{Agent, Settings};
use lvsmesh_tests::document::{CLIENT, Document, FLEET, LVS_1};
use lvsmesh_tests::pki::Authority;
use lvsmesh_tests::{Fleet, Lab};

#[test]
fn a_stranger_with_another_authoritys_certificate_is_refused() {
    let mut fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    let directory = fleet.lab.directory("stranger");
    let ours = fleet.ctl.identity.clone().expect("the fleet runs with certificates");
    let mut theirs = Authority::new(FLEET).operator(&directory, "ops");

    fleet.ctl.identity = Some(theirs.clone());
    let run = fleet.ctl.run(&["status"]);
    assert_ne!(
        run.code, 0,
        "lvsctl must not believe an agent whose authority it does not know\n{}",
        run.out
    );

    // The right authority to check the agent by, and still the wrong certificate.
    theirs.ca.clone_from(&ours.ca);
    fleet.ctl.identity = Some(theirs);
    let run = fleet.ctl.apply(&Document::reference("50s").yaml(), &[]);
    assert_ne!(
        run.code, 0,
        "an agent must not serve a certificate of another authority\n{}",
        run.out
    );

    fleet.ctl.identity = None;
    assert_ne!(fleet.ctl.run(&["status"]).code, 0, "nor one without any");

    fleet.ctl.identity = Some(ours);
    let status = fleet.until("the operator is served", Duration::from_secs(10), |_| true);
    assert!(status.services.is_empty(), "nothing of the stranger's was applied");
}

#[test]
fn an_operators_certificate_is_no_nodes() {
    let fleet = Fleet::start();
    let lab = &fleet.lab;
    // An operator who knows the fleet's address cannot join it as a node.
    let settings = Settings {
        roles: vec!["director"],
        tls: fleet.ctl.identity.clone(),
        profile: "default".to_owned(),
        realtime: false,
        gate: true,
        otlp: None,
    };
    let agent = Agent::new(lab, lab.node(CLIENT.0), &settings);
    let output = agent.once(&["join", &format!("{}:7400", LVS_1.1)]);
    assert!(!output.status.success(), "the certificate names an operator");
    let status = fleet.until("the members", Duration::from_secs(10), |_| true);
    assert_eq!(status.nodes.len(), 3);
}

#[test]
fn an_agent_without_certificates_starts_only_when_told_that_it_is_insecure() {
    let lab = Lab::new(&[LVS_1]);
    let settings = Settings {
        roles: vec!["director"],
        tls: None,
        profile: "default".to_owned(),
        realtime: false,
        gate: true,
        otlp: None,
    };
    let agent = Agent::new(&lab, lab.node(LVS_1.0), &settings);
    let output = lab
        .node(LVS_1.0)
        .namespace
        .inside(|| {
            std::process::Command::new(lvsmesh_tests::process::program("lvs-agent"))
                .args(["init", "--fleet", FLEET, "--config"])
                .arg(agent.config())
                .output()
        })
        .expect("the agent's program can be started");
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("--insecure"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    agent.init(FLEET);
}
