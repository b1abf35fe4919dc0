//! The desired state: one revision, refused whole or taken whole.

use std::time::Duration;

use lvsmesh_tests::Fleet;
use lvsmesh_tests::document::{Document, LVS_1, RS_1};

#[test]
fn what_get_prints_apply_takes_and_nothing_changes() {
    let fleet = Fleet::start();
    fleet.apply(&Document::reference("50s"));
    let revision = fleet
        .until("the first revision", Duration::from_secs(10), |status| status.revision > 0)
        .revision;
    let printed = fleet.ctl.run(&["get", "-o", "yaml"]).succeeded();
    assert!(printed.contains("persistence: 50s"), "durations are text:\n{printed}");
    let again = fleet.ctl.apply(&printed, &[]);
    assert_eq!(again.code, 0, "{}{}", again.out, again.err);
    let status = fleet.until("the status", Duration::from_secs(10), |_| true);
    assert_eq!(status.revision, revision, "the same document makes no revision");
}

#[test]
fn a_wrong_document_is_refused_whole_with_a_path_for_each_fault() {
    let fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    let before = fleet
        .until("the first revision", Duration::from_secs(10), |status| status.revision > 0)
        .revision;
    let mut wrong = Document::reference("50s");
    wrong.rest = wrong.rest.replace("scheduler: wlc", "scheduler: wlcc").replacen(
        "port: 80",
        "port: 80000",
        1,
    );
    wrong.rest.push_str("colour: blue\n");
    let run = fleet.ctl.apply(&wrong.yaml(), &[]);
    assert_ne!(run.code, 0);
    for expected in
        ["services[0].scheduler", "wlc", "pools[0].real_servers[0].port", "80000", "colour"]
    {
        assert!(run.err.contains(expected), "{expected} is missing in:\n{}", run.err);
    }
    let after = fleet.until("the status", Duration::from_secs(10), |_| true);
    assert_eq!(after.revision, before, "nothing of it was taken");
    assert!(after.services.is_empty());
}

#[test]
fn an_apply_against_an_old_revision_is_refused_and_says_who_changed_what() {
    let fleet = Fleet::start();
    fleet.apply(&Document::vip_alone());
    let seen = fleet
        .until("the first revision", Duration::from_secs(10), |status| status.revision > 0)
        .revision;
    let mut other = Document::vip_alone();
    other.vrrp_version = 3;
    let changed = fleet.ctl.apply(&other.yaml(), &["-m", "adverts of version 3"]);
    assert_eq!(changed.code, 0, "{}", changed.err);

    let late = fleet
        .ctl
        .apply(&Document::reference("50s").yaml(), &["--expected-revision", &seen.to_string()]);
    assert_eq!(late.code, 5, "a conflict has its own exit code\n{}{}", late.out, late.err);
    for expected in ["ops", "adverts of version 3", &(seen + 1).to_string()] {
        assert!(late.err.contains(expected), "{expected} is missing in:\n{}", late.err);
    }
    let history = fleet.ctl.run(&["history"]).succeeded();
    assert!(history.contains("adverts of version 3") && history.contains("ops"), "{history}");
    let current = fleet.until("the status", Duration::from_secs(10), |_| true);
    assert_eq!(current.revision, seen + 1);
}

#[test]
fn any_agent_takes_a_write_and_the_author_is_the_operators_certificate() {
    let mut fleet = Fleet::start();
    // The witness is never asked first by the others' clients, and never leads here.
    fleet.ctl.endpoints = vec![format!("{}:7400", RS_1.1)];
    fleet.apply(&Document::vip_alone());
    fleet.held_by(LVS_1.0);
    let history = fleet.ctl.run(&["history", "-o", "json"]).succeeded();
    let history: serde_json::Value = serde_json::from_str(&history).expect("-o json is JSON");
    assert!(history.to_string().contains("ops"), "{history}");
    assert!(!history.to_string().contains("unverified"), "{history}");
}

/// Left out by `tests/run` where the kernel has IPVS: this is about kernels that have not.
#[test]
fn where_the_kernel_cannot_forward_the_missing_module_is_named() {
    assert!(
        !lvsmesh_tests::Lab::has_ipvs(),
        "this kernel has IPVS: leave this test out with --skip where_the_kernel_cannot_forward"
    );
    let fleet = Fleet::start();
    fleet.apply(&Document::reference("0s"));
    let status = fleet.until("the directors complain", Duration::from_secs(20), |status| {
        status.complaints().contains("IPVS")
    });
    assert!(status.vips.iter().all(|vip| vip.holder.is_empty()), "{status:#?}");
    assert!(
        status.complaints().contains("ip_vs"),
        "it names the module that is missing: {}",
        status.complaints()
    );
    assert_eq!(fleet.attached(), Vec::<String>::new());
}
